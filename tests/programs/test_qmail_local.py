"""qmail-local as a program of its own: arguments, -n, exit statuses and what it prints, by the reference."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import pillarbox

MESSAGE = b"Subject: x\n\nbody\n"


class User:
    """Somebody with a home; as root it is nobody who runs the program, because root gets no mail."""

    def __init__(self, top: Path) -> None:
        self.home = top / "home"
        self.message = top / "message"
        self.home.mkdir(mode=0o755)
        self.message.write_bytes(MESSAGE)

    def instruct(self, name: str, text: bytes) -> None:
        (self.home / name).write_bytes(text)
        (self.home / name).chmod(0o644)

    def run(self, *flags: str, standard: bytes | None = None) -> tuple[int, bytes, bytes]:
        """Exit status, standard output, standard error."""
        operands = ["joe", str(self.home), "joe-x", "-", "x", "example.org", "ann@example.net", "./Mailbox"]
        return self.call([*flags, *operands], standard)

    def call(self, arguments: list[str], standard: bytes | None = None) -> tuple[int, bytes, bytes]:
        source = Path(pillarbox.__file__).parent.parent
        code = "import os, sys; sys.path.insert(0, sys.argv.pop(1)); from pillarbox.programs import qmail_local as q;"
        become = "os.getuid() or (os.setgroups([]), os.setgid(65534), os.setuid(65534));"
        command = [sys.executable, "-c", f"{code} {become} sys.exit(q.main(sys.argv[1:]))", str(source), *arguments]
        with open(self.message, "rb") as message:
            done = subprocess.run(
                command,
                stdin=message if standard is None else None,
                input=standard,
                capture_output=True,
                timeout=60,
                env={"PATH": os.environ["PATH"], "PILLARBOX_HOME": str(self.home)},
            )
        return done.returncode, done.stdout, done.stderr

    def open_to_all(self) -> None:
        for part in (self.home, *self.home.rglob("*")):
            if os.getuid() == 0:
                os.chown(part, 65534, 65534)


@pytest.fixture
def user(open_path: Path) -> User:
    return User(open_path)


# row: vectors-local
def test_what_would_be_done_is_described(user: User) -> None:
    user.instruct(".qmail-x", b"./Mailbox\n./Maildir/\n| cat\n|\n&bob@example.net\nann@example.net\n")
    described = b"mbox ./Mailbox\nmaildir ./Maildir/\nprogram  cat\nprogram \n"
    described += b"forward bob@example.net\nforward ann@example.net\n"
    assert user.run("-n") == (0, described + b"did 2+2+2\n", b"")
    assert list(user.home.iterdir()) == [user.home / ".qmail-x"]


def test_a_message_is_delivered_and_counted(user: User) -> None:
    user.instruct(".qmail-x", b'./Mailbox\n|cat; echo "for $RECIPIENT by $USER"\n')
    user.open_to_all()
    assert user.run() == (0, MESSAGE + b"for joe-x@example.org by joe\ndid 1+0+1\n", b"")
    head = b"\nReturn-Path: <ann@example.net>\nDelivered-To: joe-x@example.org\n"
    assert head + MESSAGE + b"\n" in (user.home / "Mailbox").read_bytes()


def test_an_empty_file_means_the_last_argument(user: User) -> None:
    user.instruct(".qmail-x", b"")
    assert user.run("-n", "--")[1] == b"mbox ./Mailbox\ndid 1+0+0\n"


# row: vectors-local
@pytest.mark.parametrize(("said", "status"), [("exit 100", 100), ("exit 77", 100), ("exit 111", 111), ("exit 1", 111)])
def test_the_exit_status_follows_the_programs(user: User, said: str, status: int) -> None:
    user.instruct(".qmail-x", f"|echo words; {said}\n".encode())
    assert user.run() == (status, b"words\n", b"")


@pytest.mark.parametrize(
    ("prepare", "status", "said"),
    [
        ("", 100, b"Sorry, no mailbox here by that name. (#5.1.1)\n"),
        ("chmod 666 .qmail-x", 111, b"Uh-oh: .qmail file is writable. (#4.7.0)\n"),
        ("chmod 755 .qmail-x", 111, b"Uh-oh: .qmail has prog delivery but has x bit set. (#4.7.0)\n"),
        ("chmod 777 .", 111, b"Uh-oh: home directory is writable. (#4.7.0)\n"),
        ("chmod +t .", 111, b"Home directory is sticky: user is editing his .qmail file. (#4.2.1)\n"),
        ("echo > .qmail-x", 111, b"Uh-oh: first line of .qmail file is blank. (#4.2.1)\n"),
    ],
)
def test_what_stops_it_is_said_in_qmails_words(user: User, prepare: str, status: int, said: bytes) -> None:
    if prepare:
        user.instruct(".qmail-x", b"|true\n")
        subprocess.run(prepare, shell=True, check=True, cwd=user.home)
    assert user.run() == (status, b"", said)


def test_a_message_that_was_here_before_loops(user: User) -> None:
    user.instruct(".qmail-x", b"|true\n")
    user.message.write_bytes(b"Delivered-To: joe-x@example.org\n" + MESSAGE)
    looping = b"This message is looping: it already has my Delivered-To line. (#5.4.6)\n"
    assert user.run() == (100, b"", looping)


def test_a_message_that_cannot_be_read_twice_is_not_delivered(user: User) -> None:
    user.instruct(".qmail-x", b"|true\n")
    assert user.run(standard=MESSAGE) == (111, b"", b"Unable to rewind message. (#4.3.0)\n")


def test_a_forward_without_a_server_is_temporary(user: User) -> None:
    user.instruct(".qmail-x", b"bob@example.net\n")
    status, output, error = user.run()
    assert (status, output) == (111, b"")
    assert error.startswith(b"Unable to forward message: ")


def test_a_forward_goes_to_the_qmail_queue_of_a_qmail_that_it_was_put_into(user: User) -> None:
    user.instruct(".qmail-x", b"bob@example.net\n")
    (user.home / "bin").mkdir()
    (user.home / "control").mkdir()
    (user.home / "control" / "me").write_text("mx.example.org\n")
    queue = user.home / "bin" / "qmail-queue"
    queue.write_text('#!/bin/sh\ncat >/dev/null\ncat <&1 >"$PILLARBOX_HOME/envelope"\necho $$ >"$PILLARBOX_HOME/qp"\n')
    queue.chmod(0o755)
    user.open_to_all()
    status, output, error = user.run()
    assert (status, error) == (0, b"")
    assert output.endswith(b"qp %d\n" % int((user.home / "qp").read_text()))
    assert (user.home / "envelope").read_bytes() == b"Fann@example.net\0Tbob@example.net\0\0"


@pytest.mark.parametrize(
    "arguments",
    [[], ["a"] * 7, ["a"] * 8, ["a"] * 9, ["-x", "joe", "/h", "joe", "", "", "d", "s", "./M"]],
)
def test_wrong_arguments_are_answered_with_the_usage(user: User, arguments: list[str]) -> None:
    status, output, error = user.call(arguments)
    assert (status, output) == (100, b"")
    assert error.startswith(b"qmail-local: usage: qmail-local [ -nN ] user homedir local dash ext domain sender ")
