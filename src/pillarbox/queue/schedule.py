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

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from math import isqrt
from typing import NamedTuple

from pillarbox.outcome import Outcome, Verdict
from pillarbox.queue.bounce import last_words, varies
from pillarbox.queue.engine import Entry, Mark, Message, Position, Recipient
from pillarbox.queue.lane import IDLE, READY, RUNNING, Channel, Destination, Job, Lane, Limits, Line

LIFETIME = 604_800  # seconds; control/queuelifetime's default
WINDOW = 10_000  # recipients of each channel in memory
CLAIM = 100  # recipients in one claim
LANES_KEPT = 3 * WINDOW  # destinations remembered; two windows of them can be needed
CROWDED_PAUSE = 2  # seconds
CROWDED = b"Too many deliveries of this owner are under way. (#4.3.2)\n"
LOST_PAUSES = (1, 5, 30)  # seconds after an attempt whose end nobody saw; then as any failure

TOO_LONG = b"I'm not going to try again; this message has been in the queue too long.\n"

_DONE, _LATER, _ = Verdict
_END: Position = (1 << 62, 0, 0)

Waiting = tuple[Message, Recipient]
Route = Callable[[bytes], Destination]


def next_attempt(born: int, now: float, channel: Channel) -> int:
    """When to try again after an attempt that began at `now` (reference: qmail-send's squareroot): the n-th attempt
    comes about (n * channel)**2 seconds after birth. A birth in the future, by a clock that went back, is now."""
    moment = int(now)
    born = min(born, moment)
    return born + (isqrt(moment - born) + channel) ** 2


@dataclass(frozen=True, slots=True)
class Claim:
    """Ask the engine for the next `limit` recipients behind `after`. `reader` is the schedule's own note: a channel, or
    one lane that was left behind."""

    after: Position
    limit: int
    reader: Line | Lane


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


