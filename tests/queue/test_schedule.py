"""The schedule by itself: a week in milliseconds. tests/queue/test_window.py has it over an engine."""

from __future__ import annotations

from collections import Counter

import pytest

from pillarbox.outcome import Outcome
from pillarbox.queue import window as module
from pillarbox.queue.engine import REASON_LIMIT, Entry, Mark, Message, Recipient, State
from pillarbox.queue.lane import (
    DOWN_AFTER,
    FIRST_PAUSE,
    LONGEST_PAUSE,
    PROBE_TIME,
    Channel,
    Destination,
    Lane,
    Limits,
    Line,
)
from pillarbox.queue.schedule import TOO_LONG, Schedule, Start, next_attempt
from pillarbox.queue.window import Claim
from tests.queue.drafts import BIRTH

JOE = Destination(Channel.LOCAL, b"joe")
JANE = Destination(Channel.LOCAL, b"jane")
FAR = Destination(Channel.REMOTE, b"far.example")
NEAR = Destination(Channel.REMOTE, b"near.example")

DONE = Outcome.done(b"did 1+0+0\n")
LATER = Outcome.later(b"not now\n")
NEVER = Outcome.never(b"no mailbox here\n")

WIDE = Limits(1000, 1000)


def fresh(local: Limits = WIDE, remote: Limits = WIDE, lifetime: int = 604_800, window: int = 10_000) -> Schedule:
    """A schedule that has read an engine which was empty."""
    schedule = Schedule(local, remote, lifetime, window)
    for _channel in Channel:
        claim = schedule.wanted()
        assert claim is not None
        schedule.claimed(claim, [], lambda address: JOE)
    assert schedule.wanted() is None
    return schedule


def read(schedule: Schedule, entries: list[Entry], destination: Destination) -> None:
    """All that is in the engine, for both channels."""
    while (claim := schedule.wanted()) is not None:
        schedule.claimed(claim, entries, lambda address: destination)


def settle(schedule: Schedule) -> list[Mark]:
    marks = schedule.marks()
    schedule.settled(len(marks))
    return marks


def due(schedule: Schedule, now: float) -> float:
    at = schedule.next_due(now)
    assert at is not None
    return at


# qmail's times.


def ages(channel: Channel, lifetime: int) -> list[int]:
    """When a message that always fails is tried, in seconds after its birth, attempts taking no time."""
    schedule = fresh(lifetime=lifetime)
    schedule.committed(1, BIRTH, [Destination(channel, b"x")])
    tried: list[int] = []
    now = float(BIRTH)
    while True:
        (start,) = schedule.start(now)
        tried.append(int(now) - BIRTH)
        mark = schedule.outcome(1, 0, LATER, now)
        assert mark is not None and start.numbers == (0,)
        settle(schedule)
        if mark.state is State.FAILED:
            assert mark.reason == b"not now\n" + TOO_LONG
            assert schedule.next_due(now) is None
            return tried
        assert mark.due == due(schedule, now)
        now = due(schedule, now)


# row: vectors-schedule
def test_a_week_of_local_attempts_comes_at_qmails_times() -> None:
    tried = ages(Channel.LOCAL, 604_800)
    assert tried[:7] == [0, 100, 400, 900, 1600, 2500, 3600]
    assert len(tried) == 79
    assert tried[-2] <= 604_800 < tried[-1]


# row: vectors-schedule
def test_a_week_of_remote_attempts_comes_at_qmails_times() -> None:
    tried = ages(Channel.REMOTE, 604_800)
    assert tried[:7] == [0, 400, 1600, 3600, 6400, 10000, 14400]
    assert tried[-2:] == [577_600, 608_400]
    assert len(tried) == 40


def test_the_words_for_giving_up_are_qmails() -> None:
    assert TOO_LONG == b"I'm not going to try again; this message has been in the queue too long.\n"


# row: vectors-schedule
@pytest.mark.parametrize(("lifetime", "tried"), [(0, [0, 100]), (99, [0, 100]), (100, [0, 100, 400])])
def test_the_last_attempt_is_the_first_that_begins_after_the_lifetime(lifetime: int, tried: list[int]) -> None:
    assert ages(Channel.LOCAL, lifetime) == tried


