"""The checker's socket run/checker: programs that may not read control/smtppasswd ask there what they were asked on
descriptor 3, and hear the exit status that cmd5checkpw would have.

Answered by `pillarbox run checker`, or by the auth role. The rules that must stay true: the kernel says who asks, and
only those who are allowed are answered; callers, octets, time and questions are bounded. All who ask for clients of the
network do it as one user, so there is no share for each: nobody is turned away, but waits, and who guesses waits for
guessers. Right answers have a rate of their own; who hangs up before his answer keeps his place until it is due.
"""

from __future__ import annotations

import os
import pwd
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from pillarbox.auth import checkpassword, smtppasswd
from pillarbox.auth.checkpassword import MISUSED, MOST_SAID, TROUBLE, WRONG, NotAsked
from pillarbox.roles.log import Log
from pillarbox.status import Failure

CALLERS = 64  # at once who have not yet asked; for another one the longest silent goes
SILENCE = 5.0  # seconds that a caller has to ask: a program has its whole question before it connects
WAITING = 300  # callers whose answers are not due; with so many the next wait to be let in
REFUSALS = (20.0, 200.0)  # answers in a second, over time, and at once: guesses
CONSENTS = (100.0, 500.0)
TURNED_AWAY = 100  # users of whom it is said once that they are not answered


@dataclass(slots=True)
class _Caller:
    since: float
    octets: bytes = b""


@dataclass(slots=True)
class _Line:
    """Answers of one kind, in turn: `rate` in a second over time, and `burst` at once."""

    rate: float
    burst: float
    at: float = field(default_factory=time.monotonic)
    full: float = field(init=False)
    waiting: deque[tuple[socket.socket, bytes]] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self.full = self.burst

    def take(self, now: float) -> bool:
        """May one go out now?"""
        self.full = min(self.burst, self.full + (now - self.at) * self.rate)
        self.at = now
        if self.full < 1:
            return False
        self.full -= 1
        return True

    def move(self, now: float) -> None:
        """Say all that is due."""
        while self.waiting and self.take(now):
            sock, answer = self.waiting.popleft()
            with sock, suppress(OSError):  # nobody waits for it any more
                sock.send(answer)


class Checker:
    """Answers about `file` on `listening` for the users with these uids. `watch` has a function called whenever a
    socket is readable, until `unwatch`."""

    def __init__(
        self,
        listening: socket.socket,
        file: Path,
        uids: Iterable[int],
        log: Log,
        *,
        watch: Callable[[socket.socket, Callable[[], None]], object],
        unwatch: Callable[[socket.socket], object],
    ) -> None:
        self.file, self.uids = file, frozenset(uids)
        self._listening, self._log = listening, log
        self._watch, self._unwatch = watch, unwatch
        self._callers: dict[socket.socket, _Caller] = {}
        self._refusals, self._consents = _Line(*REFUSALS), _Line(*CONSENTS)
        self._open = True  # new callers are let in
        self._strangers: set[int] = set()
        watch(listening, self._arrived)

    def close(self) -> None:
        """No further answers."""
        if self._open:
            self._unwatch(self._listening)
        for sock in list(self._callers):
            self._drop(sock)
        for line in (self._refusals, self._consents):
            while line.waiting:
                line.waiting.pop()[0].close()

    def look(self) -> None:
        """Say what is due, and cut off those who are silent. To be called every second or so."""
        now = time.monotonic()
        self._move(now)
        for sock, caller in list(self._callers.items()):
            if now - caller.since > SILENCE:
                self._drop(sock)

    def _move(self, now: float) -> None:
        for line in (self._refusals, self._consents):
            line.move(now)
        room = len(self._refusals.waiting) + len(self._consents.waiting) < WAITING
        if room and not self._open:
            self._watch(self._listening, self._arrived)
        elif self._open and not room:
            self._unwatch(self._listening)
        self._open = room

    def _arrived(self) -> None:
        try:
            sock, _ = self._listening.accept()
        except OSError:
            return  # it hung up, or we are out of descriptors: it will say that there is no answer
        uid = _uid(sock)
        if uid not in self.uids:
            self._turn_away(uid)
            sock.close()
            return
        if len(self._callers) >= CALLERS:
            self._drop(next(iter(self._callers)))  # who means to ask has asked before so many others came
        sock.setblocking(False)
        self._callers[sock] = _Caller(time.monotonic())
        self._watch(sock, partial(self._readable, sock))

    def _turn_away(self, uid: int) -> None:
        if uid not in self._strangers and len(self._strangers) < TURNED_AWAY:
            self._strangers.add(uid)
            line = f"checker: warning: uid {uid} asks, and is not in control/checkerusers"
            self._log.say(line, "warning", uid=uid, why="not in control/checkerusers")

    def _readable(self, sock: socket.socket) -> None:
        caller = self._callers.get(sock)
        if caller is None:  # he had to go just before we heard him
            return
        try:
            octets = sock.recv(MOST_SAID + 1 - len(caller.octets))
        except BlockingIOError:
            return
        except OSError:
            self._drop(sock)
            return
        caller.octets += octets
        if octets and len(caller.octets) <= MOST_SAID:
            return
        self._forget(sock)
        status = self._answer(caller.octets)
        line = self._refusals if status else self._consents
        line.waiting.append((sock, bytes([status])))
        self._move(time.monotonic())

    def _answer(self, octets: bytes) -> int:
        try:
            asked = checkpassword.parse(octets)
            return 0 if smtppasswd.right(smtppasswd.read(self.file), asked) else WRONG
        except NotAsked as problem:
            return problem.exit_status
        except smtppasswd.Malformed as problem:
            self._warn(f"{self.file}: {problem.text}")
            return MISUSED
        except Failure as problem:
            self._warn(problem.text)
            return TROUBLE

    def _warn(self, why: str) -> None:
        self._log.say(f"checker: warning: {why}", "warning", why=why)

    def _drop(self, sock: socket.socket) -> None:
        self._forget(sock)
        sock.close()

    def _forget(self, sock: socket.socket) -> None:
        del self._callers[sock]
        self._unwatch(sock)


def uids(names: Iterable[str], log: Log) -> frozenset[int]:
    """Root, we ourselves, and the users of these names; one that there is not is a line in the log."""
    found = {0, os.getuid()}
    for name in names:
        try:
            found.add(pwd.getpwnam(name).pw_uid)
        except KeyError:
            log.say(
                f"checker: warning: control/checkerusers: there is no user {name}", "warning", why=f"no user {name}"
            )
    return frozenset(found)


def _uid(sock: socket.socket) -> int:
    """SO_PEERCRED, unix(7)."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _pid, uid, _gid = struct.unpack("3i", raw)
    assert isinstance(uid, int)
    return uid
