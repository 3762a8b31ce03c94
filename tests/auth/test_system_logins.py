"""System users log in beside accounts, where control/checkers says how."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from pillarbox import accounts
from pillarbox.auth import hashes
from pillarbox.auth.verify import Accounts, Login
from pillarbox.control.table import Settings
from pillarbox.users import assign, system
from pillarbox.users.assign import Assignment
from pillarbox.users.owner import Owner
from pillarbox.users.system import SystemUser
from tests.home import USER, make_home

CHEAP = b"$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$3h+zV4SKdnmT6/yB4f6y12ln/TPaSbMEGszisXD1AYc"  # bar
LOCALS = frozenset({b"a.example", b"mx.example"})


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Accounts ann and joe; system users joe, sue, alias and root."""
    monkeypatch.setattr(hashes, "make", lambda password, salt: CHEAP)
    home = make_home(tmp_path / "home")
    for name in (b"joe@example.org", b"ann@example.org"):
        accounts.add(home, name, b"bar", user=USER)
    people = {
        name: SystemUser(name, uid, uid, b"/h/" + name)
        for name, uid in {b"joe": 501, b"sue": 502, b"alias": 503, b"root": 0, b"vmail": USER.uid}.items()
    }
    monkeypatch.setattr(system, "find", people.get)
    return home


def logins(home: Path, sendas: Mapping[bytes, tuple[bytes, ...]] | None = None, **more: bool) -> Accounts:
    how = (b"shadow",) if more.get("checkers", True) else ()
    return Accounts(home, Settings(me=b"mx.example", locals=LOCALS, checkers=how, sendas=sendas or {}))


def test_a_system_user_comes_before_the_short_form_of_an_account(home: Path) -> None:
    joe = Owner(b"joe", 501, 501, b"/h/joe", b"", b"")
    found = logins(home).find(b"joe")
    assert found == Login(b"joe@mx.example", b"", b"/h/joe", (), b"joe", joe, domains=(b"a.example",))
    account = logins(home).find(b"joe@example.org")
    assert account is not None and not account.system
    short = logins(home).find(b"ann")
    assert short is not None and short.address == b"ann@example.org"


def test_without_checkers_no_system_user_logs_in(home: Path) -> None:
    there = logins(home, checkers=False)
    assert there.find(b"sue") is None
    assert there.system_name(b"sue") == b""
    found = there.find(b"joe")
    assert found is not None and not found.system


@pytest.mark.parametrize("name", [b"sue", b"SUE", b"sue@mx.example", b"Sue@A.Example"])
def test_a_system_user_is_found_by_name_and_by_local_address(home: Path, name: bytes) -> None:
    found = logins(home).find(name)
    assert found is not None and found.local == b"sue" and found.system


@pytest.mark.parametrize(
    "name",
    [b"root", b"alias", b"alias-x", b"sue@example.org", b"sue@elsewhere.example", b"sue-", b"sue-.x", b"sue-a/b",
     b"sue\0", b"nobody", b"sue@", b"-sue", b""],
)  # fmt: skip
def test_nobody_else_is_a_system_user(home: Path, name: bytes) -> None:
    found = logins(home).find(name)
    assert found is None or not found.system


def test_an_extension_is_a_mailbox_with_a_password_of_its_own(home: Path) -> None:
    there = logins(home, {b"sue": (b"@x.example",)})
    sue = Owner(b"sue", 502, 502, b"/h/sue", b"-", b"Lists.X")
    found = there.find(b"sue-Lists.X")
    assert found == Login(b"sue@mx.example", b"Lists.X", b"/h/sue", (), b"sue", sue, domains=(b"a.example",))
    assert there.record(found) is None


def test_what_sendas_grants_to_a_short_name_is_the_system_users(home: Path) -> None:
    there = logins(home, {b"joe": (b"@x.example",)})
    system_user, account = there.find(b"joe"), there.find(b"joe@example.org")
    assert system_user is not None and b"@x.example" in system_user.sendas
    assert account is not None and account.sendas == ()


def test_a_name_that_users_assign_gives_to_accounts_has_no_system_password(home: Path) -> None:
    """postmaster is the first account's mailbox by an assignment; it is not the user vmail who may read it."""
    uid = b"%d" % USER.uid
    mailbox = Assignment(b"=boss", b"vmail", uid, uid, os.fsencode(home / "mail" / "x"))
    moved = Assignment(b"=sue", b"sue", b"9999", b"9999", b"/h/sue")
    assign.write(home / "users", [*assign.read(home / "users"), mailbox, moved])
    assert logins(home).find(b"boss") is None
    assert logins(home).find(b"sue") is None