def test_a_birth_in_the_future_does_not_put_mail_off_until_then() -> None:
    assert next_attempt(BIRTH + 1_000_000, BIRTH + 5.5, Channel.LOCAL) == BIRTH + 105
    assert next_attempt(BIRTH, BIRTH + 5.5, Channel.LOCAL) == BIRTH + 144


def test_the_time_counts_from_when_the_attempt_began() -> None:
    schedule = fresh()
    schedule.committed(1, BIRTH, [JOE])
    schedule.start(BIRTH + 25.9)
    mark = schedule.outcome(1, 0, LATER, BIRTH + 5000)
    assert mark == Mark.later(1, 0, BIRTH + (5 + 10) ** 2, b"not now\n")


# Deliveries of several recipients.


# row: known-grouping
def test_recipients_of_a_message_at_one_destination_start_together_and_take_one_place() -> None:
    schedule = fresh(remote=Limits(2, 2, 3))
    schedule.committed(1, BIRTH, [FAR, FAR, NEAR, FAR, FAR])
    assert sorted(schedule.start(BIRTH)) == [Start(1, FAR, (0, 1, 3), False), Start(1, NEAR, (2,), False)]
    for number in (0, 3):
        schedule.outcome(1, number, DONE, BIRTH)
        assert schedule.start(BIRTH) == []
    schedule.outcome(1, 1, LATER, BIRTH)
    assert schedule.start(BIRTH) == [Start(1, FAR, (4,), False)]


# row: known-grouping
def test_recipients_of_a_sender_that_varies_each_take_a_place_of_their_own() -> None:
    schedule = fresh(remote=Limits(9, 2, 100))
    schedule.committed(1, BIRTH, [FAR] * 3, alone=True)
    assert schedule.start(BIRTH) == [Start(1, FAR, (0, 1), False, True)]
    assert schedule.running == 2
    schedule.outcome(1, 0, DONE, BIRTH)
    assert schedule.start(BIRTH) == [Start(1, FAR, (2,), False, True)]


def test_a_sender_that_varies_is_known_when_its_message_is_read_again() -> None:
    schedule = Schedule(WIDE, Limits(9, 9, 100))
    (message, recipients) = entry(1, 2, BIRTH)
    plain = (message._replace(id=2), recipients)
    varying = (message._replace(sender=b"list-@example.org-@[]"), recipients)
    read(schedule, [varying, plain], FAR)
    assert {start.message: start.alone for start in schedule.start(BIRTH)} == {1: True, 2: False}
    assert schedule.running == 3


def test_a_destination_that_fails_a_delivery_of_many_recipients_has_failed_once() -> None:
    schedule = fresh(remote=Limits(9, 9, 100))
    for message in (1, 2):
        schedule.committed(message, BIRTH, [FAR] * 5)
        schedule.start(BIRTH)
        for number in range(5):
            schedule.outcome(message, number, LATER, BIRTH, down=True)
    schedule.committed(3, BIRTH, [FAR])
    assert schedule.start(BIRTH) == [Start(3, FAR, (0,), False)]
    schedule.outcome(3, 0, LATER, BIRTH, down=True)
    schedule.committed(4, BIRTH, [FAR])
    assert schedule.start(BIRTH) == []


# Outcomes.


def test_what_is_done_is_over() -> None:
    schedule = fresh()
    schedule.committed(1, BIRTH, [JOE])
    assert schedule.start(BIRTH) == [Start(1, JOE, (0,), False)]
    assert schedule.outcome(1, 0, DONE, BIRTH) == Mark.done(1, 0)
    assert settle(schedule) == [Mark.done(1, 0)]
    assert schedule.start(BIRTH + 1e9) == []
    assert schedule.next_due(BIRTH) is None


def test_a_final_failure_is_failed_with_its_reason() -> None:
    schedule = fresh()
    schedule.committed(1, BIRTH, [JOE])
    schedule.start(BIRTH)
    assert schedule.outcome(1, 0, NEVER, BIRTH) == Mark.failed(1, 0, b"no mailbox here\n")
    assert schedule.start(BIRTH + 1e9) == []


