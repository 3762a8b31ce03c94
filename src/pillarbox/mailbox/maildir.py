"""The one writer of Maildirs: batches of messages, on disk before anybody is told, and once each.

A copy's file name is made from what it is (message, recipient, instruction), never from chance, so a delivery that is
repeated after a crash meets its own earlier work: a file of that name and content in new/ or cur/ is the copy,
delivered. The order is what makes it safe: all files whole in tmp/, one sync for all of them, renames into
new/, a sync of new/.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from functools import lru_cache, partial
from typing import NamedTuple

from pillarbox.content import octets
from pillarbox.mailbox.durable import can_sync_file_system, rename_without_replacing, sync_file_system
from pillarbox.status import Failure, Status, mailbox_status

BLOCK = 65536  # octets copied at a time: a message is never whole in memory because of us
AT_ONCE = 128  # copies that share a sync: each may hold four descriptors of its Maildir open
FEW = (
    3  # directories synced one by one: each fsync may flush the disk's cache, so for more of them one syncfs is cheaper
)
NAME_LIMIT = 70  # octets up to the colon: RFC 1939 section 7 bounds a unique id, and a file name becomes one

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_OURS = re.compile(r"([0-9]+\.[0-9A-Za-z]+Q[0-9]+R[0-9]+I[0-9]+)(?:C[0-9])?[.,:]")
_UNREADABLE = "Unable to read message. (#4.3.0)"
_UNSAFE = re.compile(rb"[^!-~]|[/:,\\]")


class MaildirTrouble(Failure):
    """This copy is not delivered now. Always temporary; the text is qmail-local's."""


class Copy(NamedTuple):
    """One copy of a message for one Maildir. `directory`: the Maildir's path. `stem`: see `stem`. `head`: lines to go
    ahead of the content, which is stored form: bytes, or a descriptor read from its start (by offset, so it may be
    shared) holding exactly `size` octets. `again`: it may have been delivered before."""

    directory: bytes
    stem: bytes
    head: bytes
    content: bytes | int
    size: int
    again: bool


def stem(born: int, incarnation: bytes, message: int, number: int, instruction: int) -> bytes:
    """The part of a file name that says which copy this is: seconds of the message's birth, the queue's incarnation
    (hex) and id of the message, number of the recipient, number of the dot-qmail instruction."""
    return b"%d.%sQ%dR%dI%d" % (born, incarnation, message, number, instruction)


def deliver(copies: Sequence[Copy], host: bytes) -> list[Failure | None]:
    """Deliver `copies`; None for each one that is durable in its Maildir, else why it is not. Trouble in one Maildir
    does not touch the others; a failed sync of a file system fails everything that was written there with it."""
    results: list[Failure | None] = []
    for start in range(0, len(copies), AT_ONCE):
        with closing(_Batch(copies[start : start + AT_ONCE], host)) as batch:
            batch.write()
            batch.sync()
            batch.publish()
            results += batch.results
    return results


