"""Accounts: what `account add` and its sisters write, in which order, and who then gets which mail."""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pillarbox import accounts
from pillarbox.accounts import Account, AccountRefused, MailboxUser
from pillarbox.admission import Admission
from pillarbox.auth import hashes, passwords
from pillarbox.auth.passwords import Record
from pillarbox.auth.verify import Accounts, Login, extension_record, verify
from pillarbox.control.table import read
from pillarbox.credentials import Password
from pillarbox.routing import Local, Relay, Routing, shown_local
from pillarbox.status import Failure
from pillarbox.users import assign
from pillarbox.users.owner import Owner, Owners
from tests.home import USER, make_home

CHEAP = b"$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$3h+zV4SKdnmT6/yB4f6y12ln/TPaSbMEGszisXD1AYc"  # bar


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting for the disk: that files are synced is tested where they are replaced."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(hashes, "make", lambda password, salt: CHEAP)
    return make_home(tmp_path / "home")


def add(home: Path, *addresses: bytes) -> None:
    for address in addresses:
        accounts.add(home, address, b"bar", user=USER)


def control(home: Path, name: str) -> bytes:
    return (home / "control" / name).read_bytes()


def delivery(home: Path, address: bytes) -> tuple[bytes, bytes]:
    """The home and the Delivered-To address of a delivery to `address`."""
    settings, _ = read(home / "control")
    route = Routing(settings).route(address)
    assert isinstance(route, Local)
    owner = Owners(home).for_delivery(route.local)
    shown = shown_local(route.local, route.domain, owner.home, os.fsencode(home), settings)
    return owner.home, shown + b"@" + route.domain


def at(home: Path, name: str) -> bytes:
    return os.fsencode(home / "mail" / name)


# the worked examples


def test_an_account_is_written_in_qmails_own_vocabulary(home: Path) -> None:
    add(home, b"Joe@Example.org")
    mail = f"{home}/mail/example.org/joe"
    user = f"vmail:{USER.uid}:{USER.gid}:{mail}"
    assert control(home, "virtualdomains") == b"example.org:example.org\n"
    assert control(home, "rcpthosts") == b"localhost\nexample.org\n"
    assert (home / "users" / "assign").read_text().splitlines() == [
        f"=example.org-joe:{user}:::",
        f"+example.org-joe-:{user}:-::",
        f"=example.org-postmaster:{user}:::",
        f"=example.org-abuse:{user}:::",
        f"=example.org-mailer-daemon:{user}:::",
        f"=postmaster:{user}:::",
        f"=abuse:{user}:::",
        f"=mailer-daemon:{user}:::",
        ".",
    ]
    assert (home / "users" / "passwords").read_bytes() == b"joe@example.org:" + CHEAP + b"\n"
    assert (home / "users" / "passwords").stat().st_mode & 0o7777 == 0o640
    assert sorted(path.name for path in Path(mail, "Maildir").iterdir()) == ["cur", "new", "tmp"]
    assert Path(mail).stat().st_mode & 0o7777 == 0o700


def test_the_login_is_the_address_or_the_short_name_where_it_is_unique_or_ours(home: Path) -> None:
    add(home, b"joe@example.org", b"joe@other.example", b"ann@other.example")
    resolver = Accounts(home, read(home / "control")[0])
    joe, ann = at(home, "example.org/joe"), at(home, "other.example/ann")
    assert resolver.find(b"joe@example.org") == Login(b"joe@example.org", b"", joe, local=b"example.org-joe")
    assert resolver.find(b"joe") == Login(b"joe@example.org", b"", joe, local=b"example.org-joe")
    assert resolver.find(b"ann") == Login(b"ann@other.example", b"", ann, local=b"other.example-ann")


