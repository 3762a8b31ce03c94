"""Whose is a home directory? Asked by a child process: one on a dead mount never answers, and who asks it can often not
even be killed.

spawn and users serve everybody: one user's home must not make the others wait. Trouble is remembered for the directory
that holds the home, since all homes of a dead server are dead.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable
from contextlib import suppress

from pillarbox.users.owner import CannotResolve

ANSWER_TIME = 2.0  # seconds that a home has to answer
REMEMBERED_TIME = 10.0  # seconds that an answer counts
SILENT_TIME = 30.0  # seconds that nothing is asked where somebody did not answer
REMEMBERED = 10_000  # homes
_NOBODY = -1


class Homes:
    """`clock`: seconds, never going back."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._known: dict[bytes, tuple[int, float]] = {}
        self._silent: dict[bytes, float] = {}
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
        self._reap()
        told, tell = os.pipe2(os.O_CLOEXEC)
        try:
            child = os.fork()
            if child == 0:
                _tell_owner(home, tell)
            self._left.append(child)
            return self._hear(home, place, told, child)
        finally:
            os.close(told)
            os.close(tell)

    def _hear(self, home: bytes, place: bytes, told: int, child: int) -> int:
        waiting = select.poll()
        waiting.register(told, select.POLLIN)
        if not waiting.poll(ANSWER_TIME * 1000):
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            self._silent[place] = self._clock() + SILENT_TIME
            raise _silent(home)
        self._reap()
        answer = os.read(told, 32)
        if answer == b"?":
            raise CannotResolve("cannot look at a home directory")
        return int(answer)

    def _reap(self) -> None:
        self._left = [child for child in self._left if not os.waitpid(child, os.WNOHANG)[0]]


def _silent(home: bytes) -> CannotResolve:
    return CannotResolve(f"the home {home.decode('ascii', 'backslashreplace')} does not answer")


def _tell_owner(home: bytes, tell: int) -> None:
    """In the child: the uid of the owner, -1 when there is none, `?` when that cannot be said."""
    try:
        try:
            answer = b"%d" % os.stat(home).st_uid
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            answer = b"%d" % _NOBODY
        except OSError:
            answer = b"?"
        os.write(tell, answer)
    finally:
        os._exit(0)
