"""When which recipient is tried: a pure machine. Time comes in as an argument; nothing here sleeps, reads or writes.

The queue lies in the engine, in the order in which recipients fall due. The schedule holds a window of it for each
channel, so that mail to hosts that hang is in nobody's way here: what runs, what may start, and as much of what comes
next as there is room for. Everything else is behind a position up to which the engine has been read for that channel,
and is claimed when there is room. The rules that must stay true:

- a recipient that waits is in the window, or behind a position from which will be claimed: never neither;
- a recipient is in the window at most once, so nothing is tried twice at a time;
- nothing is claimed while a mark is not yet in the engine: it would still show what is over.

A round of the role that drives it:

    marks = schedule.marks()
    receipt = engine.commit(drafts, marks)              # QueueFull: start nothing until this succeeds
    schedule.settled(len(marks))
    for each accepted message: schedule.committed(id, born, destinations)
    while (claim := schedule.wanted()) is not None:
        schedule.claimed(claim, engine.claim(claim.after, claim.limit), route)
    for start in schedule.start(now): hand it out
    wait until something comes, or schedule.next_due(now)
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop
from math import isqrt
from typing import NamedTuple

from pillarbox.outcome import Outcome, Verdict
from pillarbox.queue.bounce import last_words
from pillarbox.queue.engine import Mark
from pillarbox.queue.lane import READY, RUNNING, Channel, Destination, Job, Lane, Limits
from pillarbox.queue.window import WINDOW, Claim, Window

LIFETIME = 604_800  # seconds; control/queuelifetime's default
CROWDED_PAUSE = 2  # seconds
CROWDED = b"Too many deliveries of this owner are under way. (#4.3.2)\n"
LOST_PAUSES = (1, 5, 30)  # seconds after an attempt whose end nobody saw; then as any failure

TOO_LONG = b"I'm not going to try again; this message has been in the queue too long.\n"

_DONE, _LATER, _ = Verdict


def next_attempt(born: int, now: float, channel: Channel) -> int:
    """When to try again after an attempt that began at `now` (reference: qmail-send's squareroot): the n-th attempt
    comes about (n * channel)**2 seconds after birth. A birth in the future, by a clock that went back, is now."""
    moment = int(now)
    born = min(born, moment)
    return born + (isqrt(moment - born) + channel) ** 2


class Start(NamedTuple):
    """Try these recipients of one message now. `again`: one of them may have been tried before, by us or by somebody
    who died before he could say so. `alone`: each in a delivery of its own."""

    message: int
    destination: Destination
    numbers: tuple[int, ...]
    again: bool
    alone: bool = False


def _start(message: int, destination: Destination, jobs: list[Job]) -> Start:
    first = jobs[0]
    if len(jobs) == 1:
        return Start(message, destination, (first.number,), first.again, first.alone)
    numbers = tuple([job.number for job in jobs])
    return Start(message, destination, numbers, any([job.again for job in jobs]), first.alone)


class Schedule(Window):
    """See above. `local` and `remote` limit the two channels; a message older than `lifetime` seconds gets one more
    attempt."""

    def __init__(self, local: Limits, remote: Limits, lifetime: int = LIFETIME, window: int = WINDOW) -> None:
        super().__init__(local, remote, window)
        self._lifetime = lifetime
        self._marks: list[Mark] = []

    def configure(self, local: Limits, remote: Limits, lifetime: int) -> None:
        """Take new settings; what runs is not disturbed."""
        self._lifetime = lifetime
        for channel, limits in ((Channel.LOCAL, local), (Channel.REMOTE, remote)):
            self._lines[channel].limits = limits
        for lane in self._lanes.values():
            lane.take_turn()
        self._read_anew()

    @property
    def running(self) -> int:
        """Deliveries started and not heard of to the end."""
        return sum(line.running for line in self._lines.values())

    # Messages.

    def committed(self, message: int, born: int, destinations: Sequence[Destination], *, alone: bool = False) -> None:
        """A message was committed just now; its recipients, in their order, go to these destinations, each `alone` when
        its sender varies. As far as there is room they start from here, without the engine being read."""
        turns: dict[Lane, list[Job]] = {}
        for number, destination in enumerate(destinations):
            job = self._admit(message, number, born, born, destination, False, alone)
            if job is not None:
                turns.setdefault(job.lane, []).append(job)
        for jobs in turns.values():
            self._arrive(jobs, born)

    def wanted(self) -> Claim | None:
        """What to claim next, or None: no room, nothing unread, or marks are not settled."""
        return None if self._marks else self._unread()

    # Attempts.

    def start(self, now: float) -> list[Start]:
        """What to try now: as much as the limits allow, destinations and messages taking turns."""
        self._wake(now)
        chosen: dict[tuple[int, Lane], list[Job]] = {}
        for line in self._lines.values():
            while line.turns and line.running < line.limits.total:
                lane = line.turns.popleft()
                for job in lane.next():
                    job.stage = RUNNING
                    job.started = now
                    chosen.setdefault((job.message, lane), []).append(job)
        return [_start(message, lane.destination, jobs) for (message, lane), jobs in chosen.items()]

    def outcome(self, message: int, number: int, outcome: Outcome, now: float, *, down: bool = False) -> Mark | None:
        """What became of an attempt; `down`: the whole destination cannot be reached. Returns the mark, which stands
        in `marks` too, or None when no such attempt runs."""
        job = self._find_running(message, number)
        if job is None:
            return None
        lane, delivery = job.lane, job.delivery
        self._ended(job)
        verdict = outcome.verdict
        if verdict is _LATER:
            closed = False
            if not down:
                lane.answered()
            elif delivery is None or not delivery.failed:
                closed = lane.failed(job, outcome.report, now)
                if delivery is not None:
                    delivery.failed = True  # its other recipients say it too, and it is one failure
            mark = self._again(job, outcome.report)
            if closed:
                for ready in lane.close():
                    self._postpone(ready, now)
        else:
            lane.answered()
            self._drop(job)
            done = verdict is _DONE
            mark = Mark.done(message, number) if done else Mark.failed(message, number, outcome.report)
            self._marks.append(mark)
        lane.take_turn()
        return mark

    def lost(self, message: int, number: int, reason: bytes, now: float) -> Mark | None:
        """Whoever tried died and did not say how it went. The first few times it is soon tried again: the fault will
        rarely be the message's."""
        job = self._find_running(message, number)
        if job is None:
            return None
        self._ended(job)
        job.lane.take_turn()
        if job.lane.probe is job:
            job.lane.probe = None
        job.losses += 1
        due = int(now) + LOST_PAUSES[min(job.losses, len(LOST_PAUSES)) - 1]
        if job.losses > len(LOST_PAUSES) or self._is_ahead(job, (due, message, number)):
            return self._again(job, reason)
        return self._put_off(job, due, reason, tried=False)

    def crowded(self, message: int, number: int, now: float) -> Mark | None:
        """It was not tried: enough of the same owner is under way, and others shall have their turn."""
        job = self._find_running(message, number)
        if job is None:
            return None
        self._ended(job)
        job.lane.take_turn()
        if job.lane.probe is job:
            job.lane.probe = None
        return self._put_off(job, int(now) + CROWDED_PAUSE, CROWDED, tried=False)

    def withdrawn(self, message: int, number: int) -> None:
        """It was not tried, and the engine knows more of it than we, as somebody `changed` it: it is read anew."""
        job = self._find_running(message, number)
        if job is None:
            return
        self._ended(job)
        self._drop(job)
        job.lane.take_turn()
        self._rewind_all(job.before)

    def next_due(self, now: float) -> float | None:
        """When `start` or `wanted` will have something: now, a time, or None: not by itself."""
        if self.wanted() is not None:
            return now
        if any(line.turns and line.running < line.limits.total for line in self._lines.values()):
            return now
        while self._heap and not self._is_idle(self._heap[0]):
            heappop(self._heap)
        return float(self._heap[0][0]) if self._heap else None

    # Marks.

    @property
    def unsettled(self) -> int:
        """How many marks are not yet in the engine."""
        return len(self._marks)

    def marks(self) -> list[Mark]:
        """All that is not yet in the engine, oldest first."""
        return self._marks.copy()

    def settled(self, count: int) -> None:
        """The first `count` of the marks are durably in the engine."""
        del self._marks[:count]

    # Jobs.

    def _wake(self, now: float) -> None:
        turns: dict[tuple[int, Lane], list[Job]] = {}
        while self._heap and self._heap[0][0] <= now:
            waiting = heappop(self._heap)
            if self._is_idle(waiting):
                job = waiting[2]
                job.stage = READY
                job.lane.idle -= 1
                turns.setdefault((job.message, job.lane), []).append(job)
        for jobs in turns.values():
            self._arrive(jobs, now)

    def _arrive(self, jobs: list[Job], now: float) -> None:
        """The time has come for these recipients of one message and destination."""
        lane = jobs[0].lane
        ready = [job for job in jobs if lane.admits(job, now)] if lane.failures else jobs
        if ready:
            lane.offer(ready)
        if len(ready) < len(jobs):
            for job in jobs:
                if job not in ready:
                    self._postpone(job, now)

    def _find_running(self, message: int, number: int) -> Job | None:
        job = self._jobs.get((message, number))
        return job if job is not None and job.stage is RUNNING else None

    def _ended(self, job: Job) -> None:
        job.stage = READY
        job.again = True
        job.lane.ended(job)

    def _again(self, job: Job, reason: bytes) -> Mark:
        """An attempt failed for now."""
        if job.started > job.born + self._lifetime:
            return self._give_up(job, reason)
        due = next_attempt(job.born, job.started, job.lane.destination.channel)
        return self._put_off(job, due, reason, tried=True)

    def _postpone(self, job: Job, now: float) -> None:
        """No attempt: the destination is down. Its age still counts."""
        if now > job.born + self._lifetime:
            self._give_up(job, job.lane.reason)
        else:
            self._put_off(job, job.lane.reopens(now), job.lane.reason, tried=False)

    def _give_up(self, job: Job, reason: bytes) -> Mark:
        self._drop(job)
        mark = Mark.failed(job.message, job.number, last_words(reason, TOO_LONG))
        self._marks.append(mark)
        return mark

    def _put_off(self, job: Job, due: int, reason: bytes, *, tried: bool) -> Mark:
        mark = Mark.later(job.message, job.number, due, reason, tried=tried)
        self._marks.append(mark)
        job.due = due
        if job.changed:
            self._drop(job)
            self._rewind_all(job.before)
        elif self._is_ahead(job, job.position):
            self._drop(job)
        else:
            self._sleep(job)
        return mark
