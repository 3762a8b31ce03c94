"""Whose is a home directory? Asked by a child process: one on a dead mount never answers, and who asks it can often not
even be killed.

spawn and users serve everybody: one user's home must not make the others wait. Trouble is remembered for the directory
that holds the home, since all homes of a dead server are dead.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

from pillarbox.roles.process import fork_linked, keep_only, take_role
from pillarbox.users.owner import CannotResolve

ANSWER_TIME = 2.0  # seconds that a home has to answer
REMEMBERED_TIME = 10.0  # seconds that an answer counts
SILENT_TIME = 30.0  # seconds that nothing is asked where somebody did not answer
REMEMBERED = 10_000  # homes
LONGEST = 4096  # octets of a path
_NOBODY = -1
_UNKNOWN = b"?"


@dataclass(frozen=True, slots=True)
class _Child:
    """The process that looks. Each home is a message, and so is each answer."""

    pid: int
    link: socket.socket


class Homes:
    """`clock`: seconds, never going back."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._known: dict[bytes, tuple[int, float]] = {}
        self._silent: dict[bytes, float] = {}
        self._child: _Child | None = None
        self._left: list[int] = []  # children that did not come back

    def owned(self, home: bytes, uid: int) -> bool:
        """Does this directory exist and belong to this user? Raises CannotResolve when it does not answer."""
        now = self._clock()
        owner, until = self._known.get(home, (_NOBODY, 0.0))
        if until <= now:
            owner = self._ask(home, now)
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            self._known[home] = owner, now + REMEMBERED_TIME
        return owner == uid

    def _ask(self, home: bytes, now: float) -> int:
        place = os.path.dirname(home.rstrip(b"/"))
        if self._silent.get(place, 0.0) > now:
            raise _silent(home)
        if len(home) > LONGEST:
            return _NOBODY
        self._reap()
        for _attempt in (1, 2):  # the child may have died since it was asked last
            child = self._child = self._child or _start()
            try:
                child.link.send(home)
                answer = child.link.recv(32)
            except TimeoutError:
                self._give_up()
                self._silent[place] = self._clock() + SILENT_TIME
                raise _silent(home) from None
            except OSError:
                answer = b""
            if answer:
                break
            self._give_up()
        if answer in (b"", _UNKNOWN):
            raise CannotResolve("cannot look at a home directory")
        return int(answer)

    def _give_up(self) -> None:
        """This child hangs, or is gone; the next question gets another."""
        if self._child is not None:
            self._child.link.close()
            with suppress(ProcessLookupError):
                os.kill(self._child.pid, signal.SIGKILL)
            self._left.append(self._child.pid)
            self._child = None

    def _reap(self) -> None:
        self._left = [child for child in self._left if not os.waitpid(child, os.WNOHANG)[0]]

    def close(self) -> None:
        """Ask nothing any more."""
        self._give_up()


def _silent(home: bytes) -> CannotResolve:
    return CannotResolve(f"the home {home.decode('ascii', 'backslashreplace')} does not answer")


def _start() -> _Child:
    pid, link = fork_linked(socket.SOCK_SEQPACKET)
    if pid == 0:
        _look(link)
    link.settimeout(ANSWER_TIME)
    return _Child(pid, link)


def _look(link: socket.socket) -> NoReturn:
    """In the child: to each home the uid of its owner, -1 when there is none, `?` when that cannot be said."""
    try:
        take_role("homes")
        keep_only({0, 1, 2, link.fileno()})
        while home := link.recv(LONGEST):
            try:
                answer = b"%d" % os.stat(home).st_uid
            except (FileNotFoundError, NotADirectoryError, PermissionError):
                answer = b"%d" % _NOBODY
            except (OSError, ValueError):
                answer = _UNKNOWN
            link.send(answer)
    finally:
        os._exit(0)
