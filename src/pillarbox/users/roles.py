"""Which system user each role of `serve` runs as, and whom mailboxes and alias/ belong to.

The names and groups are those of qmail's INSTALL.ids, and ours for what qmail never had; control/roleusers may give
them other names. Started without root everything runs as the caller. The rule that must stay true: nothing but spawn,
and auth where control/checkers needs it, is root.
"""

from __future__ import annotations

import grp
import os
import pwd
from dataclasses import dataclass

from pillarbox.control.table import Settings
from pillarbox.status import Failure, Status
from pillarbox.users import system


@dataclass(frozen=True, slots=True)
class User:
    """A user of the system, by name and numbers."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Post:
    """What a role's user is called by default, and his group. `purpose` completes "the user ... is for"."""

    role: str
    name: str
    group: str
    purpose: str


class NoSuchUser(Failure):
    """A user or group that the server needs is missing, or is root; the text names it and says what to do."""

    status = Status(5, 3, 5)


ROOT = User("root", 0, 0)
AUTH, REMOTE, ALIAS, VMAIL = "auth", "remote", "alias", "vmail"
OUTSIDE = "nofiles"  # the group of those who talk to the world: it owns no file
POSTS = (
    Post(AUTH, "pillarauth", "pillarauth", "passwords"),
    Post("smtpd", "qmaild", OUTSIDE, "SMTP"),
    Post("users", "qmailp", OUTSIDE, "who owns an address"),
    Post("queue", "qmailq", "qmail", "the queue"),
    Post(REMOTE, "qmailr", "qmail", "sending"),
    Post("pop3d", "pillarpop", "pillarpop", "POP3"),
    Post("log", "qmaill", OUTSIDE, "logs"),
    Post(ALIAS, "alias", OUTSIDE, "addresses that no user owns"),
    Post(VMAIL, "vmail", "vmail", "the accounts' mailboxes"),
)
"""`log` is for qmail-start's logger; `serve` itself does without."""
_NEEDED = tuple(post for post in POSTS if post.role != "log")


def caller() -> User:
    """Who runs this process."""
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        name = str(os.getuid())  # containers run as users that no passwd file knows
    return User(name, os.getuid(), os.getgid())


def role_users(settings: Settings) -> dict[str, User]:
    """Who each role becomes: spawn, auth, smtpd, users, queue, remote, pop3d; and the owners `alias` and `vmail`. Asks
    the password database when the caller is root; else everybody is the caller. Raises NoSuchUser, Failure (4.3.0)."""
    if os.getuid() != 0:
        us = caller()
        # By his name it is known what nobody else owns; under the caller's own, his accounts would count as that.
        alias = User(ALIAS, us.uid, us.gid)
        return dict.fromkeys(("spawn", *(post.role for post in _NEEDED)), us) | {ALIAS: alias}
    found = {post.role: _user(post, settings) for post in _NEEDED}
    return found | {"spawn": ROOT} | ({AUTH: ROOT} if auth_is_root(settings) else {})


def auth_is_root(settings: Settings) -> bool:
    """Whether control/checkers asks for what only root may: reading /etc/shadow, or a checkpassword program, which has
    to become the user whose password it has checked."""
    return bool(settings.checkers)


def role_user(role: str, settings: Settings) -> User:
    """The system user of one role, also `log`; of auth the one that users/passwords is readable for, even where the
    role itself is root. Raises as `role_users`."""
    if os.getuid() != 0:
        return caller()
    return _user(next(post for post in POSTS if post.role == role), settings)


def name_of(post: Post, settings: Settings) -> str:
    """What the user of a post is called in this home."""
    return settings.roleusers.get(post.role, post.name)


def _user(post: Post, settings: Settings) -> User:
    name = name_of(post, settings)
    entry = system.find(name.encode())
    if entry is None:
        raise NoSuchUser(f"there is no user {name} for {post.role}; run as root: pillarbox init")
    if entry.uid == 0:
        raise NoSuchUser(f"the user {name} for {post.role} is root; name another in control/roleusers")
    return User(name, entry.uid, _outside() if post.role == REMOTE else entry.gid)


def _outside() -> int:
    """remote is no member of the group that may read control/smtproutes: it gets what it needs with each message."""
    try:
        return grp.getgrnam(OUTSIDE).gr_gid
    except KeyError:
        raise NoSuchUser(f"there is no group {OUTSIDE} for {REMOTE}; run as root: pillarbox init") from None