@pytest.mark.parametrize("reason", [b"", b"no end", b"x" * 20_000])
def test_the_last_attempt_s_reason_says_that_it_was_the_last(reason: bytes) -> None:
    schedule = fresh(lifetime=10)
    schedule.committed(1, BIRTH, [JOE])
    schedule.start(BIRTH + 11)
    mark = schedule.outcome(1, 0, Outcome.later(reason), BIRTH + 11)
    assert mark is not None and mark.state is State.FAILED and len(mark.reason) <= REASON_LIMIT
    before, _, last = mark.reason.rpartition(TOO_LONG)
    assert last == b"" and before[:-1] == reason[: len(before) - 1] and before[-1:] in (b"", b"\n")


@pytest.mark.parametrize("outcome", [DONE, LATER, NEVER])
def test_an_outcome_is_heard_once(outcome: Outcome) -> None:
    schedule = fresh()
    schedule.committed(1, BIRTH, [JOE])
    assert schedule.outcome(1, 0, outcome, BIRTH) is None
    schedule.start(BIRTH)
    assert schedule.outcome(1, 1, outcome, BIRTH) is None
    assert schedule.outcome(1, 0, outcome, BIRTH) is not None
    assert schedule.outcome(1, 0, outcome, BIRTH) is None
    assert len(settle(schedule)) == 1
    assert schedule.running == 0


def test_marks_stay_until_they_are_settled() -> None:
    schedule = fresh()
    schedule.committed(1, BIRTH, [JOE, JOE])
    schedule.start(BIRTH)
    schedule.outcome(1, 0, DONE, BIRTH)
    assert schedule.marks() == schedule.marks() == [Mark.done(1, 0)]
    schedule.outcome(1, 1, DONE, BIRTH)
    schedule.settled(1)
    assert schedule.marks() == [Mark.done(1, 1)]
    assert schedule.unsettled == 1


def test_the_second_attempt_looks_whether_the_first_succeeded() -> None:
    schedule = fresh()
    schedule.committed(1, BIRTH, [JOE])
    assert [start.again for start in schedule.start(BIRTH)] == [False]
    schedule.outcome(1, 0, LATER, BIRTH)
    settle(schedule)
    assert [start.again for start in schedule.start(BIRTH + 100)] == [True]


# row: known-program-missing
def test_a_lost_attempt_is_soon_tried_again_and_then_like_any_failure() -> None:
    schedule = fresh()
    schedule.committed(1, BIRTH, [JOE])
    now = float(BIRTH)
    waited = []
    for _ in range(5):
        (start,) = schedule.start(now)
        mark = schedule.lost(1, 0, b"lost\n", now)
        assert mark is not None and schedule.running == 0
        settle(schedule)
        waited.append((int(due(schedule, now) - now), mark.tried))
        now = due(schedule, now)
    assert start.again
    assert waited[:3] == [(1, False), (5, False), (30, False)]
    assert all(tried and pause >= 100 for pause, tried in waited[3:])
    assert schedule.lost(1, 0, b"lost\n", now) is None


# Limits and turns.


def test_no_more_run_than_the_channel_and_the_destination_may() -> None:
    schedule = fresh(local=Limits(5, 2), remote=Limits(3, 3))
    for message in range(1, 11):
        schedule.committed(message, BIRTH, [JOE, JANE, FAR])
    starts = schedule.start(BIRTH)
    assert Counter(start.destination for start in starts) == {JOE: 2, JANE: 2, FAR: 3}
    assert schedule.running == 7
    assert schedule.start(BIRTH) == []
    for start in starts[:1]:
        schedule.outcome(start.message, start.numbers[0], DONE, BIRTH)
    assert schedule.next_due(BIRTH) is None or schedule.marks()
    assert [start.destination for start in schedule.start(BIRTH)] == [starts[0].destination]


# row: known-concurrency
def test_more_than_qmails_255_may_run() -> None:
    schedule = fresh(remote=Limits(300, 300))
    for message in range(1, 401):
        schedule.committed(message, BIRTH, [FAR])
    assert len(schedule.start(BIRTH)) == 300


def test_raised_limits_hold_at_once() -> None:
    schedule = fresh(local=Limits(1, 1))
    for message in range(1, 5):
        schedule.committed(message, BIRTH, [JOE])
    assert len(schedule.start(BIRTH)) == 1
    schedule.configure(Limits(3, 3), WIDE, 604_800)
    assert len(schedule.start(BIRTH)) == 2
    schedule.configure(Limits(1, 1), WIDE, 604_800)
    assert schedule.start(BIRTH) == []


