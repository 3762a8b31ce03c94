"""maildirpasswd: the page's lines on a terminal, and the hash in joe's Maildir; or one line why not.

Whose mailbox it is says the password database, so here the program is told; tests/scenarios/test_mailboxes.py has a
real joe.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import pillarbox
from pillarbox.auth import hashes
from tests.programs.calling import a_home
from tests.server import until
from tests.terminal import Terminal

SOURCE = str(Path(pillarbox.__file__).parent.parent)
# Who calls and where his home is; the rest is the program.
DRIVER = """
import os, sys
from pillarbox.programs import maildirpasswd
maildirpasswd._caller = lambda: (b"joe", os.fsencode(sys.argv[1]))
sys.exit(maildirpasswd.main(sys.argv[2:]))
"""


@pytest.fixture
def lists(tmp_path: Path) -> Path:
    """joe's Maildir-lists, on a machine whose server is mx.example.org."""
    a_home(tmp_path / "server")
    (tmp_path / "Maildir-lists").mkdir()
    return tmp_path / "Maildir-lists"


def environ(home: Path) -> dict[str, str]:
    return {"PATH": os.defpath, "PYTHONPATH": SOURCE, "PILLARBOX_HOME": str(home / "server"), "LC_ALL": "C.UTF-8"}


def command(home: Path, *words: str) -> list[str]:
    return [sys.executable, "-W", "error", "-c", DRIVER, str(home), *words]


def at_a_terminal(lists: Path, *typed: bytes) -> tuple[int, bytes]:
    """Exit status and screen when these are typed at the prompts, in order."""
    terminal = Terminal(command(lists.parent, "lists"), environ(lists.parent))
    for prompt, octets in zip((b"New password: ", b"New password (again): "), typed, strict=False):
        terminal.await_text(prompt)
        terminal.type(octets)
    return terminal.wait(), terminal.screen


