"""What a command line means, by the name it was called by, and that programs start without what they do not need."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import pillarbox
from pillarbox.cli.launch import program


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["/usr/sbin/sendmail", "-t"], ["sendmail", "-t"]),
        (["mailq"], ["sendmail", "-bp"]),
        (["qmail-inject", "--", "x"], ["qmail-inject", "--", "x"]),
        (["/x/pillarbox", "run", "sendmail", "--help"], ["sendmail", "--help"]),
        (["pillarbox", "send", "-t"], ["sendmail", "-t"]),
        (["pillarbox", "send", "--help"], None),
        (["pillarbox", "run", "nothing"], None),
        (["pillarbox", "run"], None),
        (["pillarbox", "serve"], None),
        (["pillarbox"], None),
    ],
)
def test_a_command_line_means(argv: list[str], words: list[str] | None) -> None:
    assert program(argv) == words


def run(code: str, *arguments: str, say: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    source = str(Path(pillarbox.__file__).parent.parent)
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, input=say, capture_output=True, env=os.environ | {"PYTHONPATH": source}, timeout=60)


def test_sendmail_imports_nothing_that_takes_long() -> None:
    """Programs on the machine wait for it."""
    code = "import sys, pillarbox.cli.launch, pillarbox.programs.sendmail; print(*sys.modules)"
    loaded = set(run(code).stdout.decode().split())
    slow = {
        "asyncio",
        "click",
        "dataclasses",
        "dns",
        "inspect",
        "pathlib",
        "rich",
        "sqlite3",
        "ssl",
        "tempfile",
        "uvloop",
    }
    assert loaded & (slow | {"pillarbox.control.table"}) == set()


def test_a_link_is_the_program(tmp_path: Path) -> None:
    code = "import sys; sys.argv[0] = '/somewhere/maildirmake'; from pillarbox.cli.launch import main; sys.exit(main())"
    assert run(code, str(tmp_path / "made")).returncode == 0
    assert (tmp_path / "made" / "new").is_dir()


@pytest.mark.parametrize(
    ("raised", "line"),
    [
        (
            "OSError(28, 'No space left on device', '/x')",
            "pillarbox: /x: No space left on device; make room on that disk",
        ),
        ("ValueError('odd')", "pillarbox: this is a bug: ValueError: odd at <string>:"),
    ],
)
def test_whatever_goes_wrong_in_a_program_is_one_line_and_temporary(raised: str, line: str) -> None:
    code = (
        "import sys; sys.argv[:] = ['sendmail']\n"
        f"def main(arguments): raise {raised}\n"
        "import pillarbox.programs.sendmail as program; program.main = main\n"
        "from pillarbox.cli.launch import main as launch; sys.exit(launch())"
    )
    done = run(code)
    assert done.returncode == 111
    assert done.stderr.decode().startswith(line) and done.stderr.count(b"\n") == 1
