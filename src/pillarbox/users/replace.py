"""Replace a file so that readers and a crash see the old one or the new one: write beside, sync, rename, sync.

The new file keeps owner and mode of the old one. The temporary name is fixed: what a crash left behind is taken away,
and two writers at once, who hold no lock, cannot both succeed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# Never an existing file: behind its name could be a link to a file that only root may write.
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def writing(target: Path, *, mode: int, gid: int | None = None) -> Iterator[int]:
    """A descriptor to write the new content of `target` to. `mode` and `gid` are for a target that does not exist yet.
    Raises OSError; then the target is as it was."""
    beside = target.with_name(target.name + ".tmp")
    with suppress(FileNotFoundError):
        os.unlink(beside)
    descriptor = os.open(beside, _NEW, 0o600)
    try:
        _take_over(descriptor, target, mode, gid)
        yield descriptor
        os.fsync(descriptor)
        os.rename(beside, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(beside)
        raise
    finally:
        os.close(descriptor)
    sync_directory(target.parent)


def file(target: Path, content: bytes, *, mode: int, gid: int | None = None) -> None:
    """Replace `target` by `content`. Raises OSError."""
    with writing(target, mode=mode, gid=gid) as descriptor:
        write_all(descriptor, content)


def write_all(descriptor: int, content: bytes) -> None:
    """Write everything: write(2) may take less than it is given. Raises OSError."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable. Raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _take_over(descriptor: int, target: Path, mode: int, gid: int | None) -> None:
    try:
        old = os.stat(target)
    except FileNotFoundError:
        if gid is not None and gid != os.getegid():
            os.fchown(descriptor, -1, gid)
        os.fchmod(descriptor, mode)
        return
    if (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid()):
        with suppress(PermissionError):
            os.fchown(descriptor, old.st_uid, old.st_gid)
    os.fchmod(descriptor, old.st_mode & 0o7777)
