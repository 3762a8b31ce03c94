from __future__ import annotations

import grp
import os
from types import SimpleNamespace

import pytest

from pillarbox.control.table import Settings
from pillarbox.users import roles, system
from pillarbox.users.roles import NoSuchUser, User, caller, role_user, role_users
from pillarbox.users.system import SystemUser

# INSTALL.ids: who is in which group; and what qmail never had.
PASSWD = {
    b"alias": (7790, 2108),
    b"qmaild": (7791, 2108),
    b"qmaill": (7792, 2108),
    b"qmailp": (7793, 2108),
    b"qmailq": (7794, 2107),
    b"qmailr": (7795, 2107),
    b"pillarauth": (901, 901),
    b"pillarpop": (902, 902),
    b"vmail": (903, 903),
    b"_smtp": (555, 556),
    b"toor": (0, 0),
}


@pytest.fixture
def as_root(monkeypatch: pytest.MonkeyPatch) -> dict[bytes, tuple[int, int]]:
    users = dict(PASSWD)

    def find(name: bytes) -> SystemUser | None:
        return SystemUser(name, *users[name], b"/nonexistent") if name in users else None

    def group(name: str) -> SimpleNamespace:
        return SimpleNamespace(gr_gid={"nofiles": 2108}[name])

    monkeypatch.setattr(os, "getuid", lambda: 0)
    monkeypatch.setattr(system, "find", find)
    monkeypatch.setattr(grp, "getgrnam", group)
    return users


def test_every_role_has_its_own_user(as_root: dict[bytes, tuple[int, int]]) -> None:
    assert role_users(Settings()) == {
        "spawn": User("root", 0, 0),
        "auth": User("pillarauth", 901, 901),
        "smtpd": User("qmaild", 7791, 2108),
        "users": User("qmailp", 7793, 2108),
        "queue": User("qmailq", 7794, 2107),
        "remote": User("qmailr", 7795, 2108),
        "pop3d": User("pillarpop", 902, 902),
        "alias": User("alias", 7790, 2108),
        "vmail": User("vmail", 903, 903),
    }


def test_remote_is_not_in_the_group_that_reads_the_routes(as_root: dict[bytes, tuple[int, int]]) -> None:
    users = role_users(Settings())
    assert users["remote"].gid != users["queue"].gid


@pytest.mark.parametrize("checker", [b"shadow", b"/bin/checkpassword /bin/true"])
def test_auth_is_root_where_a_checker_needs_it(as_root: dict[bytes, tuple[int, int]], checker: bytes) -> None:
    settings = Settings(checkers=(checker,))
    assert role_users(settings)["auth"] == User("root", 0, 0)
    assert role_user("auth", settings) == User("pillarauth", 901, 901)


def test_roles_may_have_users_of_other_names(as_root: dict[bytes, tuple[int, int]]) -> None:
    assert role_users(Settings(roleusers={"smtpd": "_smtp"}))["smtpd"] == User("_smtp", 555, 556)


def test_no_role_is_made_root_by_its_name(as_root: dict[bytes, tuple[int, int]]) -> None:
    with pytest.raises(NoSuchUser, match="the user toor for smtpd is root; name another in control/roleusers"):
        role_users(Settings(roleusers={"smtpd": "toor"}))


def test_a_missing_user_is_named_with_the_remedy(as_root: dict[bytes, tuple[int, int]]) -> None:
    del as_root[b"qmailq"]
    with pytest.raises(NoSuchUser, match="there is no user qmailq for queue; run as root: pillarbox init"):
        role_users(Settings())


def test_the_logger_is_only_missed_by_who_needs_it(as_root: dict[bytes, tuple[int, int]]) -> None:
    assert role_user("log", Settings()) == User("qmaill", 7792, 2108)
    del as_root[b"qmaill"]
    assert "log" not in role_users(Settings())
    with pytest.raises(NoSuchUser, match="qmaill"):
        role_user("log", Settings())


def test_a_missing_group_is_named_with_the_remedy(
    as_root: dict[bytes, tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roles, "OUTSIDE", "nobodysfiles")
    with pytest.raises(NoSuchUser, match="there is no group nobodysfiles for remote"):
        role_users(Settings())


def test_without_root_everybody_is_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 54321)
    monkeypatch.setattr(os, "getgid", lambda: 54322)
    ours = User("54321", 54321, 54322)
    users = role_users(Settings(checkers=(b"shadow",), roleusers={"smtpd": "nosuchuser"}))
    assert set(users) >= {"spawn", "auth", "smtpd", "users", "queue", "remote", "pop3d", "alias", "vmail"}
    assert {(user.uid, user.gid) for user in users.values()} == {(54321, 54322)}
    assert set(users.values()) - {users["alias"]} == {ours} == {caller()}
    assert users["alias"].name == "alias"
    assert role_user("vmail", Settings()) == ours
