"""One destination's share of the schedule: what is ready for it, how many run, whether it is down.

A destination is what fails as one: a mailbox owner here, a mail host elsewhere.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import NamedTuple

from pillarbox.queue.engine import START, Position

DOWN_AFTER = 3  # failures of the whole destination, one after the other
FIRST_PAUSE = 300  # seconds without an attempt; doubled with each probe that fails
LONGEST_PAUSE = 3600
PROBE_TIME = 60  # seconds in which an attempt mostly ends


class Channel(IntEnum):
    """qmail's two channels. The value is the term that spaces out retries: see schedule.next_attempt."""

    LOCAL = 10
    REMOTE = 20


class Destination(NamedTuple):
    """Whom one delivery talks to: an owner's name, or a domain."""

    channel: Channel
    name: bytes


@dataclass(frozen=True, slots=True)
class Limits:
    """How many deliveries may run at the same time: in a channel, and to each of its destinations. `recipients`: how
    many recipients of one message make one delivery, at most."""

    total: int
    each: int
    recipients: int = 1


class Stage(Enum):
    """Where an entry is: its time has not come, it may start, it was started."""

    IDLE = 0
    READY = 1
    RUNNING = 2


IDLE, READY, RUNNING = Stage  # Python 3.11 runs a function to find a member in its Enum


@dataclass(slots=True, eq=False)
class Delivery:
    """Several recipients of one message that are tried together: `left` are still to be heard of; `failed`: one has
    told that the whole destination did."""

    left: int
    failed: bool = False


@dataclass(slots=True, eq=False)
class Job:
    """One waiting recipient in memory. `due` and `position` are what the database says, or will with the next marks."""

    message: int
    number: int
    born: int
    due: int
    lane: Lane
    again: bool
    alone: bool = False  # it must be a delivery of its own
    stage: Stage = READY
    started: float = 0.0
    losses: int = 0
    changed: bool = False  # while it was to start or ran: by somebody in the engine, or where it goes by new settings
    delivery: Delivery | None = None  # None: it is one of its own

    @property
    def position(self) -> Position:
        """Its place in the order in which recipients fall due."""
        return (self.due, self.message, self.number)

    @property
    def before(self) -> Position:
        """Reading behind this finds it again."""
        return (self.due, self.message, self.number - 1)


@dataclass(slots=True, eq=False)
class Line:
    """A channel: its limits, what runs, the lanes that may start something, in turn, its jobs in memory, and the
    position up to which the engine has been read for it."""

    limits: Limits
    running: int = 0
    turns: deque[Lane] = field(default_factory=deque)
    held: int = 0
    position: Position = START


@dataclass(slots=True, eq=False)
class Lane:
    """A destination. `ready` holds one list for each message, its next recipient last, so that messages take turns.
    `behind`: later positions of this lane, up to where its line has been read, may not be in memory."""

    destination: Destination
    line: Line
    ready: deque[list[Job]] = field(default_factory=deque)
    held: int = 0  # jobs in memory
    idle: int = 0  # of these, those whose time has not come
    running: int = 0
    in_turn: bool = False
    behind: Position | None = None
    failures: int = 0
    closed_until: float = 0.0
    probe: Job | None = None
    reason: bytes = b""

    def offer(self, jobs: list[Job]) -> None:
        """Jobs of one message, in the order they shall start, may start."""
        for job in jobs:
            job.stage = READY
        jobs.reverse()
        self.ready.append(jobs)
        self.take_turn()

    def take_turn(self) -> None:
        """Stand in the channel's line when there is something to start and room for it."""
        if not self.in_turn and self.ready and self.running < self.line.limits.each:
            self.in_turn = True
            self.line.turns.append(self)

    def next(self) -> list[Job]:
        """Take the jobs of the delivery whose turn it is, if any is left, and count it as running. The lane stood first
        in its line."""
        self.in_turn = False
        if not self.ready:
            return []
        jobs = self.ready.popleft()
        several = self.line.limits.recipients > 1 and not jobs[-1].alone
        taken = self._together(jobs) if several else [jobs.pop()]
        if jobs:
            self.ready.append(jobs)
        self.running += 1
        self.line.running += 1
        self.take_turn()
        return taken

    def _together(self, jobs: list[Job]) -> list[Job]:
        """As many of one message as make one delivery, taken off `jobs`."""
        first = max(0, len(jobs) - self.line.limits.recipients)
        taken = jobs[first:]
        del jobs[first:]
        taken.reverse()
        delivery = Delivery(len(taken))
        for job in taken:
            job.delivery = delivery
        return taken

    def ended(self, job: Job) -> None:
        """A job that ran does so no more, and with the last of a delivery the delivery. Follow with `take_turn`."""
        delivery, job.delivery = job.delivery, None
        if delivery is not None:
            delivery.left -= 1
            if delivery.left:
                return
        self.running -= 1
        self.line.running -= 1

    def withdraw(self, messages: Collection[int]) -> None:
        """Jobs of these messages shall not start."""
        kept = [[job for job in jobs if job.message not in messages] for jobs in self.ready]
        self.ready = deque([jobs for jobs in kept if jobs])

    def close(self) -> list[Job]:
        """The destination is down: nothing shall start. Returns what was ready."""
        ready = [job for jobs in self.ready for job in reversed(jobs)]
        self.ready.clear()
        return ready

    def admits(self, job: Job, now: float) -> bool:
        """May this job start, as far as the destination's health goes? One that is down gets a single probe after each
        pause."""
        if self.failures < DOWN_AFTER:
            return True
        if self.probe is None and self.closed_until <= now:
            self.probe = job
            return True
        return self.probe is job

    def answered(self) -> None:
        """The destination answered, whatever it said: it is not down."""
        if self.failures:
            self.failures = 0
            self.closed_until = 0.0
            self.probe = None

    def failed(self, job: Job, reason: bytes, now: float) -> bool:
        """The whole destination failed this job. True when it now counts as down. What was still running when it was
        closed does not prolong the pause."""
        self.reason = reason
        if self.probe is job:
            self.probe = None
        elif self.failures >= DOWN_AFTER:
            return False
        self.failures += 1
        if self.failures < DOWN_AFTER:
            return False
        self.closed_until = now + self.pause
        return True

    @property
    def pause(self) -> int:
        """Seconds that a destination which is down is left alone."""
        return min(FIRST_PAUSE << min(max(0, self.failures - DOWN_AFTER), 10), LONGEST_PAUSE)

    def reopens(self, now: float) -> int:
        """When what is due now for a destination that is down shall come again: after the pause, or when the probe that
        runs will have told."""
        return int(self.closed_until if self.closed_until > now else now + PROBE_TIME) + 1

    @property
    def unused(self) -> bool:
        """Nothing would be missed if it were forgotten, but whether it is down."""
        return not self.held and self.behind is None
