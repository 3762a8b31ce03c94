"""Every role has its own user and what that user may, and not more: tried from inside each of them.

The users are made in an /etc of the test's own, which only the server sees, so nothing of them stays on the machine.
"""

from __future__ import annotations

import json
import os
import poplib
import signal
import smtplib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests import server as servers
from tests.peers import peer
from tests.people import People, some_people
from tests.server import SECRET, Server, a_home, until

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="needs root: only root can become other users")

PEOPLE = [f"person{number}" for number in range(10)]
EVERY_ROLE = {"auth", "pop3d", "queue", "remot", "smtpd", "spawn", "users"}  # as the kernel has their names
PASSWORD = "bar"
SALT = "$6$rounds=1000$saltstring$"
HASH = SALT + "fwZ4GLBgbx16IsudL3CkGvE65FmaXxJJqkXtZq2KMVCzzv8gRrJ8aYSD29TAYxczYI5z.PgB8ncIt3BIyd.sO."
ROOT_OF_TESTS = Path(__file__).parent.parent.parent
ALL_IDS = {"auth": "pillarauth", "pop3d": "pillarpop", "queue": "qmailq", "remote": "qmailr", "smtpd": "qmaild",
           "users": "qmailp", "owner-person0": "person0", "owner-vmail": "vmail"}  # fmt: skip
GROUPS = {"remote": "nofiles", "smtpd": "nofiles", "users": "nofiles", "queue": "qmail"}
# What a role is there for.
MAY: dict[str, set[str]] = {
    "auth": {"read the passwords"},
    "queue": {"read the queue", "list the queue", "write to queue", "read the routes"},
    "owner-person0": {"list the mailbox of person0"},
    "owner-vmail": {"list the mailbox of joe"},
}
GAIN = {"owner-person0", "owner-vmail"}  # their programs may be set-uid


class Broken:
    """A server with an intruder in every role, and people; `rights` is where the intruders report."""

    def __init__(self, people: People) -> None:
        self.people, self.homes, self.ids = people, people.homes, people.ids
        self.rights = people.place / "rights"

    def gid(self, group: str) -> int:
        entries = (self.people.place / "etc" / "group").read_text().splitlines()
        entry = next(line for line in entries if line.startswith(f"{group}:"))
        return int(entry.split(":")[2])

    def report(self, name: str) -> dict[str, Any]:
        """What the intruder in a role says."""
        until((self.rights / name).exists, f"a report of {name}")
        report = json.loads((self.rights / name).read_text())
        assert isinstance(report, dict)
        return report

    def mail_of(self, person: str) -> list[Path]:
        return list((self.homes / person / "Maildir" / "new").iterdir())


@contextmanager
def people() -> Iterator[Broken]:
    """Ten users of the system with a Maildir each; where `pillarbox` runs with an intruder, in their /etc."""
    with some_people(without=PEOPLE) as some:
        broken = Broken(some)
        broken.rights.mkdir()
        broken.rights.chmod(0o1777)
        for person in PEOPLE:
            home = some.add(person, "--password", HASH)
            for part in ("Maildir", "Maildir/tmp", "Maildir/new", "Maildir/cur"):
                (home / part).mkdir(mode=0o700)
                os.chown(home / part, *some.ids(person))
        with intruders(broken):
            yield broken


@contextmanager
def intruders(broken: Broken) -> Iterator[None]:
    intruder = f"import runpy, sys; sys.path.insert(0, {str(ROOT_OF_TESTS)!r}); "
    intruder += "runpy.run_module('tests.scenarios.intruder', run_name='__main__')"
    with pytest.MonkeyPatch.context() as patch:
        command = broken.people.within(sys.executable, "-W", "ignore::ResourceWarning", "-c", intruder)
        patch.setattr(servers, "_COMMAND", tuple(command))
        patch.setenv("RIGHTS", str(broken.rights))
        yield


@contextmanager
def a_broken_server(control: Mapping[str, str]) -> Iterator[tuple[Broken, Server]]:
    local = "localhost\nsys.example.org\n"
    routes = ":relay.example.net joe relaysecret\n"
    settings = {"locals": local, "rcpthosts": local, "smtproutes": routes, **control}
    with people() as broken, a_home(settings) as server:
        mailboxes = {person: str(broken.homes / person) for person in PEOPLE[:2]} | {"joe": str(server.mailbox())}
        (broken.rights / "mailboxes").write_text(json.dumps(mailboxes))
        server.pillarbox("queue", "list")  # makes the queue, so that there is something to break into
        server.start()
        yield broken, server
        assert server.stop() == 0


