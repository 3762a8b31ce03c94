"""The engine contract. Any engine must pass: add it to ENGINES."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pillarbox.envelope import Envelope
from pillarbox.queue.engine import (
    START,
    BodyGone,
    Draft,
    Engine,
    Mark,
    Position,
    QueueBroken,
    State,
)
from pillarbox.queue.sqlite import SqliteEngine
from tests.queue.drafts import BIRTH, Clock, accept, content, draft, key, settle, spooled

Opener = Callable[[], Engine]

ENGINES: list[Callable[[Path, Clock], Engine]] = [SqliteEngine.open]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=ENGINES)
def reopen(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[Opener]:
    """Close the engine of this test, if one is open, and open the same queue anew."""
    opened: list[Engine] = []

    def opener() -> Engine:
        for engine in opened:
            engine.close()
        opened.append(request.param(tmp_path / "queue", clock))
        return opened[-1]

    yield opener
    for engine in opened:
        engine.close()


@pytest.fixture
def engine(reopen: Opener) -> Engine:
    return reopen()


def whole(engine: Engine, message: int) -> bytes:
    entry = engine.show(message)
    assert entry is not None
    if entry[0].spool is None:
        return engine.body(entry[0])
    descriptor = engine.open_body(entry[0])
    with open(descriptor, "rb") as file:
        return file.read()


def states(engine: Engine, message: int) -> list[State]:
    entry = engine.show(message)
    assert entry is not None
    return [recipient.state for recipient in entry[1]]


def claim_all(engine: Engine, limit: int = 100) -> list[Position]:
    """Everything that waits, claimed page after page."""
    places: list[Position] = []
    while True:
        page = [(r.due, m.id, r.number) for m, rs in engine.claim(places[-1] if places else START, limit) for r in rs]
        assert len(page) <= limit
        places += page
        if len(page) < limit:
            return places


# What is accepted.


def test_a_committed_message_is_there_as_it_came(engine: Engine) -> None:
    (message,) = accept(engine, draft(7, recipients=2))
    entry = engine.show(message)
    assert entry is not None
    kept, recipients = entry
    assert (kept.id, kept.born, kept.sender, kept.uid, kept.pid) == (message, BIRTH, b"sender7@example.org", 1000, 2007)
    assert (kept.size, kept.spool, kept.incarnation) == (len(content(7)), None, engine.incarnation)
    assert [recipient.number for recipient in recipients] == [0, 1]
    assert [recipient.address for recipient in recipients] == [b"recipient7@host0.example", b"recipient7@host1.example"]
    assert [(r.state, r.attempts, r.due, r.reason) for r in recipients] == [(State.WAITING, 0, BIRTH, b"")] * 2
    assert engine.body(kept) == content(7)


def test_every_byte_may_stand_in_an_address_and_in_a_body(engine: Engine) -> None:
    every = bytes(range(256))
    envelope = Envelope(every, (every, b"", b"a@b"))
    (message,) = accept(engine, Draft(key(1), envelope, BIRTH, 0, 1, 256, every))
    entry = engine.show(message)
    assert entry is not None
    assert entry[0].sender == every
    assert [recipient.address for recipient in entry[1]] == [every, b"", b"a@b"]
    assert whole(engine, message) == every


def test_a_body_may_be_empty(engine: Engine) -> None:
    (message,) = accept(engine, Draft(key(1), Envelope(b"", (b"a@b",)), BIRTH, 0, 1, 0, b""))
    assert whole(engine, message) == b""


def test_a_body_may_come_as_bytearray(engine: Engine) -> None:
    (message,) = accept(engine, Draft(key(1), Envelope(b"", (b"a@b",)), BIRTH, 0, 1, 3, bytearray(b"abc")))
    assert whole(engine, message) == b"abc"


def test_a_large_body_lies_in_a_spool_file(engine: Engine) -> None:
    (message, other) = accept(engine, spooled(engine, 4), draft(5))
    entry = engine.show(message)
    assert entry is not None and entry[0].spool is not None
    assert entry[0].size == len(content(4))
    assert (whole(engine, message), whole(engine, other)) == (content(4), content(5))


def test_nobody_can_write_to_a_body_that_was_accepted(engine: Engine) -> None:
    (message,) = accept(engine, spooled(engine, 4))
    entry = engine.show(message)
    assert entry is not None
    descriptor = engine.open_body(entry[0])
    with pytest.raises(OSError):
        os.write(descriptor, b"x")
    os.close(descriptor)


# row: known-queue-ids
def test_ids_come_in_the_drafts_order_and_never_again(engine: Engine, reopen: Opener) -> None:
    first = accept(engine, *[draft(number) for number in range(5)])
    assert [whole(engine, message) for message in first] == [content(number) for number in range(5)]
    settle(engine, *[Mark.done(message, 0) for message in first])
    second = accept(engine, draft(5))
    settle(engine, Mark.done(second[0], 0))
    engine = reopen()
    third = accept(engine, draft(6))
    everything = first + second + third
    assert sorted(set(everything)) == everything


# row: known-queue-ids
def test_a_queue_made_anew_gives_other_names(engine: Engine, reopen: Opener, tmp_path: Path) -> None:
    names = {(accept(engine, draft(1))[0], engine.incarnation)}
    engine.close()
    shutil.rmtree(tmp_path / "queue")
    engine = reopen()
    names.add((accept(engine, draft(1))[0], engine.incarnation))
    assert len(names) == 2


def test_each_opening_has_its_own_incarnation_and_messages_keep_theirs(engine: Engine, reopen: Opener) -> None:
    (before,) = accept(engine, draft(1))
    incarnation = engine.incarnation
    assert len(incarnation) == 8 and int(incarnation, 16) >= 0
    engine = reopen()
    (after,) = accept(engine, draft(2))
    assert [message.incarnation for message, _ in engine.listing()] == [incarnation, engine.incarnation]
    assert [message.id for message, _ in engine.listing()] == [before, after]
    assert incarnation != engine.incarnation


def test_everything_is_there_after_opening_anew(engine: Engine, reopen: Opener) -> None:
    (one, two) = accept(engine, draft(1, recipients=3), spooled(engine, 2))
    settle(engine, Mark.later(one, 1, BIRTH + 400, b"try later"), Mark.done(one, 2))
    before = engine.listing()
    engine = reopen()
    assert engine.listing() == before
    assert (whole(engine, one), whole(engine, two)) == (content(1), content(2))


# row: vectors-queue
def test_a_message_without_recipients_is_accepted_and_over_at_once(engine: Engine) -> None:
    empty = Draft(key(1), Envelope(b"", ()), BIRTH, 0, 1, 1, b"x")
    receipt = engine.commit([empty, draft(2)], ())
    assert receipt.ended == receipt.accepted[:1]
    assert engine.known(key(1)) == receipt.accepted[0]
    assert [message.id for message, _ in engine.listing()] == receipt.accepted[1:]


# What becomes of recipients.


def test_a_message_ends_with_its_last_recipient(engine: Engine, tmp_path: Path) -> None:
    (message,) = accept(engine, spooled(engine, 4, recipients=3))
    entry = engine.show(message)
    assert entry is not None
    assert settle(engine, Mark.done(message, 0), Mark.done(message, 2)) == []
    assert states(engine, message) == [State.DONE, State.WAITING, State.DONE]
    assert settle(engine, Mark.done(message, 1)) == [message]
    assert engine.show(message) is None
    assert claim_all(engine) == []
    with pytest.raises(BodyGone):
        engine.open_body(entry[0])


def test_a_finished_body_is_gone(engine: Engine) -> None:
    (message,) = accept(engine, draft(1))
    entry = engine.show(message)
    assert entry is not None
    settle(engine, Mark.done(message, 0))
    with pytest.raises(BodyGone):
        engine.body(entry[0])


@pytest.mark.parametrize("together", [True, False])
def test_the_same_recipient_done_twice_does_not_end_the_message(engine: Engine, together: bool) -> None:
    (message,) = accept(engine, draft(1, recipients=2))
    if together:
        assert settle(engine, Mark.done(message, 0), Mark.done(message, 0)) == []
    else:
        assert settle(engine, Mark.done(message, 0)) == []
        assert settle(engine, Mark.done(message, 0)) == []
    assert states(engine, message) == [State.DONE, State.WAITING]


def test_what_is_done_is_remembered_by_the_next_opening(engine: Engine, reopen: Opener) -> None:
    (message,) = accept(engine, draft(1, recipients=3))
    settle(engine, Mark.done(message, 1))
    engine = reopen()
    assert settle(engine, Mark.done(message, 1), Mark.done(message, 0)) == []
    assert settle(engine, Mark.done(message, 2)) == [message]


def test_messages_end_in_any_mixture(engine: Engine) -> None:
    ids = accept(engine, *[draft(number) for number in range(20)])
    over = [message for message in ids if message % 3 != 1]
    assert settle(engine, *[Mark.done(message, 0) for message in reversed(over)]) == sorted(over)
    assert [message.id for message, _ in engine.listing()] == sorted(set(ids) - set(over))
    for message in set(ids) - set(over):
        assert whole(engine, message) == content(message - ids[0])


def test_later_counts_the_attempt_and_says_when_and_why(engine: Engine) -> None:
    (message,) = accept(engine, draft(1, recipients=2))
    settle(engine, Mark.later(message, 1, BIRTH + 100, b"no answer\n"))
    settle(engine, Mark.later(message, 1, BIRTH + 400, b"\xffstill none\n"))
    settle(engine, Mark.later(message, 1, BIRTH + 900, b"not tried", tried=False))
    entry = engine.show(message)
    assert entry is not None
    first, second = entry[1]
    assert (first.attempts, first.due, first.reason) == (0, BIRTH, b"")
    assert (second.state, second.attempts, second.due, second.reason) == (State.WAITING, 2, BIRTH + 900, b"not tried")


def test_held_stays_held_until_somebody_says_so(engine: Engine) -> None:
    (message,) = accept(engine, draft(1))
    settle(engine, Mark.held(message, 0, b"no mailbox here"))
    settle(engine, Mark.later(message, 0, BIRTH + 5, b"a late outcome"))
    assert states(engine, message) == [State.HELD]
    assert claim_all(engine) == []
    assert engine.release([message], BIRTH + 9) == [message]
    assert claim_all(engine) == [(BIRTH + 9, message, 0)]


def test_a_held_recipient_that_was_delivered_after_all_is_done(engine: Engine) -> None:
    (message,) = accept(engine, draft(1))
    engine.hold([message], b"by hand")
    assert settle(engine, Mark.done(message, 0)) == [message]


def test_done_is_final(engine: Engine) -> None:
    (message,) = accept(engine, draft(1, recipients=2))
    settle(engine, Mark.done(message, 0))
    before = engine.show(message)
    assert before is not None
    settle(engine, Mark.later(message, 0, BIRTH + 5, b"late"), Mark.held(message, 0, b"late"))
    engine.retry([message], BIRTH + 7)
    engine.hold([message], b"x")
    engine.release([message], BIRTH + 8)
    after = engine.show(message)
    assert after is not None
    assert after[1][0] == before[1][0]
    assert states(engine, message) == [State.DONE, State.WAITING]
    assert settle(engine, Mark.done(message, 1)) == [message]


def test_marks_for_what_is_no_more_are_ignored(engine: Engine) -> None:
    (one, two) = accept(engine, draft(1), draft(2))
    settle(engine, Mark.done(one, 0))
    late = [Mark.done(one, 0), Mark.later(one, 0, BIRTH, b"x"), Mark.held(one, 0, b"x"), Mark.done(999, 0)]
    assert settle(engine, *late, Mark.done(two, 5), Mark.later(two, 5, BIRTH, b"x")) == []
    assert [message.id for message, _ in engine.listing()] == [two]
    assert states(engine, two) == [State.WAITING]


def test_reasons_are_cut_at_qmails_limit(engine: Engine) -> None:
    (message,) = accept(engine, draft(1))
    settle(engine, Mark.held(message, 0, b"x" * 20_000))
    entry = engine.show(message)
    assert entry is not None
    assert entry[1][0].reason == b"x" * 10_000


def test_drafts_and_marks_ride_in_one_commit(engine: Engine) -> None:
    (one,) = accept(engine, draft(1))
    receipt = engine.commit([draft(2)], [Mark.done(one, 0)])
    assert receipt.ended == [one]
    assert [message.id for message, _ in engine.listing()] == receipt.accepted


def test_a_commit_that_fails_leaves_nothing_of_itself(engine: Engine) -> None:
    (one,) = accept(engine, draft(1))
    bad = Draft(key(3), Envelope(b"", (b"a@b",)), BIRTH, 1 << 70, 1, 1, b"x")  # a uid no engine can write
    with pytest.raises(OverflowError):
        engine.commit([draft(2), bad], [Mark.done(one, 0)])
    assert [message.id for message, _ in engine.listing()] == [one]
    assert (engine.known(key(2)), engine.known(key(3))) == (None, None)
    assert settle(engine, Mark.done(one, 0)) == [one]


# Keys.


def test_a_commit_of_unknown_outcome_can_be_asked_for_by_its_key(engine: Engine, reopen: Opener) -> None:
    ids = accept(engine, *[draft(number) for number in range(5)])
    ids += accept(engine, draft(5))
    for _ in range(2):
        assert [engine.known(key(number)) for number in range(7)] == [*ids, None]
        engine = reopen()


def test_a_key_is_known_after_the_message_ended(engine: Engine, reopen: Opener, clock: Clock) -> None:
    (message,) = accept(engine, draft(1))
    settle(engine, Mark.done(message, 0))

    def nearly_ten_minutes(first: int) -> None:
        for number in range(first, first + 50):
            clock.now += 599 / 50
            accept(engine, draft(number))

    nearly_ten_minutes(2)
    assert engine.known(key(1)) == message
    engine = reopen()
    nearly_ten_minutes(100)  # who asks may have waited for the opening
    assert engine.known(key(1)) == message


def test_a_key_is_known_as_long_as_the_message_lives(engine: Engine, clock: Clock) -> None:
    (message,) = accept(engine, draft(1))
    for number in range(2, 100):
        clock.now += 100
        accept(engine, draft(number))
    assert engine.known(key(1)) == message


def test_pieces_of_two_keys_are_not_a_key(engine: Engine) -> None:
    accept(engine, draft(1), draft(2))
    assert engine.known((key(1) + key(2))[8:24]) is None


# Claims.


def test_recipients_are_claimed_in_the_order_in_which_they_fall_due(engine: Engine) -> None:
    ids = accept(engine, *[draft(number, recipients=2, born=BIRTH + number) for number in (9, 3, 5)])
    settle(engine, Mark.later(ids[1], 0, BIRTH + 7, b"x"), Mark.done(ids[2], 1))
    expected = [(3, 1, 1), (5, 2, 0), (7, 1, 0), (9, 0, 0), (9, 0, 1)]
    assert claim_all(engine) == [(BIRTH + due, ids[index], number) for due, index, number in expected]


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
def test_pages_of_claims_leave_nothing_out_and_repeat_nothing(engine: Engine, limit: int) -> None:
    accept(engine, *[draft(number, recipients=number % 4 + 1, born=BIRTH + number % 3) for number in range(30)])
    places = claim_all(engine, limit)
    assert len(places) == sum(number % 4 + 1 for number in range(30))
    assert places == sorted(set(places))


def test_a_claim_has_whole_messages_with_the_recipients_that_wait(engine: Engine) -> None:
    (message,) = accept(engine, draft(1, recipients=3))
    settle(engine, Mark.done(message, 0))
    shown = engine.show(message)
    assert shown is not None
    assert engine.claim() == [(shown[0], shown[1][1:])]


# The postmaster.


def test_retry_makes_due_what_waits_and_what_is_held(engine: Engine) -> None:
    (one, two, three) = accept(engine, draft(1, recipients=3), draft(2), draft(3))
    settle(engine, Mark.done(one, 0), Mark.held(one, 1, b"x"), Mark.later(one, 2, BIRTH + 5000, b"y"))
    settle(engine, Mark.later(two, 0, BIRTH + 5000, b"y"), Mark.later(three, 0, BIRTH + 5000, b"y"))
    assert engine.retry([one, two, 999], BIRTH + 50) == [one, two]
    assert states(engine, one) == [State.DONE, State.WAITING, State.WAITING]
    expected = [(BIRTH + 50, one, 1), (BIRTH + 50, one, 2), (BIRTH + 50, two, 0), (BIRTH + 5000, three, 0)]
    assert claim_all(engine) == expected


def test_release_frees_what_is_held_and_leaves_the_rest(engine: Engine) -> None:
    (one, two) = accept(engine, draft(1, recipients=2), draft(2))
    settle(engine, Mark.held(one, 0, b"x"), Mark.later(one, 1, BIRTH + 5000, b"y"))
    assert engine.release([one, two], BIRTH + 50) == [one]
    assert claim_all(engine) == [(BIRTH, two, 0), (BIRTH + 50, one, 0), (BIRTH + 5000, one, 1)]


def test_hold_stops_what_waits_and_says_why(engine: Engine) -> None:
    (one, two) = accept(engine, draft(1, recipients=2), draft(2))
    settle(engine, Mark.held(one, 0, b"before"))
    assert engine.hold([one, 999], b"by hand") == [one]
    assert engine.hold([one], b"again") == []
    shown = engine.show(one)
    assert shown is not None
    assert [(r.state, r.reason) for r in shown[1]] == [(State.HELD, b"before"), (State.HELD, b"by hand")]
    assert claim_all(engine) == [(BIRTH, two, 0)]


def test_remove_ends_messages_with_their_bodies(engine: Engine) -> None:
    (one, two, three) = accept(engine, draft(1), spooled(engine, 2), draft(3))
    entry = engine.show(two)
    assert entry is not None
    assert engine.remove([two, one, two, 999]) == [one, two]
    assert [message.id for message, _ in engine.listing()] == [three]
    with pytest.raises(BodyGone):
        engine.open_body(entry[0])
    assert settle(engine, Mark.done(one, 0), Mark.done(three, 0)) == [three]


def test_to_change_nothing_changes_nothing(engine: Engine) -> None:
    (one,) = accept(engine, draft(1))
    for nothing in ([], [999]):
        assert engine.remove(nothing) == engine.hold(nothing, b"x") == []
        assert engine.retry(nothing, BIRTH + 9) == engine.release(nothing, BIRTH + 9) == []
    assert engine.commit((), ()).ended == []
    assert claim_all(engine) == [(BIRTH, one, 0)]


def test_the_list_goes_page_by_page(engine: Engine) -> None:
    ids = accept(engine, *[draft(number, recipients=2) for number in range(7)])
    settle(engine, *[Mark.done(ids[3], number) for number in range(2)])
    seen: list[int] = []
    while page := engine.listing(after=seen[-1] if seen else 0, limit=2):
        assert len(page) <= 2
        assert all(len(recipients) == 2 for _, recipients in page)
        seen += [message.id for message, _ in page]
    assert seen == ids[:3] + ids[4:]


def test_a_closed_engine_says_so(engine: Engine) -> None:
    engine.close()
    engine.close()
    with pytest.raises(QueueBroken, match="the queue is closed"):
        engine.commit([draft(1)], ())
    with pytest.raises(QueueBroken):
        engine.claim()
