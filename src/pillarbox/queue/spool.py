"""Bodies too large for the database: one file each under queue/spool/, named at random before anybody knows the id.

A file is written in blocks as they arrive, made durable with its name by `sync`, and only then named by a commit. Until
that commit it belongs to nobody: a crash leaves it behind, and the next start sweeps it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
from collections.abc import Callable
from pathlib import Path

from pillarbox.queue.engine import BodyGone, QueueFull
from pillarbox.status import Failure, SystemTrouble

SPARE = 8 << 20  # octets of the disk that new mail must leave, so that the queue can always finish what it has

AHEAD = 1 << 20  # octets after which the kernel is asked to begin writing, so that `sync` does not stop everybody

FULL = "the queue's disk is full"

_NAME = re.compile(r"[0-9a-f]{32}")
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC

# Linux has it, others need not. sync_file_range(2): start write-out of what is dirty in this range.
_sync_file_range = getattr(ctypes.CDLL(None), "sync_file_range", None)
_RANGE_WRITE = 2
if _sync_file_range is not None:
    _sync_file_range.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable. Raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directory(directory: Path) -> None:
    """Make a directory of ours durably, 0700: nobody else may read mail. Harmless when it is there. Raises OSError."""
    try:
        os.mkdir(directory, 0o700)
    except FileExistsError:
        pass
    else:
        give_to_owner(directory)
        sync_directory(directory.parent)
    if os.stat(directory).st_mode & 0o077:
        os.chmod(directory, 0o700)


def room(directory: Path) -> int:
    """Octets of its disk which new mail may take. Raises SystemTrouble."""
    try:
        disk = os.statvfs(directory)
    except OSError as problem:
        raise SystemTrouble.of(problem) from problem
    if not disk.f_blocks:  # a file system that does not say
        return SPARE
    return disk.f_bavail * disk.f_frsize - SPARE


def give_to_owner(made: Path) -> None:
    """What root makes (`pillarbox queue` with the server down) belongs to whom the directory around it belongs: the
    role must be able to use it. Raises OSError."""
    if os.geteuid() == 0:
        around = os.stat(made.parent)
        os.chown(made, around.st_uid, around.st_gid)


class SpoolFile:
    """A body on its way in. `size` counts octets. After a failure nothing of it is left."""

    __slots__ = ("_descriptor", "_directory", "name", "size")

    def __init__(self, directory: Path) -> None:
        """Raises QueueFull or SystemTrouble."""
        self.name = os.urandom(16).hex()
        self.size = 0
        self._directory = directory
        self._descriptor = -1
        try:
            self._descriptor = os.open(directory / self.name, _NEW, 0o600)
        except OSError as problem:
            raise _trouble(problem) from problem

    def write(self, block: bytes | bytearray | memoryview) -> None:
        """Append one block. Raises QueueFull or SystemTrouble; the file is gone then."""
        try:
            if room(self._directory) < len(block):
                raise QueueFull(FULL)
            written = os.write(self._descriptor, block)
            while written < len(block):
                written += os.write(self._descriptor, memoryview(block)[written:])
        except Failure:
            self.discard()
            raise
        except OSError as problem:
            self.discard()
            raise _trouble(problem) from problem
        before, self.size = self.size, self.size + len(block)
        if self.size // AHEAD > before // AHEAD:
            _write_ahead(self._descriptor, before - before % AHEAD, self.size)

    def sync(self) -> None:
        """Make content and name durable and close. Raises QueueFull or SystemTrouble; the file is gone then."""
        try:
            os.fsync(self._descriptor)
            self._close()
            sync_directory(self._directory)
        except OSError as problem:
            self.discard()
            raise _trouble(problem) from problem

    def discard(self) -> None:
        """Close and remove. Harmless twice."""
        self._close()
        remove(self._directory, self.name)

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def open_file(directory: Path, name: str) -> int:
    """A read-only descriptor, the caller's to close. Raises BodyGone, SystemTrouble."""
    try:
        return os.open(directory / name, _READ)
    except FileNotFoundError as problem:
        raise BodyGone(f"queue/spool/{name}: the message's body is gone") from problem
    except OSError as problem:
        raise SystemTrouble.of(problem) from problem


def remove(directory: Path, name: str) -> None:
    """Remove a file that no message names any more. What cannot be removed now is swept at the next start: by then
    the commit has happened, and nobody is left to tell."""
    try:
        os.unlink(directory / name)
    except OSError:
        return


def sweep(directory: Path, named: Callable[[str], bool]) -> int:
    """Remove the leftovers of a crash: files with names of ours that no message names. Returns how many. Foreign files
    stay. Raises OSError."""
    with os.scandir(directory) as entries:
        leftovers = [entry.name for entry in entries if _NAME.fullmatch(entry.name) and not named(entry.name)]
    for name in leftovers:
        remove(directory, name)
    return len(leftovers)


def _write_ahead(descriptor: int, start: int, end: int) -> None:
    """Let the kernel begin to write, without waiting. Nothing depends on it: `sync` waits, and hears of errors."""
    if _sync_file_range is not None:
        _sync_file_range(descriptor, start, end - start, _RANGE_WRITE)


def _trouble(problem: OSError) -> Failure:
    if problem.errno in (errno.ENOSPC, errno.EDQUOT):
        return QueueFull(FULL)
    return SystemTrouble.of(problem)
