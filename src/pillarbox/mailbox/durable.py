"""What Linux can do for a mailbox and Python's os module cannot: syncfs(2), and renames that never replace or that
exchange.

`rename_without_replacing` takes names relative to open directories, so a directory that is moved or replaced meanwhile
changes nothing.
"""

from __future__ import annotations

import ctypes
import errno
import os
from functools import cache

_LIBC = ctypes.CDLL(None, use_errno=True)
_RENAME_NOREPLACE, _RENAME_EXCHANGE = 1, 2  # linux/fs.h
_AT_FDCWD = -100  # linux/fcntl.h
_CANNOT = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP})  # what file systems without the flag answer


@cache
def can_sync_file_system() -> bool:
    """Whether `sync_file_system` tells the truth: since Linux 5.8. Before, syncfs(2) was silent about a write-back that
    had failed; there every file needs an fsync of its own."""
    release = [int(part) if part.isdecimal() else 0 for part in os.uname().release.split(".")[:2]]
    return hasattr(_LIBC, "syncfs") and release >= [5, 8]


def sync_file_system(descriptor: int) -> None:
    """Bring everything written to the file system of `descriptor` onto the disk. The descriptor must have been opened
    before the writes that count: an error older than it is not reported. Raises OSError."""
    if _LIBC.syncfs(descriptor) != 0:
        raise _last_error()


def rename_without_replacing(source: int, name: bytes, target: int, new_name: bytes) -> None:
    """Move `name` of directory `source` to `new_name` of directory `target`. Raises FileExistsError when that is taken,
    OSError otherwise."""
    if _renameat2 is not None:
        if _renameat2(source, name, target, new_name, _RENAME_NOREPLACE) == 0:
            return
        problem = _last_error(new_name)
        if problem.errno not in _CANNOT:
            raise problem
    os.link(name, new_name, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
    os.unlink(name, dir_fd=source)


def exchange(one: str, other: str) -> bool:
    """Give each of two things, which are there, the other's name at once. False: that is not possible there. Raises
    OSError."""
    if _renameat2 is None:
        return False
    if _renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    problem = _last_error(os.fsencode(other))
    if problem.errno not in _CANNOT:
        raise problem
    return False


def _last_error(name: bytes | None = None) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), name)


_renameat2 = getattr(_LIBC, "renameat2", None)  # glibc 2.28, musl 1.2.4
