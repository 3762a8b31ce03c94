"""What a home is made of: every directory, whose it is, and who may look into it. `init` makes it so, `check` compares.

Root keeps what roles only read (control, users, tls) and what it works in itself (mail, run): a role that was broken
into can then leave no trap there for the next command that root runs.
"""

from __future__ import annotations

import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path

from pillarbox.status import Failure, Status
from pillarbox.users.assign import BadAssign
from pillarbox.users.roles import User, caller

ROLE_USER = "pillarbox"


@dataclass(frozen=True, slots=True)
class Place:
    """A directory of the home. `roles`: it belongs to the user the roles run as, not to whoever runs `init`."""

    name: str
    mode: int
    purpose: str
    roles: bool = False


PLACES = (
    Place("control", 0o755, "settings, one file each"),
    Place("users", 0o755, "who owns which address, and the password records"),
    Place("alias", 0o755, "addresses that no user owns", roles=True),
    Place("mail", 0o711, "the accounts' mailboxes"),
    Place("queue", 0o700, "messages on their way", roles=True),
    Place("run", 0o755, "the lock and the sockets of a running server"),
    Place("tls", 0o755, "certificate and key"),
)


def role_user() -> User:
    """Whom the roles run as and mailboxes belong to: the caller, or the user `pillarbox` when he is root. Raises
    Failure when there is no such user."""
    if os.getuid() != 0:
        return caller()
    try:
        entry = pwd.getpwnam(ROLE_USER)
    except KeyError:
        raise Failure(
            f"there is no user {ROLE_USER} for the server to run as; run: pillarbox init", Status(5, 3, 5)
        ) from None
    if entry.pw_uid == 0:
        raise Failure(f"the user {ROLE_USER} is root; the server needs one without rights", Status(5, 3, 5))
    return User(entry.pw_name, entry.pw_uid, entry.pw_gid)


def unreachable(directory: Path, user: User) -> Path | None:
    """The first directory on the way to `directory`, or itself, that `user` may not enter; None when he can. Asks the
    kernel, as that user, in a child process; only root can ask for somebody else."""
    return _first_closed([*reversed(directory.parents), directory], os.X_OK, user)


def unreadable(file: Path, user: User) -> Path | None:
    """The first directory on the way to `file` that `user` may not enter, or the file when he may not read it."""
    return _first_closed([*reversed(file.parents), file], os.R_OK, user)


def _first_closed(ways: list[Path], last: int, user: User) -> Path | None:
    """`last`: what is wanted of the last one; the others are to be entered."""
    child = os.fork()
    if child == 0:
        try:
            if os.getuid() == 0:
                os.setgroups([])
                os.setresgid(user.gid, user.gid, user.gid)
                os.setresuid(user.uid, user.uid, user.uid)
            wanted = [os.X_OK] * (len(ways) - 1) + [last]
            closed = (at for at, way in enumerate(ways) if way.exists() and not os.access(way, wanted[at]))
            os._exit(next(closed, 255))
        finally:
            os._exit(254)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status == 254 or status < 0:
        raise Failure(f"cannot become the user {user.name}: this process may not change users", Status(5, 3, 5))
    return None if status == 255 else ways[status]


def broken_assign(home: Path, failure: BadAssign) -> str:
    """What to say when users/assign breaks its format."""
    where = f"line {failure.line} is no assignment" if failure.line else "the last line is not a dot"
    return f"{home / 'users' / 'assign'}: {where}: mend it, then: pillarbox run qmail-newu"


def mode(facts: os.stat_result) -> int:
    """The permission bits."""
    return stat.S_IMODE(facts.st_mode)
