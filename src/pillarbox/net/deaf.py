"""Hosts that let connections time out: mail for many domains must not wait for one dead machine again and again.

qmail's tcpto, with a shorter memory: an address that timed out twice is left alone for a while, and then tried again.
Pure; `now` is any clock in seconds that does not go back.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

REMEMBERED = 1000  # addresses
APART = 120.0  # seconds: connections that fail together are one failure
ENOUGH = 2  # failures
PAUSE = 900.0  # seconds from the last failure


class _Failures(NamedTuple):
    times: int
    last: float


class Deaf:
    """What one process knows of addresses that do not answer."""

    def __init__(self) -> None:
        self._failures: OrderedDict[str, _Failures] = OrderedDict()

    def skips(self, address: str, now: float) -> bool:
        """Should this address not even be tried now?"""
        known = self._failures.get(address)
        return known is not None and known.times >= ENOUGH and now < known.last + PAUSE

    def timed_out(self, address: str, now: float) -> None:
        """A connection was not made in time."""
        known = self._failures.get(address)
        if known is not None and now < known.last + APART:
            return
        times = known.times if known is not None else 0
        self._failures[address] = _Failures(min(times + 1, ENOUGH), now)
        self._failures.move_to_end(address)
        if len(self._failures) > REMEMBERED:
            self._failures.popitem(last=False)

    def answered(self, address: str) -> None:
        """It answered, if only to refuse."""
        self._failures.pop(address, None)
