"""Who owns a local part: users/cdb, then the password database, then alias."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pillarbox.users import assign, owner, system
from pillarbox.users.owner import CannotResolve, Owner, Owners, dotqmail_names
from pillarbox.users.roles import User
from pillarbox.users.system import SystemUser

ASSIGN = b"""=joe:joe:5:50:/h/joe:::
=joe-exact:other:6:60:/h/other:-:pre-exact:
+joe-:joe:5:50:/h/joe:-::
+joe-list-:lists:7:70:/h/lists:-:pre-:
.
"""


def entry(name: str, uid: int, home: Path | str) -> SystemUser:
    return SystemUser(name.encode(), uid, uid + 1, os.fsencode(home))


@pytest.fixture
def people(monkeypatch: pytest.MonkeyPatch) -> dict[bytes, SystemUser]:
    """A password database of our own."""
    found: dict[bytes, SystemUser] = {}
    monkeypatch.setattr(system, "find", found.get)
    return found


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "users").mkdir()
    (tmp_path / "alias").mkdir()
    return tmp_path


def newu(home: Path, text: bytes = ASSIGN) -> None:
    (home / "users" / "assign").write_bytes(text)
    assign.compile_cdb(home / "users")


# row: vectors-assign
@pytest.mark.parametrize(
    ("local", "expected"),
    [
        (b"joe", Owner(b"joe", 5, 50, b"/h/joe", b"", b"")),
        (b"JOE", Owner(b"joe", 5, 50, b"/h/joe", b"", b"")),
        (b"joe-Exact", Owner(b"other", 6, 60, b"/h/other", b"-", b"pre-exact")),
        (b"joe-Any.Thing", Owner(b"joe", 5, 50, b"/h/joe", b"-", b"Any.Thing")),
        (b"joe-exact-more", Owner(b"joe", 5, 50, b"/h/joe", b"-", b"exact-more")),
        (b"joe-list-A", Owner(b"lists", 7, 70, b"/h/lists", b"-", b"pre-A")),
        (b"joe-list", Owner(b"joe", 5, 50, b"/h/joe", b"-", b"list")),
        (b"joe-", Owner(b"joe", 5, 50, b"/h/joe", b"-", b"")),
    ],
)
def test_an_exact_assignment_wins_then_the_longest_wildcard(home: Path, local: bytes, expected: Owner) -> None:
    newu(home)
    owners = Owners(home)
    assert owners.for_delivery(local) == expected
    assert owners.for_delivery(local) == expected
    assert owners.known(local)


def test_the_empty_wildcard_catches_everybody(home: Path) -> None:
    newu(home, b"+:alias:9:9:/h/alias:-::\n.\n")
    assert Owners(home).for_delivery(b"Nobody") == Owner(b"alias", 9, 9, b"/h/alias", b"-", b"Nobody")


def test_a_table_that_changes_is_noticed(home: Path, people: dict[bytes, SystemUser]) -> None:
    owners = Owners(home)
    assert owners.for_delivery(b"joe").user == b"alias"
    newu(home)
    assert owners.for_delivery(b"joe").user == b"joe"
    newu(home, b"=joe:moved:8:80:/h/moved:::\n.\n")
    assert owners.for_delivery(b"joe").user == b"moved"
    (home / "users" / "cdb").unlink()
    assert owners.for_delivery(b"joe").user == b"alias"


def test_what_is_remembered_of_a_table_is_bounded(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner, "_CACHED", 3)
    newu(home)
    owners = Owners(home)
    for number in range(10):
        assert owners.for_delivery(b"joe-%d" % number).ext == b"%d" % number
    assert len(owners._assignments._found) <= 3


@pytest.mark.parametrize("damage", [b"", b"short", bytes(2048)])
def test_a_damaged_table_is_trouble_and_not_absence(home: Path, damage: bytes) -> None:
    (home / "users" / "cdb").write_bytes(damage)
    owners = Owners(home)
    for _ in range(2):
        with pytest.raises(CannotResolve) as caught:
            owners.for_delivery(b"joe")
        assert not caught.value.refusal.permanent


# row: vectors-getpw, known-delivered-to-case
def test_the_longest_user_with_a_home_of_his_own_wins(home: Path, people: dict[bytes, SystemUser]) -> None:
    uid = os.geteuid() or 4711
    nest = home / "nest"
    nest.mkdir()
    os.chown(nest, uid, -1)
    people[b"joe"] = entry("joe", uid, nest)
    people[b"joe-foo"] = entry("joe-foo", uid, nest)
    people[b"joe-foo-bar"] = entry("joe-foo-bar", uid, home / "missing")
    owners = Owners(home)
    path = os.fsencode(nest)
    assert owners.for_delivery(b"Joe-Foo-Bar-X.y") == Owner(b"joe-foo", uid, uid + 1, path, b"-", b"Bar-X.y")
    assert owners.for_delivery(b"joe-foo") == Owner(b"joe-foo", uid, uid + 1, path, b"", b"")
    assert owners.for_delivery(b"joe-") == Owner(b"joe", uid, uid + 1, path, b"-", b"")


def test_a_home_of_somebody_else_makes_no_owner(home: Path, people: dict[bytes, SystemUser]) -> None:
    people[b"joe"] = entry("joe", os.geteuid() + 1000, home)
    assert Owners(home).for_delivery(b"joe").user == b"alias"


# row: vectors-getpw
def test_root_gets_no_mail(home: Path, people: dict[bytes, SystemUser]) -> None:
    people[b"root"] = entry("root", 0, "/")
    assert Owners(home).for_delivery(b"root").user == b"alias"
    assert Owners(home).for_login(b"root") is None


# row: vectors-getpw
def test_what_nobody_owns_goes_to_the_alias_user_or_our_own_alias_directory(
    home: Path, people: dict[bytes, SystemUser]
) -> None:
    ours = Owner(b"alias", os.geteuid(), os.getegid(), os.fsencode(home / "alias"), b"-", b"Some.Body")
    assert Owners(home).for_delivery(b"Some.Body") == ours


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_the_alias_directory_is_this_home_s_whatever_passwd_says(home: Path, people: dict[bytes, SystemUser]) -> None:
    people[b"alias"] = entry("alias", 77, "/home/of/another/server/alias")
    there = os.fsencode(home / "alias")
    assert Owners(home).for_delivery(b"x") == Owner(b"alias", 77, 78, there, b"-", b"x")
    os.chown(home / "alias", 77, -1)
    assert Owners(home).for_delivery(b"alias-x") == Owner(b"alias", 77, 78, there, b"-", b"x")


def test_the_alias_user_may_be_somebody_else(home: Path, people: dict[bytes, SystemUser]) -> None:
    people[b"alias"] = entry("alias", 77, "/h/alias")
    people[b"_alias"] = entry("_alias", 88, "/h/_alias")
    owners = Owners(home, alias=User("_alias", 88, 89))
    there = os.fsencode(home / "alias")
    assert owners.for_delivery(b"x") == Owner(b"_alias", 88, 89, there, b"-", b"x")
    assert owners.for_login(b"_alias") is None
    assert owners.known(b"x") is False


def test_for_a_login_the_first_existing_user_is_final(home: Path, people: dict[bytes, SystemUser]) -> None:
    people[b"joe"] = entry("joe", 10, "/h/joe")
    people[b"joe-foo"] = entry("joe-foo", 11, "/nowhere")
    people[b"alias"] = entry("alias", 12, "/h/alias")
    owners = Owners(home)
    assert owners.for_login(b"joe-foo-bar") == Owner(b"joe-foo", 11, 12, b"/nowhere", b"-", b"bar")
    assert owners.for_login(b"joe") == Owner(b"joe", 10, 11, b"/h/joe", b"", b"")
    assert owners.for_login(b"nobody") is None
    assert owners.for_login(b"alias") is None


def test_a_login_finds_assigned_users_but_not_the_alias_catch_all(home: Path, people: dict[bytes, SystemUser]) -> None:
    newu(home, b"=joe:joe:5:50:/h/joe:::\n=boss:root:0:0:/root:::\n+:alias:9:9:/h/alias:-::\n.\n")
    owners = Owners(home)
    assert owners.for_login(b"JOE") == Owner(b"joe", 5, 50, b"/h/joe", b"", b"")
    assert owners.for_login(b"nobody") is None
    assert owners.for_login(b"boss") is None


@pytest.mark.parametrize(
    ("file", "local", "known"),
    [
        (".qmail-info", b"info", True),
        (".qmail-first:last", b"First.Last", True),
        (".qmail-list-default", b"list-a-b", True),
        (".qmail-default", b"anybody", True),
        (".qmail-info", b"other", False),
        (".qmail-a-b-default", b"a-c", False),
    ],
)
def test_alias_catches_what_it_has_a_file_for(
    home: Path, people: dict[bytes, SystemUser], file: str, local: bytes, known: bool
) -> None:
    (home / "alias" / file).write_text("&somebody@example.org\n")
    assert Owners(home).known(local) is known


def test_hostile_local_parts_are_unknown(home: Path, people: dict[bytes, SystemUser]) -> None:
    (home / "secret").write_text("")
    (home / "alias" / ".qmail-a").mkdir()
    (home / "alias" / ".qmail-a" / "b").write_text("")
    owners = Owners(home)
    for local in (
        b"a/../../secret",
        b"a/../../../secret",
        b"a/b",
        b"x" * 300,
        b"-" * 900,
        b"x" * 5000,
        b"nul\0nul",
        b"",
        b"\xff\xfe",
    ):
        assert owners.known(local) is False
        assert owners.for_login(local) is None


def test_a_missing_alias_directory_knows_nobody(tmp_path: Path, people: dict[bytes, SystemUser]) -> None:
    assert Owners(tmp_path).known(b"joe") is False


def test_an_alias_directory_that_cannot_be_searched_is_trouble(
    home: Path, people: dict[bytes, SystemUser], monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(path: object) -> os.stat_result:
        if b".qmail" in os.fsencode(str(path)):
            raise PermissionError(13, "Permission denied")
        return os.lstat(os.fsdecode(path))  # type: ignore[arg-type]  # os.stat takes more than it is given here

    monkeypatch.setattr(owner.os, "stat", denied)  # type: ignore[attr-defined]  # os is not among its exports
    with pytest.raises(CannotResolve, match="alias directory"):
        Owners(home).known(b"joe")


def test_a_dotqmail_name_is_looked_for_in_order() -> None:
    names = list(dotqmail_names(b"-", b"A.b-c"))
    assert names == [b".qmail-a:b-c", b".qmail-a:b-default", b".qmail-default"]
    assert list(dotqmail_names(b"", b"")) == [b".qmail", b".qmaildefault"]


def test_a_name_of_the_alias_table_is_known(home: Path) -> None:
    asked: list[tuple[bytes, bytes]] = []

    def listed(local: bytes, domain: bytes) -> bool:
        asked.append((local, domain))
        return local == b"root"

    owners = Owners(home, listed=listed)
    assert owners.known(b"root", b"example.org")
    assert not owners.known(b"nothing", b"example.org")
    assert asked == [(b"root", b"example.org"), (b"nothing", b"example.org")]