class Schedule:
    """See above. `local` and `remote` limit the two channels; a message older than `lifetime` seconds gets one more
    attempt."""

    def __init__(self, local: Limits, remote: Limits, lifetime: int = LIFETIME, window: int = WINDOW) -> None:
        self._lines = {Channel.LOCAL: Line(local), Channel.REMOTE: Line(remote)}
        self._lifetime = lifetime
        self._window = window
        self._share = max(1, window // 4)  # what one destination may have of the window
        self._jobs: dict[tuple[int, int], Job] = {}
        self._lanes: dict[Destination, Lane] = {}
        self._behind: dict[Destination, Lane] = {}
        self._heap: list[tuple[int, int, Job]] = []  # idle jobs by time and arrival; what else is in it is stale
        self._serial = 0
        self._read_last: Line | None = None
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
        if self._marks:
            return None
        for lane in list(self._behind.values()):
            if lane.behind is None or lane.held > self._share // 2:
                continue
            if lane.line.held + CLAIM <= self._window:
                return Claim(lane.behind, CLAIM, lane)
            self._rewind(lane.line, lane.behind)
        unread = [line for line in self._lines.values() if line.position is not _END and line.held <= self._window // 2]
        if not unread:
            return None
        line = unread[-1] if unread[0] is self._read_last else unread[0]  # they take turns
        return Claim(line.position, CLAIM, line)

    def claimed(self, claim: Claim, entries: Sequence[Entry], route: Route) -> None:
        """What the engine answered to `wanted`, at once. `route` says an address's destination."""
        waiting = [(message, recipient) for message, recipients in entries for recipient in recipients]
        if isinstance(claim.reader, Lane):
            self._read_lane(claim.reader, claim, waiting, route)
        elif claim.reader.position == claim.after:
            self._read_on(claim.reader, claim, waiting, route)

    def changed(self, messages: Collection[int], now: int) -> None:
        """Somebody retried (due `now`), held, released or removed messages in the engine: what is not running is read
        anew."""
        lanes: set[Lane] = set()
        first: Position = (now, 0, 0)
        for job in [job for job in self._jobs.values() if job.message in messages]:
            if job.stage is RUNNING:
                job.changed = True
            else:
                lanes.add(job.lane)
                first = min(first, job.before)
                self._drop(job)
        for lane in lanes:
            lane.withdraw(messages)
        self._rewind_all(first)

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

    # The window.

    def _admit(
        self, message: int, number: int, born: int, due: int, destination: Destination, again: bool, alone: bool
    ) -> Job | None:
        """A job in the window, or None: it is there already, or there is no room and it will be read later."""
        key = (message, number)
        if key in self._jobs:
            return None
        lane = self._lanes.get(destination)
        line = self._lines[destination.channel] if lane is None else lane.line
        if line.held >= self._window:
            self._rewind(line, (due, message, number - 1))
            if line.held >= self._window:
                return None
        lane = lane or self._open(destination)
        if lane.held >= self._share:
            self._fall_behind(lane, (due, message, number - 1))
            if lane.held >= self._share:
                return None
        job = self._jobs[key] = Job(message, number, born, due, lane, again, alone)
        lane.held += 1
        line.held += 1
        return job

    def _open(self, destination: Destination) -> Lane:
        """A lane for a destination. When there are many, those without anything to do are forgotten, first the ones
        that are up."""
        for down in (False, True):
            if len(self._lanes) >= LANES_KEPT:
                unused = [lane for lane in self._lanes.values() if lane.unused and (down or not lane.failures)]
                for lane in unused:
                    del self._lanes[lane.destination]
        lane = self._lanes[destination] = Lane(destination, self._lines[destination.channel])
        return lane

    def _drop(self, job: Job) -> None:
        """Take a job out of the window."""
        del self._jobs[job.message, job.number]
        lane = job.lane
        lane.held -= 1
        lane.line.held -= 1
        if job.stage is IDLE:
            lane.idle -= 1
        if lane.probe is job:
            lane.probe = None

    def _sleep(self, job: Job) -> None:
        job.stage = IDLE
        job.lane.idle += 1
        self._serial += 1
        heappush(self._heap, (job.due, self._serial, job))

    def _is_idle(self, waiting: tuple[int, int, Job]) -> bool:
        due, _, job = waiting
        return job.stage is IDLE and job.due == due and self._jobs.get((job.message, job.number)) is job

    def _evict(self, after: Position, reader: Line | Lane) -> None:
        """Take idle jobs behind a position out of the window: a channel's, or one lane's."""
        kept: list[tuple[int, int, Job]] = []
        for waiting in filter(self._is_idle, self._heap):
            job = waiting[2]
            if (job.lane is reader or job.lane.line is reader) and job.position > after:
                self._drop(job)
            else:
                kept.append(waiting)
        heapify(kept)
        self._heap = kept

    # How far the engine has been read.

    def _rewind(self, line: Line, position: Position) -> None:
        """Read again from here for a channel. What waits behind it is dropped: it comes again, in order."""
        if position >= line.position:
            return
        line.position = position
        self._evict(position, line)
        for lane in list(self._behind.values()):
            if lane.line is line and lane.behind is not None and lane.behind >= position:
                self._catch_up(lane)

    def _read_anew(self) -> None:
        """Addresses may go elsewhere now: what one reader has read, or left for later, another may want."""
        unread = [line.position for line in self._lines.values()]
        unread += [lane.behind for lane in self._behind.values() if lane.behind is not None]
        for job in list(self._jobs.values()):
            if job.stage is IDLE:
                unread.append(job.before)
                self._drop(job)
            else:
                job.changed = True
        self._rewind_all(min(unread))

    def _rewind_all(self, position: Position) -> None:
        for line in self._lines.values():
            self._rewind(line, position)

    def _fall_behind(self, lane: Lane, position: Position) -> None:
        """A lane has all it may have of the window: read it again from here when it has less."""
        if lane.behind is not None and lane.behind <= position:
            return
        if position < lane.line.position:
            lane.behind = position
            self._behind[lane.destination] = lane
        if lane.idle:
            self._evict(position, lane)

    def _catch_up(self, lane: Lane) -> None:
        lane.behind = None
        self._behind.pop(lane.destination, None)

    def _read_on(self, line: Line, claim: Claim, waiting: Sequence[Waiting], route: Route) -> None:
        self._read_last = line
        for message, recipient in waiting:
            line.position = place = (recipient.due, message.id, recipient.number)
            destination = route(recipient.address)
            if self._lines[destination.channel] is line and not self._comes_later(destination, place):
                self._take_in(message, recipient, destination)
                if line.position != place:  # no room: rewound
                    return
        if len(waiting) < claim.limit:
            line.position = _END

    def _comes_later(self, destination: Destination, place: Position) -> bool:
        """Its lane was left behind and is read from there. To take this first could fill the lane's share with what is
        due in hours."""
        lane = self._lanes.get(destination)
        return lane is not None and lane.behind is not None and lane.behind < place

    def _read_lane(self, lane: Lane, claim: Claim, waiting: Sequence[Waiting], route: Route) -> None:
        if lane.behind != claim.after:
            return
        self._catch_up(lane)
        place = claim.after
        for message, recipient in waiting:
            place = (recipient.due, message.id, recipient.number)
            if place > lane.line.position:
                return
            if route(recipient.address) == lane.destination:
                self._take_in(message, recipient, lane.destination)
                if lane.behind is not None:  # no room
                    return
        if len(waiting) == claim.limit:
            self._fall_behind(lane, place)

    def _take_in(self, message: Message, recipient: Recipient, destination: Destination) -> None:
        alone = varies(message.sender)
        job = self._admit(message.id, recipient.number, message.born, recipient.due, destination, True, alone)
        if job is not None:
            self._sleep(job)

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

    def _is_ahead(self, job: Job, position: Position) -> bool:
        """Will this position be read later, so that the job may leave the window?"""
        behind = job.lane.behind
        return position > job.lane.line.position or (behind is not None and position > behind)
