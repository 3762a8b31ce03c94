"""How many deliveries run as processes at a time, over all owner roles together: control/concurrencylocal, as in qmail.

A place is one octet of a file in memory that all owner roles have. Who has locked it has the place, and the kernel
frees it when he dies, however that happens. It is a courtesy among our own processes that spares the machine, no
barrier: who waits too long goes ahead without.
"""

from __future__ import annotations

import fcntl
import os

NOWHERE = -1  # the place of one who needs none


def file() -> int:
    """The descriptor that all owner roles are to share. Raises OSError."""
    return os.memfd_create("places", os.MFD_CLOEXEC)


class Places:
    """The places that one process has. `descriptor` None: there are as many as one likes."""

    def __init__(self, descriptor: int | None, count: int) -> None:
        self._descriptor = descriptor
        self.count = count
        self._mine: set[int] = set()

    def take(self) -> int | None:
        """A place of our own; None when there is none just now. One process never has more than three of four."""
        if self._descriptor is None:
            return NOWHERE
        if len(self._mine) >= max(1, self.count * 3 // 4):
            return None
        first = os.getpid()
        for step in range(self.count):
            place = (first + step) % self.count
            if place not in self._mine and self._lock(self._descriptor, place):
                self._mine.add(place)
                return place
        return None

    def leave(self, place: int | None) -> None:
        """Give a place back; None: there is none to give back."""
        if self._descriptor is not None and place is not None and place in self._mine:
            self._mine.discard(place)
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, place)

    @staticmethod
    def _lock(descriptor: int, place: int) -> bool:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
        except (BlockingIOError, PermissionError):  # POSIX leaves it open which of the two
            return False
        return True
