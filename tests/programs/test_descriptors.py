"""Programs that are started with descriptor 0, 1 or 2 closed: no client hears what is meant for a log, and no file that
is opened later stands in their place."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.peers import peer, run
from tests.programs.calling import Ended
from tests.programs.smtpd import PROGRAM, SOURCE, Home

ENVIRON = {"PATH": os.defpath, "PYTHONPATH": SOURCE, "LC_ALL": "C.UTF-8", "PILLARBOX_HOME": "/nonexistent"}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def called(closed: str, *words: str, say: bytes = b"", environ: Mapping[str, str] | None = None) -> Ended:
    """Run a program with these redirections of the shell's."""
    command = ["/bin/sh", "-c", f'exec "$@" {closed}', "sh", *words]
    done = subprocess.run(command, input=say, capture_output=True, env=ENVIRON | dict(environ or {}), timeout=60)
    return Ended(done.returncode, done.stdout, done.stderr.decode())


def test_no_client_hears_a_warning_of_qmail_smtpds(home: Home) -> None:
    said = called("2>&-", *PROGRAM, "qmail-smtpd", "a", "b", say=b"EHLO x\r\nQUIT\r\n", environ=home.environ())
    assert (said.status, said.output) == (
        0,
        b"220 mx.example.org ESMTP\r\n250-mx.example.org\r\n250-PIPELINING\r\n250 8BITMIME\r\n221 mx.example.org\r\n",
    )


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("run", "qmail-popup", "h", "/nowhere/checker"), 1),
        (("run", "cmd5checkpw"), 2),
        (("run", "cmd5checkpw", "-f", "/nowhere/file", "true"), 2),
        (("run", "maildirpop3d"), 2),
        (("run", "qmail-inject", "-Q"), 100),
        (("run", "qmail-newu"), 111),
        (("run", "nonsense"), 100),
        (("nonsense",), 100),
    ],
)
def test_what_is_meant_for_descriptor_2_is_on_no_other(words: tuple[str, ...], status: int) -> None:
    command = (sys.executable, "-W", "error", "-m", "pillarbox", *words)
    say = b"USER joe\r\nPASS x\r\n"
    open_, closed = (called(how, *command, say=say) for how in ("3</dev/null", "2>&- 3</dev/null"))
    assert (open_.status, open_.errors != "") == (status, True)
    assert (closed.status, closed.output.count(b"\n")) == (status, open_.output.count(b"\n"))


def test_a_checker_finds_no_file_of_ours_where_the_log_should_be(home: Home) -> None:
    file = home.control("morercpthosts.cdb", "")
    run(peer("cdb"), "-c", file, say=b"+12,0:more.example->\n\n")
    text = f"#!/bin/sh\nreadlink /proc/$$/fd/2 >{home.asked}\necho spoilt >&2\nexit 0\n"
    checker = home.program("looks", text)
    before = file.read_bytes()
    say = b"AUTH PLAIN AGpvZQBzZWNyZXQ=\r\nQUIT\r\n"
    command = (*PROGRAM, "qmail-smtpd", "h.example", str(checker), "/bin/true")
    said = called("2>&-", *command, say=say, environ=home.environ())
    assert b"\r\n235 ok, joe, " in said.output and b"spoilt" not in said.output
    assert (home.asked.read_text(), file.read_bytes()) == ("/dev/null\n", before)


LOOK = """
import os, sys
from pillarbox.programs import maildirmake
def look(arguments):
    with open("/proc/self/status") as file:
        opened = file.fileno()
    kinds = [os.readlink(f"/proc/self/fd/{number}") for number in range(3)]
    handed = [os.get_inheritable(number) for number in range(3)]
    with open(arguments[0], "w") as found:
        print(kinds.count("/dev/null"), opened > 2, handed, None in (sys.stdin, sys.stdout, sys.stderr), file=found)
    print("said")
    print("complained", file=sys.stderr)
    return 0
maildirmake.main = look
sys.argv[0] = "maildirmake"
from pillarbox.cli.launch import main
main()
"""


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 2>&-", "0<&- 1>&-", "1>&- 2>&-", "0<&- 1>&- 2>&-"])
def test_whatever_was_closed_is_nothing_and_nothing_else_comes_there(tmp_path: Path, closed: str) -> None:
    found = tmp_path / "found"
    said = called(closed, sys.executable, "-W", "error", "-c", LOOK, str(found))
    assert found.read_text() == f"{closed.count('&-')} True [True, True, True] False\n"
    assert said == Ended(0, b"" if "1>&-" in closed else b"said\n", "" if "2>&-" in closed else "complained\n")


def test_a_message_that_cannot_be_read_is_no_empty_message(home: Home) -> None:
    """qmail-queue's read of a closed descriptor fails: 54."""
    assert called("0<&-", *PROGRAM, "qmail-queue", environ={"PILLARBOX_HOME": str(home.home)}).status == 54
    said = called("0<&-", *PROGRAM, "sendmail", "joe@example.org", environ=home.environ())
    assert said.status != 0 and home.nothing_queued()
