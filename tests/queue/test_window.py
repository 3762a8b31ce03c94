"""The schedule over a real engine, with windows far too small: nothing is lost from sight, nothing is tried twice."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pillarbox.outcome import Outcome, Verdict
from pillarbox.queue import window as module
from pillarbox.queue.engine import Draft, State
from pillarbox.queue.lane import Channel, Destination, Limits
from pillarbox.queue.schedule import Schedule, Start
from pillarbox.queue.sqlite import SqliteEngine
from pillarbox.queue.window import Claim
from pillarbox.status import Status
from tests.queue.drafts import BIRTH, Clock, draft


@contextmanager
def memory() -> Iterator[Path]:
    """A directory that costs no disk, where there is one."""
    shared = Path("/dev/shm")
    with TemporaryDirectory(prefix="pillarbox-", dir=shared if shared.is_dir() else None) as name:
        yield Path(name)


def route(address: bytes) -> Destination:
    """recipient7@host2.example: seven hosts, the even ones remote."""
    number = int(address.split(b"@")[0].removeprefix(b"recipient")) + int(address.split(b"@host")[1].split(b".")[0])
    return Destination(Channel.REMOTE if number % 2 == 0 else Channel.LOCAL, b"host%d" % (number % 7))


class World:
    """A role in miniature, which looks at every step. Time goes only where the schedule wants it."""

    def __init__(self, directory: Path, window: int, limits: Limits) -> None:
        self._window, self._limits = window, limits
        self._drafts = 0
        self.engine = SqliteEngine.open(directory, Clock())
        self.now = float(BIRTH)
        self.running: set[tuple[int, int]] = set()
        self.tried = 0
        self.restart()

    def restart(self) -> None:
        """The role died and is back: nobody knows what ran."""
        self.schedule = Schedule(self._limits, self._limits, 5000, self._window)
        self.running.clear()

    # what happens

    def commit(self, recipients: list[int]) -> None:
        """Drafts with so many recipients each arrive."""
        drafts = []
        for count in recipients:
            self._drafts += 1
            drafts.append(draft(self._drafts, count, int(self.now)))
        for message, one in zip(self._settle(drafts), drafts, strict=True):
            self.schedule.committed(message, one.born, [route(address) for address in one.envelope.recipients])

    def resolve(self, choice: int, kind: str) -> None:
        """One of those that run ends."""
        if not self.running:
            return
        message, number = sorted(self.running)[choice % len(self.running)]
        self.running.remove((message, number))
        if kind == "lost":
            mark = self.schedule.lost(message, number, b"lost\n", self.now)
        elif kind == "down":
            mark = self.schedule.outcome(message, number, Outcome.later(b"down\n"), self.now, down=True)
        else:
            mark = self.schedule.outcome(message, number, Outcome(Verdict[kind], b"said\n", STATUS), self.now)
        assert mark is not None

    def postmaster(self, verb: str, choice: int) -> None:
        """Somebody changes a few messages."""
        self._settle([])
        there = [message.id for message, _ in self.engine.listing()]
        some = there[choice % 3 :: 1 + choice % 4]
        if verb == "hold":
            self.engine.hold(some, b"by hand")
        elif verb == "remove":
            self.engine.remove(some)
        elif verb == "retry":
            self.engine.retry(some, int(self.now))
        else:
            self.engine.release(some, int(self.now))
        self.schedule.changed(some, int(self.now))

    # a round

    def _settle(self, drafts: list[Draft]) -> list[int]:
        marks = self.schedule.marks()
        receipt = self.engine.commit(drafts, marks)
        self.schedule.settled(len(marks))
        return receipt.accepted

    def round(self) -> bool:
        """Settle, claim, start. False: there was nothing to do."""
        busy = False
        self._settle([])
        if (claim := self.schedule.wanted()) is not None:
            busy = True
            self.schedule.claimed(claim, self.engine.claim(claim.after, claim.limit), route)
        for start in self.schedule.start(self.now):
            busy = True
            for number in start.numbers:
                self._started(start, number)
        held = [job.lane.destination.channel for job in self.schedule._jobs.values()]
        assert all(held.count(channel) == self.schedule._lines[channel].held <= self._window for channel in Channel)
        assert self.schedule.running == len(self.running)
        return busy or self.schedule.unsettled > 0

    def _started(self, start: Start, number: int) -> None:
        self.tried += 1
        assert (start.message, number) not in self.running, "twice at a time"
        self.running.add((start.message, number))
        if self.schedule.unsettled:
            return  # then the engine is not up to date
        entry = self.engine.show(start.message)
        assert entry is not None, "a message that is no more"
        recipient = entry[1][number]
        assert recipient.state is State.WAITING
        assert recipient.due <= self.now, "before its time"
        assert route(recipient.address) == start.destination

    def quiet(self) -> None:
        """Round after round until nothing is to do now."""
        for _ in range(1000):
            if not self.round():
                break
        else:
            raise AssertionError("it never comes to rest")
        if not self.running:
            self._assert_nothing_is_late()
        at = self.schedule.next_due(self.now)
        assert at is None or at > self.now

    def _assert_nothing_is_late(self) -> None:
        waiting = self._waiting()
        assert not [due for due in waiting if due <= self.now], "due, and nobody tries it"
        at = self.schedule.next_due(self.now)
        assert at == (min(waiting) if waiting else None), "it wakes when the next is due"

    def _waiting(self) -> list[int]:
        return [
            recipient.due
            for _, recipients in self.engine.listing(0, 10_000)
            for recipient in recipients
            if recipient.state is State.WAITING
        ]

    def finish(self) -> None:
        """From now on every delivery succeeds: in the end nothing waits."""
        for _ in range(1000):
            self.quiet()
            if self.running:
                self.resolve(0, "DONE")
            elif (at := self.schedule.next_due(self.now)) is not None:
                self.now = at
            else:
                break
        assert self._waiting() == []


STATUS = Status(4, 0, 0)

ACTIONS = st.one_of(
    st.tuples(st.just("commit"), st.lists(st.integers(1, 4), min_size=1, max_size=6)),
    st.tuples(st.just("resolve"), st.integers(0, 30), st.sampled_from(["DONE", "LATER", "NEVER", "down", "lost"])),
    st.tuples(st.just("resolve"), st.integers(0, 30), st.sampled_from(["DONE", "LATER", "down"])),
    st.tuples(st.just("postmaster"), st.sampled_from(["hold", "remove", "retry", "release"]), st.integers(0, 20)),
    st.tuples(st.just("round")),
    st.tuples(st.just("quiet")),
    st.tuples(st.just("wait"), st.integers(1, 3000)),
    st.tuples(st.just("restart")),
)


@settings(max_examples=200, deadline=None)
@given(
    window=st.integers(1, 12),
    total=st.integers(1, 4),
    each=st.integers(1, 3),
    actions=st.lists(ACTIONS, max_size=40),
)
def test_nothing_is_lost_from_sight_and_nothing_is_tried_twice_at_a_time(
    window: int, total: int, each: int, actions: list[tuple[Any, ...]]
) -> None:
    with memory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CLAIM", 3)
        world = World(directory, window, Limits(total, each))
        for verb, *arguments in actions:
            if verb == "wait":
                world.now += arguments[0]
            else:
                getattr(world, verb)(*arguments)
        world.finish()
        world.engine.close()


@contextmanager
def world(window: int = 100, limits: Limits = Limits(10, 10)) -> Iterator[World]:
    with memory() as directory:
        made = World(directory, window, limits)
        yield made
        made.engine.close()


@pytest.mark.parametrize("seed", range(12))
def test_a_long_life_loses_nothing_from_sight(seed: int) -> None:
    """As above, but long: what goes wrong with a full window takes many steps to arrange."""
    dice = random.Random(seed)
    with world(dice.choice([1, 2, 5, 12, 60]), Limits(dice.randint(1, 6), dice.randint(1, 4))) as small:
        for _ in range(150):
            match dice.choices(["commit", "resolve", "postmaster", "round", "quiet", "wait"], [12, 43, 7, 23, 8, 7])[0]:
                case "commit":
                    small.commit([dice.randint(1, 4) for _ in range(dice.randint(1, 8))])
                case "resolve":
                    kinds = ["DONE", "DONE", "DONE", "LATER", "NEVER", "down", "down", "lost"]
                    small.resolve(dice.randint(0, 30), dice.choice(kinds))
                case "postmaster":
                    small.postmaster(dice.choice(["hold", "remove", "retry", "release"]), dice.randint(0, 20))
                case "wait":
                    small.now += dice.randint(1, 3000)
                case verb:
                    getattr(small, verb)()
        small.finish()


def test_to_release_what_is_not_held_does_not_lose_it() -> None:
    with world(limits=Limits(1, 1)) as small:
        small.commit([1, 1])
        small.now += 50
        small.postmaster("release", 0)
        small.finish()


def test_what_is_held_while_it_runs_is_not_tried_again() -> None:
    with world() as small:
        small.commit([1])
        small.quiet()
        small.postmaster("hold", 0)
        small.resolve(0, "LATER")
        small.now += 1000
        small.quiet()
        assert (small.tried, small.running) == (1, set())


def test_what_is_released_while_it_runs_is_tried_again() -> None:
    with world() as small:
        small.commit([1])
        small.quiet()
        small.postmaster("hold", 0)
        small.postmaster("release", 0)
        small.quiet()
        assert len(small.running) == 1
        small.resolve(0, "LATER")
        small.finish()
        assert small.tried == 2


@pytest.mark.parametrize("verb", ["hold", "remove"])
def test_what_is_held_or_removed_before_its_turn_is_not_tried(verb: str) -> None:
    with world(limits=Limits(1, 1)) as small:
        small.commit([3])  # one of each channel, and one that waits for the first
        small.quiet()
        assert small.running == {(1, 0), (1, 1)}
        small.postmaster(verb, 0)
        small.resolve(0, "DONE")
        small.quiet()
        assert small.running == {(1, 1)}


def test_an_old_answer_for_a_lane_is_not_taken() -> None:
    with world(window=4, limits=Limits(1, 1)) as small:
        small.commit([1] * 8)
        small.quiet()
        old = Claim((BIRTH - 5, 0, 0), module.CLAIM, next(iter(small.schedule._lanes.values())))
        small.schedule.claimed(old, [], route)
        small.finish()
        assert small.tried == 8