def test_an_extension_is_a_login_with_its_own_password(home: Path) -> None:
    add(home, b"joe@example.org")
    maildir = home / "mail/example.org/joe/Maildir-lists"
    maildir.mkdir()
    accounts.set_password(home, b"joe-lists@example.org", b"bar")
    assert (maildir / "passwd").read_bytes() == CHEAP + b"\n"
    assert (maildir / "passwd").stat().st_mode & 0o7777 == 0o600
    assert sorted(os.listdir(maildir)) == ["passwd"]
    login = Accounts(home, read(home / "control")[0]).find(b"joe-lists@example.org")
    assert login == Login(b"joe@example.org", b"lists", at(home, "example.org/joe"), local=b"example.org-joe")
    record = extension_record(login, (maildir / "passwd").read_bytes().rstrip())
    assert verify(record, Password(b"joe-lists@example.org", b"bar"))
    assert b"lists" not in (home / "users" / "passwords").read_bytes()


def test_mail_to_an_extension_is_the_owners_to_sort(home: Path) -> None:
    add(home, b"joe@example.org")
    owner = Owners(home).for_delivery(b"example.org-joe-Lists")
    assert owner == Owner(b"vmail", USER.uid, USER.gid, at(home, "example.org/joe"), b"-", b"Lists")


def test_two_domains_may_both_have_a_joe(home: Path) -> None:
    add(home, b"joe@example.org", b"joe@other.example")
    assert delivery(home, b"joe@example.org") == (at(home, "example.org/joe"), b"joe@example.org")
    assert delivery(home, b"joe@other.example") == (at(home, "other.example/joe"), b"joe@other.example")


def test_delivered_to_shows_the_account_but_keeps_qmails_form_for_lines_written_by_hand(home: Path) -> None:
    add(home, b"joe@example.org")
    (home / "control" / "virtualdomains").write_bytes(b"example.org:example.org\nhand.example:example.org-joe\n")
    assert delivery(home, b"Joe-Lists@Example.org") == (at(home, "example.org/joe"), b"Joe-Lists@Example.org")
    assert delivery(home, b"x@hand.example") == (at(home, "example.org/joe"), b"example.org-joe-x@hand.example")


def test_a_user_sends_as_his_address_its_extensions_and_what_sendas_grants(home: Path) -> None:
    add(home, b"joe@example.org", b"ann@example.org")
    (home / "control" / "sendas").write_bytes(b"joe@example.org:sales@example.org\n")
    settings, _ = read(home / "control")
    resolver = Accounts(home, settings)
    login = resolver.find(b"joe")
    assert login is not None
    identity = resolver.identity(b"joe", login)
    admission = Admission(settings)
    for sender in (b"joe@example.org", b"joe-x@example.org", b"sales@example.org"):
        assert admission.sender(sender, None, identity) is None
    assert admission.sender(b"ann@example.org", None, identity) is not None


def test_postmaster_reaches_the_first_account_of_each_domain_and_of_all(home: Path) -> None:
    add(home, b"joe@example.org", b"ann@example.org", b"bob@other.example")
    for name in (b"postmaster", b"abuse", b"mailer-daemon", b"Postmaster"):
        assert delivery(home, name + b"@example.org") == (at(home, "example.org/joe"), name + b"@example.org")
        assert delivery(home, name + b"@other.example") == (at(home, "other.example/bob"), name + b"@other.example")
        assert delivery(home, name + b"@localhost") == (at(home, "example.org/joe"), name + b"@localhost")
    assert delivery(home, b"postmaster")[0] == at(home, "example.org/joe")


def test_a_secret_is_kept_only_where_crammd5_asks_for_it(home: Path) -> None:
    add(home, b"ann@example.org")
    (home / "control" / "crammd5").write_bytes(b"1\n")
    add(home, b"joe@example.org")
    text = (home / "users" / "passwords").read_bytes()
    assert text == b"ann@example.org:" + CHEAP + b"\njoe@example.org:" + CHEAP + b":YmFy\n"
    (home / "control" / "crammd5").write_bytes(b"0\n")
    accounts.set_password(home, b"joe@example.org", b"baz")
    assert passwords.find((home / "users" / "passwords").read_bytes(), b"joe@example.org") == Record(
        b"joe@example.org", CHEAP
    )


