"""The system's password database, with one rule more than getpwnam: trouble is not absence.

Python's pwd module says KeyError for both. Were LDAP down, mail to every user there would bounce; getpwnam_r tells
"no such user" from "cannot say", so it is called itself, where its structure is known: on Linux (glibc and musl).
"""

from __future__ import annotations

import ctypes
import errno
import os
import pwd
import sys
from dataclasses import dataclass

from pillarbox.status import Failure

_LONGEST_NAME = 255
_BUFFER = 1 << 15  # octets for one entry's strings
_LIBC = ctypes.CDLL(None)
# getpwnam_r may say "not found" in several ways. These alone mean trouble (qmail's error_temp, where it applies).
_TROUBLE = frozenset(
    {errno.EINTR, errno.ENOMEM, errno.EIO, errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ETIMEDOUT, errno.EBUSY}
    | {errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED, errno.ENETDOWN, errno.ENETUNREACH}
    | {errno.EHOSTUNREACH, errno.ESTALE, errno.ERANGE}
)


class CannotSay(Failure):
    """The password database does not answer: temporary."""


@dataclass(frozen=True, slots=True)
class SystemUser:
    """An entry of the password database."""

    name: bytes
    uid: int
    gid: int
    home: bytes
    shell: bytes = b""


class _Passwd(ctypes.Structure):
    """struct passwd of Linux's C libraries."""

    _fields_ = (
        ("pw_name", ctypes.c_char_p),
        ("pw_passwd", ctypes.c_char_p),
        ("pw_uid", ctypes.c_uint32),
        ("pw_gid", ctypes.c_uint32),
        ("pw_gecos", ctypes.c_char_p),
        ("pw_dir", ctypes.c_char_p),
        ("pw_shell", ctypes.c_char_p),
    )


def find(name: bytes) -> SystemUser | None:
    """The user of exactly this name, or None. Raises CannotSay."""
    if not name or len(name) > _LONGEST_NAME or b"\0" in name:
        return None
    return _ask(name) if sys.platform == "linux" else _ask_python(name)


def _ask(name: bytes) -> SystemUser | None:
    entry, found = _Passwd(), ctypes.c_void_p()
    strings = ctypes.create_string_buffer(_BUFFER)
    trouble = _getpwnam_r(name, entry, strings, found)
    if found:
        return SystemUser(name, entry.pw_uid, entry.pw_gid, entry.pw_dir or b"", entry.pw_shell or b"")
    if trouble in _TROUBLE:
        raise CannotSay(f"cannot look up users: {os.strerror(trouble)}")
    return None


def _getpwnam_r(name: bytes, entry: _Passwd, strings: ctypes.Array[ctypes.c_char], found: ctypes.c_void_p) -> int:
    """The C function; 0 or an errno."""
    size = ctypes.c_size_t(len(strings))
    return int(_LIBC.getpwnam_r(name, ctypes.byref(entry), strings, size, ctypes.byref(found)))


def _ask_python(name: bytes) -> SystemUser | None:
    try:
        entry = pwd.getpwnam(os.fsdecode(name))
    except KeyError:
        return None
    return SystemUser(name, entry.pw_uid, entry.pw_gid, os.fsencode(entry.pw_dir), os.fsencode(entry.pw_shell))
