"""The one reader of dot-qmail files: which file speaks for an extension, and what its lines ask for.

Source: dot-qmail(5) and qmail-local. The rule that must stay true: nothing is read from a file or home that others may
write to, and nothing is delivered until the whole file made sense; trouble is always temporary, the owner can mend it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from pillarbox.status import Failure, Status
from pillarbox.users.owner import dotqmail_names

SIZE_LIMIT = 1 << 20  # octets of a dot-qmail file

_OPEN = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC  # a FIFO must not make us wait
_FORBIDDEN = stat.S_IWOTH  # qmail's conf-patrn
# errnos after which the file may well exist; with any other it does not (qmail's error_temp, EPERM and EACCES)
MAY_EXIST = frozenset(
    {errno.EINTR, errno.ENOMEM, errno.ETXTBSY, errno.EIO, errno.ETIMEDOUT, errno.EAGAIN, errno.EDEADLK, errno.EBUSY}
    | {errno.ENFILE, errno.EMFILE, errno.EFBIG, errno.ENOSPC, errno.ENETDOWN, errno.ENETUNREACH, errno.ENETRESET}
    | {errno.ECONNABORTED, errno.ECONNRESET, errno.ENOBUFS, errno.ETOOMANYREFS, errno.ECONNREFUSED, errno.EHOSTDOWN}
    | {errno.EHOSTUNREACH, errno.EUSERS, errno.EDQUOT, errno.ESTALE, errno.ENOLCK, errno.EPERM, errno.EACCES}
)


class DotQmailTrouble(Failure):
    """The owner's instructions cannot be followed as they stand; the text is qmail-local's."""


@dataclass(frozen=True, slots=True)
class Maildir:
    """`directory` as written, ending in a slash; relative to the home unless it starts with one."""

    line: int
    directory: bytes


@dataclass(frozen=True, slots=True)
class Mbox:
    """`file` as written; relative to the home unless it starts with a slash."""

    line: int
    file: bytes


@dataclass(frozen=True, slots=True)
class Program:
    """`command` for /bin/sh -c."""

    line: int
    command: bytes


@dataclass(frozen=True, slots=True)
class Forward:
    """`address` raw: spaces and angle brackets are part of it."""

    line: int
    address: bytes


Instruction = Maildir | Mbox | Program | Forward


@dataclass(frozen=True, slots=True)
class DotQmail:
    """`name`: of the file that was found, b"" when there is none and the default delivery stands in. `default`: what
    DEFAULT is in the environment of programs (the part of the extension that `default` stands for), None when unset."""

    name: bytes
    instructions: tuple[Instruction, ...]
    default: bytes | None = None


_CONTROLS = {code: "_" for code in (*range(32), 127)}


def printable(name: bytes) -> str:
    """A file name as it may stand in a report: part of it may come from an address, and so from a stranger."""
    return name.decode("ascii", "backslashreplace").translate(_CONTROLS)


def find(home: bytes, dash: bytes, extension: bytes, defaultdelivery: bytes) -> DotQmail | None:
    """The dot-qmail file of a home that speaks for `extension`, with its instructions; None: no mailbox here by that
    name. An empty file, and a missing .qmail where `dash` is empty, stand for the lines of `defaultdelivery`.
    Raises DotQmailTrouble."""
    _check_home(home)
    for name, default in _candidates(dash, extension):
        if (found := _read(home, name)) is not None:
            text, forward_only = found
            return DotQmail(name, parse(text, forward_only=forward_only) if text else parse(defaultdelivery), default)
    return None if dash else DotQmail(b"", parse(defaultdelivery))


def parse(text: bytes, *, forward_only: bool = False) -> tuple[Instruction, ...]:
    """The instructions among the lines of a dot-qmail file, numbered by line from 1. `forward_only`: the file's x bit,
    or a `+list` line, says that programs and files are a mistake. Raises DotQmailTrouble."""
    lines = text.split(b"\n")
    if len(lines) > 1 and not lines[-1]:
        lines.pop()
    found: list[Instruction] = []
    for number, raw in enumerate(lines, 1):
        line = raw.rstrip(b" \t")
        if line == b"+list":
            forward_only = True
        elif line and line[:1] not in b"#+":
            found.append(_instruction(number, line, forward_only))
        elif not line and number == 1:
            raise DotQmailTrouble("Uh-oh: first line of .qmail file is blank. (#4.2.1)", Status(4, 2, 1))
    return tuple(found)


def _instruction(number: int, line: bytes, forward_only: bool) -> Instruction:
    if b"\0" in line:
        raise DotQmailTrouble(f"Uh-oh: line {number} of .qmail file holds a NUL. (#4.2.1)", Status(4, 2, 1))
    first = line[:1]
    if first == b"|":
        if forward_only:
            raise DotQmailTrouble("Uh-oh: .qmail has prog delivery but has x bit set. (#4.7.0)", Status(4, 7, 0))
        return Program(number, line[1:])
    if first in (b".", b"/"):
        if forward_only:
            raise DotQmailTrouble("Uh-oh: .qmail has file delivery but has x bit set. (#4.7.0)", Status(4, 7, 0))
        return Maildir(number, line) if line.endswith(b"/") else Mbox(number, line)
    return Forward(number, line[1:] if first == b"&" else line)


def _candidates(dash: bytes, extension: bytes) -> Iterator[tuple[bytes, bytes | None]]:
    """File names in the order they are tried, each with the value DEFAULT gets when that file is there."""
    outside = len(b".qmail" + dash)
    for name in dotqmail_names(dash, extension):
        # What a stranger wrote into an address is part of a name, never a way to another directory.
        if b"/" in name[outside:] or b"\0" in name:
            continue
        at = len(name) - len(b"default") - outside
        yield name, extension[at:] if name.endswith(b"default", outside) else None


def _check_home(home: bytes) -> None:
    try:
        mode = os.stat(home).st_mode
    except OSError as problem:
        reason = os.strerror(problem.errno or 0)
        raise DotQmailTrouble(f"Unable to switch to {printable(home)}: {reason}. (#4.3.0)") from problem
    if mode & _FORBIDDEN:
        raise DotQmailTrouble("Uh-oh: home directory is writable. (#4.7.0)", Status(4, 7, 0))
    if mode & stat.S_ISVTX:
        raise DotQmailTrouble("Home directory is sticky: user is editing his .qmail file. (#4.2.1)", Status(4, 2, 1))


def _read(home: bytes, name: bytes) -> tuple[bytes, bool] | None:
    """Content of a dot-qmail file and whether its x bit is set; None: there is no such file."""
    try:
        opened = os.open(home + b"/" + name, _OPEN)
    except OSError as problem:
        if problem.errno in MAY_EXIST:
            raise _unreadable(name, problem) from problem
        return None
    try:
        mode = os.fstat(opened).st_mode
        if not stat.S_ISREG(mode):
            return None
        if mode & _FORBIDDEN:
            raise DotQmailTrouble("Uh-oh: .qmail file is writable. (#4.7.0)", Status(4, 7, 0))
        return _whole(opened, name), bool(mode & stat.S_IXUSR)
    except OSError as problem:
        raise _unreadable(name, problem) from problem
    finally:
        os.close(opened)


def _whole(opened: int, name: bytes) -> bytes:
    blocks, size = [], 0
    while block := os.read(opened, 65536):
        blocks.append(block)
        size += len(block)
        if size > SIZE_LIMIT:
            raise DotQmailTrouble(f"Unable to read {printable(name)}: more than {SIZE_LIMIT} octets. (#4.3.0)")
    return b"".join(blocks)


def _unreadable(name: bytes, problem: OSError) -> DotQmailTrouble:
    return DotQmailTrouble(f"Unable to open {printable(name)}: {os.strerror(problem.errno or 0)}. (#4.3.0)")