@pytest.fixture(scope="module")
def shadowed() -> Iterator[tuple[Broken, Server]]:
    """System users log in by /etc/shadow, so auth is root."""
    with a_broken_server({"checkers": "shadow\n"}) as made:
        yield made


@pytest.fixture(scope="module")
def unshadowed() -> Iterator[tuple[Broken, Server]]:
    """Only accounts log in, so auth is nobody in particular."""
    with a_broken_server({}) as made:
        yield made


def send(server: Server, *recipients: str) -> None:
    """As soon as the roles that this takes are there."""

    def attempt() -> bool:
        try:
            with smtplib.SMTP("127.0.0.1", server.ports["smtp"], timeout=30) as client:
                return client.sendmail("ann@example.net", recipients, "Subject: for all\r\n\r\nHello.\r\n") == {}
        except smtplib.SMTPResponseException as refused:
            assert refused.smtp_code < 500
        except (smtplib.SMTPServerDisconnected, smtplib.SMTPRecipientsRefused):
            pass
        return False

    until(attempt, "a message taken")


def fetch(server: Server, login: str, password: str) -> list[bytes]:
    """The messages that POP3 shows."""
    pop = poplib.POP3_SSL("localhost", server.ports["pop3s"], context=server.trust(), timeout=30)
    try:
        pop.user(login)
        pop.pass_(password)
        return [b"\n".join(pop.retr(number + 1)[1]) for number in range(pop.stat()[0])]
    finally:
        pop.quit()


def test_ten_system_users_and_an_account_get_their_mail_and_read_it(shadowed: tuple[Broken, Server]) -> None:
    broken, server = shadowed
    send(server, *(f"{person}@sys.example.org" for person in PEOPLE), "joe@example.org")
    for person in PEOPLE:
        (file,) = until(lambda person=person: broken.mail_of(person), f"mail for {person}")
        facts = file.stat()
        assert (facts.st_uid, facts.st_gid, facts.st_mode & 0o077) == (*broken.ids(person), 0)
        (message,) = fetch(server, person, PASSWORD)
        assert f"Delivered-To: {person}@sys.example.org".encode() in message
    (message,) = fetch(server, "joe@example.org", SECRET)
    assert b"Delivered-To: joe@example.org" in message
    for login, password in (("person0", "baz"), ("root", PASSWORD), ("nobody", PASSWORD), ("person0", SECRET)):
        with pytest.raises(poplib.error_proto, match="authorization failed"):
            fetch(server, login, password)


