"""An owner role's errands: jobs with programs or mbox files, each in a process of its own, watched and bounded.

So many at a time for one home, the rest in line behind them; a home whose programs do not come to an end has its mail
deferred, and everybody else's goes on. The rules that must stay true: nothing here waits for a program, and whatever a
program does, its job gets an outcome.
"""

from __future__ import annotations

import os
import signal
from collections import Counter, OrderedDict, deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

from pillarbox.delivery import errand as errands
from pillarbox.delivery.job import Errand, Forwarding
from pillarbox.outcome import Outcome
from pillarbox.roles import runner
from pillarbox.roles.link import Link
from pillarbox.roles.log import Log
from pillarbox.roles.places import Places
from pillarbox.roles.process import affordable
from pillarbox.roles.rounds import Rounds
from pillarbox.roles.runner import Runner
from pillarbox.status import Failure, Status, SystemTrouble

AT_ONCE = 100  # processes
OF_A_HOME = 4
IN_LINE = 1000
IN_LINE_OF_A_HOME = 200
IN_LINE_OCTETS = 32 << 20  # of messages that are held in memory
PATIENCE = 30.0  # seconds without an end in which a home counts as stuck, and its line is sent away
LONGEST = 3600.0  # seconds that a job may take
GRACE = 2.0  # seconds between SIGTERM and SIGKILL
FAIR_TIME = 60.0  # seconds after which a job gives up its place, so that those who wait for one are not held up
PLACE_PAUSE = 0.2  # seconds between looks for a place
REAP_PAUSE = 0.05  # seconds between looks at processes that are about to be gone
READ_SIZE = 64 << 10
OUTPUT_LIMIT = 16 << 20  # octets that programs of a job may write, most of them into the void
REPORT_LIMIT = 3000  # octets; qmail-lspawn's, and its words where a report is cut
TOO_LONG = b"\nError report too long, sorry.\n"
DESCRIPTORS = 3  # of each: two pipes and a message
FINISHED_KEPT = 1000

_BUSY = Outcome.later(b"Too many deliveries to this mailbox are under way. (#4.3.2)\n", Status(4, 3, 2))
_STOPPING = Outcome.later(b"The delivery was broken off: the server is stopping. (#4.3.2)\n", Status(4, 3, 2))
_ENDLESS = Outcome.later(b"The delivery took more than %d seconds and was broken off. (#4.3.0)\n" % LONGEST)
_WORDY = Outcome.later(b"The program wrote more than %d octets and was broken off. (#4.3.0)\n" % OUTPUT_LIMIT)
_CRASHED = Outcome.later(b"Aack, child crashed. (#4.3.0)\n")

Identity = tuple[bytes, int, int]
Asked = tuple[Link, int]


class Told(NamedTuple):
    """An errand is over: which delivery of which link, and its outcome or what is left of it."""

    link: Link
    delivery: int
    step: Outcome | Forwarding


@dataclass(slots=True)
class _Waiting:
    errand: Errand
    asked: Asked


@dataclass(slots=True)
class _Running:
    """`asked` None: the queue that asked is gone. `ending`: what the outcome will be, once it is told to end."""

    errand: Errand
    asked: Asked | None
    runner: Runner
    place: int | None
    fair_until: float
    end_at: float
    said: bytearray = field(default_factory=bytearray)
    written: int = 0
    result: bytes = b""
    output_open: bool = True
    over: bool = False
    ending: Outcome | None = None
    kill_at: float = 0.0


