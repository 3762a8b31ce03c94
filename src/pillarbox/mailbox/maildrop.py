"""A Maildir as POP3 sees it: numbered messages with exact sizes and unique ids that last, for one session at a time.

The rule that must stay true: a message is known by its base name (up to the colon), because other programs set flags by
renaming files while we look. One that is gone under its old name is looked for under its base name.

The program qmail-pop3d wants what qmail's saw (`as_qmail`): no lock, sizes of the files (LF line ends), base names of
any length as unique ids, symbolic links followed, and no message of the current second, because a later one with the
same time could still come in front of it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from pillarbox.content import octets
from pillarbox.mailbox.durable import rename_without_replacing
from pillarbox.scan import ScanListing
from pillarbox.status import Failure, Status, SystemTrouble

BLOCK = 65536  # octets read at a time
STALE = 129600  # seconds (36 hours, as in qmail) after which a file in tmp/ is nobody's any more
_RESCANS = 1000  # times that one session looks for renamed files: each costs a walk over the whole Maildir
_REMEMBERED = 100_000  # counted sizes kept between sessions

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_LOCK_FILE = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_SIZES = re.compile(r",S=([0-9]{1,15}),W=([0-9]{1,15})(?![0-9])")
_UNIQUE_ID = re.compile(r"[!-~]{1,70}\Z")  # RFC 1939 section 7

_NO_SCAN = "unable to scan $HOME/Maildir"


class InUse(Failure):
    """Another session has this maildrop."""

    status = Status(4, 2, 0)


class NoMaildrop(Failure):
    """There is no Maildir, or it cannot be read; the text is qmail-pop3d's."""

    status = Status(4, 2, 1)


@dataclass(slots=True)
class _Message:
    """Where a message is now: `name` in `directory`, None when it was gone at the last look."""

    base: str
    inode: int
    directory: int
    name: str | None


# A file of the Maildir: (mtime in ns, width, base, inode, octets, directory, name). Its order is the order of messages:
# by time of delivery, then as the numbers in our own names count (the width is of the base up to its first comma).
_Found = tuple[int, int, str, int, int, int, str]

# How a file of a directory is looked at: (mtime in ns, octets), None when it is no message. Raises FileNotFoundError.
_Look = Callable[["os.DirEntry[str]", int], tuple[int, int] | None]


