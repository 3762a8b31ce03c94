from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from pillarbox.cli import certificate, create
from pillarbox.cli.create import CannotCreate
from pillarbox.cli.layout import PLACES, BadRoleUsers, settings_of, users_of
from pillarbox.control.table import read
from tests.cli.conftest import AsNobody
from tests.cli.test_certificate import shake_hands

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="needs root")


def mode(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


def everything(home: Path) -> dict[str, bytes]:
    return {str(file.relative_to(home)): file.read_bytes() for file in home.rglob("*") if file.is_file()}


def test_a_new_home_is_complete_and_every_part_of_it_is_said(home: Path) -> None:
    lines = create.create(home, "mx.example.org")
    settings, complaints = read(home / "control")
    assert complaints == []
    assert settings.me == b"mx.example.org"
    assert settings.locals == settings.rcpthosts == frozenset({b"localhost"})
    assert [str(listener) for listener in settings.listen] == [
        "smtp 127.0.0.1:2525",
        "submission 127.0.0.1:2587",
        "submissions 127.0.0.1:2465",
        "pop3 127.0.0.1:2110",
        "pop3s 127.0.0.1:2995",
    ]
    assert shake_hands(home / "tls" / "cert.pem", home / "tls" / "key.pem", "127.0.0.1")
    said = "\n".join(lines)
    for thing in (*(f"{place.name}/" for place in PLACES), "control/me: mx.example.org", "self-signed certificate"):
        assert thing in said


def test_mail_for_root_goes_to_the_alias_table_and_else_to_postmaster(home: Path) -> None:
    create.create(home, "MX.example.org")
    assert (home / "alias" / ".qmail-mx:example:org-root").read_bytes() == b"&root@localhost\n"
    assert (home / "alias" / ".qmail-mx:example:org-postmaster").read_bytes() == b"&postmaster@localhost\n"
    assert (home / "alias" / ".qmail-root").read_bytes() == b"&postmaster@localhost\n"
    assert (home / "control" / "virtualdomains").read_bytes() == b"mx.example.org:mx.example.org\n"
    (home / "alias" / ".qmail-root").unlink()
    assert create.create(home) == []


def test_a_second_time_nothing_is_done_or_said(home: Path) -> None:
    create.create(home, "mx.example.org")
    before = everything(home)
    assert create.create(home) == []
    assert create.create(home, "MX.example.org") == []
    assert everything(home) == before


def test_what_the_postmaster_wrote_stays(home: Path) -> None:
    create.create(home, "mx.example.org")
    (home / "control" / "listen").write_text("smtp 127.0.0.1:25\n")
    (home / "control" / "locals").unlink()
    (home / "tls" / "cert.pem").write_text("mine")
    create.create(home)
    assert (home / "control" / "listen").read_text() == "smtp 127.0.0.1:25\n"
    assert not (home / "control" / "locals").exists()
    assert (home / "tls" / "cert.pem").read_text() == "mine"


def test_modes_do_not_depend_on_the_umask(home: Path) -> None:
    before = os.umask(0)
    try:
        create.create(home, "mx.example.org")
    finally:
        os.umask(before)
    assert {place.name: mode(home / place.name) for place in PLACES} == {place.name: place.mode for place in PLACES}
    assert mode(home / "queue") == 0o700
    assert mode(home / "tls" / "key.pem") & 0o037 == 0
    assert mode(home / "control" / "me") == mode(home / "tls" / "cert.pem") == 0o644


@needs_root
def test_what_roles_write_is_theirs_and_what_they_read_is_not(home: Path) -> None:
    create.create(home, "mx.example.org")
    users = users_of(settings_of(home))
    owners = {place.name: (home / place.name).stat().st_uid for place in PLACES}
    assert {name for name, uid in owners.items() if uid == users["queue"].uid} >= {"queue"}
    assert {name for name, uid in owners.items() if uid == users["alias"].uid} >= {"alias"}
    assert {name for name, uid in owners.items() if uid == 0} == {"control", "users", "mail", "run", "tls"}
    key = (home / "tls" / "key.pem").stat()
    assert (key.st_uid, key.st_gid) == (0, users["supervisor"].gid)
    assert stat.S_IMODE(key.st_mode) & 0o037 == 0


@needs_root
def test_routes_with_passwords_are_closed_and_that_is_said(home: Path) -> None:
    create.create(home, "mx.example.org")
    routes = home / "control" / "smtproutes"
    routes.write_text(":relay.example.org\n")
    routes.chmod(0o644)
    assert create.create(home) == []
    routes.write_text(":relay.example.org joe secret\n")
    assert create.create(home) == ["control/smtproutes: holds passwords: others can not read it any more"]
    facts = routes.stat()
    assert (facts.st_uid, facts.st_gid) == (0, users_of(settings_of(home))["queue"].gid)
    assert mode(routes) == 0o640
    assert create.create(home) == []


def test_with_a_broken_roleusers_nobody_is_made(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create.create(home, "mx.example.org")
    (home / "control" / "roleusers").write_text("smtpd joe\n")
    monkeypatch.setattr(create, "make_missing", lambda *_: pytest.fail("users were made"))
    with pytest.raises(BadRoleUsers, match="control/roleusers: line 1: not ROLE:USER: 'smtpd joe'; write lines"):
        create.create(home)


@needs_root
def test_a_place_of_somebody_else_is_not_taken_away(home: Path) -> None:
    create.create(home, "mx.example.org")
    os.chown(home / "queue", 65534, 65534)
    create.create(home)
    assert (home / "queue").stat().st_uid == 65534


@needs_root
def test_a_home_that_the_roles_cannot_reach_is_refused(home: Path) -> None:
    home.parent.chmod(0o700)
    with pytest.raises(CannotCreate, match=f"the user .* of the server cannot enter {home.parent}"):
        create.create(home, "mx.example.org")
    assert not home.exists()


@needs_root
def test_a_home_that_is_itself_closed_is_refused(home: Path) -> None:
    create.create(home, "mx.example.org")
    home.chmod(0o700)
    with pytest.raises(CannotCreate, match="chmod o\\+x"):
        create.create(home)


def test_without_rights_to_write_there_it_says_where_and_what_to_do(home: Path, as_nobody: AsNobody) -> None:
    home.parent.chmod(0o555)

    def attempt() -> None:
        with pytest.raises(
            CannotCreate, match=r"Permission denied; let the user .* write there, or say another --home"
        ):
            create.create(home, "mx.example.org")

    as_nobody(attempt)


def test_a_plain_user_makes_a_home_of_his_own(home: Path, as_nobody: AsNobody) -> None:
    home.parent.chmod(0o777)
    assert certificate  # imported here: the other user may not be able to

    as_nobody(lambda: print(create.create(home, "mx.example.org")))
    uid = 65534 if os.getuid() == 0 else os.getuid()
    assert {file.stat().st_uid for file in home.rglob("*")} == {uid}
    assert mode(home / "tls" / "key.pem") == 0o600


@pytest.mark.parametrize("me", ["", "a b", "-", "mx_.example.org\nx", "[127.0.0.1]", "möx.example.org", "a..b"])
def test_a_name_that_no_host_has_is_refused(home: Path, me: str) -> None:
    with pytest.raises(CannotCreate, match="--me: not a host name"):
        create.create(home, me)
    assert not home.exists()


def test_another_name_than_the_homes_own_is_refused(home: Path) -> None:
    create.create(home, "mx.example.org")
    with pytest.raises(CannotCreate, match=r"me says 'mx.example.org', not 'other.example.org'"):
        create.create(home, "other.example.org")


@pytest.mark.parametrize(
    ("system", "me"),
    [("box.example.org", "box.example.org"), ("box", "box"), ("localhost", "localhost.localdomain"),
     ("my_box!", "localhost.localdomain")],
)  # fmt: skip
def test_without_a_name_the_systems_own_is_taken_if_mail_can_go_there(
    home: Path, monkeypatch: pytest.MonkeyPatch, system: str, me: str
) -> None:
    uname = os.uname_result((*os.uname()[:1], system, *os.uname()[2:]))
    monkeypatch.setattr(os, "uname", lambda: uname)
    create.create(home)
    assert (home / "control" / "me").read_text() == f"{me}\n"


def test_standard_ports_are_those_of_every_address(home: Path) -> None:
    create.create(home, "mx.example.org", standard_ports=True)
    settings, complaints = read(home / "control")
    assert not complaints
    ports = {(listener.service, listener.port) for listener in settings.listen}
    assert ports == {("smtp", 25), ("submission", 587), ("submissions", 465), ("pop3", 110), ("pop3s", 995)}
    assert {listener.address for listener in settings.listen} <= {"0.0.0.0", "::"}


@needs_root
def test_a_trap_laid_under_the_name_of_a_half_made_home_is_not_stepped_into(home: Path) -> None:
    trap = home.with_name(f".{home.name}.new")
    trap.mkdir()
    (trap / "control").mkdir()
    os.chown(trap, 65534, 65534)
    with pytest.raises(CannotCreate, match="not empty"):
        create.create(home, "mx.example.org")
    (trap / "control").rmdir()
    create.create(home, "mx.example.org")
    assert home.stat().st_uid == 0


def test_an_existing_qmail_keeps_its_locals_and_bounces(home: Path) -> None:
    """Its missing locals mean control/me, and its missing rcpthosts everything: neither is ours to write."""
    (home / "control").mkdir(parents=True)
    (home / "control" / "me").write_text("mx.example.org\n")
    create.create(home)
    names = {file.name for file in (home / "control").iterdir()}
    assert names == {"me", "listen", "bounceformat"}
    assert read(home / "control")[0].bounceformat == "qsbmf"


def test_a_key_without_certificate_gets_one(home: Path) -> None:
    (home / "tls").mkdir(parents=True)
    key = certificate.new_key()
    (home / "tls" / "key.pem").write_bytes(key)
    create.create(home, "mx.example.org")
    assert (home / "tls" / "key.pem").read_bytes() == key
    assert shake_hands(home / "tls" / "cert.pem", home / "tls" / "key.pem", "localhost")


def test_a_key_that_is_none_is_said_by_name(home: Path) -> None:
    (home / "tls").mkdir(parents=True)
    (home / "tls" / "key.pem").write_text("nonsense")
    with pytest.raises(CannotCreate, match=r"tls/key.pem: no usable private key; remove it"):
        create.create(home, "mx.example.org")


def test_a_certificate_elsewhere_is_left_to_the_postmaster(home: Path) -> None:
    (home / "control").mkdir(parents=True)
    (home / "control" / "tlscert").write_text("/etc/ssl/mx.pem\n")
    create.create(home, "mx.example.org")
    assert list((home / "tls").iterdir()) == []


class Killed(BaseException):
    """Stands for the end of the process: nothing below catches it."""


def dying_after(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process ends before step `steps` of those that change what is on disk."""
    left = [steps]

    def counted(function: Callable[..., object]) -> Callable[..., object]:
        def step(*arguments: object, **named: object) -> object:
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return function(*arguments, **named)

        return step

    for name in ("replace", "rename", "chown", "fchown"):
        monkeypatch.setattr(os, name, counted(getattr(os, name)))
    monkeypatch.setattr(Path, "mkdir", counted(Path.mkdir))
    monkeypatch.setattr(Path, "chmod", counted(Path.chmod))


def test_killed_at_any_step_the_next_start_finishes_the_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create.create(home.parent / "whole", "mx.example.org")
    whole = sorted(everything(home.parent / "whole"))
    for steps in range(100):
        at = home.parent / f"killed {steps}"
        with monkeypatch.context() as dying:
            dying_after(steps, dying)
            try:
                create.create(at, "mx.example.org")
                break
            except Killed:
                pass
        create.create(at, "mx.example.org")
        files = everything(at)
        assert sorted(name for name in files if not name.endswith(".new")) == whole
        assert files["control/me"] == b"mx.example.org\n"
        assert shake_hands(at / "tls" / "cert.pem", at / "tls" / "key.pem", "localhost")
        users = users_of(settings_of(at))
        for place in PLACES:
            assert mode(at / place.name) == place.mode
            owner = users[place.owner].uid if place.owner else os.getuid()
            assert (at / place.name).stat().st_uid == owner
    assert steps > 20
