from __future__ import annotations

import pytest

from pillarbox.cli import output


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"joe@example.org", "joe@example.org"),
        ("jürgen@exämple.org", "jürgen@exämple.org"),
        (b"a\x1b[2Jb", r"a\x1b[2Jb"),
        (b"a\nb\rc\td", r"a\x0ab\x0dc\x09d"),
        (b"\xff\xfe", r"\xff\xfe"),
        ("\u202e\u009b", r"\u202e\x9b"),  # turns the reading direction; starts an escape sequence
    ],
)
def test_nothing_from_the_network_reaches_the_terminal_raw(raw: str | bytes, shown: str) -> None:
    assert output.printable(raw) == shown


def test_a_program_reads_tabs_and_no_headings(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(("a", "b"), [["1", "x\ty"], ["2", b"\x1b"]])
    assert capsys.readouterr().out == "1\tx\\x09y\n2\t\\x1b\n"


def test_a_person_sees_headings_and_no_markup(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    output.table(("address", "note"), [["joe@example.org", "[bold]not bold[/bold]"]])
    shown = capsys.readouterr().out
    assert "address" in shown
    assert "[bold]not bold[/bold]" in shown


def test_an_empty_table_is_nothing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    output.table(("address",), [])
    assert capsys.readouterr().out == ""