class Maildrop:
    """An open maildrop. `listings` are its messages in order; they are numbered from 1 until `close`."""

    def __init__(self, opened: ExitStack, new: int, cur: int, found: Sequence[_Found], *, as_qmail: bool) -> None:
        self._opened, self._new, self._cur = opened, new, cur
        self._flags = _READ & ~os.O_NOFOLLOW if as_qmail else _READ
        self._rescans = _RESCANS
        self._messages = [_Message(base, inode, at, name) for _, _, base, inode, _, at, name in found]
        unique_ids = map(_base_name, self._messages) if as_qmail else _unique_ids(self._messages)
        self.listings = tuple(map(ScanListing, unique_ids, [each[4] for each in found]))

    @classmethod
    def open(cls, directory: str | bytes, now: float, *, as_qmail: bool = False) -> Maildrop:
        """Lock and list the Maildir. Files in its tmp/ that nobody has touched for 36 hours at `now` (seconds since the
        epoch) are removed. The lock goes with `close` or with the process. Raises InUse, NoMaildrop, SystemTrouble."""
        with ExitStack() as opened:
            top = _open_directory(opened, directory, None, "this user has no $HOME/Maildir")
            try:
                if not as_qmail:
                    _lock(opened, top)
                _sweep(top, now)
                new, cur = (_open_directory(opened, name, top, _NO_SCAN) for name in ("new", "cur"))
                found = _scan(new, cur, _as_qmail(int(now)) if as_qmail else _exactly)
                return cls(opened.pop_all(), new, cur, found, as_qmail=as_qmail)
            except OSError as problem:
                raise SystemTrouble.of(problem) from problem

    def close(self) -> None:
        """Unlock; nothing is deleted."""
        self._opened.close()

    def content(self, number: int) -> int:
        """A read-only descriptor of message `number` in stored form, at its start; the caller closes it. Raises Failure
        when the message is gone or cannot be read."""
        message = self._messages[number - 1]
        try:
            while message.name is not None:
                try:
                    return _open_regular(message.name, message.directory, self._flags)
                except FileNotFoundError:
                    self._find_again(message)
        except OSError as problem:
            raise Failure("unable to open that message", SystemTrouble.of(problem).status) from problem
        raise Failure("unable to open that message", Status(4, 2, 0))

    def update(self, deleted: Sequence[int]) -> None:
        """RFC 1939's UPDATE state: remove these messages for good, move what else is in new/ to cur/. Raises Failure
        when some could not be removed; the others are."""
        unwanted = frozenset(deleted)
        failed = False
        for number, message in enumerate(self._messages, 1):
            if number in unwanted:
                failed |= not self._remove(message)
            elif message.directory == self._new and message.name is not None:
                self._mark_seen(message, message.name)
        try:
            if unwanted:
                os.fsync(self._new)
                os.fsync(self._cur)
        except OSError as problem:
            raise SystemTrouble.of(problem) from problem
        if failed:
            raise Failure("unable to unlink all deleted messages", Status(4, 2, 0))

    def _remove(self, message: _Message) -> bool:
        try:
            while message.name is not None:
                try:
                    os.unlink(message.name, dir_fd=message.directory)
                except FileNotFoundError:
                    self._find_again(message)
                else:
                    message.name = None
        except OSError:
            return False
        return True

    def _mark_seen(self, message: _Message, name: str) -> None:
        """qmail-pop3d's `:2,`. Whoever has moved the file meanwhile did it for us; what cannot be moved stays new."""
        seen = name if ":" in name else name + ":2,"
        with suppress(OSError):
            rename_without_replacing(self._new, os.fsencode(name), self._cur, os.fsencode(seen))
            message.directory, message.name = self._cur, seen

    def _find_again(self, message: _Message) -> None:
        """Look where every message is now: `message` was just seen to have moved. Raises OSError, so too when the
        Maildir never comes to rest."""
        if not self._rescans:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        self._rescans -= 1
        where = _whereabouts(self._new, self._cur)
        ours: dict[str, int] = {}
        for each in self._messages:
            ours[each.base] = ours.get(each.base, 0) + 1
        for each in self._messages:
            there = where.get(each.base, ())
            same = [one for one in there if one[0] == each.inode] or (
                there if ours[each.base] == len(there) == 1 else ()
            )
            _inode, each.directory, each.name = same[0] if same else (0, self._cur, None)


def _open_directory(opened: ExitStack, name: str | bytes, top: int | None, otherwise: str) -> int:
    try:
        descriptor = os.open(name, _DIRECTORY, dir_fd=top)
    except OSError as problem:
        raise NoMaildrop(otherwise) from problem
    opened.callback(os.close, descriptor)
    return descriptor


