"""What a home is made of: every directory, whose it is, and who may look into it. `init` makes it so, `check` compares.

Root keeps what roles only read (control, users, tls) and what it works in itself (mail, run): a role that was broken
into can then leave no trap there for the next command that root runs.
"""

from __future__ import annotations

import grp
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pillarbox.control import table
from pillarbox.control.table import Settings
from pillarbox.status import Failure, Status
from pillarbox.users.assign import BadAssign
from pillarbox.users.roles import AUTH, User, caller, role_user, role_users


@dataclass(frozen=True, slots=True)
class Place:
    """A directory of the home. `owner`: the role whose user it belongs to; "" is whoever runs `init`."""

    name: str
    mode: int
    purpose: str
    owner: str = ""


PLACES = (
    Place("control", 0o755, "settings, one file each"),
    Place("users", 0o755, "who owns which address, and the password records"),
    Place("alias", 0o2755, "addresses that no user owns", owner="alias"),
    Place("mail", 0o711, "the accounts' mailboxes"),
    Place("queue", 0o700, "messages on their way", owner="queue"),
    Place("run", 0o755, "the lock and the sockets of a running server"),
    Place("tls", 0o755, "certificate and key"),
)


class BadRoleUsers(Failure):
    """control/roleusers cannot be read, so nobody can say whom the roles run as."""

    status = Status(5, 3, 5)


def settings_of(home: Path) -> Settings:
    """The control files as they are. Raises BadRoleUsers: a guess there would end in a user that nobody asked for."""
    settings, complaints = table.read(home / "control")
    wrong = [complaint for complaint in complaints if complaint.file == "roleusers"]
    if wrong:
        raise BadRoleUsers(f"{home}/{wrong[0]}")
    return settings


def users_of(settings: Settings) -> Mapping[str, User]:
    """Whom each role runs as, and whom mailboxes (`vmail`) and alias/ belong to. Raises Failure when there is no such
    user."""
    return role_users(settings) | {"supervisor": caller()}


def passwords_reader(settings: Settings) -> User:
    """The user whose group may read users/passwords. Raises as `users_of`."""
    return role_user(AUTH, settings)


@dataclass(frozen=True, slots=True)
class Closed:
    """Somebody who is kept out, and by which file or directory."""

    user: User
    at: Path


def unreachable(directories: Sequence[Path], users: Iterable[User]) -> Closed | None:
    """The first of the users who may not enter one of the directories, and where he is stopped; None when all can. The
    kernel is asked, as that user, in a child process; only root can ask for somebody else."""
    return next(filter(None, _closed(directories, os.X_OK, users)), None)


def unreadable(files: Sequence[Path], users: Iterable[User], *, to_run: bool = False) -> list[Closed | None]:
    """For each file the first of the users who may not read it (`to_run`: run it), and where he is stopped, asked as in
    `unreachable`."""
    return _closed(files, os.X_OK if to_run else os.R_OK, users)


def _closed(ends: Sequence[Path], wanted: int, users: Iterable[User]) -> list[Closed | None]:
    everybody = list(dict.fromkeys(users))
    if os.getuid() != 0:
        return [_first(end, [(user, _stop(end, wanted)) for user in everybody]) for end in ends]
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            for number, user in enumerate(everybody):
                _be(user)
                for at, end in enumerate(ends):
                    os.write(tell, b"%d %d %d\n" % (at, number, _stop(end, wanted)))
                os.setresuid(0, 0, 0)
            os._exit(0)
        finally:
            os._exit(1)
    os.close(tell)
    with open(told, "rb") as answers:
        lines = [tuple(map(int, line.split())) for line in answers]
    if os.waitpid(child, 0)[1] != 0:
        raise Failure("cannot become the users of the server: this process may not change users", Status(5, 3, 5))
    return [_first(end, [(everybody[n], stop) for i, n, stop in lines if i == at]) for at, end in enumerate(ends)]


def _be(user: User) -> None:
    """For the questions of one user, with a way back to the next."""
    os.setgroups([])
    os.setresgid(user.gid, user.gid, 0)
    os.setresuid(user.uid, user.uid, 0)


def _ways(end: Path) -> list[Path]:
    return [*reversed(end.parents), end]


def _stop(end: Path, wanted: int) -> int:
    """Which of the directories on the way to `end`, or itself, keeps us out; -1 is none. The last one is to be as
    `wanted`, the others are to be entered."""
    ways = _ways(end)
    asked = [os.X_OK] * (len(ways) - 1) + [wanted]
    return next((at for at, way in enumerate(ways) if way.exists() and not os.access(way, asked[at])), -1)


def _first(end: Path, stops: list[tuple[User, int]]) -> Closed | None:
    return next((Closed(user, _ways(end)[stop]) for user, stop in stops if stop >= 0), None)


def broken_assign(home: Path, failure: BadAssign) -> str:
    """What to say when users/assign breaks its format."""
    where = f"line {failure.line} is no assignment" if failure.line else "the last line is not a dot"
    return f"{home / 'users' / 'assign'}: {where}: mend it, then: pillarbox run qmail-newu"


def holds_passwords(settings: Settings) -> bool:
    """Whether control/smtproutes names passwords for relays."""
    return any(len(route.split()) > 1 for route in settings.smtproutes.values())


def group_name(gid: int) -> str:
    """What chgrp calls a group."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def mode(facts: os.stat_result) -> int:
    """The permission bits."""
    return stat.S_IMODE(facts.st_mode)
