"""The auth role over its links; smtpd, spawn and an owner are played by the test."""

from __future__ import annotations

import os
import socket
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from pillarbox import accounts
from pillarbox.auth import hashes
from pillarbox.auth.checkers import CannotCheck, Verdict
from pillarbox.control.table import Settings
from pillarbox.credentials import Credentials
from pillarbox.roles import auth
from pillarbox.roles.house import House
from pillarbox.roles.link import Frame, Link
from pillarbox.roles.logins import PASSWORD
from pillarbox.roles.verbs import MAY_SAY, ROLE_SAYS, Verb
from pillarbox.users import system
from pillarbox.users.owner import Owner
from pillarbox.users.system import SystemUser
from tests.home import USER, make_home
from tests.server import until

CHEAP = b"$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$3h+zV4SKdnmT6/yB4f6y12ln/TPaSbMEGszisXD1AYc"  # bar


class Played:
    """An auth role in a process of its own, for a home with the accounts joe and sue @example.org and the system user
    sue."""

    def __init__(self, home: Path, checkers: tuple[bytes, ...]) -> None:
        settings = Settings(me=b"example.org", locals=frozenset({b"sys.example"}), checkers=checkers)
        ours, control = socket.socketpair()
        self._pid = os.fork()
        if self._pid == 0:
            ours.close()
            _be(House(home, settings, []), control)
        control.close()
        self._supervisor = Link(ours, ROLE_SAYS)
        self.smtpd = self.link("smtpd")
        self._tag = 0

    def link(self, peer: str) -> Link:
        ours, theirs = socket.socketpair()
        self._supervisor.send(Verb.LINK, 0, peer.encode(), descriptors=[theirs.detach()])
        self._supervisor.flush()
        return Link(ours, MAY_SAY["auth", peer])

    def login(self, name: bytes, password: bytes = b"bar", client: bytes = b"192.0.2.1") -> Frame:
        self._tag += 1
        self.smtpd.send(Verb.LOGIN, self._tag, client, PASSWORD, name, b"", password)
        self.smtpd.flush()
        (answer,) = until(self.smtpd.receive, f"an answer to {name!r}")
        return answer

    def end(self) -> None:
        self._supervisor.send(Verb.DRAIN, 0)
        self._supervisor.flush()
        assert os.waitpid(self._pid, 0)[1] == 0
        for link in (self.smtpd, self._supervisor):
            link.close()


