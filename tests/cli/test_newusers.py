"""The programs that change /etc/passwd and /etc/group are run for real, in a mount namespace of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import pillarbox
from pillarbox.cli import newusers
from pillarbox.cli.newusers import CannotMakeUser, make_missing
from pillarbox.control.table import Settings
from pillarbox.users import system
from pillarbox.users.roles import POSTS
from pillarbox.users.system import SystemUser
from tests.etc import copy_etc

HOME = Path("/srv/my mail")
FRESH = """
mount --bind "$1" /etc && shift && exec "$@"
"""
MAKE = """
import sys
from pathlib import Path
from pillarbox.cli.newusers import make_missing
from pillarbox.control.table import Settings
from pillarbox.users.roles import role_users
from pillarbox.users import system
names = {"smtpd": "_smtp"} if "other" in sys.argv else {}
settings = Settings(roleusers=names)
for line in make_missing(Path("/srv/my mail"), settings):
    print(line)
for role, user in role_users(settings).items():
    print(role, user.name, user.uid != 0)
"""


@pytest.fixture
def nobody_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "find", lambda _name: None)
    monkeypatch.setattr(newusers, "_group_exists", lambda _name: False)
    monkeypatch.setattr(newusers, "PAUSE", 0)


def in_fresh_etc(tmp_path: Path, *arguments: str) -> list[str]:
    """What MAKE prints on a machine whose /etc knows none of our users."""
    if os.getuid() != 0 or subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("needs root, and leave to unshare mounts")
    etc = tmp_path / "etc"
    if not etc.exists():
        copy_etc(etc, without={"pillarbox", *(post.name for post in POSTS), *(post.group for post in POSTS)})
    source = str(Path(pillarbox.__file__).parent.parent)
    done = subprocess.run(
        ["unshare", "-m", "sh", "-euc", FRESH, "sh", str(etc), sys.executable, "-c", MAKE, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": source},
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_on_a_new_machine_all_users_and_groups_are_made_and_each_is_said(tmp_path: Path) -> None:
    said = in_fresh_etc(tmp_path)
    assert [line for line in said if line.startswith("created the group")] == [
        f"created the group {name}" for name in ("pillarauth", "nofiles", "qmail", "pillarpop", "vmail")
    ]
    assert [line.split(":")[0] for line in said if "system user" in line] == [
        f"created the system user {post.name}" for post in POSTS
    ]
    assert "remote qmailr True" in said
    passwd = (tmp_path / "etc" / "passwd").read_text()
    assert ":Pillarbox mail server:/srv/my mail/alias:/usr/sbin/nologin\n" in passwd
    assert passwd.count(":Pillarbox mail server:/nonexistent:/usr/sbin/nologin\n") == len(POSTS) - 1


def test_a_second_time_nothing_is_made_or_said_but_for_another_name(tmp_path: Path) -> None:
    in_fresh_etc(tmp_path)
    assert not any(line.startswith("created") for line in in_fresh_etc(tmp_path))
    said = in_fresh_etc(tmp_path, "other")
    assert said[0] == "created the system user _smtp: SMTP"
    assert "smtpd _smtp True" in said


def test_what_is_there_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "find", lambda name: SystemUser(name, 7, 8, b"/"))
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("a command was run"))
    assert list(make_missing(HOME, Settings())) == []


@pytest.mark.usefixtures("nobody_there")
def test_a_command_that_fails_is_one_line_with_the_command_to_do_it_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = subprocess.CompletedProcess((), 3, "", "groupadd: no\n way\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(CannotMakeUser, match=r"server: groupadd: no way; do it by hand: groupadd --system pillarauth$"):
        list(make_missing(HOME, Settings()))


@pytest.mark.usefixtures("nobody_there")
def test_while_somebody_else_changes_the_password_file_it_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def run(words: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        tried.append(words[-1])
        busy = tried.count(words[-1]) < 3
        return subprocess.CompletedProcess((), int(busy), "", "cannot lock /etc/passwd; try again later." * busy)

    monkeypatch.setattr(subprocess, "run", run)
    assert "created the system user qmaild: SMTP" in list(make_missing(HOME, Settings()))
    assert tried.count("qmaild") == 3


@pytest.mark.usefixtures("nobody_there")
def test_a_lock_that_is_never_given_up_ends_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = subprocess.CompletedProcess((), 1, "", "cannot lock /etc/passwd; try again later.")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(CannotMakeUser, match=r"cannot lock /etc/passwd; try again later\.; do it by hand: "):
        list(make_missing(HOME, Settings()))


@pytest.mark.usefixtures("nobody_there")
def test_a_system_without_such_programs_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    with pytest.raises(CannotMakeUser, match="groupadd is not here: groupadd --system pillarauth"):
        list(make_missing(HOME, Settings()))


def test_one_init_at_a_time_makes_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(newusers, "PROGRAM_TIME", 0.1)
    with (
        newusers._alone(),
        pytest.raises(newusers.CannotMakeUser, match="another `pillarbox init` is making users"),
        newusers._alone(),
    ):
        pass
    with newusers._alone():
        pass