def _lock(opened: ExitStack, top: int) -> None:
    """Raises InUse. NFS cannot lock a directory: there, a file in it."""
    try:
        try:
            fcntl.flock(top, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as problem:
            if problem.errno != errno.EBADF:
                raise
            file = os.open("pillarbox-lock", _LOCK_FILE, 0o600, dir_fd=top)
            opened.callback(os.close, file)
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InUse("maildrop in use") from None


def _sweep(top: int, now: float) -> None:
    """Remove what deliveries that never ended left in tmp/: nobody can miss it, it was never reported delivered."""
    with suppress(OSError), ExitStack() as opened:
        tmp = os.open("tmp", _DIRECTORY, dir_fd=top)
        opened.callback(os.close, tmp)
        for file in opened.enter_context(os.scandir(tmp)):
            with suppress(OSError):
                facts = file.stat(follow_symlinks=False)
                # Not its atime, as in qmail: a backup renews that, and a file system without atimes never does.
                if not file.name.startswith(".") and now - max(facts.st_mtime, facts.st_ctime) > STALE:
                    os.unlink(file.name, dir_fd=tmp)


def _scan(new: int, cur: int, look: _Look) -> list[_Found]:
    """Every message, in order. new/ first: readers move from there to cur/. A rename in cur/ while we read it can
    hide a message, so a directory that changed under us is read again."""
    for _ in range(3):
        before = os.fstat(cur).st_mtime_ns
        found, vanished = _files(new, look)
        more, vanished_too = _files(cur, look)
        if not (vanished or vanished_too) and os.fstat(cur).st_mtime_ns == before:
            break
    found += more
    found.sort()
    # A file that moved from new/ to cur/ between the two stands here twice, side by side.
    return [
        each for each, after in zip(found, [*found, None][1:], strict=True) if after is None or each[:4] != after[:4]
    ]


def _files(directory: int, look: _Look) -> tuple[list[_Found], bool]:
    """The messages in new/ or cur/, and whether one was gone before we could look at it."""
    found: list[_Found] = []
    vanished = False
    with os.scandir(directory) as files:
        for file in files:
            name = file.name
            try:
                seen = look(file, directory) if name[0] != "." else None
                if seen is not None:
                    base = name.partition(":")[0]
                    width = base.find(",") if "," in base else len(base)
                    found.append((seen[0], width, base, file.inode(), seen[1], directory, name))
            except FileNotFoundError:
                vanished = True
    return found, vanished


def _exactly(file: os.DirEntry[str], directory: int) -> tuple[int, int] | None:
    facts = file.stat(follow_symlinks=False)
    if not stat.S_ISREG(facts.st_mode):
        return None
    return facts.st_mtime_ns, _octets(file.name, file.name.partition(":")[0], facts, directory)


def _as_qmail(now: int) -> _Look:
    def look(file: os.DirEntry[str], _directory: int) -> tuple[int, int] | None:
        try:
            facts = file.stat()
        except OSError:  # a link that leads nowhere
            return None
        whole = stat.S_ISREG(facts.st_mode) and int(facts.st_mtime) < now
        return (facts.st_mtime_ns, facts.st_size) if whole else None

    return look


def _octets(name: str, base: str, facts: os.stat_result, directory: int) -> int:
    """Octets with CRLF line ends: what the name says (Dovecot's convention) when it is right about the file's size,
    else counted. Raises FileNotFoundError."""
    if (said := _SIZES.search(base)) and int(said[1]) == facts.st_size <= int(said[2]) <= 2 * facts.st_size:
        return int(said[2])
    key = (hash(base), facts.st_ino, facts.st_mtime_ns, facts.st_size)  # inodes are used again, names are not
    counted = _counted.get(key)
    if counted is None:
        try:
            counted = _count(name, directory)
        except FileNotFoundError:
            raise
        except OSError:
            return facts.st_size  # RETR will say that it cannot be read; the rest of the maildrop can
        if len(_counted) >= _REMEMBERED:
            del _counted[next(iter(_counted))]
        _counted[key] = counted
    return counted


_counted: dict[tuple[int, int, int, int], int] = {}  # (hash of base, inode, mtime in ns, size) -> octets


def _count(name: str, directory: int) -> int:
    descriptor = _open_regular(name, directory, _READ)
    try:
        return octets(iter(lambda: os.read(descriptor, BLOCK), b""))
    finally:
        os.close(descriptor)


def _open_regular(name: str, directory: int, flags: int) -> int:
    """Raises OSError: for anything but a regular file too, a reader must not be made to wait on a FIFO."""
    descriptor = os.open(name, flags, dir_fd=directory)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    return descriptor


def _whereabouts(new: int, cur: int) -> dict[str, list[tuple[int, int, str]]]:
    """Base name -> (inode, directory, name) of every file that has it."""
    where: dict[str, list[tuple[int, int, str]]] = {}
    for directory in (new, cur):
        with os.scandir(directory) as files:
            for file in files:
                where.setdefault(file.name.partition(":")[0], []).append((file.inode(), directory, file.name))
    return where


def _unique_ids(messages: Sequence[_Message]) -> Iterator[bytes]:
    """What qmail-pop3d would say, the base name, where RFC 1939 allows that and it is no other message's."""
    taken: set[bytes] = set()
    for message in messages:
        base = message.base
        unique = base.encode() if _UNIQUE_ID.match(base) else _digest(os.fsencode(base))
        if unique in taken:
            unique = _digest(b"%s\0%d" % (os.fsencode(base), message.inode))
        taken.add(unique)
        yield unique


def _base_name(message: _Message) -> bytes:
    """qmail-pop3d's unique id, except of a name that would be more than its line."""
    base = os.fsencode(message.base)
    return _digest(base) if b"\n" in base or b"\r" in base else base


def _digest(text: bytes) -> bytes:
    import hashlib  # seldom needed, and a client of the program waits for it

    return hashlib.sha256(text).hexdigest().encode()
