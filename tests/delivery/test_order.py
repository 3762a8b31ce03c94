"""What makes a delivery survive a power failure is the order of its system calls, so they are watched by strace."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pillarbox.mailbox import maildir

PROGRAM = """
import os, sys
from pillarbox.mailbox import maildir
box, number, spool = os.fsencode(sys.argv[1]), int(sys.argv[2]), os.open(sys.argv[3], os.O_RDONLY)
again = sys.argv[4] == "again"
def copy(n):
    content, size = (spool, os.fstat(spool).st_size) if n == 1 else (b"text\\n", 5)
    return maildir.Copy(box, maildir.stem(1, b"00", 1, n, 1), b"head\\n", content, size, again)
assert maildir.deliver([copy(n) for n in range(number)], b"mx") == [None] * number
os.write(1, b"reported")
"""
CALLS = "write,writev,fsync,fdatasync,syncfs,rename,renameat,renameat2,link,linkat"
_CALL = re.compile(r"(?:\d+ +)?(\w+)\((.*)")
_PATH = re.compile(r"<([^<>]*)>")


@pytest.fixture
def box(tmp_path: Path) -> Path:
    if not _strace_works():
        if os.environ.get("CI"):
            pytest.fail("strace is missing (Debian package strace) or may not trace")
        pytest.skip("strace is missing (Debian package strace) or may not trace")
    maildir.make(bytes(tmp_path / "Maildir"))
    (tmp_path / "spool").write_bytes(b"x" * 200_000 + b"\n")
    return tmp_path / "Maildir"


def _strace_works() -> bool:
    command = shutil.which("strace")
    return command is not None and subprocess.run([command, "true"], capture_output=True, check=False).returncode == 0


def calls(box: Path, number: int, again: str = "") -> list[str]:
    """Calls on the Maildir in order, repeats in a row left out: `write tmp/*`, `syncfs tmp`, `rename new`..."""
    log = box.parent / "strace"
    command = ["strace", "-f", "-y", "-o", str(log), "-e", f"trace={CALLS}", sys.executable, "-c", PROGRAM]
    subprocess.run([*command, str(box), str(number), str(box.parent / "spool"), again], check=True, capture_output=True)
    found: list[str] = []
    for line in log.read_text().splitlines():
        if (said := _named(line, box)) and said not in found[-1:]:
            found.append(said)
    return found


def _named(line: str, box: Path) -> str:
    call = _CALL.match(line)
    if call is None:
        return ""
    if '"reported"' in line:
        return "report"
    paths = [path.removeprefix(f"{box}/") for path in _PATH.findall(call[2]) if path.startswith(str(box))]
    if not paths:
        return ""
    if call[1].startswith(("rename", "link")):
        return f"rename {paths[-1]}"
    verb = "write" if call[1] == "writev" else call[1]
    return f"{verb} {paths[0].partition('/')[0]}{'/*' if '/' in paths[0] else ''}"


# row: known-durable
def test_a_batch_is_written_synced_renamed_and_synced_before_it_is_reported(box: Path) -> None:
    assert calls(box, 3) == ["write tmp/*", "syncfs tmp", "rename new", "fsync new", "report"]


@pytest.mark.parametrize("again", ["", "again"])
def test_a_single_message_is_written_synced_renamed_and_synced_before_it_is_reported(box: Path, again: str) -> None:
    tail = ["fsync cur"] if again else []
    assert calls(box, 1, again) == ["write tmp/*", "fsync tmp/*", "rename new", "fsync new", *tail, "report"]


def test_a_copy_that_is_found_is_reported_once_its_directory_is_on_the_disk(box: Path) -> None:
    """The attempt that put it there may have died before it came to that."""
    calls(box, 3)
    first, second, third = sorted((box / "new").iterdir())
    second.rename(box / "cur" / f"{second.name}:2,S")
    assert calls(box, 3, "again") == ["fsync new", "fsync cur", "report"]
    assert first.exists() and third.exists()