# what is refused


def refused(home: Path, address: bytes, password: bytes = b"bar") -> str:
    before = snapshot(home)
    with pytest.raises(AccountRefused) as caught:
        accounts.add(home, address, password, user=USER)
    assert caught.value.refusal.permanent
    assert snapshot(home) == before
    assert "\n" not in caught.value.text
    return caught.value.text


def snapshot(home: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(home)): path.read_bytes() if path.is_file() else b""
        for path in sorted(home.rglob("*"))
        if path.name != ".lock"
    }


def test_an_address_that_exists_is_refused(home: Path) -> None:
    add(home, b"joe@example.org")
    assert refused(home, b"JOE@example.org") == "joe@example.org exists already; for a new password: account password"


@pytest.mark.parametrize(
    "address",
    [
        b"joe",
        b"@example.org",
        b"joe@",
        b"joe@exa mple.org",
        b"joe@[192.0.2.1]",
        b"joe@example..org",
        b"joe@.example.org",
        b"joe@example.org/..",
        b"../joe@example.org",
        b"joe/x@example.org",
        b".joe@example.org",
        b"joe.@example.org",
        b"jo..e@example.org",
        b"joe-@example.org",
        b"-joe@example.org",
        b"joe:x@example.org",
        b"joe@x@example.org",
        b"jo e@example.org",
        b"joe\n@example.org",
        b"joe\0@example.org",
        b"jo\x1be@example.org",
        b"jo\xffe@example.org",
        b"j" * 65 + b"@example.org",
        b"joe@" + b"a" * 300,
    ],
)
def test_what_is_no_address_for_an_account_is_refused(home: Path, address: bytes) -> None:
    refused(home, address)


def test_names_of_other_languages_are_taken(home: Path) -> None:
    add(home, "jürgen@example.org".encode())
    assert delivery(home, "jürgen@example.org".encode())[0] == os.fsencode(home / "mail/example.org/jürgen")


@pytest.mark.parametrize(
    ("password", "why"),
    [
        (b"", "the password is empty"),
        (b"x" * 1025, "the password is longer than 1024 bytes"),
        (b"a\0b", "the password holds a NUL or a line end, which no mail program could send"),
        (b"a\nb", "the password holds a NUL or a line end, which no mail program could send"),
    ],
)
def test_a_password_that_cannot_be_used_is_refused(home: Path, password: bytes, why: str) -> None:
    assert refused(home, b"joe@example.org", password) == why
    add(home, b"joe@example.org")
    with pytest.raises(AccountRefused, match=why):
        accounts.set_password(home, b"joe@example.org", password)


def test_a_local_domain_is_refused_with_the_remedy(home: Path) -> None:
    assert refused(home, b"joe@localhost") == (
        "localhost is a local domain, its mail goes to system users; to have accounts there take localhost out of "
        "control/locals"
    )
    (home / "control" / "locals").unlink()
    assert refused(home, b"joe@example.org").endswith(
        "control/locals is missing and control/me counts, so: echo localhost > control/locals"
    )


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"example.org:joe", "control/virtualdomains gives example.org to somebody else; take that line out"),
        (b"example.org:", "control/virtualdomains gives example.org to somebody else; take that line out"),
        (b"ann@example.org:joe", "control/virtualdomains gives ann@example.org away; take that line out"),
    ],
)
def test_a_domain_that_is_somebody_elses_is_refused(home: Path, line: bytes, why: str) -> None:
    (home / "control" / "virtualdomains").write_bytes(line + b"\n")
    assert refused(home, b"ann@example.org") == why


def test_domains_whose_names_would_be_mixed_up_are_refused(home: Path) -> None:
    add(home, b"joe@example.org")
    assert "mixed up" in refused(home, b"joe@example.org-x")
    other = make_home(home.parent / "other")
    add(other, b"joe@example.org-x")
    assert "mixed up" in refused(other, b"x-joe@example.org")


