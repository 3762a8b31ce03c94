"""maildirpasswd EXT: its caller, joe, sets the password of his POP mailbox joe-EXT (maildirpop3d 0.8, qmail patches).

It is asked for twice without echo on a terminal; from a pipe two lines are read. Its hash goes into the file passwd of
~joe/Maildir-EXT. The rule that must stay true: the old password stands until the new one is on disk.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from pillarbox.auth import extension, hashes
from pillarbox.cli.output import printable
from pillarbox.programs import diagnosis, whereabouts
from pillarbox.status import Failure, Status

NAME = "maildirpasswd"
LONGEST = 255
"""Octets of a password. Name, password and challenge must fit into the 512 that POP3 programs hand on."""
_LONGEST_HOST = 4096


class NoPassword(Failure):
    """What was typed cannot be the password; nothing is changed."""

    status = Status(5, 7, 0)


def main(arguments: list[str]) -> int:
    """0 set; 100 called wrongly, no such mailbox, or no password that can be one; 111 trouble. The file is as it was,
    unless it is 0."""
    if len(arguments) != 1:
        return diagnosis.usage(NAME, "extension")
    ext = os.fsencode(arguments[0])
    try:
        if not extension.allowed(ext):
            raise NoPassword(f"no mailbox can be called {printable(ext)}: say what follows the dash of its login name")
        _change(ext)
    except Failure as failure:
        if failure.status.kind == 5:
            return diagnosis.refused(NAME, failure.text)
        return diagnosis.fatal(NAME, failure.text)
    except OSError as problem:
        return diagnosis.fatal(NAME, f"unable to write ~/Maildir-{printable(ext)}/passwd", problem)
    return 0


def _change(ext: bytes) -> None:
    user, home = _caller()
    with extension.opened(home, ext, follow=True) as directory:
        print(f"Changing password for POP mailbox {printable(user)}-{printable(ext)}@{printable(_host())}", flush=True)
        made = hashes.make_crypt(_ask_twice(), os.urandom(hashes.SALT_OCTETS))
        print(f"Ok, putting encrypted password {made.decode('ascii')} in ~/Maildir-{printable(ext)}/passwd", flush=True)
        extension.write(directory, made)


def _caller() -> tuple[bytes, bytes]:
    """Name and home of whoever runs us, as maildirpop3d will find them. Raises NoPassword."""
    import pwd

    uid = os.getuid()
    if uid == 0:
        raise NoPassword("root has no POP mailboxes; run this as the mailbox's owner")
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        raise Failure(f"no user of this system has uid {uid}") from None
    return os.fsencode(entry.pw_name), os.fsencode(entry.pw_dir)


def _host() -> bytes:
    """control/me of the machine's mail server, else the machine's name."""
    try:
        with open(f"{whereabouts.find(os.environ)}/control/me", "rb", buffering=0) as file:
            line = file.read(_LONGEST_HOST).partition(b"\n")[0].strip()
    except OSError:
        line = b""
    return line or os.fsencode(os.uname().nodename)


def _ask_twice() -> bytes:
    """The new password. Raises NoPassword, OSError."""
    password = _ask("New password: ")
    if _ask("New password (again): ") != password:
        raise NoPassword("the passwords differ; nothing is changed")
    if not password:
        raise NoPassword("the password is empty; nothing is changed")
    if password.startswith(b" ") or any(odd in password for odd in (b"\0", b"\r")):
        raise NoPassword(
            "a POP3 client cannot say a password that begins with a space or holds NUL or CR; nothing is changed"
        )
    return password


def _ask(prompt: str) -> bytes:
    print(prompt, end="", flush=True)
    with _without_echo():
        line = _line()
    print(flush=True)
    return line


def _line() -> bytes:
    """One line of standard input, octet by octet since the next is not ours to take. Raises NoPassword."""
    line = b""
    while (octet := os.read(0, 1)) != b"\n":
        if not octet:
            raise NoPassword("there is no password on standard input; nothing is changed")
        line += octet
        if len(line) > LONGEST:
            raise NoPassword(f"the password is longer than {LONGEST} octets; nothing is changed")
    return line


@contextmanager
def _without_echo() -> Iterator[None]:
    """What is typed meanwhile is not shown, and echo is back whatever ends us, SIGKILL excepted."""
    if not os.isatty(0):
        yield
        return
    import signal
    import termios

    def end(number: int, _frame: object) -> None:
        sys.exit(128 + number)

    before = termios.tcgetattr(0)
    silent = [*before[:3], before[3] & ~(termios.ECHO | termios.ECHONL), *before[4:]]
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    try:
        termios.tcsetattr(0, termios.TCSAFLUSH, silent)
        yield
    finally:
        termios.tcsetattr(0, termios.TCSAFLUSH, before)
