from __future__ import annotations

from pathlib import Path

import pytest

from tests.dialogue import BadDialogue, Expect, Fact, Happening, Send, facts, parse, pieces


def test_a_dialogue_file_is_facts_then_steps(tmp_path: Path) -> None:
    file = tmp_path / "one.txt"
    file.write_text(
        "# for the reader\nservice: submission\n\nS: 220 mx …\nC: EHLO c\nC: {3*ab}\\r\\x00\\\\\nC+ x\\n\n* tls\n"
    )
    steps = parse(file)
    assert facts(steps) == {"service": "submission"}
    assert steps == [
        Fact("service", "submission"),
        Expect("220 mx …"),
        Send(b"EHLO c\r\n"),
        Send(b"ababab\r\0\\\r\n"),
        Send(b"x\n"),
        Happening("tls", ""),
    ]
    assert pieces(steps) == [
        Expect("220 mx …"),
        Send(b"EHLO c\r\nababab\r\0\\\r\nx\n"),
        Happening("tls", ""),
    ]


def test_an_expected_line_is_exact_but_for_its_ellipses() -> None:
    assert Expect("250 ok").matches(b"250 ok")
    assert not Expect("250 ok").matches(b"250 ok1")
    assert not Expect("250.ok").matches(b"250 ok")
    assert Expect("250 … ok …").matches(b"250 2.0.0 ok 17")
    assert not Expect("250 … ok").matches(b"251 x ok")


@pytest.mark.parametrize("text", ["hello\n", "S:220\nservice: late\n", "X\n"])
def test_a_line_that_is_no_step_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "bad.txt"
    file.write_text(text)
    with pytest.raises(BadDialogue, match=r"bad\.txt: line"):
        parse(file)