def test_a_domain_of_an_extension_stops_nobody(home: Path) -> None:
    add(home, b"joe@example.org")
    (home / "control" / "virtualdomains").write_bytes(b"example.org:example.org\nlist.example:example.org-joe\n")
    add(home, b"ann@example.org")


def test_an_assignment_of_somebody_else_is_refused(home: Path) -> None:
    (home / "users" / "assign").write_bytes(b"=example.org-joe:u:5:6:/h:::\n.\n")
    assert refused(home, b"joe@example.org") == (
        "users/assign gives example.org-joe to somebody else; take that line out"
    )


def test_a_name_given_away_by_hand_within_the_domain_is_refused_too(home: Path) -> None:
    add(home, b"joe@example.org")
    by_hand = replace(assign.read(home / "users")[0], key=b"=example.org-info")
    assign.write(home / "users", [*assign.read(home / "users"), by_hand])
    assert "users/assign gives example.org-info to somebody else" in refused(home, b"info@example.org")


def test_a_broken_users_assign_changes_nothing(home: Path) -> None:
    (home / "users" / "assign").write_bytes(b"rubbish\n")
    before = snapshot(home)
    with pytest.raises(Failure, match="bad format in users/assign"):
        add(home, b"joe@example.org")
    assert snapshot(home) == before


def test_a_compiled_table_whose_source_is_lost_is_not_overwritten(home: Path) -> None:
    (home / "users" / "cdb").write_bytes(b"precious")
    assert "restore users/assign" in refused(home, b"joe@example.org")


def test_a_home_whose_path_holds_a_colon_is_refused(home: Path) -> None:
    odd = make_home(home.parent / "odd:home")
    assert "colons" in refused(odd, b"joe@example.org")


def test_a_place_that_is_taken_is_refused(home: Path, tmp_path: Path) -> None:
    domain = home / "mail" / "example.org"
    domain.mkdir()
    add(make_home(tmp_path / "other"), b"joe@example.org")
    (domain / "joe").symlink_to(tmp_path / "other/mail/example.org/joe")
    os.chown(domain / "joe", USER.uid, -1, follow_symlinks=False)
    with pytest.raises(Failure, match="move it away"):
        add(home, b"joe@example.org")
    (domain / "ann").mkdir()
    os.chown(domain / "ann", USER.uid, -1)
    with pytest.raises(Failure, match="without a Maildir"):
        add(home, b"ann@example.org")
    assert not (home / "users" / "assign").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_home_of_somebody_else_is_refused(home: Path) -> None:
    (home / "mail/example.org/joe/Maildir").mkdir(parents=True)
    with pytest.raises(Failure, match="is not the mailbox user's; move it away"):
        add(home, b"joe@example.org")


def test_root_owns_no_mailbox(home: Path) -> None:
    with pytest.raises(AccountRefused, match="cannot belong to root"):
        accounts.add(home, b"joe@example.org", b"bar", user=MailboxUser("root", 0, 0))


def test_what_is_no_home_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(AccountRefused, match=f"make it: pillarbox init --home {tmp_path}"):
        add(tmp_path, b"joe@example.org")


def test_settings_that_cannot_be_read_stop_everything(home: Path) -> None:
    (home / "control" / "locals").unlink()
    (home / "control" / "locals").mkdir()
    with pytest.raises(Failure, match="control/locals: cannot read it"):
        add(home, b"joe@example.org")


def test_other_broken_settings_stop_nobody(home: Path) -> None:
    (home / "control" / "listen").write_bytes(b"nonsense\n")
    add(home, b"joe@example.org")


# what is kept


