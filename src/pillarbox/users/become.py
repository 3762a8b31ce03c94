"""To become another user for good. Every switch of user goes through here: the roles of `serve`, checkpassword,
maildirpop3d."""

from __future__ import annotations

import ctypes
import os
import struct
from typing import NamedTuple

CAPABILITY_VERSION = 0x20080522  # _LINUX_CAPABILITY_VERSION_3, capget(2)

_libc = ctypes.CDLL(None, use_errno=True)


class Ids(NamedTuple):
    """Whom a process runs as."""

    uid: int
    gid: int


def become(user: Ids) -> None:
    """Be this user for good: no supplementary groups, no capabilities, no way back. Raises OSError."""
    os.setgroups([])
    os.setresgid(user.gid, user.gid, user.gid)
    os.setresuid(user.uid, user.uid, user.uid)
    if user.uid == 0:
        return
    _drop_capabilities()
    try:
        os.setuid(0)
    except PermissionError:
        return
    raise OSError("could become root again")


def give_up() -> None:
    """Be the caller alone again, for good: a set-uid program's rights are gone. Raises OSError."""
    os.setresgid(*[os.getgid()] * 3)
    os.setresuid(*[os.getuid()] * 3)


def gained() -> bool:
    """Whether we have rights that our caller has not: a set-uid or set-gid program has."""
    return os.getuid() != os.geteuid() or os.getgid() != os.getegid()


def _drop_capabilities() -> None:
    """Permitted and effective ones went with uid 0; inheritable ones, which a program would get back, did not."""
    header = struct.pack("=Ii", CAPABILITY_VERSION, 0)
    if _libc.capset(header, bytes(24)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