@pytest.mark.parametrize("name", sorted(ALL_IDS))
def test_from_inside_a_role_nothing_is_to_be_had_but_what_it_is_for(
    name: str, shadowed: tuple[Broken, Server], unshadowed: tuple[Broken, Server]
) -> None:
    broken, server = unshadowed if name == "auth" else shadowed
    if name.startswith("owner"):
        send(server, "person0@sys.example.org" if name == "owner-person0" else "joe@example.org")
    report = broken.report(name)
    facts = report.pop("facts")
    seen = {attempt.removeprefix("trace ") for attempt in report if attempt.startswith("trace ")}
    assert seen >= EVERY_ROLE - {name[:5]}, "roles were missing when it tried"
    done = {attempt for attempt, came in report.items() if came.startswith("DONE")}
    assert done == MAY.get(name, set())
    others = {attempt: came for attempt, came in report.items() if attempt not in done and came != "denied"}
    assert others == {}
    uid, gid = broken.ids(ALL_IDS[name])
    gid = broken.gid(GROUPS[name]) if name in GROUPS else gid
    assert facts["Uid"].split() == [str(uid)] * 4 and uid != 0
    assert facts["Gid"].split() == [str(gid)] * 4
    assert facts["Groups"].split() == []
    assert {facts[caps] for caps in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {"0" * 16}
    assert (facts["NoNewPrivs"], facts["Dumpable"], facts["Umask"]) == ("0" if name in GAIN else "1", "0", "0077")


@pytest.mark.parametrize("name", ["spawn", "auth"])
def test_a_role_that_must_be_root_has_no_groups_and_cannot_be_traced(
    name: str, shadowed: tuple[Broken, Server]
) -> None:
    facts = shadowed[0].report(name)["facts"]
    assert facts["Uid"].split() == facts["Gid"].split() == ["0"] * 4
    assert (facts["Groups"].split(), facts["Dumpable"], facts["Umask"]) == ([], "0", "0077")


SAID = {
    "smtpd": {"to queue": "cut", "to users": "cut", "to auth": "cut"},
    "pop3d": {"to auth": "cut"},
    "remote": {"to queue": "cut"},
    "owner-person0": {"to queue": "cut"},
    "users": {"to smtpd": "cut", "to spawn": "cut", "to owner": "cut"},
    "queue": {
        "to smtpd": "cut",
        "to spawn": "cut",
        "to remote": "cut",
        "to owner": "cut",
        "a delivery to person0 by person0": "K",
        "a delivery to person1 by person0": "Z",
        "a delivery to example.org-joe by person0": "Z",
    },
    "auth": {
        "to smtpd": "cut",
        "to pop3d": "cut",
        "to spawn": "cut",
        "to owner": "cut",
        "the maildrop of person0 from person0": "LISTING",
        "the maildrop of person1 from person0": "REFUSED",
        "the maildrop of example.org-joe from person0": "REFUSED",
    },
}


@pytest.mark.parametrize("name", sorted(SAID))
def test_from_inside_a_role_no_peer_does_what_is_not_on_its_list(name: str, shadowed: tuple[Broken, Server]) -> None:
    broken, server = shadowed
    send(server, "person0@sys.example.org")
    until(lambda: broken.mail_of("person0"), "mail for person0")
    (broken.rights / f"turn-{name}").touch()
    server.kill_role(name.partition("-")[0])
    if name.startswith("owner"):
        send(server, "person0@sys.example.org")
    said = broken.report(f"{name}-said")
    asked_spawn = {key: came for key, came in said.items() if key.startswith("an owner role for")}
    uid, gid = broken.ids("alias")
    nobody = f"{uid}:{gid}" if name in ("queue", "users") else "refused"  # their mail is for alias
    assert set(asked_spawn.values()) <= {nobody}
    rest = {key: came for key, came in said.items() if key not in asked_spawn}
    assert rest == SAID[name] | {"to the supervisor": "cut"}
    assert len(asked_spawn) == (3 if name in ("queue", "users", "auth") else 0)


def test_a_reload_makes_auth_whom_the_checkers_need(unshadowed: tuple[Broken, Server]) -> None:
    broken, server = unshadowed
    send(server, "person3@sys.example.org")
    until(lambda: broken.mail_of("person3"), "mail for person3")

    def answer() -> str:
        try:
            return f"{len(fetch(server, 'person3', PASSWORD))} messages"
        except poplib.error_proto as refused:
            return "refused" if "authorization failed" in str(refused) else ""

    assert answer() == "refused"
    server.control("checkers", "shadow\n")
    server.signal(signal.SIGHUP)
    until(lambda: answer() == "1 messages", "person3 to be let in")
    server.control("checkers", None)
    server.signal(signal.SIGHUP)
    until(lambda: answer() == "refused", "person3 to be refused")
    (pid,) = server.processes("auth")
    status = Path(f"/proc/{pid}/status").read_text()
    assert f"Uid:\t{broken.ids('pillarauth')[0]}\t" in status


def test_a_real_checkpassword_program_lets_in_whom_it_becomes(unshadowed: tuple[Broken, Server]) -> None:
    """checkpw has each user's password in his Maildir; it becomes the user, and starts what says whom it became."""
    broken, server = unshadowed
    file = broken.homes / "person4" / "Maildir" / ".password"
    file.write_text("mine alone")
    file.chmod(0o600)
    os.chown(file, *broken.ids("person4"))
    server.control("checkers", f"{peer('checkpw')}\n")
    server.signal(signal.SIGHUP)

    def login(person: str, password: str) -> str:
        try:
            fetch(server, person, password)
        except poplib.error_proto as refused:
            return "refused" if "authorization failed" in str(refused) else ""
        return "let in"

    assert until(lambda: login("person4", "mine alone"), "a verdict") == "let in"
    assert login("person4", "not mine") == "refused"
    assert login("person5", "mine alone") in ("refused", "")  # he has no such file: checkpw cannot say
    assert login("nobody-there", "mine alone") == "refused"
    server.control("checkers", None)
    server.signal(signal.SIGHUP)
    until(lambda: login("person4", "mine alone") == "refused", "auth to be itself again")