def piped(lists: Path, *words: str, say: bytes = b"bar\nbar\n") -> tuple[int, str, str]:
    done = subprocess.run(
        command(lists.parent, *words), input=say, capture_output=True, timeout=60, env=environ(lists.parent)
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


# row: maildirpasswd-dialogue
def test_the_pages_lines_are_on_the_screen_and_the_password_is_not(lists: Path) -> None:
    status, screen = at_a_terminal(lists, b"bar\n", b"bar\n")
    assert status == 0
    made = (lists / "passwd").read_bytes().rstrip(b"\n")
    assert screen == (
        b"Changing password for POP mailbox joe-lists@mx.example.org\r\n"
        b"New password: \r\n"
        b"New password (again): \r\n"
        b"Ok, putting encrypted password " + made + b" in ~/Maildir-lists/passwd\r\n"
    )


# row: maildirpasswd-hash, maildirpasswd-file
def test_the_file_has_one_line_with_a_modern_hash_for_its_owner_alone(lists: Path) -> None:
    (lists / "passwd").write_bytes(b"0ZsfajRLIfp0w\n")
    (lists / "passwd").chmod(0o644)
    assert piped(lists, "lists")[0] == 0
    text = (lists / "passwd").read_bytes()
    assert re.fullmatch(
        rb"\$(?:y\$j9T\$[./0-9A-Za-z]{22}\$[./0-9A-Za-z]{43}|6\$[./0-9A-Za-z]{16}\$[./0-9A-Za-z]{86})\n", text
    )
    assert hashes.matches_crypt(text[:-1], b"bar")
    assert (lists / "passwd").stat().st_mode & 0o7777 == 0o600
    assert os.listdir(lists) == ["passwd"]
    piped(lists, "lists")
    assert (lists / "passwd").read_bytes() != text, "the same salt twice"


# row: maildirpasswd-file
@pytest.mark.parametrize(
    ("typed", "why"),
    [
        ((b"bar\n", b"baz\n"), "the passwords differ; nothing is changed"),
        ((b"\n", b"\n"), "the password is empty; nothing is changed"),
        ((b"bar\n", b"\x04"), "there is no password on standard input; nothing is changed"),
        ((b"\x04",), "there is no password on standard input; nothing is changed"),
        ((b"x" * 256 + b"\n",), "the password is longer than 255 octets; nothing is changed"),
        (
            (b" bar\n", b" bar\n"),
            "a POP3 client cannot say a password that begins with a space or holds NUL or CR; nothing is changed",
        ),
    ],
)
def test_what_cannot_be_a_password_changes_nothing(lists: Path, typed: tuple[bytes, ...], why: str) -> None:
    (lists / "passwd").write_bytes(b"old\n")
    status, screen = at_a_terminal(lists, *typed)
    assert status == 100
    assert screen.decode().splitlines()[-1].endswith(f"maildirpasswd: fatal: {why}")
    assert (lists / "passwd").read_bytes() == b"old\n"
    assert os.listdir(lists) == ["passwd"]
    for octets in typed:
        assert octets.strip() == b"" or octets.strip() not in screen


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_echo_is_back_when_it_is_interrupted(lists: Path, number: signal.Signals) -> None:
    terminal = Terminal(command(lists.parent, "lists"), environ(lists.parent))
    terminal.await_text(b"New password: ")
    terminal.type(b"")
    os.kill(terminal.pid, number)
    left = os.WEXITED | os.WNOWAIT | os.WNOHANG
    until(lambda: os.waitid(os.P_PID, terminal.pid, left) is not None, "the end of the program")
    assert terminal.echoes
    assert terminal.wait() != 0
    assert os.listdir(lists) == []


def test_a_pipe_says_it_in_two_lines(lists: Path) -> None:
    status, output, errors = piped(lists, "lists", say=b"b\xc3\xa4r\nb\xc3\xa4r\nmore")
    assert (status, errors) == (0, "")
    assert output.startswith("Changing password for POP mailbox joe-lists@mx.example.org\nNew password: \nNew password")
    assert hashes.matches_crypt((lists / "passwd").read_bytes().strip(), b"b\xc3\xa4r")


@pytest.mark.parametrize(
    ("word", "shown"),
    [("", ""), ("..", ".."), (".x", ".x"), ("a/b", "a/b"), ("../Maildir", "../Maildir"), ("a\n..", "a\\x0a..")],
)
def test_an_extension_leads_nowhere_else(lists: Path, word: str, shown: str) -> None:
    said = f"maildirpasswd: fatal: no mailbox can be called {shown}: say what follows the dash of its login name\n"
    assert piped(lists, word) == (100, "", said)


def test_a_missing_mailbox_is_said_before_anything_is_asked(lists: Path) -> None:
    status, output, errors = piped(lists, "work")
    home = lists.parent
    assert (status, output) == (100, "")
    assert errors == (
        f"maildirpasswd: fatal: {home}/Maildir-work is no directory; make it first: maildirmake {home}/Maildir-work\n"
    )


@pytest.mark.parametrize("words", [[], ["lists", "more"]])
def test_it_takes_one_word(lists: Path, words: list[str]) -> None:
    assert piped(lists, *words) == (100, "", "maildirpasswd: usage: maildirpasswd extension\n")


def test_trouble_is_temporary_and_named(lists: Path) -> None:
    (lists / "passwd").mkdir()  # no file can take its place
    status, _output, errors = piped(lists, "lists")
    assert status == 111
    assert errors == "maildirpasswd: fatal: unable to write ~/Maildir-lists/passwd: is a directory\n"
    assert os.listdir(lists) == ["passwd"]


@pytest.mark.skipif(os.getuid() != 0, reason="needs root: it is root who is refused")
def test_root_has_no_mailbox(lists: Path) -> None:
    words = [sys.executable, "-m", "pillarbox", "run", "maildirpasswd", "lists"]
    done = subprocess.run(words, capture_output=True, timeout=60, env=environ(lists.parent), input=b"bar\nbar\n")
    assert (done.returncode, done.stdout) == (100, b"")
    assert done.stderr == (b"maildirpasswd: fatal: root has no POP mailboxes; run this as the mailbox's owner\n")


def test_without_a_server_the_machines_name_is_shown(lists: Path) -> None:
    (lists.parent / "server" / "control" / "me").unlink()
    _status, output, _errors = piped(lists, "lists")
    assert output.startswith(f"Changing password for POP mailbox joe-lists@{os.uname().nodename}\n")
