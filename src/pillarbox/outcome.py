"""What became of one delivery: qmail's K (done), Z (later) and D (never), with the report that goes to the log."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from pillarbox.status import Status


class Verdict(Enum):
    """The letters of qmail's spawner protocol."""

    DONE = b"K"
    LATER = b"Z"
    NEVER = b"D"

    __hash__ = object.__hash__  # Enum's own is a function of Python's


class Outcome(NamedTuple):
    """The verdict on one recipient; `report` is qmail-local's text, bytes, possibly several lines."""

    verdict: Verdict
    report: bytes
    status: Status

    @classmethod
    def done(cls, report: bytes) -> Outcome:
        """Delivered."""
        return cls(Verdict.DONE, report, Status(2, 0, 0))

    @classmethod
    def later(cls, report: bytes, status: Status = Status(4, 3, 0)) -> Outcome:
        """Not now: the queue tries again."""
        return cls(Verdict.LATER, report, status)

    @classmethod
    def never(cls, report: bytes, status: Status = Status(5, 0, 0)) -> Outcome:
        """Not ever: trying again cannot mend it."""
        return cls(Verdict.NEVER, report, status)
