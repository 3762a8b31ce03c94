"""A mailbox with a password of its own: joe-lists is ~joe/Maildir-lists, and the file `passwd` there has one line, the
password's hash (maildirpop3d 0.8 of the qmail patches). The one place that knows this layout.

The file is its owner's, who may put anything there. The rule that must stay true: it is read with his rights, never as
root, and nothing in its place can hold the reader up, lead him elsewhere or fill his memory.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from pillarbox.auth import hashes
from pillarbox.status import Failure, Status
from pillarbox.users import replace

PASSWD = b"passwd"
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG})


class NoMailbox(Failure):
    """There is no such directory. The text says how to make it."""

    status = Status(5, 3, 0)


class UnusablePasswd(Failure):
    """A passwd file by which nobody can log in, whatever he says: temporary, for its owner may mend it. The text, for
    the log, says why; it never has anything of the file's content."""

    status = Status(4, 7, 0)


def allowed(extension: bytes) -> bool:
    """Whether there may be a mailbox of this extension: it is part of a file name, and stays where it is put."""
    harmless = not extension.startswith(b".") and not any(odd in extension for odd in (b"..", b"/", b"\0"))
    return bool(extension) and harmless


def maildir(base: bytes, extension: bytes) -> bytes:
    """The directory of an extension beside `base` (b"Maildir", b"/home/joe/Maildir")."""
    return base + b"-" + extension


def read(directory: bytes) -> bytes | None:
    """The hash in the passwd file of a Maildir; None where there is no such file, or no such Maildir. Not more than
    hashes.LONGEST_HASH octets are read, and it never waits. Raises UnusablePasswd, OSError."""
    try:
        descriptor = os.open(directory + b"/" + PASSWD, _READ)
    except OSError as problem:
        if problem.errno in _ABSENT:
            return None
        if problem.errno in (errno.ELOOP, errno.ENXIO):  # ENXIO: a socket
            raise UnusablePasswd("it is no regular file") from None
        raise
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise UnusablePasswd("it is no regular file")
        line = os.read(descriptor, hashes.LONGEST_HASH + 2).partition(b"\n")[0]
    finally:
        os.close(descriptor)
    made = line.rstrip(b" \t\r") if len(line) <= hashes.LONGEST_HASH else line
    if not hashes.usable(made):
        raise UnusablePasswd("its first line is no password hash of a kind that is taken" if made else "it is empty")
    return made


@contextmanager
def opened(home: bytes, extension: bytes, *, follow: bool = False) -> Iterator[int]:
    """A descriptor of `home`/Maildir-EXTENSION, for `write`. `follow`: it may be a symbolic link, which must not be
    where the caller has more rights than the owner. Raises NoMailbox, OSError."""
    name, flags = maildir(b"Maildir", extension), _DIRECTORY if follow else _DIRECTORY | os.O_NOFOLLOW
    descriptors: list[int] = []
    try:
        try:
            descriptors.append(os.open(home, flags))
            descriptors.append(os.open(name, flags, dir_fd=descriptors[0]))
        except OSError as problem:
            if problem.errno not in (*_ABSENT, errno.ELOOP):
                raise
            shown = os.fsdecode(home + b"/" + name)
            raise NoMailbox(f"{shown} is no directory; make it first: maildirmake {shown}") from None
        yield descriptors[1]
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def write(directory: int, made: bytes) -> None:
    """Replace the passwd file of an opened Maildir by one line with this hash: at once, durably, mode 0600, and its
    owner's whose the Maildir is. Raises OSError; then the old one stands."""
    owner = os.fstat(directory)
    fresh = f".passwd.{os.getpid()}"
    with suppress(FileNotFoundError):
        os.unlink(fresh, dir_fd=directory)
    descriptor = os.open(fresh, _CREATE, 0o600, dir_fd=directory)
    try:
        if owner.st_uid != os.geteuid():
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
        replace.write_all(descriptor, made + b"\n")
        os.fsync(descriptor)
        os.rename(fresh, PASSWD, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        with suppress(OSError):
            os.unlink(fresh, dir_fd=directory)
        raise
    finally:
        os.close(descriptor)
    os.fsync(directory)
