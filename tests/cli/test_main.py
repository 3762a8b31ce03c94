from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import pillarbox.cli.check
from pillarbox import __version__
from pillarbox.cli.main import status
from pillarbox.status import Failure, Status

Captured = pytest.CaptureFixture[str]


def raising(problem: BaseException, monkeypatch: pytest.MonkeyPatch) -> int:
    """The exit status of a command in which this happens."""

    def check(_home: Path) -> int:
        raise problem

    monkeypatch.setattr(pillarbox.cli.check, "check", check)
    return status(["check", "--home", "/nowhere"])


def test_it_says_its_version(capsys: Captured) -> None:
    assert status(["--version"]) == 0
    assert capsys.readouterr().out == f"pillarbox {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["nonsense"], "pillarbox: No such command 'nonsense'.\n"),
        (["check", "--nonsense"], "pillarbox: No such option '--nonsense'.\n"),
        (["account", "add"], "pillarbox: Missing argument 'ADDRESS'.\n"),
        (["queue", "show", "x"], "pillarbox: Invalid value for '[ID]...': 'x' is not a valid integer.\n"),
        (["run", "nonsense"], "pillarbox: run: there is no program 'nonsense'; there are: "),
        (["run"], "pillarbox: run: say which program; there are: "),
    ],
)
def test_a_wrong_command_line_is_one_line_and_100(arguments: list[str], line: str, capsys: Captured) -> None:
    assert status(arguments) == 100
    printed = capsys.readouterr()
    assert printed.err.startswith(line)
    assert printed.err.count("\n") == 1
    assert printed.out == ""


@pytest.mark.parametrize("arguments", [[], ["account"], ["queue"]])
def test_no_command_shows_what_there_is(arguments: list[str], capsys: Captured) -> None:
    assert status(arguments) == 100
    assert "Commands:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("problem", "line", "expected"),
    [
        (Failure("no such thing", Status(5, 1, 1)), "no such thing", 100),
        (Failure("not\nnow", Status(4, 3, 0)), "not now", 111),
        (PermissionError(13, "No", "/x/y"), "/x/y: No; run this as root, or as the home's owner", 111),
        (OSError(28, "No space left", b"/x\xff"), "/x\\xff: No space left; make room on that disk", 111),
        (OSError(5, "Input/output error"), "Input/output error", 111),
        (KeyboardInterrupt(), "interrupted", 130),
    ],
)
def test_trouble_is_one_line_and_a_status(
    problem: BaseException, line: str, expected: int, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert raising(problem, monkeypatch) == expected
    assert capsys.readouterr().err.removeprefix("\n") == f"pillarbox: {line}\n"


def test_a_bug_is_one_line_too_and_temporary(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PILLARBOX_TRACEBACK", raising=False)
    assert raising(ValueError("what\nnow"), monkeypatch) == 111
    shown = capsys.readouterr().err
    assert shown.startswith("pillarbox: this is a bug: ValueError: what now at test_main.py:")
    assert shown.count("\n") == 1


def test_who_wants_to_report_a_bug_can_see_it_all(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PILLARBOX_TRACEBACK", "1")
    raising(ValueError("what"), monkeypatch)
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_a_reader_that_goes_away_is_no_error_message() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "pillarbox", "--version"]
    ended = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert ended.stderr == b""
    assert ended.returncode == 141


def test_starting_needs_nothing_heavy() -> None:
    """Every program starts in under 100 ms: what takes time to import is imported where it is used."""
    found = subprocess.run(
        [sys.executable, "-c", "import sys, pillarbox.cli.main; print(*sys.modules)"], capture_output=True, text=True
    )
    loaded = set(found.stdout.split())
    heavy = {"asyncio", "cryptography", "rich", "sqlite3", "ssl", "uvloop", "argon2", "socket", "subprocess"}
    assert "click" in loaded
    assert not heavy & loaded
