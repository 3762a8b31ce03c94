"""The password database: found, not found, cannot say."""

from __future__ import annotations

import errno
import pwd

import pytest

from pillarbox.users import system
from pillarbox.users.system import CannotSay, SystemUser


def test_every_user_of_this_machine_is_found_as_python_finds_him() -> None:
    for entry in pwd.getpwall():
        name, shell = entry.pw_name.encode(), entry.pw_shell.encode()
        expected = SystemUser(name, entry.pw_uid, entry.pw_gid, entry.pw_dir.encode(), shell)
        assert system.find(entry.pw_name.encode()) == expected
        assert system._ask_python(entry.pw_name.encode()) == expected


@pytest.mark.parametrize("name", [b"no-such-user-here", b"", b"root\0", b"x" * 300, b"\xff\xfe", b"root:x", b"root\n"])
def test_who_is_not_there_is_none(name: bytes) -> None:
    assert system.find(name) is None


def test_python_alone_says_none_too() -> None:
    assert system._ask_python(b"no-such-user-here") is None


@pytest.mark.parametrize("number", [0, errno.ENOENT, errno.ESRCH, errno.EBADF, errno.EPERM])
def test_the_ways_to_say_not_found_are_not_found(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(system, "_getpwnam_r", lambda *_: number)
    assert system.find(b"joe") is None


@pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE, errno.ETIMEDOUT, errno.ECONNREFUSED, errno.ERANGE])
def test_a_database_that_cannot_say_is_not_absence(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(system, "_getpwnam_r", lambda *_: number)
    with pytest.raises(CannotSay) as caught:
        system.find(b"joe")
    assert not caught.value.refusal.permanent


def test_an_entry_that_does_not_fit_is_not_absence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "_BUFFER", 4)
    with pytest.raises(CannotSay):
        system.find(b"root")
