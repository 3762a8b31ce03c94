"""The one writer of mbox files: a message is appended whole under a lock, or the file is as long as before.

Source: mbox(5) in qmail's form: a From_ line ahead, lines that look like one quoted with >, an empty line behind.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator

from pillarbox.status import Failure, mailbox_status

LOCK_TIME = 30.0  # seconds that we wait while somebody else has the file locked
_GLANCE = 0.1  # seconds between looks at the lock
_LINE_KEPT = 65536  # octets of an unfinished line that are held back: what is longer is no From_ line
_OPEN = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC  # a FIFO that nobody reads must not make us wait
_LOOKS_LIKE_FROM = re.compile(rb"^(?=>*From )", re.MULTILINE)
_CANNOT_SYNC = frozenset({errno.EINVAL, errno.EROFS, errno.ENOTSUP})  # of /dev/null and the like: nothing to sync

Pause = Callable[[float], None]


class MboxTrouble(Failure):
    """Nothing was delivered into this file. Always temporary; the text is qmail-local's."""


def append(file: bytes, shown: str, head: bytes, blocks: Iterable[bytes], pause: Pause) -> None:
    """Append one message, durably: `head` (its From_ line and what else goes ahead) and its content in `blocks`, stored
    form. `shown`: the file's name in reports. `pause` sleeps for so many seconds. Raises MboxTrouble, and whatever
    `blocks` raises of Failure; then the file is as it was."""
    try:
        descriptor, created = _open(file)
    except OSError as problem:
        raise _unable("open", shown, problem) from problem
    try:
        locked = _lock(descriptor, pause)
        _check_place(file, descriptor, shown)
        _write(descriptor, head, blocks, locked)
        if created:
            _sync_directory(file)
    except OSError as problem:
        raise _unable("write", shown, problem) from problem
    finally:
        os.close(descriptor)


def quoted(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """The content with > ahead of each line that is `From ` behind any number of >, and a last line end, if it has
    none. The pieces are bounded as `blocks` are, however long a line is."""
    held, at_line_start, last = b"", True, b""
    for block in blocks:
        text = held + block
        end = text.rfind(b"\n") + 1
        if not end and len(text) <= _LINE_KEPT:
            held = text
            continue
        end = end or len(text)
        ready, held = text[:end], text[end:]
        yield _quoted(ready, at_line_start)
        last = ready[-1:]
        at_line_start = last == b"\n"
    if held:
        yield _quoted(held, at_line_start)
        last = held[-1:]
    if last and last != b"\n":
        yield b"\n"


def _quoted(text: bytes, at_line_start: bool) -> bytes:
    if b"From " not in text:
        return text
    begun = 0 if at_line_start else text.find(b"\n") + 1 or len(text)
    return text[:begun] + _LOOKS_LIKE_FROM.sub(b">", text[begun:]) if begun < len(text) else text


def _open(file: bytes) -> tuple[int, bool]:
    try:
        return os.open(file, _OPEN), False
    except FileNotFoundError:
        return os.open(file, _OPEN | os.O_CREAT, 0o600), True


def _lock(descriptor: int, pause: Pause) -> bool:
    """Whether we have the file for ourselves; where locks do not work we go on without, as qmail does."""
    for _ in range(round(LOCK_TIME / _GLANCE)):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            pause(_GLANCE)
        except OSError:
            return False
    raise MboxTrouble("File has been locked for 30 seconds straight. (#4.3.0)")


def _check_place(file: bytes, descriptor: int, shown: str) -> None:
    """Programs that fetch mail move the file away while they hold the lock: what we wrote there would be lost."""
    ours = os.fstat(descriptor)
    try:
        there = os.stat(file)
    except FileNotFoundError:
        there = None
    if there is None or (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino):
        raise MboxTrouble(f"Unable to write {shown}: it was moved away meanwhile. (#4.3.0)")


def _write(descriptor: int, head: bytes, blocks: Iterable[bytes], locked: bool) -> None:
    facts = os.fstat(descriptor)
    regular = stat.S_ISREG(facts.st_mode)
    try:
        if regular:
            _write_all(descriptor, _gap(descriptor, facts.st_size))
        _write_all(descriptor, head)
        for piece in quoted(blocks):
            _write_all(descriptor, piece)
        _write_all(descriptor, b"\n")
        _sync(descriptor)
    except (OSError, Failure):
        if locked and regular:
            os.ftruncate(descriptor, facts.st_size)
        raise


def _gap(descriptor: int, size: int) -> bytes:
    """What is missing at the end of the file: a writer that died within a line must not swallow our From_ line."""
    if not size:
        return b""
    try:
        reading = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""  # a file that may be written and not read
    try:
        last = os.pread(reading, 2, max(0, size - 2))
    finally:
        os.close(reading)
    return b"" if last.endswith(b"\n\n") or last == b"\n" else b"\n" if last.endswith(b"\n") else b"\n\n"


def _sync(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as problem:
        if problem.errno not in _CANNOT_SYNC:
            raise


def _sync_directory(file: bytes) -> None:
    opened = os.open(os.path.dirname(os.path.realpath(file)), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _write_all(descriptor: int, octets: bytes) -> None:
    view = memoryview(octets)
    while view:
        view = view[os.write(descriptor, view) :]


def _unable(what: str, shown: str, problem: OSError) -> MboxTrouble:
    status = mailbox_status(problem)
    reason = os.strerror(problem.errno) if problem.errno else "unknown"
    return MboxTrouble(f"Unable to {what} {shown}: {reason}. (#{status})", status)
