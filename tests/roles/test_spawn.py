"""The spawn role with real forks; queue, users and auth are played by the test, and what an owner role does too."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from pillarbox.control.table import Settings
from pillarbox.roles import spawn
from pillarbox.roles.house import House
from pillarbox.roles.link import Frame, Link
from pillarbox.roles.rounds import Rounds
from pillarbox.roles.verbs import ROLE_SAYS, Verb
from pillarbox.status import Refusal, Status
from pillarbox.users.assign import Assignment, write
from pillarbox.users.become import Ids

PATIENCE = 10.0  # seconds
OTHER = 4711
QUEUE = 4712
ASSIGNED = {b"queue": QUEUE, b"joe": os.getuid() or 65534, b"jim": os.getuid() or 65534, b"ann": OTHER, b"chief": 0}


def say_who(house: House, control: socket.socket) -> None:
    """An owner role that answers every EXISTS with its pid and user."""
    rounds = Rounds("owner", control)
    while not rounds.draining:
        for peer, link, frame in rounds.wait(None):
            if peer == "users" and frame is not None:
                link.refuse(frame.tag, Refusal(Status(4, 3, 0), f"{os.getpid()} {os.getuid()} {os.getgid()}"))
        rounds.flush()


class Played:
    """A spawn role in a process of its own."""

    def __init__(self, home: Path) -> None:
        for name in ("control", "users", "alias"):
            (home / name).mkdir()
        entries = [
            Assignment(b"=" + name, name, b"%d" % uid, b"%d" % uid, os.fsencode(home)) for name, uid in ASSIGNED.items()
        ]
        write(home / "users", entries)
        ours, control = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            ours.close()
            self._be(home, control)
        control.close()
        self.supervisor = Link(ours, ROLE_SAYS)

    def _be(self, home: Path, control: socket.socket) -> None:
        status = 1
        try:
            house = House(home, Settings(me=b"mx.example.org"), [])
            house.users = {"spawn": Ids(0, 0), "queue": Ids(QUEUE, QUEUE), "vmail": Ids(OTHER, OTHER)}
            spawn.Spawn(house, control, say_who).run()
            status = 0
        except SystemExit:
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)

    def link(self, name: str) -> Link:
        ours, theirs = socket.socketpair()
        self.supervisor.send(Verb.LINK, 0, name.encode(), descriptors=[theirs.detach()])
        self.supervisor.flush()
        return Link.between(name, "spawn", ours)


@pytest.fixture
def played() -> Iterator[Played]:
    directory = Path(tempfile.mkdtemp(prefix="pillarbox-test-"))
    directory.chmod(0o755)
    one = Played(directory)
    yield one
    one.supervisor.send(Verb.DRAIN, 0)
    one.supervisor.flush()
    end = time.monotonic() + PATIENCE
    while not (ended := os.waitpid(one.pid, os.WNOHANG))[0] and time.monotonic() < end:
        time.sleep(0.005)
    assert ended == (one.pid, 0), "it did not end, or its owners did not"
    one.supervisor.close()
    shutil.rmtree(directory)


def ask(link: Link, verb: Verb, field: bytes) -> Frame:
    link.send(verb, 1, field)
    link.flush()
    end = time.monotonic() + PATIENCE
    while not (frames := link.receive()):
        assert time.monotonic() < end
        time.sleep(0.002)
    return frames[0]


def who(asker: Link, local: bytes) -> tuple[int, int, int]:
    """pid, uid and gid of the role at the other end of what spawn hands out."""
    (descriptor,) = ask(asker, Verb.OWNER, local).descriptors
    owner = Link.between("users", "owner", socket.socket(fileno=descriptor))
    pid, uid, gid = map(int, ask(owner, Verb.EXISTS, b"x").fields[1].split())
    owner.close()
    return pid, uid, gid


def test_local_parts_of_one_user_share_a_role_that_is_his(played: Played) -> None:
    users = played.link("users")
    first, second = who(users, b"joe"), who(users, b"jim")
    assert first == second and first[1] == ASSIGNED[b"joe"]
    users.close()


def test_another_user_gets_another_role_where_we_may_become_him(played: Played) -> None:
    users = played.link("users")
    if os.getuid() == 0:
        joe, ann = who(users, b"joe"), who(users, b"ann")
        assert ann[1:] == (OTHER, OTHER) and joe[0] != ann[0]
    else:
        assert ask(users, Verb.OWNER, b"ann").fields[0] == b"4.3.5"
    users.close()


def test_many_questions_about_one_owner_at_once_are_all_answered(played: Played) -> None:
    users = played.link("users")
    who(users, b"joe")
    os.kill(played.pid, signal.SIGSTOP)
    for tag in range(1, 1001):
        users.send(Verb.OWNER, tag, b"joe" if tag % 2 else b"jim")
    users.flush()
    os.kill(played.pid, signal.SIGCONT)
    answers: list[Frame] = []
    end = time.monotonic() + PATIENCE
    while len(answers) < 1000 and time.monotonic() < end:
        answers += (some := users.receive())
        for descriptor in [descriptor for answer in some for descriptor in answer.descriptors]:
            os.close(descriptor)
    assert [answer.verb for answer in answers] == [Verb.OWNED] * 1000
    users.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spawn, "HANG_TIME", 0.1)


def test_who_stops_his_role_does_not_take_our_descriptors(impatient: None, played: Played) -> None:
    """Any user can: his programs run as he does."""
    users = played.link("users")
    stopped = who(users, b"joe")[0]
    os.kill(stopped, signal.SIGSTOP)
    before = len(os.listdir(f"/proc/{played.pid}/fd"))
    try:
        for _ in range(6000):
            answer = ask(users, Verb.OWNER, b"joe")
            for descriptor in answer.descriptors:
                os.close(descriptor)
        assert (answer.verb, answer.fields[0]) == (Verb.REFUSED, b"4.3.0")
        assert len(os.listdir(f"/proc/{played.pid}/fd")) <= before + 4500
    finally:
        os.kill(stopped, signal.SIGCONT)
    users.close()


@pytest.mark.parametrize("peer", ["queue", "users"])
def test_there_is_no_role_for_root(played: Played, peer: str) -> None:
    link = played.link(peer)
    answer = ask(link, Verb.OWNER, b"chief")
    assert (answer.verb, answer.fields[0]) == (Verb.REFUSED, b"4.3.5")
    link.close()


@pytest.mark.skipif(os.getuid() != 0, reason="without root the roles have no users of their own")
@pytest.mark.parametrize("peer", ["queue", "users", "auth"])
def test_there_is_no_owner_role_for_a_user_of_the_server(played: Played, peer: str) -> None:
    """One that is broken into could else have spawn start processes as its neighbours."""
    link = played.link(peer)
    answer = ask(link, Verb.OWNER, b"queue")
    assert (answer.verb, answer.fields[0]) == (Verb.REFUSED, b"4.3.5")
    link.close()


@pytest.mark.parametrize("login", [b"chief", b"root", b"stranger"])
def test_a_login_of_root_or_nobody_gets_no_role(played: Played, login: bytes) -> None:
    auth = played.link("auth")
    answer = ask(auth, Verb.OWNER, login)
    assert (answer.verb, answer.fields[0]) == (Verb.REFUSED, b"5.1.1")
    auth.close()


def test_a_role_that_died_is_followed_by_a_new_one(played: Played) -> None:
    users = played.link("users")
    first = who(users, b"joe")
    os.kill(first[0], 9)
    end = time.monotonic() + PATIENCE
    while Path(f"/proc/{first[0]}").exists() and time.monotonic() < end:
        time.sleep(0.005)
    assert who(users, b"joe")[0] != first[0]
    users.close()