class Errands:
    """All errands of one role. `host`: for file names; `variables`: for programs, beside those of qmail-command."""

    def __init__(self, rounds: Rounds, log: Log, host: bytes, variables: Mapping[bytes, bytes], places: Places) -> None:
        self._rounds, self._log, self._variables, self._places = rounds, log, variables, places
        self._no_place = False  # some wait for nothing else
        self.host = host
        self._most = affordable(AT_ONCE, DESCRIPTORS, 2 * IN_LINE)
        self._running: dict[Identity, _Running] = {}
        self._ended: dict[int, bytes | None] = {}  # not waited for yet: process, and of a killed one its home
        self._lines: OrderedDict[bytes, deque[_Waiting]] = OrderedDict()
        self._progress: dict[bytes, float] = {}  # when something of a home last began or ended
        self._stuck: set[bytes] = set()
        self._of_home: Counter[bytes] = Counter()
        self._octets = 0
        self._told: list[Told] = []
        self._spent: list[int] = []
        self._finished: OrderedDict[Identity, Outcome | Forwarding] = OrderedDict()
        self._no_later_than: float | None = None

    @property
    def busy(self) -> bool:
        """Some are under way or in line, or were not told of yet."""
        return bool(self._running or self._lines or self._told)

    def take(self, one: Errand, link: Link, delivery: int, now: float) -> None:
        """An errand of this delivery; the content is the caller's still. `now`: monotonic seconds."""
        identity = _identity(one)
        running = self._running.get(identity)
        finished = self._finished.pop(identity, None)
        if running is not None:
            running.asked = (link, delivery)  # asked by a queue that died since: one process is enough
        elif finished is not None:
            step = finished._replace(job=one.job) if isinstance(finished, Forwarding) else finished
            self._told.append(Told(link, delivery, step))
        elif self._no_room(one):
            self._told.append(Told(link, delivery, _BUSY))
        else:
            self._line_up(one, (link, delivery), now)

    def _no_room(self, one: Errand) -> bool:
        home = one.owner.home
        line = self._lines.get(home, ())
        waiting = sum(map(len, self._lines.values()))
        return (
            home in self._stuck or len(line) >= IN_LINE_OF_A_HOME or waiting >= IN_LINE or self._octets > IN_LINE_OCTETS
        )

    def _line_up(self, one: Errand, asked: Asked, now: float) -> None:
        content = one.job.content
        if isinstance(content, int):
            try:
                one = one._replace(job=one.job._replace(content=os.dup(content)))
            except OSError as problem:
                self._told.append(Told(*asked, _failed(SystemTrouble.of(problem))))
                return
        else:
            self._octets += len(content)
        home = one.owner.home
        if home not in self._lines:
            self._lines[home] = deque()
            self._progress[home] = now
        self._lines[home].append(_Waiting(one, asked))

    def tend(self, now: float) -> list[Told]:
        """Start what may, end what must; the errands that are over. Their contents can be read until the next call."""
        for descriptor in self._spent:
            os.close(descriptor)
        self._spent = []
        for identity in [one for one, running in self._running.items() if self._is_over(running, now)]:
            self._end(identity, now)
        self._reap()
        for home in [home for home in self._lines if self._out_of_patience(home, now)]:
            if self._of_home[home] or self._of_home.total() >= self._most:
                self._send_away(home)
        self._start(now)
        if len(self._progress) > len(self._lines) + len(self._of_home):
            kept = self._lines.keys() | self._of_home.keys()
            self._progress = {home: when for home, when in self._progress.items() if home in kept}
        told, self._told = self._told, []
        return told

    def patience(self, now: float) -> float | None:
        """Seconds until `tend` is to be called without anything being heard; None: never."""
        if self._told or any(running.over and running.ending is None for running in self._running.values()):
            return 0.0
        times = [running.kill_at or running.end_at for running in self._running.values()]
        times += [self._progress[home] + PATIENCE for home in self._lines]
        times += [running.fair_until for running in self._running.values() if running.place is not None]
        if self._ended:
            times.append(now + REAP_PAUSE)
        if self._no_place:
            times.append(now + PLACE_PAUSE)
        return max(0.0, min(times) - now) if times else None

    def lost(self, link: Link) -> None:
        """That queue is gone: who waits is forgotten, who runs may be asked for again."""
        for home, line in list(self._lines.items()):
            for one in [one for one in line if one.asked[0] is link]:
                line.remove(one)
                self._let_go(one.errand)
            if not line:
                del self._lines[home]
        for running in self._running.values():
            if running.asked is not None and running.asked[0] is link:
                running.asked = None
        self._told = [told for told in self._told if told.link is not link]

    def drain(self, now: float, seconds: float) -> None:
        """Whatever still runs or waits after so many seconds is broken off."""
        self._no_later_than = now + seconds
        for running in self._running.values():
            running.end_at = min(running.end_at, self._no_later_than)

    def forsake(self) -> None:
        """Nobody will watch them any more: whoever comes after us has their mail delivered again, and they end."""
        for running in self._running.values():
            _signal_group(running.runner.pid, signal.SIGTERM)

    # the line

    def _start(self, now: float) -> None:
        if self._no_later_than is not None and now >= self._no_later_than:
            for home in list(self._lines):
                self._send_away(home, _STOPPING)
        self._no_place = False
        for home in list(self._lines):
            line = self._lines[home]
            while line and self._of_home[home] < OF_A_HOME and self._of_home.total() < self._most:
                place = self._places.take()
                if place is None and not (self._out_of_patience(home, now) and not self._of_home[home]):
                    self._no_place = True
                    break
                self._launch(line.popleft(), place, now)
            if not line:
                del self._lines[home]
            else:
                self._lines.move_to_end(home)  # a place that becomes free is somebody else's first

    def _out_of_patience(self, home: bytes, now: float) -> bool:
        return now >= self._progress[home] + PATIENCE

    def _launch(self, waiting: _Waiting, place: int | None, now: float) -> None:
        one = waiting.errand
        try:
            started = runner.launch(one, self.host, self._variables)
        except OSError as problem:
            self._told.append(Told(*waiting.asked, _failed(SystemTrouble.of(problem))))
            self._let_go(one)
            self._places.leave(place)
            return
        if isinstance(one.job.content, bytes):
            self._octets -= len(one.job.content)
        end_at = now + LONGEST if self._no_later_than is None else min(now + LONGEST, self._no_later_than)
        running = _Running(one, waiting.asked, started, place, now + FAIR_TIME, end_at)
        self._running[_identity(one)] = running
        self._of_home[one.owner.home] += 1
        self._progress[one.owner.home] = now
        self._rounds.watch(started.output, lambda: self._hear_output(running))
        self._rounds.watch(started.result, lambda: self._hear_result(running))

    def _let_go(self, one: Errand) -> None:
        """Of an errand in line."""
        if isinstance(one.job.content, int):
            self._spent.append(one.job.content)
        else:
            self._octets -= len(one.job.content)

    def _send_away(self, home: bytes, outcome: Outcome = _BUSY) -> None:
        for waiting in self._lines.pop(home):
            self._told.append(Told(*waiting.asked, outcome))
            self._let_go(waiting.errand)
        if self._of_home[home] >= OF_A_HOME:
            self._stuck.add(home)

    # those that run

    def _hear_output(self, running: _Running) -> None:
        try:
            octets = os.read(running.runner.output, READ_SIZE)
        except BlockingIOError:
            return
        running.written += len(octets)
        if len(running.said) <= REPORT_LIMIT:
            running.said += octets[:REPORT_LIMIT]
        if not octets:
            self._close_output(running)

    def _close_output(self, running: _Running) -> None:
        if running.output_open:
            self._rounds.unwatch(running.runner.output)
            os.close(running.runner.output)
            running.output_open = False

    def _hear_result(self, running: _Running) -> None:
        try:
            octets = os.read(running.runner.result, READ_SIZE)
        except BlockingIOError:
            return
        running.result = (running.result + octets)[:READ_SIZE]
        if not octets:
            running.over = True
            self._rounds.unwatch(running.runner.result)

    def _is_over(self, running: _Running, now: float) -> bool:
        """Whether it has ended; one that takes too long, or writes too much, is told to."""
        if now >= running.fair_until:
            self._leave_place(running)
        if running.ending is not None:
            return now >= running.kill_at
        if running.over:
            return True
        if now >= running.end_at:
            self._break_off(running, _ENDLESS if self._no_later_than is None else _STOPPING, now)
        elif running.written > OUTPUT_LIMIT:
            self._close_output(running)
            self._break_off(running, _WORDY, now)
        return False

    def _leave_place(self, running: _Running) -> None:
        self._places.leave(running.place)
        running.place = None

    def _break_off(self, running: _Running, outcome: Outcome, now: float) -> None:
        running.ending, running.kill_at = outcome, now + GRACE
        _signal_group(running.runner.pid, signal.SIGTERM)

    def _end(self, identity: Identity, now: float) -> None:
        running = self._running.pop(identity)
        self._leave_place(running)
        home, pid = running.errand.owner.home, running.runner.pid
        if running.ending is not None:
            # The process is not waited for before: as long as it is there nobody else can have its group's number.
            _signal_group(pid, signal.SIGKILL)
        elif running.output_open:
            self._hear_output(running)  # what it said last; a pipe holds no more than one read takes
        self._close_output(running)
        self._rounds.unwatch(running.runner.result)
        os.close(running.runner.result)
        if running.ending is None:
            self._count_out(home)
        self._ended[pid] = None if running.ending is None else home
        self._progress[home] = now
        self._stuck.discard(home)
        step = running.ending or self._conclude(running)
        if running.asked is not None:
            self._told.append(Told(*running.asked, step))
        else:
            self._finished[identity] = step
            if len(self._finished) > FINISHED_KEPT:
                self._finished.popitem(last=False)
        if isinstance(running.errand.job.content, int):
            self._spent.append(running.errand.job.content)

    def _conclude(self, running: _Running) -> Outcome | Forwarding:
        result = runner.read(running.result)
        if result is None:
            if running.result:
                trace = running.result.decode("ascii", "replace")
                self._log.fact(f"alert: a delivery has a bug: {trace}", "bug", trace=trace)
            return Outcome.later(report(bytes(running.said) + _CRASHED.report), _CRASHED.status)
        try:
            step = errands.conclusion(running.errand, result, bytes(running.said))
        except Failure as failure:
            return _failed(failure)
        return step._replace(report=report(step.report)) if isinstance(step, Forwarding) else _cut(step)

    def _reap(self) -> None:
        """A killed process counts until it is gone: on a dead disk that may be never."""
        for pid, home in list(self._ended.items()):
            if os.waitpid(pid, os.WNOHANG)[0]:
                del self._ended[pid]
                if home is not None:
                    self._count_out(home)

    def _count_out(self, home: bytes) -> None:
        self._of_home[home] -= 1
        if not self._of_home[home]:
            del self._of_home[home]


def report(said: bytes) -> bytes:
    """What a job said, as qmail-lspawn passes it on: up to the first NUL, and not too much."""
    said = said.partition(b"\0")[0]
    return said if len(said) <= REPORT_LIMIT else said[: REPORT_LIMIT - len(TOO_LONG) - 3] + TOO_LONG


def _cut(outcome: Outcome) -> Outcome:
    return Outcome(outcome.verdict, report(outcome.report), outcome.status)


def _failed(failure: Failure) -> Outcome:
    return Outcome.later(failure.text.encode("ascii", "backslashreplace") + b"\n", failure.status)


def _identity(one: Errand) -> Identity:
    return one.job.incarnation, one.job.message, one.job.number


def _signal_group(pid: int, number: signal.Signals) -> None:
    """To a runner and all that its programs started, but what has left its group."""
    with suppress(ProcessLookupError):
        os.killpg(pid, number)