def make(directory: str | bytes) -> None:
    """Make a Maildir (mode 0700), durably, or complete one that is half made. Raises OSError."""
    path = os.fsencode(directory)
    for part in (path, *(os.path.join(path, name) for name in (b"tmp", b"new", b"cur"))):
        try:
            os.mkdir(part, 0o700)
        except FileExistsError:
            if not os.path.isdir(part):
                raise
    for part in (path, os.path.dirname(path.rstrip(b"/")) or b"."):
        opened = os.open(part, _DIRECTORY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


class _Staged(NamedTuple):
    """A copy that is whole in tmp/ under `temporary`; `tail` is what its name in new/ has after the stem."""

    number: int
    copy: Copy
    maildir: _Maildir
    temporary: bytes
    tail: bytes


class _Batch:
    """The Maildirs that one call of `deliver` has open, and how far each copy has come."""

    def __init__(self, copies: Sequence[Copy], host: bytes) -> None:
        self.results: list[Failure | None] = [None] * len(copies)
        self._copies = copies
        self._host = _escaped(host)
        self._one_by_one = len(copies) == 1 or not can_sync_file_system()
        # An owner role that was given up for dead may be at the same copy still: names in tmp/ are ours alone.
        self._token = os.urandom(8).hex().encode()
        self._maildirs: dict[bytes, _Maildir | Failure] = {}
        self._staged: list[_Staged] = []
        self._changed: dict[_Maildir, list[int]] = {}

    def close(self) -> None:
        for maildir in self._maildirs.values():
            if isinstance(maildir, _Maildir):
                maildir.close()

    def write(self) -> None:
        """Every copy that is not there yet into its tmp/."""
        for index, copy in enumerate(self._copies):
            try:
                maildir = self._open(copy.directory)
                if copy.again and maildir.holds(copy):
                    self._changed.setdefault(maildir, []).append(index)
                else:
                    self._stage(index, copy, maildir)
            except Failure as failure:
                self.results[index] = failure
            except OSError as problem:
                self.results[index] = _trouble(problem)

    def sync(self) -> None:
        """What was written onto the disk, file system by file system; what could not be is given up."""
        if self._one_by_one:
            return
        # The first descriptor on a file system is older than all we wrote there: no error of ours escapes its sync.
        first: dict[int, int] = {}
        for staged in self._staged:
            first.setdefault(staged.maildir.device, staged.maildir.tmp)
        for device, descriptor in first.items():
            try:
                sync_file_system(descriptor)
            except OSError as problem:
                self._give_up(device, _trouble(problem))

    def _give_up(self, device: int, failure: Failure) -> None:
        kept = []
        for staged in self._staged:
            if staged.maildir.device == device:
                self.results[staged.number] = failure
                staged.maildir.discard(staged.temporary)
            else:
                kept.append(staged)
        self._staged = kept

    def publish(self) -> None:
        """Renames into new/, and new/ onto the disk: from here on the copies are delivered."""
        for staged in self._staged:
            try:
                staged.maildir.publish(staged)
            except OSError as problem:
                self.results[staged.number] = _trouble(problem)
                staged.maildir.discard(staged.temporary)
            else:
                self._changed.setdefault(staged.maildir, []).append(staged.number)
        together: dict[int, list[_Maildir]] = {}
        for maildir in self._changed:
            together.setdefault(maildir.device, []).append(maildir)
        for maildirs in together.values():
            if len(maildirs) > FEW and can_sync_file_system():
                self._settle(maildirs, partial(sync_file_system, maildirs[0].tmp))
            else:
                for maildir in maildirs:
                    self._settle([maildir], maildir.sync)

    def _settle(self, maildirs: Sequence[_Maildir], sync: Callable[[], None]) -> None:
        try:
            sync()
        except OSError as problem:
            for maildir in maildirs:
                for index in self._changed[maildir]:
                    self.results[index] = _trouble(problem)

    def _open(self, directory: bytes) -> _Maildir:
        maildir = self._maildirs.get(directory)
        if maildir is None:
            try:
                maildir = _Maildir(directory)
            except Failure as failure:
                maildir = failure
            self._maildirs[directory] = maildir
        if isinstance(maildir, Failure):
            raise maildir
        return maildir

    def _stage(self, index: int, copy: Copy, maildir: _Maildir) -> None:
        temporary = b"%s.%d.%s" % (copy.stem, index, self._token)
        counted = maildir.write(temporary, copy, fsync=self._one_by_one)
        tail = _tail(copy.stem, self._host, len(copy.head) + copy.size, counted)
        self._staged.append(_Staged(index, copy, maildir, temporary, tail))


class _Maildir:
    """An open Maildir."""

    def __init__(self, directory: bytes) -> None:
        try:
            top = os.open(directory, _DIRECTORY)
        except OSError as problem:
            raise MaildirTrouble("Unable to chdir to maildir. (#4.2.1)", Status(4, 2, 1)) from problem
        opened: list[int] = []
        try:
            for name in (b"tmp", b"new"):
                opened.append(os.open(name, _DIRECTORY, dir_fd=top))
            self.tmp, self.new = opened
            self.device = os.fstat(self.tmp).st_dev
        except OSError as problem:
            for descriptor in opened:
                os.close(descriptor)
            os.close(top)
            raise _trouble(problem) from problem
        self._top = top
        self._cur: int | None = None
        self._known: dict[str, list[tuple[int, str]]] | None = None

    def close(self) -> None:
        for descriptor in (self.tmp, self.new, self._top, self._cur):
            if descriptor is not None:
                os.close(descriptor)

    def write(self, name: bytes, copy: Copy, *, fsync: bool) -> int:
        """Write `copy` into tmp/; its octets with CRLF line ends. Raises OSError, MaildirTrouble; then it is gone."""
        descriptor = os.open(name, _CREATE, 0o600, dir_fd=self.tmp)
        try:
            try:
                counted = _write(descriptor, copy)
                if fsync:
                    os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except (OSError, Failure):
            self.discard(name)
            raise
        return counted

    def discard(self, name: bytes) -> None:
        """Remove a file from tmp/, if it can be: what stays there is swept away after 36 hours."""
        with suppress(OSError):
            os.unlink(name, dir_fd=self.tmp)

    def publish(self, staged: _Staged) -> None:
        """Move a file from tmp/ to new/, replacing nothing. A name that is taken is either this copy itself, or was
        changed by somebody since: then ours gets a name beside it. Raises OSError."""
        copy = staged.copy
        for again in (b"", b"C2", b"C3", b"C4"):
            name = copy.stem + again + staged.tail
            try:
                rename_without_replacing(self.tmp, staged.temporary, self.new, name)
            except FileExistsError:
                if _is_copy(self.new, os.fsdecode(name), copy):
                    return self.discard(staged.temporary)
            else:
                return None
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))

    def sync(self) -> None:
        """The directories onto the disk: new/, and cur/ when a copy was found there. Raises OSError."""
        os.fsync(self.new)
        if self._cur is not None:
            os.fsync(self._cur)

    def holds(self, copy: Copy) -> bool:
        """Whether `copy` is in new/ or cur/, whatever flags it has got. Raises OSError."""
        for _ in range(3):
            vanished = False
            if self._known is None:
                self._known = self._scan()
            for directory, name in self._known.get(copy.stem.decode(), ()):
                try:
                    if _is_copy(directory, name, copy):
                        return True
                except FileNotFoundError:
                    vanished = True  # a reader has just set a flag, which is a rename
            if not vanished:
                return False
            self._known = None
        return False

    def _scan(self) -> dict[str, list[tuple[int, str]]]:
        """Our own names by their stem. new/ first: readers move from there to cur/. Renames in cur/ while we read it
        can hide a name, so a directory that changed under us is read again."""
        if self._cur is None:
            try:
                self._cur = os.open(b"cur", _DIRECTORY, dir_fd=self._top)
            except FileNotFoundError:
                return _stems(self.new)
        for _ in range(3):
            before = os.fstat(self._cur).st_mtime_ns
            known = _stems(self.new, self._cur)
            if os.fstat(self._cur).st_mtime_ns == before:
                break
        return known


