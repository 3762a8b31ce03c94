from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from pillarbox import accounts
from pillarbox.cli import account
from pillarbox.cli.create import create
from pillarbox.cli.first import first_account
from pillarbox.cli.layout import passwords_reader, settings_of, users_of
from pillarbox.cli.main import status
from pillarbox.control.table import Settings, read
from pillarbox.credentials import Password

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def made(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    create(home, "mx.example.org")
    monkeypatch.setenv("PILLARBOX_HOME", str(home))
    return home


def say(octets: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(octets)))


def verified(home: Path, login: bytes, password: bytes) -> bool:
    from pillarbox.auth.verify import Accounts, verify

    known = Accounts(home, read(home / "control")[0])
    found = known.find(login)
    return found is not None and verify(known.record(found), Password(login, password))


def test_an_account_is_added_listed_and_removed(made: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    say(b"secret one\r\n", monkeypatch)
    assert status(["account", "add", "Joe@Example.org", "--password-stdin"]) == 0
    assert status(["account", "list"]) == 0
    assert capsys.readouterr().out == f"joe@example.org: added\njoe@example.org\t{made}/mail/example.org/joe\t\n"
    assert verified(made, b"joe@example.org", b"secret one")
    assert status(["account", "remove", "joe@example.org"]) == 0
    assert "joe@example.org: removed; its mail is kept in " in capsys.readouterr().out
    assert status(["account", "list"]) == 0
    assert capsys.readouterr().out == ""


def test_a_password_is_changed(made: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    say(b"one\n", monkeypatch)
    status(["account", "add", "joe@example.org", "--password-stdin"])
    say(b"two", monkeypatch)
    assert status(["account", "password", "joe@example.org", "--password-stdin"]) == 0
    assert verified(made, b"joe@example.org", b"two")
    assert not verified(made, b"joe@example.org", b"one")


def test_the_mailbox_belongs_to_vmail_and_auth_reads_the_passwords(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    say(b"one\n", monkeypatch)
    status(["account", "add", "joe@example.org", "--password-stdin"])
    settings = settings_of(made)
    assert (made / "mail/example.org/joe/Maildir/new").stat().st_uid == users_of(settings)["vmail"].uid
    facts = (made / "users/passwords").stat()
    assert (facts.st_uid, facts.st_gid) == (os.getuid(), passwords_reader(settings).gid)
    assert facts.st_mode & 0o777 == 0o640


def test_with_nobody_to_ask_it_says_how_to_give_the_password(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    say(b"secret\n", monkeypatch)
    assert status(["account", "add", "joe@example.org"]) == 100
    assert "pipe it in, with --password-stdin" in capsys.readouterr().err
    assert accounts.list(made) == ()


def test_an_empty_password_is_refused(made: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    say(b"\n", monkeypatch)
    assert status(["account", "add", "joe@example.org", "--password-stdin"]) == 100
    assert capsys.readouterr().err.count("\n") == 1


def test_a_home_that_is_none_says_how_to_make_one(home: Path, capsys: Captured) -> None:
    for arguments in (["account", "list"], ["queue", "list"], ["account", "remove", "joe@example.org"]):
        assert status([*arguments, "--home", str(home)]) == 100
        assert "not set up; run: pillarbox init" in capsys.readouterr().err
    assert not home.exists()


def typed(home: Path, *lines: bytes) -> tuple[int, bytes]:
    """`account add` on a terminal on which these lines are typed: its status, and what the terminal showed."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "pillarbox", "account", "add", "joe@example.org", "--home", home],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    shown = b""
    for line in lines:
        while not shown.endswith(b": "):
            shown += os.read(ours, 100)
        os.write(ours, line + b"\n")
        shown += b"\n"
    with suppress(OSError):  # Linux's way to say that nobody has the terminal any more
        while piece := os.read(ours, 1000):
            shown += piece
    os.close(ours)
    return process.wait(), shown


def test_on_a_terminal_it_asks_twice_and_shows_nothing(made: Path) -> None:
    ended, shown = typed(made, b"my secret", b"my secret")
    assert ended == 0
    assert b"my secret" not in shown
    assert verified(made, b"joe@example.org", b"my secret")


def test_the_first_account_is_made_once_and_works(made: Path) -> None:
    settings = read(made / "control")[0]
    login, password = first_account(made, settings)
    assert login is not None
    assert password is not None
    assert login.endswith("@mx.example.org")
    assert verified(made, login.encode(), password.encode())
    assert first_account(made, settings) == (login, None)


def test_accounts_that_were_all_removed_do_not_come_back(made: Path) -> None:
    settings = read(made / "control")[0]
    login, _ = first_account(made, settings)
    assert login is not None
    accounts.remove(made, login.encode())
    assert first_account(made, settings) == (None, None)


def test_where_the_hosts_users_have_its_mail_no_account_is_made(made: Path) -> None:
    settings = Settings(me=b"mx.example.org", locals=frozenset({b"mx.example.org"}))
    assert first_account(made, settings) == (None, None)
    assert accounts.list(made) == ()


def test_a_line_longer_than_any_password_is_not_cut_to_one(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    say(b"x" * 100_000, monkeypatch)
    assert status(["account", "add", "joe@example.org", "--password-stdin"]) == 100
    assert account.LONGEST_LINE < 100_000