def test_lines_of_others_stay_as_they_are(home: Path) -> None:
    (home / "control" / "virtualdomains").write_bytes(b"# by hand\nhand.example:joe")
    (home / "users" / "assign").write_bytes(b"+:alias:7:8:/a:-::\n.\n")
    (home / "users" / "passwords").write_bytes(b"# by hand\n")
    add(home, b"joe@there.example")
    assert control(home, "virtualdomains") == b"# by hand\nhand.example:joe\nthere.example:there.example\n"
    assert (home / "users" / "assign").read_bytes().startswith(b"+:alias:7:8:/a:-::\n=there.example-joe:")
    assert (home / "users" / "passwords").read_bytes().startswith(b"# by hand\njoe@there.example:")
    accounts.remove(home, b"joe@there.example")
    assert control(home, "virtualdomains") == b"# by hand\nhand.example:joe\n"
    assert (home / "users" / "assign").read_bytes() == b"+:alias:7:8:/a:-::\n.\n"
    assert (home / "users" / "passwords").read_bytes() == b"# by hand\n"


def test_without_rcpthosts_none_is_made_that_would_shut_others_out(home: Path) -> None:
    (home / "control" / "rcpthosts").unlink()
    add(home, b"joe@example.org")
    assert not (home / "control" / "rcpthosts").exists()


def test_a_postmaster_whom_alias_serves_already_stays_there(home: Path) -> None:
    (home / "alias" / ".qmail-postmaster").write_bytes(b"&root@example.org\n")
    add(home, b"joe@example.org")
    text = (home / "users" / "assign").read_bytes()
    assert b"\n=postmaster:" not in text
    assert b"\n=abuse:" in text


def test_a_real_postmaster_takes_over_from_the_first_account(home: Path) -> None:
    add(home, b"joe@example.org", b"postmaster@example.org")
    assert delivery(home, b"postmaster@example.org")[0] == at(home, "example.org/postmaster")
    assert delivery(home, b"abuse@example.org")[0] == at(home, "example.org/joe")
    assert [account.address for account in accounts.list(home)] == [b"joe@example.org", b"postmaster@example.org"]
    accounts.remove(home, b"postmaster@example.org")
    assert delivery(home, b"postmaster@example.org")[0] == at(home, "example.org/joe")


# removing


def test_a_removed_account_gets_no_mail_and_no_login_and_its_mail_is_moved_aside(home: Path) -> None:
    add(home, b"joe@example.org", b"ann@example.org")
    (home / "mail/example.org/joe/Maildir/new/1").write_bytes(b"private")
    moved = accounts.remove(home, b"Joe@example.org")
    assert moved == home / "mail/example.org/.removed/joe.1"
    assert (moved / "Maildir/new/1").read_bytes() == b"private"
    assert Accounts(home, read(home / "control")[0]).find(b"joe@example.org") is None
    assert not Owners(home).known(b"example.org-joe")
    assert not Owners(home).known(b"example.org-joe-lists")
    assert [account.address for account in accounts.list(home)] == [b"ann@example.org"]
    assert control(home, "virtualdomains") == b"example.org:example.org\n"


def test_an_account_made_anew_finds_nothing_of_the_old_one(home: Path) -> None:
    for number in (1, 2):
        add(home, b"joe@example.org")
        (home / "mail/example.org/joe/Maildir/new/1").write_bytes(b"private")
        assert accounts.remove(home, b"joe@example.org") == home / f"mail/example.org/.removed/joe.{number}"
    add(home, b"joe@example.org")
    assert list((home / "mail/example.org/joe/Maildir/new").iterdir()) == []


def test_with_its_last_account_the_domain_goes(home: Path) -> None:
    add(home, b"joe@there.example", b"bob@other.example")
    accounts.remove(home, b"joe@there.example")
    assert control(home, "virtualdomains") == b"other.example:other.example\n"
    assert control(home, "rcpthosts") == b"localhost\nother.example\n"
    assert isinstance(Routing(read(home / "control")[0]).route(b"joe@there.example"), Relay)