def _stems(*directories: int) -> dict[str, list[tuple[int, str]]]:
    known: dict[str, list[tuple[int, str]]] = {}
    for directory in directories:
        for name in os.listdir(directory):
            if ours := _OURS.match(name):
                known.setdefault(ours[1], []).append((directory, name))
    return known


def _write(descriptor: int, copy: Copy) -> int:
    """The whole copy; its octets with CRLF line ends."""
    head, content = copy.head, copy.content
    if isinstance(content, int):
        return octets(_copied(descriptor, copy, content))
    if len(content) != copy.size:
        raise MaildirTrouble(_UNREADABLE)
    written = os.writev(descriptor, (head, content))
    if written != len(head) + len(content):
        _write_all(descriptor, (head + content)[written:])
    return octets((head, content))


def _copied(target: int, copy: Copy, source: int) -> Iterator[bytes]:
    """Every block of the copy, each one after it was written. Raises OSError, MaildirTrouble."""
    _write_all(target, copy.head)
    yield copy.head
    offset = 0
    while block := _read(source, offset):
        _write_all(target, block)
        yield block
        offset += len(block)
    if offset != copy.size:
        raise MaildirTrouble(_UNREADABLE)


def _read(source: int, offset: int) -> bytes:
    try:
        return os.pread(source, BLOCK, offset)
    except OSError as problem:
        raise MaildirTrouble(_UNREADABLE) from problem


def _write_all(descriptor: int, octets: bytes) -> None:
    """write(2) may stop short of the end, on a disk that is about to be full."""
    view = memoryview(octets)
    while view:
        view = view[os.write(descriptor, view) :]


def _is_copy(directory: int, name: str, copy: Copy) -> bool:
    """Whether the file `name` is `copy`, octet for octet. Raises OSError, FileNotFoundError when it is gone."""
    opened = os.open(name, _READ, dir_fd=directory)
    try:
        found = os.fstat(opened)
        if not stat.S_ISREG(found.st_mode) or found.st_size != len(copy.head) + copy.size:
            return False
        if os.pread(opened, len(copy.head), 0) != copy.head:
            return False
        return _same_content(opened, len(copy.head), copy.content)
    finally:
        os.close(opened)


def _same_content(opened: int, offset: int, content: bytes | int) -> bool:
    at = 0
    while True:
        block = os.pread(opened, BLOCK, offset + at)
        expected = _read(content, at) if isinstance(content, int) else content[at : at + BLOCK]
        if block != expected:
            return False
        if not block:
            return True
        at += len(block)


@lru_cache(maxsize=16)
def _escaped(host: bytes) -> bytes:
    """`host` so that it can stand in a file name and a unique id: qmail's convention (\\057 for a slash, \\072 for a
    colon) for everything else that must not."""
    return _UNSAFE.sub(lambda found: b"\\%03o" % found[0][0], host)


def _tail(stem: bytes, host: bytes, size: int, counted: int) -> bytes:
    """`.HOST,S=<octets in the file>,W=<octets with CRLF line ends>` (Dovecot's convention), the host cut to fit."""
    sizes = b",S=%d,W=%d" % (size, counted)
    room = NAME_LIMIT - len(stem) - len(sizes) - 3  # a dot, and C2 where it is needed
    return b".%s%s" % (host[:room], sizes) if room > 0 else sizes


def _trouble(problem: OSError) -> MaildirTrouble:
    status = mailbox_status(problem)
    reason = os.strerror(problem.errno) if problem.errno else "unknown"
    return MaildirTrouble(f"Temporary error on maildir delivery: {reason}. (#{status})", status)
