"""Adding a line to a control file and taking it away, with everything else as somebody wrote it."""

from __future__ import annotations

import pytest

from pillarbox.control.edit import with_line, without_line


@pytest.mark.parametrize(
    ("text", "result"),
    [
        (b"", b"a.ex:a.ex\n"),
        (b"# mine\n\nb.ex:c", b"# mine\n\nb.ex:c\na.ex:a.ex\n"),
        (b"A.EX:a.ex \t\n", b"A.EX:a.ex \t\n"),
        (b"a.ex:a.ex", b"a.ex:a.ex"),
        (b"#a.ex:a.ex\n", b"#a.ex:a.ex\na.ex:a.ex\n"),
    ],
)
def test_a_line_is_added_once(text: bytes, result: bytes) -> None:
    assert with_line(text, b"a.ex:a.ex") == result


def test_a_line_is_taken_away_wherever_it_stands() -> None:
    text = b"# mine\na.ex:a.ex\nb.ex:c\nA.ex:a.ex \na.ex:a.ex"
    assert without_line(text, b"a.ex:a.ex") == b"# mine\nb.ex:c\n"
    assert without_line(b"b.ex:c", b"a.ex:a.ex") == b"b.ex:c"
