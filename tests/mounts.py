"""A file system whose server never answers, as NFS homes are when their server is down."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_LIBC = ctypes.CDLL(None, use_errno=True)
_MNT_DETACH = 2


@contextmanager
def dead_mount(place: Path) -> Iterator[Path]:
    """Mounted at `place`, which is made: every question there waits until the end, for nobody reads what the kernel
    asks; then they all fail."""
    if os.getuid() != 0 or not os.path.exists("/dev/fuse"):
        pytest.skip("only root can mount, and /dev/fuse is needed")
    place.mkdir()
    server = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={server},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
    if _LIBC.mount(b"pillarbox-test", os.fsencode(place), b"fuse", 0, options) != 0:
        os.close(server)
        pytest.skip(f"cannot mount: {os.strerror(ctypes.get_errno())}")
    try:
        yield place
    finally:
        os.close(server)
        _LIBC.umount2(os.fsencode(place), _MNT_DETACH)