def test_the_hosts_own_name_stays_but_strangers_send_nothing_there(home: Path) -> None:
    add(home, b"joe@example.org", b"bob@other.example")
    accounts.remove(home, b"joe@example.org")
    assert control(home, "virtualdomains") == b"example.org:example.org\nother.example:other.example\n"
    assert control(home, "rcpthosts") == b"localhost\nother.example\n"


def test_who_is_left_answers_for_postmaster(home: Path) -> None:
    add(home, b"joe@example.org", b"x-postmaster@example.org", b"ann@example.org", b"bob@other.example")
    accounts.remove(home, b"x-postmaster@example.org")
    assert not Owners(home).known(b"example.org-x-postmaster")
    accounts.remove(home, b"joe@example.org")
    assert delivery(home, b"postmaster@example.org")[0] == at(home, "example.org/ann")
    assert delivery(home, b"postmaster@localhost")[0] == at(home, "example.org/ann")
    accounts.remove(home, b"ann@example.org")
    assert delivery(home, b"abuse@localhost")[0] == at(home, "other.example/bob")
    accounts.remove(home, b"bob@other.example")
    assert assign.read(home / "users") == ()


def test_who_is_nobody_cannot_be_removed_or_get_a_password(home: Path) -> None:
    add(home, b"joe@example.org")
    with pytest.raises(AccountRefused, match=r"there is no account ann@example.org"):
        accounts.remove(home, b"ann@example.org")
    with pytest.raises(AccountRefused, match=r"there is no account ann@example.org; to make it: account add"):
        accounts.set_password(home, b"ann@example.org", b"bar")
    with pytest.raises(AccountRefused, match=r"there is no account joe-lists@example.org"):
        accounts.remove(home, b"joe-lists@example.org")


def test_a_mailbox_of_a_system_user_is_his_to_give_a_password(home: Path) -> None:
    with pytest.raises(AccountRefused) as caught:
        accounts.set_password(home, b"joe-lists@localhost", b"bar")
    assert caught.value.text == (
        "localhost is a local domain: joe-lists is a system user's, who sets passwords himself (passwd, and"
        " maildirpasswd for a mailbox beside his first)"
    )


def test_an_extension_without_its_maildir_gets_no_password(home: Path) -> None:
    add(home, b"joe@example.org")
    with pytest.raises(Failure, match="Maildir-lists is no directory; make it first: maildirmake"):
        accounts.set_password(home, b"joe-lists@example.org", b"bar")
    with pytest.raises(AccountRefused):
        accounts.set_password(home, b"joe-.x@example.org", b"bar")


def test_an_owner_cannot_lead_root_out_of_his_home(home: Path, tmp_path: Path) -> None:
    add(home, b"joe@example.org")
    mine = home / "mail/example.org/joe"
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "passwd").write_bytes(b"untouched")
    (mine / "Maildir-a").symlink_to(tmp_path / "victim")
    with pytest.raises(Failure, match="is no directory"):
        accounts.set_password(home, b"joe-a@example.org", b"bar")
    (mine / "Maildir-b").mkdir()
    (mine / "Maildir-b" / "passwd").symlink_to(tmp_path / "victim" / "passwd")
    accounts.set_password(home, b"joe-b@example.org", b"bar")
    assert (tmp_path / "victim" / "passwd").read_bytes() == b"untouched"
    assert not (mine / "Maildir-b" / "passwd").is_symlink()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_root_makes_everything_for_the_mailbox_user(home: Path) -> None:
    accounts.add(home, b"joe@example.org", b"bar", user=MailboxUser("vmail", 4711, 4712), group=4713)
    mine = home / "mail/example.org/joe"
    (mine / "Maildir-lists").mkdir()
    os.chown(mine / "Maildir-lists", 4711, 4712)
    accounts.set_password(home, b"joe-lists@example.org", b"bar")
    for path in (mine, mine / "Maildir", mine / "Maildir/new", mine / "Maildir-lists/passwd"):
        assert (path.stat().st_uid, path.stat().st_gid) == (4711, 4712)
    assert (mine.parent.stat().st_uid, mine.parent.stat().st_mode & 0o7777) == (0, 0o711)
    record = (home / "users" / "passwords").stat()
    assert (record.st_uid, record.st_gid, record.st_mode & 0o7777) == (0, 4713, 0o640)