def test_recipients_of_one_message_start_together_in_their_order() -> None:
    schedule = fresh()
    schedule.committed(1, BIRTH, [JOE, FAR, JOE, FAR])
    assert schedule.start(BIRTH) == [Start(1, JOE, (0, 2), False), Start(1, FAR, (1, 3), False)]


def test_a_message_to_many_does_not_make_the_others_wait() -> None:
    schedule = fresh(remote=Limits(4, 4))
    schedule.committed(1, BIRTH, [FAR] * 500)
    schedule.committed(2, BIRTH, [FAR])
    schedule.committed(3, BIRTH, [FAR])
    started = schedule.start(BIRTH)
    assert [(start.message, start.numbers) for start in started] == [(1, (0, 1)), (2, (0,)), (3, (0,))]


def test_a_destination_with_much_mail_does_not_make_the_others_wait() -> None:
    schedule = fresh(remote=Limits(4, 4))
    for message in range(1, 500):
        schedule.committed(message, BIRTH, [FAR])
    schedule.committed(500, BIRTH, [NEAR])
    assert Counter(start.destination for start in schedule.start(BIRTH)) == {FAR: 3, NEAR: 1}


def test_everything_is_started_once() -> None:
    schedule = fresh(local=Limits(7, 3), remote=Limits(5, 2))
    for message in range(1, 101):
        schedule.committed(message, BIRTH, [(JOE, JANE, FAR, NEAR)[(message + n) % 4] for n in range(message % 6)])
    seen: Counter[tuple[int, int]] = Counter()
    while starts := schedule.start(BIRTH):
        for start in starts:
            for number in start.numbers:
                seen[start.message, number] += 1
                schedule.outcome(start.message, number, DONE, BIRTH)
    assert set(seen.values()) == {1}
    assert len(seen) == sum(message % 6 for message in range(1, 101))


# Destinations that are down.


def fail(schedule: Schedule, now: float) -> int:
    """Let everything that starts find its destination down. How much that was."""
    count = 0
    while starts := schedule.start(now):
        for start in starts:
            for number in start.numbers:
                schedule.outcome(start.message, number, LATER, now, down=True)
                count += 1
        settle(schedule)
    return count


def test_a_destination_that_is_down_is_not_tried_a_thousand_times() -> None:
    schedule = fresh(remote=Limits(20, 1))
    for message in range(1, 1001):
        schedule.committed(message, BIRTH, [FAR])
    tried = fail(schedule, BIRTH)
    assert tried == DOWN_AFTER
    now = float(BIRTH)
    while now < BIRTH + 86_400:
        now = due(schedule, now)
        tried += fail(schedule, now)
    assert DOWN_AFTER + 20 < tried < 40, "one probe after each pause, up to an hour apart"


def test_all_is_tried_soon_when_the_destination_is_back() -> None:
    schedule = fresh(remote=Limits(20, 20))
    for message in range(1, 101):
        schedule.committed(message, BIRTH, [FAR])
    fail(schedule, BIRTH)
    now = float(BIRTH)
    while now < BIRTH + 10_000:
        now = due(schedule, now)
        fail(schedule, now)
    waited: list[float] = []
    back = now
    while (at := schedule.next_due(now)) is not None:
        now = at
        for start in schedule.start(now):
            schedule.outcome(start.message, 0, DONE, now)
            waited.append(now - back)
        settle(schedule)
    assert len(waited) == 100
    assert waited[70] <= LONGEST_PAUSE + PROBE_TIME + 2, "but for those that failed themselves and wait their time"


def test_while_a_probe_runs_the_others_wait_a_minute() -> None:
    schedule = fresh()
    for message in range(1, 11):
        schedule.committed(message, BIRTH, [FAR])
    fail(schedule, BIRTH)
    now = due(schedule, BIRTH)
    schedule.committed(11, int(now), [FAR])
    probes = schedule.start(now)
    assert sum(len(start.numbers) for start in probes) == 1
    later = [mark for mark in settle(schedule) if not mark.tried]
    assert later and all(mark.due == int(now + PROBE_TIME) + 1 for mark in later)


