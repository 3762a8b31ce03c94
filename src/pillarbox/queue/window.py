"""What the schedule holds of the queue: for each channel as many recipients as have room, and how far the engine has
been read for it. A pure machine; schedule.py says which rules must stay true."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from heapq import heapify, heappush

from pillarbox.queue.bounce import varies
from pillarbox.queue.engine import Entry, Message, Position, Recipient
from pillarbox.queue.lane import IDLE, RUNNING, Channel, Destination, Job, Lane, Limits, Line

WINDOW = 10_000  # recipients of each channel in memory
CLAIM = 100  # recipients in one claim
LANES_KEPT = 3 * WINDOW  # destinations remembered; two windows of them can be needed

_END: Position = (1 << 62, 0, 0)

Waiting = tuple[Message, Recipient]
Route = Callable[[bytes], Destination]


@dataclass(frozen=True, slots=True)
class Claim:
    """Ask the engine for the next `limit` recipients behind `after`. `reader` is the schedule's own note: a channel, or
    one lane that was left behind."""

    after: Position
    limit: int
    reader: Line | Lane


class Window:
    """Jobs by message and recipient, in the lanes of their destinations; those whose time has not come by that time."""

    def __init__(self, local: Limits, remote: Limits, window: int) -> None:
        self._lines = {Channel.LOCAL: Line(local), Channel.REMOTE: Line(remote)}
        self._window = window
        self._share = max(1, window // 4)  # what one destination may have of the window
        self._jobs: dict[tuple[int, int], Job] = {}
        self._lanes: dict[Destination, Lane] = {}
        self._behind: dict[Destination, Lane] = {}
        self._heap: list[tuple[int, int, Job]] = []  # idle jobs by time and arrival; what else is in it is stale
        self._serial = 0
        self._read_last: Line | None = None

    def _unread(self) -> Claim | None:
        """What to claim next, or None: no room, or nothing unread."""
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

    # Jobs.

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

    def _is_ahead(self, job: Job, position: Position) -> bool:
        """Will this position be read later, so that the job may leave the window?"""
        behind = job.lane.behind
        return position > job.lane.line.position or (behind is not None and position > behind)