def _be(house: House, control: socket.socket) -> NoReturn:
    status = 1
    try:
        os.dup2(os.open(house.home / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
        auth.run(house, control)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(hashes, "make", lambda password, salt: CHEAP)
    home = make_home(tmp_path / "home")
    for name in (b"joe@example.org", b"sue@example.org"):
        accounts.add(home, name, b"bar", user=USER)
    people = {b"sue": SystemUser(b"sue", 502, 502, b"/h/sue")}
    monkeypatch.setattr(system, "find", people.get)
    return home


class Asked:
    """Whom checkers were asked about, in another process: names, and the uid of the owner where there is one."""

    def __init__(self, file: Path) -> None:
        self._file = file
        file.touch()

    def note(self, name: bytes, owner: Owner | None) -> None:
        with self._file.open("a") as file:
            file.write(f"{name.decode()} {owner.uid if owner else 'nobody'}\n")

    @property
    def names(self) -> list[str]:
        return self._file.read_text().splitlines()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Asked:
    """The checkers say yes to an owner whose password is `system`."""
    found = Asked(tmp_path / "asked")

    def check(_how: object, name: bytes, owner: Owner | None, credentials: Credentials, _today: int) -> Verdict:
        found.note(name, owner)
        password = getattr(credentials, "password", b"")
        if password == b"trouble":
            raise CannotCheck("the directory is down")
        return Verdict(owner is not None and password == b"system")

    monkeypatch.setattr(auth, "check", check)
    return found


@pytest.fixture
def played(home: Path, asked: Asked) -> Iterator[Played]:
    one = Played(home, (b"shadow",))
    yield one
    one.end()


def refused(answer: Frame) -> bytes:
    assert answer.verb is Verb.REFUSED
    return answer.fields[0]


def test_a_system_user_logs_in_by_the_checkers_and_an_account_by_its_record(played: Played, asked: Asked) -> None:
    answer = played.login(b"Sue", b"system")
    assert (answer.verb, tuple(answer.fields)) == (Verb.IDENTITY, (b"Sue", b"sue@sys.example", b"", b""))
    assert asked.names == ["sue 502"]
    answer = played.login(b"sue@example.org")
    assert (answer.verb, answer.fields[1]) == (Verb.IDENTITY, b"sue@example.org")
    assert played.login(b"joe").fields[1] == b"joe@example.org"
    assert asked.names == ["sue 502"]


@pytest.mark.parametrize("name", [b"joe", b"nobody", b"joe@sys.example", b"root", b"alias"])
def test_checkers_are_asked_about_whoever_might_be_a_system_user_and_not_believed(
    played: Played, asked: Asked, name: bytes
) -> None:
    """Whoever is guessed for, a wrong password takes the same work; and a yes for nobody's name opens nothing."""
    assert refused(played.login(name, b"system")) == b"5.7.8"
    assert asked.names == [f"{name.partition(b'@')[0].decode()} nobody"]


def test_the_password_of_an_account_is_not_its_namesakes(played: Played) -> None:
    """A system user comes before the short form; the account of that name has its full address."""
    assert refused(played.login(b"sue", b"bar")) == b"5.7.8"
    assert refused(played.login(b"sue@example.org", b"system")) == b"5.7.8"


def test_a_full_address_of_an_account_domain_is_no_question_for_checkers(played: Played, asked: Asked) -> None:
    assert refused(played.login(b"joe@example.org", b"system")) == b"5.7.8"
    assert refused(played.login(b"nobody@example.org", b"system")) == b"5.7.8"
    assert asked.names == []


def test_checkers_that_cannot_say_make_no_refusal(home: Path, played: Played) -> None:
    assert refused(played.login(b"sue", b"trouble")) == b"4.7.0"
    log = (home / "log").read_text()
    assert log == "auth: warning: login sue: the directory is down\n"


def test_a_password_database_that_does_not_answer_makes_no_refusal(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(_name: bytes) -> SystemUser | None:
        raise system.CannotSay("cannot look up users: no answer")

    monkeypatch.setattr(system, "find", silent)
    one = Played(home, (b"shadow",))
    assert refused(one.login(b"sue", b"system")) == b"4.3.0"
    one.end()


def test_without_checkers_nobody_is_asked(home: Path, asked: Asked) -> None:
    one = Played(home, ())
    assert refused(one.login(b"nobody", b"system")) == b"5.7.8"
    assert one.login(b"sue").fields[1] == b"sue@example.org"
    assert asked.names == []
    one.end()


DES = b"0ZsfajRLIfp0w"  # bar


def log_in_to_a_mailbox(played: Played, name: bytes, password: bytes, stored: bytes) -> Frame:
    """The answer to smtpd; spawn and the owner's role are played, and that finds `stored` in the passwd file."""
    spawn = played.link("spawn")
    played.smtpd.send(Verb.LOGIN, 9, b"192.0.2.1", PASSWORD, name, b"", password)
    played.smtpd.flush()
    (wanted,) = until(spawn.receive, "a question to spawn")
    assert (wanted.verb, wanted.fields) == (Verb.OWNER, [b"sue"])
    ours, theirs = socket.socketpair()
    spawn.send(Verb.OWNED, wanted.tag, b"502:502", descriptors=[theirs.detach()])
    spawn.flush()
    owner = Link(ours, MAY_SAY["auth", "owner"])
    (question,) = until(owner.receive, "a question to the owner")
    assert (question.verb, question.fields) == (Verb.PASSWD, [b"sue", b"lists"])
    owner.send(Verb.HASH, question.tag, stored)
    owner.flush()
    (answer,) = until(played.smtpd.receive, "an answer")
    owner.close()
    spawn.close()
    return answer


# row: maildirpop3d-serve
def test_a_mailbox_of_a_system_user_has_its_own_password_and_no_checker_is_asked(played: Played, asked: Asked) -> None:
    answer = log_in_to_a_mailbox(played, b"sue-lists", b"bar", DES)
    assert (answer.verb, tuple(answer.fields)) == (Verb.IDENTITY, (b"sue-lists", b"sue@sys.example", b"lists", b""))
    assert refused(log_in_to_a_mailbox(played, b"sue-lists@sys.example", b"system", DES)) == b"5.7.8"
    assert asked.names == []


def test_the_work_is_the_same_with_and_without_a_mailbox(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its hash would be crypt(3)'s: one of these is computed in any case, beside the argon2id of every login."""
    crypted, file = hashes._crypted, home / "crypted"

    def noted(setting: bytes, password: bytes) -> bytes | None:
        with open(file, "ab") as log:
            log.write(setting[:7] + b"\n")
        return crypted(setting, password)

    monkeypatch.setattr(hashes, "_crypted", noted)
    one = Played(home, (b"shadow",))
    assert refused(log_in_to_a_mailbox(one, b"sue-lists", b"baz", b"")) == b"5.7.8"
    assert refused(log_in_to_a_mailbox(one, b"sue-lists", b"baz", DES)) == b"5.7.8"
    one.end()
    assert file.read_bytes() == b"$y$j9T$\n" + b"$y$j9T$\n0ZsfajR\n"
