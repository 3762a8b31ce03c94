"""The system's password database, with one rule more than getpwnam: trouble is not absence.

Python's pwd module says KeyError for both. Were LDAP down, mail to every user would bounce; so a name not found is
asked again through getpwnam_r, whose result tells "no such user" from "cannot say".
"""

from __future__ import annotations

import ctypes
import errno
import os
import pwd

from pillarbox.status import Failure

_LONGEST_NAME = 255
_BUFFER = 1 << 16
_LIBC = ctypes.CDLL(None, use_errno=True)
# getpwnam_r may say "not found" in several ways. These alone mean trouble (qmail's error_temp, where it applies).
_TROUBLE = frozenset(
    {errno.EINTR, errno.ENOMEM, errno.EIO, errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ETIMEDOUT, errno.EBUSY}
    | {errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED, errno.ENETDOWN, errno.ENETUNREACH}
    | {errno.EHOSTUNREACH, errno.ESTALE}
)


class CannotSay(Failure):
    """The password database does not answer: temporary."""


def find(name: bytes) -> pwd.struct_passwd | None:
    """The user of exactly this name, or None. Raises CannotSay."""
    if not name or len(name) > _LONGEST_NAME or b"\0" in name:
        return None
    try:
        return pwd.getpwnam(os.fsdecode(name))
    except KeyError:
        trouble = _errno_of_lookup(name)
        if trouble in _TROUBLE:
            raise CannotSay(f"cannot look up users: {os.strerror(trouble)}") from None
        return None


def _errno_of_lookup(name: bytes) -> int:
    entry = ctypes.create_string_buffer(512)  # struct passwd, never looked into: larger than any system's
    strings = ctypes.create_string_buffer(_BUFFER)
    found = ctypes.c_void_p()
    return int(_LIBC.getpwnam_r(name, entry, strings, ctypes.c_size_t(_BUFFER), ctypes.byref(found)))
