"""The checker's socket run/checker: programs that may not read control/smtppasswd ask there what they were asked on
descriptor 3, and hear the exit status that cmd5checkpw would have.

Answered by `pillarbox run checker`, or by the auth role. The rule that must stay true: the kernel says who asks, only
those who are allowed are answered, and none of them can hold up the others: callers, octets, time and questions are
bounded.
"""

from __future__ import annotations

import os
import pwd
import socket
import struct
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from pillarbox.auth import checkpassword, smtppasswd
from pillarbox.auth.checkpassword import MISUSED, MOST_SAID, TROUBLE, WRONG, NotAsked
from pillarbox.roles.log import Log
from pillarbox.status import Failure

CALLERS = 64  # at once
SILENCE = 5.0  # seconds that a caller has to ask: a program has its whole question before it connects
RATE = 20.0  # questions in a second, over time
BURST = 200.0  # and at once
TURNED_AWAY = 100  # users of whom it is said once that they are not answered


@dataclass(slots=True)
class _Caller:
    since: float
    octets: bytes = b""


@dataclass(slots=True)
class _Bucket:
    """How many questions may be answered just now."""

    full: float = BURST
    at: float = field(default_factory=time.monotonic)

    def take(self, now: float) -> bool:
        self.full = min(BURST, self.full + (now - self.at) * RATE)
        self.at = now
        if self.full < 1:
            return False
        self.full -= 1
        return True


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
        self._bucket = _Bucket()
        self._strangers: set[int] = set()
        watch(listening, self._arrived)

    def close(self) -> None:
        """No further answers."""
        self._unwatch(self._listening)
        for sock in list(self._callers):
            self._drop(sock)

    def look(self) -> None:
        """Cut off those who are silent. To be called every second or so."""
        now = time.monotonic()
        for sock, caller in list(self._callers.items()):
            if now - caller.since > SILENCE:
                self._drop(sock)

    def _arrived(self) -> None:
        try:
            sock, _ = self._listening.accept()
        except OSError:
            return  # it hung up, or we are out of descriptors: it will say that there is no answer
        uid = _uid(sock)
        if uid not in self.uids:
            self._turn_away(uid)
        if uid not in self.uids or len(self._callers) >= CALLERS:
            sock.close()
            return
        sock.setblocking(False)
        self._callers[sock] = _Caller(time.monotonic())
        self._watch(sock, partial(self._readable, sock))

    def _turn_away(self, uid: int) -> None:
        if uid not in self._strangers and len(self._strangers) < TURNED_AWAY:
            self._strangers.add(uid)
            line = f"checker: warning: uid {uid} asks, and is not in control/checkerusers"
            self._log.say(line, "warning", uid=uid, why="not in control/checkerusers")

    def _readable(self, sock: socket.socket) -> None:
        caller = self._callers[sock]
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
        try:
            sock.send(bytes([self._answer(caller.octets)]))
        except OSError:
            pass  # nobody waits for it any more
        finally:
            self._drop(sock)

    def _answer(self, octets: bytes) -> int:
        if not self._bucket.take(time.monotonic()):
            return TROUBLE
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
        del self._callers[sock]
        self._unwatch(sock)
        sock.close()


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
