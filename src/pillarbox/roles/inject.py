"""The queue role's socket for injection: any program on this machine may bring a message, and the kernel says whose.

The rule that must stay true: who connects can waste his own share and no more. Programs are counted, in all and for
each user; frames, messages and recipients are bounded (roles/link.py, roles/intake.py); who is silent, or does not read
what he is told, is cut off; descriptors that he sends are dropped.
"""

from __future__ import annotations

import os
import pwd
import select
import socket
import struct
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from pillarbox.control.table import Settings
from pillarbox.roles.intake import Intake, Stranger
from pillarbox.roles.link import Link
from pillarbox.roles.process import affordable
from pillarbox.roles.rounds import Rounds
from pillarbox.roles.verbs import MAY_SAY
from pillarbox.users.roles import POSTS, name_of

PEER = "injector"
AT_ONCE = 256  # programs
EACH = 64  # programs of one user that is not root
SILENCE = 60.0  # seconds that a program may say nothing; ours have read their whole message before they connect
UNREAD = 64 << 10  # octets of answers that a program may leave unread
# qmail-queue's words for two users of its own; everybody else is "by uid N".
_WHO = {"alias": b"by alias", "smtpd": b"from network"}


@dataclass(slots=True)
class _Program:
    uid: int
    heard: float
    asked: bool = False
    greedy: bool = False


class Injection:
    """Accepts programs on `listening` and introduces them to `intake`; their frames come out of `rounds` as PEER's."""

    def __init__(self, rounds: Rounds, listening: socket.socket, intake: Intake, users: Mapping[int, bytes]) -> None:
        self._rounds, self._listening, self._intake, self._users = rounds, listening, intake, users
        self._programs: dict[Link, _Program] = {}
        self._of: Counter[int] = Counter()
        self._most = affordable(AT_ONCE, 4)
        rounds.watch(listening, self._arrived)

    def close(self) -> None:
        """No further programs; those that are there have been heard, and what they had not finished is dropped."""
        self._rounds.unwatch(self._listening)
        for link in list(self._programs):
            self._cut(link)

    def _arrived(self) -> None:
        try:
            sock, _ = self._listening.accept()
        except OSError:
            return  # it hung up, or we are out of descriptors: it comes again
        pid, uid = _credentials(sock)
        if _hung_up(sock):
            sock.close()  # it has told its caller that nothing was queued
            return
        if len(self._programs) >= self._most or (uid != 0 and self._of[uid] >= EACH):
            sock.close()
            return
        link = Link(sock, MAY_SAY[PEER, "queue"], stranger=True)
        self._programs[link] = _Program(uid, time.monotonic())
        self._of[uid] += 1
        self._intake.introduce(link, Stranger(uid, pid, self._users.get(uid, b"by uid %d" % uid)))
        self._rounds.add(PEER, link)

    def heard(self, link: Link) -> None:
        """A program has said something."""
        program = self._programs.get(link)
        if program is not None:
            program.heard = time.monotonic()

    def may_ask(self, link: Link) -> bool:
        """Whether this ASK of a program is answered: each costs a look at all keys of the last minutes, so there is one
        for each connection; who sends more is cut off."""
        program = self._programs.get(link)
        if program is None or program.asked:
            if program is not None:
                program.greedy = True
            return False
        program.asked = True
        return True

    def lost(self, link: Link) -> None:
        """A program hung up."""
        program = self._programs.pop(link, None)
        if program is not None:
            self._of[program.uid] -= 1
            if not self._of[program.uid]:
                del self._of[program.uid]

    def look(self) -> None:
        """Cut off those who have been silent for too long, do not read, or ask too much. To be called once a round."""
        if not self._programs:
            return
        now = time.monotonic()
        for link, program in list(self._programs.items()):
            if program.greedy or now - program.heard >= SILENCE or link.backlog > UNREAD:
                self._cut(link)

    def patience(self) -> float | None:
        """Seconds until `look` may have something to do, None while nobody is there."""
        if not self._programs:
            return None
        oldest = min(program.heard for program in self._programs.values())
        return max(0.0, oldest + SILENCE - time.monotonic())

    def _cut(self, link: Link) -> None:
        self._rounds.cut(link)
        self._intake.lost(link)
        self.lost(link)


def known_users(settings: Settings) -> dict[int, bytes]:
    """What Received says of users that have a role here, by uid. Where all roles are one user, that user is nobody
    special."""
    users = {}
    for post in POSTS:
        if post.role not in _WHO:
            continue
        try:
            uid = pwd.getpwnam(name_of(post, settings)).pw_uid
        except KeyError:
            continue
        if uid != os.getuid():
            users[uid] = _WHO[post.role]
    return users


def _hung_up(sock: socket.socket) -> bool:
    """Whether the other side is gone, though what it said may still be there to read."""
    poll = select.poll()
    poll.register(sock, 0)  # POLLHUP and POLLERR are always told
    return bool(poll.poll(0))


def _credentials(sock: socket.socket) -> tuple[int, int]:
    """pid and uid: SO_PEERCRED, unix(7)."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, uid, _gid = struct.unpack("3i", raw)
    return pid, uid
