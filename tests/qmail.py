"""A qmail as its own installation leaves it, by the reference and not by any of its code: what a postmaster has before
Pillarbox. Its programs are scripts that say their name."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

# Users and groups by number: nothing here asks the system who they are.
QMAILQ, QMAILS, QMAIL = 61_007, 61_008, 61_000
ALIAS, NOFILES = 61_003, 61_001

MODES = {
    "qmail-queue": 0o4711,
    **dict.fromkeys(("qmail-lspawn", "qmail-start", "qmail-newu", "qmail-newmrh"), 0o700),
    **dict.fromkeys(("qmail-getpw", "qmail-local", "qmail-remote", "qmail-rspawn", "qmail-clean", "qmail-send"), 0o711),
    **dict.fromkeys(("splogger", "qmail-pw2u", "qmail-popup"), 0o711),
    **dict.fromkeys(("qmail-smtpd", "qmail-pop3d", "qmail-inject", "sendmail", "qmail-qread", "qmail-qstat"), 0o755),
    **dict.fromkeys(("qmail-showctl", "maildirmake", "maildir2mbox", "predate", "qmail-tcpok", "qmail-tcpto"), 0o755),
}
YEARS_AGO = 925_000_000_123_456_789  # nanoseconds


class Facts(NamedTuple):
    """All that an undone installation must not have changed."""

    inode: int
    mode: int
    uid: int
    gid: int
    links: int
    changed: int
    content: bytes
    attributes: tuple[tuple[str, bytes], ...]


def make(home: Path) -> Path:
    """Make it, as root. The directory must not exist."""
    home.mkdir(mode=0o755)
    for name in ("bin", "boot", "control", "doc", "man", "users", "alias", "queue"):
        (home / name).mkdir()
        (home / name).chmod(0o755)
        os.chown(home / name, 0, QMAIL)
    (home / "alias").chmod(0o2755)
    os.chown(home / "alias", ALIAS, QMAIL)
    for name, text in {"me": "mail.example.org", "rcpthosts": "example.org", "locals": "example.org"}.items():
        (home / "control" / name).write_text(text + "\n")
    _queue(home / "queue")
    for name, mode in MODES.items():
        add(home / "bin", name, mode)
    return home


def add(directory: Path, name: str, mode: int = 0o755) -> None:
    """A program of theirs."""
    file = directory / name
    file.write_text(f"#!/bin/sh\necho their {name}\n")
    os.chown(file, QMAILQ if name == "qmail-queue" else 0, QMAIL)
    file.chmod(mode)
    with suppress(OSError):  # not every file system has them
        os.setxattr(file, "user.origin", b"ports")
    os.utime(file, ns=(YEARS_AGO, YEARS_AGO))


def wait_in_queue(home: Path, number: int = 1) -> None:
    """So many messages in the queue."""
    for name in range(number):
        (home / "queue" / "mess" / "7" / f"{1000 + name}").write_text("Subject: hello\n\n")


def facts(file: Path) -> Facts:
    """What a file is."""
    found = file.lstat()
    names = sorted(os.listxattr(file, follow_symlinks=False))
    attributes = [(name, os.getxattr(file, name, follow_symlinks=False)) for name in names]
    content = os.fsencode(os.readlink(file)) if file.is_symlink() else file.read_bytes()
    return Facts(
        found.st_ino, found.st_mode, found.st_uid, found.st_gid, found.st_nlink, found.st_mtime_ns, content,
        tuple(attributes),
    )  # fmt: skip


def programs(directory: Path) -> dict[str, Facts]:
    """All that stands in a directory of programs, and what it is; what installations keep beside is left out."""
    return {file.name: facts(file) for file in sorted(directory.iterdir()) if not file.is_dir()}


def _queue(queue: Path) -> None:
    for name in ("mess", "info", "local", "remote"):
        for number in range(23):
            (queue / name / str(number)).mkdir(parents=True)
    for name in ("pid", "intd", "todo", "bounce", "lock"):
        (queue / name).mkdir()
    (queue / "lock" / "sendmutex").touch(0o600)
    os.mkfifo(queue / "lock" / "trigger", 0o622)
    for place in (queue, *queue.rglob("*")):
        of_send = any(part in ("info", "local", "remote", "bounce", "lock") for part in place.relative_to(queue).parts)
        os.chown(place, QMAILS if of_send else QMAILQ, QMAIL)
        if place.is_dir():
            place.chmod(0o700 if of_send else 0o750)
