"""Whose is joe-foo-bar? Of the users of the system it is the first of joe-foo-bar, joe-foo, joe (maildirpop3d). Small
programs ask here; users.owner knows users/cdb and alias too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from pillarbox.users import system
from pillarbox.users.system import SystemUser

BREAK = b"-"
LONGEST = 1000
"""Octets of a local part or login name that anybody looks for."""
_LONGEST_USER = 31  # qmail-getpw: GETPW_USERLEN


class FirstUser(NamedTuple):
    """The user whom a login name begins with, and the rest: joe, -, lists. Without a rest both are empty."""

    user: SystemUser
    dash: bytes
    ext: bytes


def first_user(login: bytes) -> FirstUser | None:
    """The first of joe-foo-bar, joe-foo, joe that is a user of the system, in any case of letters; he is final, root
    and users without a home too. Raises CannotSay."""
    if len(login) > LONGEST or b"\0" in login:
        return None
    for name, dash, ext in splits(login):
        entry = system.find(name)
        if entry is not None:
            return FirstUser(entry, dash, ext)
    return None


def splits(local: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """(user name in lower case, dash, extension) for every way to cut at a dash, the longest name first."""
    name = local.lower()
    end = len(name)
    while end > 0:
        if end <= _LONGEST_USER:
            cut = end < len(name)
            yield name[:end], BREAK if cut else b"", local[end + 1 :] if cut else b""
        end = name.rfind(BREAK, 0, end)