@pytest.mark.parametrize(("outcome", "down"), [(LATER, False), (NEVER, False), (DONE, False), (NEVER, True)])
def test_a_destination_that_answers_is_not_down_whatever_it_says(outcome: Outcome, down: bool) -> None:
    schedule = fresh(remote=Limits(1, 1))
    for message in range(1, 30):
        schedule.committed(message, BIRTH, [FAR])
        assert [start.message for start in schedule.start(BIRTH)] == [message]
        if message % DOWN_AFTER:
            schedule.outcome(message, 0, LATER, BIRTH, down=True)
        else:
            schedule.outcome(message, 0, outcome, BIRTH, down=down)


def test_what_still_ran_when_it_closed_does_not_prolong_the_pause() -> None:
    schedule = fresh(remote=Limits(20, 20))
    for message in range(1, 21):
        schedule.committed(message, BIRTH, [FAR])
    starts = schedule.start(BIRTH)
    for second, start in enumerate(starts):
        schedule.outcome(start.message, 0, LATER, BIRTH + second, down=True)
    settle(schedule)
    schedule.committed(21, BIRTH + 20, [FAR])
    assert schedule.start(BIRTH + 20) == []
    assert [mark.due for mark in settle(schedule)] == [BIRTH + DOWN_AFTER - 1 + FIRST_PAUSE + 1]


def test_a_lost_probe_makes_room_for_another() -> None:
    schedule = fresh()
    for message in range(1, DOWN_AFTER + 1):
        schedule.committed(message, BIRTH, [FAR])
    fail(schedule, BIRTH)
    now = BIRTH + FIRST_PAUSE + 10
    schedule.committed(50, now, [FAR])
    assert [start.message for start in schedule.start(now)] == [50]
    schedule.lost(50, 0, b"lost\n", now)
    schedule.committed(51, now, [FAR])
    assert [start.message for start in schedule.start(now)] == [51]


def test_a_probe_that_was_removed_before_its_turn_makes_room_for_another() -> None:
    schedule = fresh()
    for message in range(1, DOWN_AFTER + 1):
        schedule.committed(message, BIRTH, [FAR])
    fail(schedule, BIRTH)
    now = BIRTH + FIRST_PAUSE + 10
    schedule.committed(50, now, [FAR])
    schedule.changed([50], now)
    schedule.committed(51, now, [FAR])
    assert [start.message for start in schedule.start(now)] == [51]


def test_mail_for_a_destination_that_is_down_grows_old_all_the_same() -> None:
    schedule = fresh(lifetime=1000, remote=Limits(1, 1))
    for message in range(1, 21):
        schedule.committed(message, BIRTH, [FAR])
    now = float(BIRTH)
    failed: list[Mark] = []
    while (at := schedule.next_due(now)) is not None:
        now = at
        for start in schedule.start(now):
            schedule.outcome(start.message, 0, LATER, now, down=True)
        failed += [mark for mark in settle(schedule) if mark.state is State.FAILED]
    assert sorted(mark.message for mark in failed) == list(range(1, 21))
    assert {mark.reason for mark in failed} == {b"not now\n" + TOO_LONG}
    assert now <= BIRTH + 1000 + LONGEST_PAUSE


def test_what_is_remembered_of_destinations_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LANES_KEPT", 50)
    schedule = fresh()
    for message in range(1, 501):
        schedule.committed(message, BIRTH, [Destination(Channel.REMOTE, b"host%d" % message)])
        (start,) = schedule.start(BIRTH)
        schedule.outcome(start.message, 0, DONE, BIRTH)
    assert len(schedule._lanes) <= 50


# The window.


def entry(message: int, recipients: int, at: int) -> Entry:
    kept = Message(message, b"00000000", BIRTH, b"", 1, 0, 1, None)
    return kept, [Recipient(number, b"joe", State.WAITING, 1, at, b"") for number in range(recipients)]


def test_nothing_is_claimed_while_a_mark_is_not_in_the_engine() -> None:
    """The engine would still say that it waits, and it would be delivered twice."""
    schedule = Schedule(WIDE, WIDE)
    schedule.committed(1, BIRTH, [JOE])
    schedule.start(BIRTH)
    schedule.outcome(1, 0, DONE, BIRTH)
    assert schedule.wanted() is None
    settle(schedule)
    assert schedule.wanted() is not None