# others at the same time, and being killed


def test_two_commands_at_once_wait_for_each_other(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts, "_TRIES", 2)
    add(home, b"joe@example.org")
    with open(home / "users" / ".lock") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(Failure, match="another account command is at work") as caught:
            add(home, b"ann@example.org")
        assert not caught.value.refusal.permanent
    add(home, b"ann@example.org")


def killed_runs(directory: Path, *, prepare: list[bytes], work: Callable[[Path], None]) -> Iterator[Path]:
    """Homes, prepared alike, in each of which `work` was killed before another one of its system calls that change
    something; the last is the one after which it was not."""
    for step in range(300):
        home = make_home(directory / str(step))
        add(home, *prepare)
        child = os.fork()
        if child == 0:
            _die_at(step)
            try:
                work(home)
                os._exit(0)
            finally:
                os._exit(1)
        status = os.waitpid(child, 0)[1]
        yield home
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0 and step > 20
            return
        assert os.WTERMSIG(status) == signal.SIGKILL
    raise AssertionError("never ended")


def _die_at(step: int) -> None:
    """This process dies before the `step`th system call that changes something."""
    left = [step]

    def mortal(name: str) -> None:
        genuine = getattr(os, name)

        def call(*arguments: object, **named: object) -> object:
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            return genuine(*arguments, **named)

        setattr(os, name, call)

    for name in ("rename", "mkdir", "write", "unlink", "fsync", "rmdir", "fchmod"):
        mortal(name)


def consistent(home: Path) -> None:
    """Whatever happened: all files can be read, cdb is a table of some state, every login has its mailbox."""
    settings, complaints = read(home / "control")
    assert complaints == []
    assign.read(home / "users")
    resolver = Accounts(home, settings)
    for account in accounts.list(home):
        login = resolver.find(account.address)
        assert (login is not None) is account.login
        if login is not None:
            assert Path(os.fsdecode(login.home), "Maildir", "new").is_dir()
            assert delivery(home, account.address)[0] == login.home


def test_an_add_killed_anywhere_harms_nobody_and_is_finished_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashes, "make", lambda password, salt: CHEAP)
    for home in killed_runs(tmp_path, prepare=[b"ann@example.org"], work=lambda home: add(home, b"joe@other.example")):
        consistent(home)
        assert delivery(home, b"ann@example.org")[0] == at(home, "example.org/ann")
        if Account(b"joe@other.example", home / "mail/other.example/joe", True) not in accounts.list(home):
            add(home, b"joe@other.example")
        consistent(home)
        assert accounts.list(home) == (
            Account(b"ann@example.org", home / "mail/example.org/ann", True),
            Account(b"joe@other.example", home / "mail/other.example/joe", True),
        )
        assert delivery(home, b"postmaster@other.example")[0] == at(home, "other.example/joe")
        assert control(home, "rcpthosts") == b"localhost\nexample.org\nother.example\n"


def test_a_remove_killed_anywhere_is_finished_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashes, "make", lambda password, salt: CHEAP)

    def work(home: Path) -> None:
        (home / "mail/other.example/joe/Maildir/new/1").write_bytes(b"private")
        accounts.remove(home, b"joe@other.example")

    for home in killed_runs(tmp_path, prepare=[b"ann@example.org", b"joe@other.example"], work=work):
        if any(account.address == b"joe@other.example" for account in accounts.list(home)):
            accounts.remove(home, b"joe@other.example")
        consistent(home)
        assert [account.address for account in accounts.list(home)] == [b"ann@example.org"]
        assert control(home, "virtualdomains") == b"example.org:example.org\n"
        add(home, b"joe@other.example")
        assert os.listdir(home / "mail/other.example/joe/Maildir/new") == []
        consistent(home)
