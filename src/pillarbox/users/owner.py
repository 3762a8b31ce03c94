"""Whose is this local part? The one resolver: qmail-lspawn's users/cdb, then qmail-getpw's rule, then alias.

Owner is not mailbox: `joe-lists` is owner joe, extension lists. Two named rules: for delivery the longest existing
user with a good home, else alias; for a login the first existing user decides.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pillarbox.status import Failure
from pillarbox.users import cdb, system
from pillarbox.users.first import BREAK, LONGEST, first_user, splits

if TYPE_CHECKING:  # the table of all control files comes with it, and small programs ask here too
    from pillarbox.users.roles import User

ALIAS = b"alias"
_LONGEST_NAME = 255
_CACHED = 4096


Owned = Callable[[bytes, int], bool]
Listed = Callable[[bytes, bytes], bool]


class CannotResolve(Failure):
    """users/cdb, a home or alias/ cannot be read just now: temporary."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Who a delivery runs as, and which part of the local part is his extension: qmail-local's arguments."""

    user: bytes
    uid: int
    gid: int
    home: bytes
    dash: bytes
    ext: bytes


class _Assignments:
    """users/cdb, with the answers of the present table remembered."""

    def __init__(self, file: Path) -> None:
        self._reader = cdb.Reader(file)
        self._table: cdb.Lookup | None = None
        self._ends = b""
        self._found: dict[bytes, Owner | None] = {}

    def find(self, local: bytes) -> Owner | None:
        """The owner that users/cdb names for a local part, in whatever case. Raises CannotResolve."""
        try:
            table = self._reader.current()
            if table is not self._table:
                self._take(table)
            if table is None or local in self._found:
                return self._found.get(local)
            owner = self._look_up(table, local)
        except OSError as problem:
            raise CannotResolve(f"cannot read users/cdb: {problem.strerror or problem}") from None
        if len(self._found) >= _CACHED:
            self._found.clear()
        self._found[local] = owner
        return owner

    def _take(self, table: cdb.Lookup | None) -> None:
        self._table = None
        self._found.clear()
        ends = table.get(b"") if table is not None else b""
        if ends is None:
            raise CannotResolve("users/cdb has no wildcard record; rebuild it with qmail-newu")
        self._table, self._ends = table, ends

    def _look_up(self, table: cdb.Lookup, local: bytes) -> Owner | None:
        name = local.lower()
        record = table.get(b"!" + name + b"\0")
        if record is not None:
            return _owner(record)
        for end in range(len(name), -1, -1):
            if end and name[end - 1] not in self._ends:
                continue
            record = table.get(b"!" + name[:end])
            if record is not None:
                return _owner(record, local[end:])
        return None


class Owners:
    """The resolver over one home (DIR of `serve`). `alias` is whose DIR/alias is (users.roles; default: the system user
    of that name, without one whoever we are). `owned` says whether a directory exists and is this uid's; it may raise
    CannotResolve. `listed` says whether the alias table has a local part at a domain. Methods block on files and the
    password database."""

    def __init__(
        self, home: Path, *, alias: User | None = None, owned: Owned | None = None, listed: Listed | None = None
    ) -> None:
        self._alias_home = os.fsencode(home / "alias")
        self._alias_user = alias
        self.alias = ALIAS if alias is None else alias.name.encode()
        self._owned = _owned if owned is None else owned
        self._listed = listed
        self._assignments = _Assignments(home / "users" / "cdb")

    def for_delivery(self, local: bytes) -> Owner:
        """Who gets mail for a local part (any case); in the last resort alias. Raises Failure (4.3.0)."""
        if len(local) > LONGEST or b"\0" in local:
            return self._alias_for(local)
        return self._assignments.find(local) or self._from_passwd(local) or self._alias_for(local)

    def for_login(self, local: bytes) -> Owner | None:
        """Whose mailbox a login name means: the first existing user of joe-foo-bar, joe-foo, joe is final, whatever
        becomes of the rest (maildirpop3d). None when there is no such user; never alias, never root. Raises Failure."""
        if len(local) > LONGEST or b"\0" in local:
            return None
        assigned = self._assignments.find(local)
        if assigned is not None and assigned.user != self.alias:
            return assigned if assigned.uid else None
        found = first_user(local)
        if found is None or found.user.uid == 0 or found.user.name == self.alias:
            return None
        return Owner(found.user.name, found.user.uid, found.user.gid, found.user.home, found.dash, found.ext)

    def known(self, local: bytes, domain: bytes = b"") -> bool:
        """Is there an owner for mail to this local part, alias counting only where the alias table or alias/ catches
        it? An extension of a user is taken without a look into his home, as qmail does. Raises Failure (4.3.x)."""
        owner = self.for_delivery(local)
        if owner.user != self.alias:
            return True
        return (self._listed is not None and self._listed(owner.ext, domain)) or _catches(owner)

    def _from_passwd(self, local: bytes) -> Owner | None:
        """qmail-getpw: the longest user name followed by the end or a dash, not root, whose home exists and is his."""
        for name, dash, ext in splits(local):
            entry = system.find(name)
            if entry is None or entry.uid == 0:
                continue
            home = self._alias_home if name == self.alias else entry.home
            if self._owned(home, entry.uid):
                return Owner(name, entry.uid, entry.gid, home, dash, ext)
        return None

    def _alias_for(self, local: bytes) -> Owner:
        """His directory is this home's, whatever home passwd has for him: a machine may have several servers."""
        user = self._alias_user or system.find(self.alias)
        uid, gid = (os.geteuid(), os.getegid()) if user is None else (user.uid, user.gid)
        return Owner(self.alias, uid, gid, self._alias_home, BREAK, local)


def _owned(home: bytes, uid: int) -> bool:
    try:
        return os.stat(home).st_uid == uid
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return False
    except OSError as problem:
        raise CannotResolve(f"cannot look at a home directory: {problem.strerror}") from None


def dotqmail_names(dash: bytes, ext: bytes) -> Iterator[bytes]:
    """The names a dot-qmail file may have for an extension, in dot-qmail(5)'s order: for a.b-c these are .qmail-a:b-c,
    .qmail-a:b-default, .qmail-default. They may be too long for a file name or hold a slash."""
    safe = ext.lower().replace(b".", b":")
    prefix = b".qmail" + dash
    yield prefix + safe
    end = len(safe)
    while end >= 0:
        cut = safe.rfind(BREAK, 0, end) + 1
        yield prefix + safe[:cut] + b"default"
        end = cut - 1


def _catches(owner: Owner) -> bool:
    """Whether alias has a dot-qmail file for the address. A file nobody may read counts: delivery will say so."""
    if not owner.dash:
        return True
    for name in dotqmail_names(owner.dash, owner.ext):
        possible = len(name) <= _LONGEST_NAME and b"/" not in name and b"\0" not in name
        if possible and _regular(owner.home + b"/" + name):
            return True
    return False


def _regular(file: bytes) -> bool:
    try:
        return stat.S_ISREG(os.stat(file).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as problem:
        raise CannotResolve(f"cannot look into the alias directory: {problem.strerror}") from None


def _owner(record: bytes, rest: bytes = b"") -> Owner:
    """An owner from the data in users/cdb; `rest` is what a wildcard left of the local part."""
    parts = record.split(b"\0")
    if len(parts) < 7 or not (parts[1].isdigit() and parts[2].isdigit()):
        raise CannotResolve("users/cdb holds a damaged record; rebuild it with qmail-newu")
    return Owner(parts[0], int(parts[1]), int(parts[2]), parts[3], parts[4], parts[5] + rest)