def test_what_was_claimed_may_have_been_tried_before() -> None:
    schedule = Schedule(WIDE, WIDE)
    read(schedule, [entry(1, 2, BIRTH)], JOE)
    assert schedule.start(BIRTH) == [Start(1, JOE, (0, 1), True)]


def test_what_is_in_the_window_is_not_taken_in_again() -> None:
    schedule = Schedule(WIDE, WIDE)
    schedule.committed(1, BIRTH, [JOE])
    read(schedule, [entry(1, 1, BIRTH)], JOE)
    schedule.committed(1, BIRTH, [JOE])
    assert [start.numbers for start in schedule.start(BIRTH)] == [(0,)]
    assert schedule.start(BIRTH) == []


def test_an_answer_to_an_old_question_is_not_taken() -> None:
    schedule = Schedule(WIDE, WIDE)
    read(schedule, [entry(1, 1, BIRTH)], JOE)
    schedule.changed([1], BIRTH)
    now = schedule.wanted()
    assert now is not None and now.after < (BIRTH, 1, 0)
    schedule.claimed(Claim((-1, 0, 0), 100, now.reader), [], lambda address: JOE)
    assert schedule.wanted() == now


def busy(window: int, destinations: list[Destination]) -> Schedule:
    """One message for each destination was tried and waits for its second attempt."""
    schedule = fresh(window=window)
    for message, destination in enumerate(destinations, 1):
        schedule.committed(message, BIRTH, [destination])
        schedule.start(BIRTH)
        schedule.outcome(message, 0, LATER, BIRTH)
    settle(schedule)
    assert len(schedule._jobs) == len(destinations)
    return schedule


def test_what_is_due_later_makes_room_for_what_is_due_now() -> None:
    schedule = busy(10, [Destination(Channel.LOCAL, b"user%d" % number) for number in range(10)])
    schedule.committed(11, BIRTH + 1, [JOE])
    assert [start.message for start in schedule.start(BIRTH + 1)] == [11]
    claim = schedule.wanted()
    assert claim is not None and claim.after < (BIRTH + 100, 1, 0), "and is read again"


def test_what_is_due_later_makes_room_in_its_lane_too() -> None:
    schedule = busy(40, [JOE] * 10)
    schedule.committed(11, BIRTH + 1, [JOE])
    assert [start.message for start in schedule.start(BIRTH + 1)] == [11]
    claim = schedule.wanted()
    assert claim is not None and claim.after < (BIRTH + 100, 1, 0), "and is read again"


def test_a_busy_destination_is_read_on_when_it_has_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """And no further than the queue has been read, and not from an old answer."""
    monkeypatch.setattr(module, "CLAIM", 1)
    schedule = Schedule(Limits(1, 1), WIDE, window=8)
    first = schedule.wanted()
    assert first is not None
    schedule.claimed(first, [entry(1, 1, BIRTH)], lambda address: JANE)  # read up to BIRTH, and there is more
    for message in range(2, 6):
        schedule.committed(message, BIRTH - 10, [JOE])  # two of four have room
    schedule.start(BIRTH)
    claim = schedule.wanted()
    assert claim is not None and isinstance(claim.reader, Line), "not while it has its share"
    schedule.outcome(2, 0, DONE, BIRTH)
    settle(schedule)
    claim = schedule.wanted()
    assert claim is not None and isinstance(claim.reader, Lane) and claim.reader.destination == JOE
    schedule.claimed(Claim((0, 0, 0), 1, claim.reader), [], lambda address: JOE)
    assert schedule.wanted() == claim
    schedule.claimed(claim, [entry(9, 1, BIRTH + 50)], lambda address: JOE)
    assert (9, 0) not in schedule._jobs
    again = schedule.wanted()
    assert again is not None and isinstance(again.reader, Line)


def test_what_failed_makes_room_for_what_its_lane_has_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CLAIM", 4)
    schedule = fresh(window=8)
    for message in range(1, 5):
        schedule.committed(message, BIRTH, [JOE])  # two of four have room
    for start in schedule.start(BIRTH):
        schedule.outcome(start.message, 0, LATER, BIRTH)
    settle(schedule)
    claim = schedule.wanted()
    assert claim is not None and isinstance(claim.reader, Lane)
    schedule.claimed(claim, [entry(3, 1, BIRTH), entry(4, 1, BIRTH), entry(1, 1, BIRTH + 100)], lambda address: JOE)
    assert [start.message for start in schedule.start(BIRTH)] == [3, 4]


