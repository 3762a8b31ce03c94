"""users/assign and its compiled form users/cdb: qmail-users(5), qmail-newu(8).

The rule that must stay true: users/cdb is replaced by rename after it is on disk, so a reader sees the old table or
the new one, never a part.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pillarbox.status import Failure
from pillarbox.users import cdb, replace

_FIELDS = 6
_FINAL = b"."


class BadAssign(Failure):
    """users/assign breaks its format: nothing was changed. `line` counts from 1, None for the missing last line."""

    def __init__(self, line: int | None) -> None:
        super().__init__("bad format in users/assign")
        self.line = line


@dataclass(frozen=True, slots=True)
class Assignment:
    """One line. `key` is b"=joe" (exactly joe) or b"+joe-" (whatever begins so), as written."""

    key: bytes
    user: bytes
    uid: bytes
    gid: bytes
    home: bytes
    dash: bytes = b""
    ext: bytes = b""

    def line(self) -> bytes:
        """The line as qmail-newu reads it, with LF."""
        return b":".join((self.key, self.user, self.uid, self.gid, self.home, self.dash, self.ext)) + b":\n"

    def record(self) -> tuple[bytes, bytes]:
        """Key and data in users/cdb."""
        name = self.key[1:].lower()
        key = b"!" + name + (b"\0" if self.key.startswith(b"=") else b"")
        return key, b"\0".join((self.user, self.uid, self.gid, self.home, self.dash, self.ext)) + b"\0"


def parse(text: bytes) -> tuple[Assignment, ...]:
    """The assignments of a users/assign file in order, up to the line that begins with a dot. Raises BadAssign."""
    found: list[Assignment] = []
    for number, line in enumerate(text.removesuffix(b"\n").split(b"\n") if text else (), 1):
        if line.startswith(_FINAL):
            return tuple(found)
        found.append(_assignment(line, number))
    raise BadAssign(None)


def _assignment(line: bytes, number: int) -> Assignment:
    key, *parts = line.split(b":", _FIELDS + 1)
    if not key or len(parts) < _FIELDS + 1 or b"\0" in line:
        raise BadAssign(number)
    return Assignment(key, *parts[:_FIELDS])


def lines(assignments: Iterable[Assignment]) -> bytes:
    """A whole users/assign file."""
    return b"".join(assignment.line() for assignment in assignments) + _FINAL + b"\n"


def read(users: Path) -> tuple[Assignment, ...]:
    """The assignments of the directory `users`; none when there is no file. Raises BadAssign, OSError."""
    try:
        text = (users / "assign").read_bytes()
    except FileNotFoundError:
        return ()
    return parse(text)


def write(users: Path, assignments: Iterable[Assignment]) -> None:
    """Replace users/assign, then users/cdb. Raises OSError; then either both are old, or assign is new and cdb old."""
    replace.file(users / "assign", lines(assignments), mode=0o644)
    compile_cdb(users)


def compile_cdb(users: Path) -> None:
    """qmail-newu: build users/cdb from users/assign. Raises BadAssign, OSError (FileNotFoundError: no users/assign)."""
    assignments = parse((users / "assign").read_bytes())
    records = [assignment.record() for assignment in assignments]
    cdb.write(users / "cdb", [*records, (b"", _wildcard_ends(assignments))])


def _wildcard_ends(assignments: Iterable[Assignment]) -> bytes:
    """The last characters of all + prefixes: a lookup tries a prefix only if it ends in one of them."""
    ends = {a.key[-1:].lower(): None for a in assignments if a.key.startswith(b"+") and len(a.key) > 1}
    return b"".join(ends)
