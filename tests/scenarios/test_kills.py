"""Whatever dies when: each message that was answered 250 is in its Maildir, and none is there twice.

A sender never sends the same number again, so a number that is found twice was doubled by the server."""

from __future__ import annotations

import os
import random
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.scenarios.wire import Wire, deliver, login, token
from tests.server import SECRET, Server, a_server, until

SENDERS = 4
ROUNDS = 5
KILLS = 5  # in each round, while mail flows, before all is killed at once
SEED = 20260
VICTIMS = ("queue", "owner", "spawn", "smtpd", "users", "auth")
NUMBER = re.compile(rb"^Subject: number (\d+)$", re.MULTILINE)


class Traffic:
    """Threads that send numbered messages to one recipient and note which were answered 250, over every kind of
    trouble."""

    def __init__(self, server: Server, recipient: bytes = b"joe@example.org") -> None:
        self._server, self._recipient = server, recipient
        self._lock = threading.Lock()
        self._next = 0
        self._ending = threading.Event()
        self.accepted: set[int] = set()

    def __enter__(self) -> Traffic:
        self._ending.clear()
        self._threads = [threading.Thread(target=self._run, args=(place,)) for place in range(SENDERS)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join()

    def _run(self, place: int) -> None:
        while not self._ending.is_set():
            try:
                with Wire(self._server, "smtp") as wire:
                    wire.socket.settimeout(10)
                    if wire.reply()[:3] == b"220" and wire.tell(b"HELO x")[:3] == b"250":
                        self._send_many(wire, large=place == 0)
            except (OSError, AssertionError):  # cut in the middle of a line
                time.sleep(0.02)

    def _send_many(self, wire: Wire, large: bool) -> None:
        while not self._ending.is_set():
            with self._lock:
                number = self._next = self._next + 1
            said = self._send(wire, number, b"x" * 70 + b"\r\n" if not large else (b"x" * 70 + b"\r\n") * 5000)
            if said[:3] == b"250":
                with self._lock:
                    self.accepted.add(number)
            elif said[:1] != b"4":
                return

    def _send(self, wire: Wire, number: int, body: bytes) -> bytes:
        for command in (b"MAIL FROM:<ann@example.net>", b"RCPT TO:<%s>" % self._recipient, b"DATA"):
            said = wire.tell(command)
            if said[:1] not in b"23" or not said:
                wire.tell(b"RSET")
                return said
        wire.send(b"Subject: number %d\r\n\r\n%s.\r\n" % (number, body))
        return wire.reply()


def found(server: Server) -> Counter[int]:
    """Number -> how often it is in the Maildir."""
    numbers: Counter[int] = Counter()
    for file in server.delivered():
        match = NUMBER.search(file.read_bytes()[:2000])
        assert match, file
        numbers[int(match[1])] += 1
    return numbers


def settled(server: Server) -> None:
    """Returns when the queue holds nothing any more."""
    until(lambda: not server.pillarbox("queue", "list"), "an empty queue", seconds=60)


def check(server: Server, accepted: set[int]) -> None:
    numbers = found(server)
    assert accepted <= numbers.keys(), f"lost: {sorted(accepted - numbers.keys())}"
    assert max(numbers.values(), default=1) == 1, f"doubled: {[n for n, times in numbers.items() if times > 1]}"


@pytest.fixture
def mortal() -> Iterator[Server]:
    """A server that is killed and started again."""
    with a_server({"spoolsize": "65536\n"}) as server:
        yield server


def test_nothing_answered_250_is_lost_or_doubled_whatever_is_killed(mortal: Server) -> None:
    chance = random.Random(SEED)
    traffic = Traffic(mortal)
    killed = 0
    for turn in range(ROUNDS):
        with traffic:
            for _ in range(KILLS):
                enough = len(traffic.accepted) + chance.randrange(1, 12)
                until(lambda least=enough: len(traffic.accepted) >= least, "mail taken")
                time.sleep(chance.uniform(0.0, 0.02))
                killed += mortal.kill_role(chance.choice([role for role in VICTIMS if mortal.processes(role)]))
            until(lambda least=len(traffic.accepted): len(traffic.accepted) > least, "mail taken")
            if turn % 2:
                mortal.kill()
            else:  # what is left of the old server may still be there when the new one begins
                os.kill(mortal.pid, signal.SIGKILL)
                mortal.wait()
        mortal.start()
    with traffic:
        enough = len(traffic.accepted) + 20
        until(lambda: len(traffic.accepted) >= enough, "mail taken after the last start")
    settled(mortal)
    assert killed >= ROUNDS * KILLS
    check(mortal, traffic.accepted)


def test_each_role_comes_back_and_the_server_serves_on(mortal: Server) -> None:
    for role in ("queue", "owner", "spawn", "remote", "users", "auth", "smtpd", "pop3d"):
        taken(mortal, word := token())
        mortal.await_delivered(word)  # an owner role is started by what it has to do
        before = set(mortal.processes(role))
        assert mortal.kill_role(role) == len(before) > 0
        if role == "owner":
            mortal.await_log("alert: the owner role of uid [0-9]+ ended with signal 9")
        else:
            until(lambda r=role, b=before: len(set(mortal.processes(r)) - b) == len(b), f"a new {role}")
            mortal.await_log(f"alert: {role} ended with signal 9")

        word = token()
        until(lambda w=word: taken(mortal, w), f"mail taken after {role} was killed")
        mortal.await_delivered(word)
        until(lambda: logged_in(mortal), f"a login after {role} was killed")


def taken(server: Server, word: bytes) -> bool:
    """One try to deliver; a role that is just starting may refuse for now, never for good."""
    try:
        deliver(server, b"Subject: %s\r\n\r\n" % word)
    except (OSError, AssertionError):
        return False
    return True


def logged_in(server: Server) -> bool:
    try:
        login(server, b"joe@example.org", SECRET.encode()).close()
    except (OSError, AssertionError):
        return False
    return True


def test_the_roles_end_when_the_supervisor_is_killed_and_the_home_can_be_served_again(mortal: Server) -> None:
    roles = mortal.processes()
    os.kill(mortal.pid, signal.SIGKILL)
    mortal.wait()
    until(lambda: not any(alive(pid) for pid in roles), "the roles' end")
    mortal.start()
    deliver(mortal, b"Subject: again\r\n\r\n")
    mortal.await_delivered(b"Subject: again")


def alive(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")


def test_a_commit_under_way_when_the_queue_dies_is_answered_truly(mortal: Server) -> None:
    """The queue is stopped, a message is sent and so hangs at its end; then the queue is killed. What the client hears
    is what happened: 250 and it is there, or 451 and it may come again."""
    queue = mortal.processes("queue")[0]
    word = token()
    with Wire(mortal, "smtp") as wire:
        wire.reply()
        for command in (b"HELO x", b"MAIL FROM:<ann@example.net>", b"RCPT TO:<joe@example.org>", b"DATA"):
            assert wire.tell(command)[:1] in b"23"
        os.kill(queue, signal.SIGSTOP)
        wire.send(b"Subject: %s\r\n\r\n.\r\n" % word)
        assert wire.silent(0.3)
        os.kill(queue, signal.SIGKILL)
        said = wire.reply()
        assert wire.tell(b"NOOP").startswith(b"250 ")
    again = token()
    until(lambda: taken(mortal, again), "mail taken again")
    mortal.await_delivered(again)
    settled(mortal)
    assert (said[:4], len(mortal.holding(word))) in ((b"250 ", 1), (b"451 ", 0))


def test_a_delivery_whose_outcome_got_lost_is_not_repeated_though_its_reader_was_quick(mortal: Server) -> None:
    """The owner delivers while the queue hears nothing; the reader sets a flag; the queue dies without having heard."""
    deliver(mortal, b"Subject: %s\r\n\r\n" % (first := token()))
    mortal.await_delivered(first)  # so that there is an owner role
    owner, queue = mortal.processes("owner")[0], mortal.processes("queue")[0]
    word = token()
    os.kill(owner, signal.SIGSTOP)
    deliver(mortal, b"Subject: %s\r\n\r\n" % word)
    mortal.await_log("starting delivery", 2)
    os.kill(queue, signal.SIGSTOP)
    os.kill(owner, signal.SIGCONT)
    delivered = mortal.await_delivered(word)
    read = delivered.parent.parent / "cur" / f"{delivered.name}:2,S"
    delivered.rename(read)
    os.kill(queue, signal.SIGKILL)
    mortal.await_log("starting delivery", 3)
    settled(mortal)
    assert mortal.holding(word) == [read]