def test_mail_to_hosts_that_hang_leaves_room_for_mail_here() -> None:
    schedule = fresh(window=8)
    schedule.committed(1, BIRTH, [Destination(Channel.REMOTE, b"host%d.example" % number) for number in range(20)])
    assert len(schedule.start(BIRTH)) == 8
    schedule.committed(2, BIRTH, [JOE])
    assert [start.message for start in schedule.start(BIRTH)] == [2]


class Waiting:
    """Messages with one recipient each in an engine, and what a schedule makes of them. `due`: when each is."""

    def __init__(self, due: dict[int, int], destination: Destination) -> None:
        self.due, self.destination = due, destination
        self.tried: list[int] = []

    def round(self, schedule: Schedule, now: float) -> None:
        """Read as much as is wanted at once, and deliver."""
        for _ in range(10):
            if (claim := schedule.wanted()) is not None:
                places = sorted((due, message, 0) for message, due in self.due.items())
                behind = [place for place in places if place > claim.after][: claim.limit]
                entries = [entry(message, 1, due) for due, message, _number in behind]
                schedule.claimed(claim, entries, lambda address: self.destination)
        for start in schedule.start(now):
            self.tried.append(start.message)
            schedule.outcome(start.message, 0, DONE, now)
            del self.due[start.message]
        settle(schedule)


def test_what_is_due_in_hours_does_not_take_the_place_of_what_a_lane_has_still_to_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A large destination comes back: much is due now, and much later."""
    monkeypatch.setattr(module, "CLAIM", 1)
    now, later = dict.fromkeys(range(1, 61), BIRTH), dict.fromkeys(range(61, 141), BIRTH + 20_000)
    schedule, waiting = Schedule(Limits(1, 1), WIDE, window=100), Waiting(now | later, JOE)
    for _ in range(70):
        waiting.round(schedule, BIRTH)
    assert waiting.tried == list(range(1, 61))


@pytest.mark.parametrize("there", [FAR, JANE])
def test_what_goes_elsewhere_by_new_settings_is_read_by_who_has_it_now(there: Destination) -> None:
    schedule, waiting = fresh(window=8), Waiting(dict.fromkeys(range(1, 5), BIRTH), there)
    for message in range(1, 5):
        schedule.committed(message, BIRTH, [JOE])  # two of four have room
    first = schedule.start(BIRTH)
    schedule.configure(WIDE, WIDE, 604_800)
    for start in first:
        schedule.outcome(start.message, 0, LATER, BIRTH)
        waiting.due[start.message] = BIRTH + 100
    settle(schedule)
    for _ in range(4):
        waiting.round(schedule, BIRTH + 100)
    assert sorted(waiting.tried) == [1, 2, 3, 4]


def test_what_was_tried_while_the_settings_changed_is_put_off_for_who_has_it_then() -> None:
    """The channel that it leaves would read it later; the one that it goes to has read on."""
    schedule, waiting = fresh(window=8), Waiting(dict.fromkeys(range(1, 10), BIRTH), FAR)
    for message in range(1, 10):
        schedule.committed(message, BIRTH, [Destination(Channel.LOCAL, b"user%d" % message)])
    assert len(schedule.start(BIRTH)) == 8  # and the ninth has no room
    schedule.configure(WIDE, WIDE, 604_800)
    waiting.round(schedule, BIRTH)
    assert waiting.tried == [9]
    for message in range(1, 9):
        schedule.outcome(message, 0, LATER, BIRTH)
        waiting.due[message] = BIRTH + 100
    settle(schedule)
    for _ in range(9):
        waiting.round(schedule, BIRTH + 100)
    assert sorted(waiting.tried) == list(range(1, 10))


def test_who_finds_no_room_opens_no_lane() -> None:
    """Each would look for lanes to forget among all there are."""
    schedule = fresh(window=8)
    schedule.committed(1, BIRTH, [Destination(Channel.REMOTE, b"host%d.example" % number) for number in range(100)])
    assert len(schedule._lanes) == 8
