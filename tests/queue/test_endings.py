"""The engine contract about messages that fail: what wants an ending, and that a bounce is there for it or not at all.
Any engine must pass: see test_engine."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pillarbox.envelope import Envelope
from pillarbox.queue.engine import REASON_LIMIT, Draft, Ending, Engine, Mark, QueueFull, State
from pillarbox.queue.sqlite import SqliteEngine
from tests.queue.drafts import BIRTH, Clock, accept, draft, key, settle, spooled
from tests.queue.test_engine import ENGINES, claim_all, states, whole


@pytest.fixture(params=ENGINES)
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Engine]]:
    engines: list[Engine] = []

    def opener() -> Engine:
        for engine in engines:
            engine.close()
        engines.append(request.param(tmp_path / "queue", Clock()))
        return engines[-1]

    yield opener
    for engine in engines:
        engine.close()


@pytest.fixture
def engine(opened: Callable[[], Engine]) -> Engine:
    return opened()


def fail(engine: Engine, message: int, *numbers: int) -> list[int]:
    """Which messages want an ending by it."""
    return engine.commit((), [Mark.failed(message, number, b"no %d" % number) for number in numbers]).failed


def wanting(engine: Engine) -> list[int]:
    return [message.id for message in engine.failed()]


def test_a_message_that_failed_stays_until_its_ending_and_its_bounce_is_there_then(engine: Engine) -> None:
    (one,) = accept(engine, draft(1))
    assert fail(engine, one, 0) == [one] == wanting(engine)
    assert states(engine, one) == [State.FAILED]
    assert claim_all(engine) == [], "nothing tries it again"
    receipt = engine.commit((), (), [Ending(one, draft(2))])
    assert receipt.ended == [one] and receipt.accepted == []
    (bounce,) = receipt.bounced
    assert bounce > one and engine.show(one) is None and wanting(engine) == []
    assert whole(engine, bounce) == draft(2).body
    assert engine.known(key(2)) == bounce
    assert claim_all(engine) == [(BIRTH, bounce, 0)]


def test_an_ending_without_a_bounce_ends_the_message(engine: Engine) -> None:
    (one,) = accept(engine, draft(1))
    fail(engine, one, 0)
    receipt = engine.commit((), (), [Ending(one, None)])
    assert (receipt.ended, receipt.bounced) == ([one], [0])
    assert list(engine.listing()) == []


def test_a_message_wants_its_ending_with_the_last_recipient(engine: Engine) -> None:
    (one,) = accept(engine, draft(1, recipients=4))
    assert fail(engine, one, 1) == [] == wanting(engine)
    assert engine.commit((), [Mark.done(one, 0)]).failed == []
    assert engine.commit((), [Mark.later(one, 2, BIRTH + 9, b"later"), Mark.failed(one, 3, b"no 3")]).failed == []
    assert engine.commit((), [Mark.done(one, 2)]).failed == [one]
    assert states(engine, one) == [State.DONE, State.FAILED, State.DONE, State.FAILED]
    assert [(r.number, r.reason) for r in engine.failures(one)] == [(1, b"no 1"), (3, b"no 3")]
    assert [r.number for r in engine.failures(one, 1)] == [3] and [r.number for r in engine.failures(one, -1, 1)] == [1]


def test_a_held_recipient_keeps_the_bounce_back_until_somebody_decides(engine: Engine) -> None:
    (one,) = accept(engine, draft(1, recipients=2))
    settle(engine, Mark.held(one, 0, b"wait"))
    assert fail(engine, one, 1) == [] == wanting(engine)
    engine.release([one], BIRTH + 1)
    assert fail(engine, one, 0) == [one]


def test_what_succeeds_for_all_wants_no_ending(engine: Engine) -> None:
    one, two = accept(engine, draft(1, recipients=2), draft(2))
    fail(engine, two, 0)
    receipt = engine.commit((), [Mark.done(one, 0), Mark.done(one, 1)])
    assert receipt.failed == [] and receipt.ended == [one]
    assert wanting(engine) == [two]


def test_one_that_still_waits_or_is_not_there_has_no_ending_and_its_bounce_is_not_taken(engine: Engine) -> None:
    one, two = accept(engine, draft(1, recipients=2), draft(2))
    fail(engine, one, 0)
    receipt = engine.commit((), (), [Ending(number, draft(90 + number)) for number in (one, two, 99)])
    assert receipt == ([], [], [], [0, 0, 0])
    assert [message.id for message, _ in engine.listing()] == [one, two]
    assert engine.known(key(91)) is None


def test_a_message_ends_once(engine: Engine) -> None:
    (one,) = accept(engine, draft(1))
    fail(engine, one, 0)
    receipt = engine.commit((), (), [Ending(one, draft(2)), Ending(one, draft(3))])
    assert receipt.bounced[1] == 0 and receipt.ended == [one]
    assert engine.commit((), (), [Ending(one, draft(4))]).bounced == [0]
    assert len(engine.listing()) == 1


def test_drafts_marks_and_endings_go_in_one_commit(engine: Engine) -> None:
    one, two, three = accept(engine, draft(1), draft(2), draft(3))
    fail(engine, one, 0)
    fail(engine, two, 0)
    endings = [Ending(one, draft(11)), Ending(two, None)]
    receipt = engine.commit([draft(4), draft(5)], [Mark.done(three, 0)], endings)
    assert receipt.accepted == [4, 5] and receipt.bounced == [6, 0] and receipt.ended == [one, two, three]
    for number, message in ((4, 4), (5, 5), (11, 6)):
        assert engine.known(key(number)) == message and whole(engine, message) == draft(number).body


def test_a_late_mark_with_its_message_s_ending_does_not_bring_it_back(engine: Engine) -> None:
    """A recipient that was removed while its delivery ran."""
    (one,) = accept(engine, draft(1, recipients=2))
    settle(engine, Mark.done(one, 1))
    fail(engine, one, 0)
    late = [Mark.done(one, 1), Mark.done(one, 1), Mark.failed(one, 1, b"late"), Mark.later(one, 1, BIRTH, b"late")]
    receipt = engine.commit((), late, [Ending(one, draft(2))])
    assert receipt.ended == [one] and receipt.failed == [] and receipt.bounced == [2]
    assert [message.id for message, _ in engine.listing()] == [2] and wanting(engine) == []


def test_to_mark_twice_is_to_mark_once(engine: Engine) -> None:
    (one,) = accept(engine, draft(1, recipients=2))
    assert settle(engine, Mark.done(one, 0), Mark.done(one, 1), Mark.done(one, 1)) == [one]
    (two,) = accept(engine, draft(2))
    assert engine.commit((), [Mark.failed(two, 0, b"first"), Mark.failed(two, 0, b"second")]).failed == [two]
    assert fail(engine, two, 0) == []
    assert [(r.attempts, r.reason) for r in engine.failures(two)] == [(1, b"first")]


def test_a_failed_recipient_is_not_tried_again_whatever_is_said_or_asked(engine: Engine) -> None:
    (one,) = accept(engine, draft(1, recipients=2))
    fail(engine, one, 0)
    settle(engine, Mark.later(one, 0, BIRTH, b"late"), Mark.held(one, 0, b"late"))
    engine.hold([one], b"by hand")
    engine.release([one], BIRTH)
    engine.retry([one], BIRTH)
    assert states(engine, one) == [State.FAILED, State.WAITING]
    assert [r.reason for r in engine.failures(one)] == [b"no 0"]


def test_a_failure_of_nobody_s_is_nothing(engine: Engine) -> None:
    (one,) = accept(engine, draft(1))
    assert engine.commit((), [Mark.failed(99, 0, b"x"), Mark.failed(one, 7, b"x")]).failed == []
    assert wanting(engine) == []
    assert settle(engine, Mark.done(one, 0)) == [one]


def test_a_removed_failure_is_not_told_and_the_last_one_ends_the_message(engine: Engine) -> None:
    (one,) = accept(engine, draft(1, recipients=3))
    fail(engine, one, 0, 1)
    assert engine.commit((), [Mark.done(one, 0), Mark.done(one, 2)]).failed == [one]
    assert [r.number for r in engine.failures(one)] == [1]
    assert settle(engine, Mark.done(one, 1)) == [one]
    assert wanting(engine) == []


def test_removing_a_message_forgets_its_failures_without_a_bounce(engine: Engine) -> None:
    (one,) = accept(engine, draft(1))
    fail(engine, one, 0)
    assert engine.remove([one]) == [one]
    assert wanting(engine) == [] and engine.commit((), (), [Ending(one, draft(2))]).bounced == [0]


def test_what_wants_an_ending_is_told_page_by_page_also_by_a_queue_opened_anew(opened: Callable[[], Engine]) -> None:
    engine = opened()
    messages = accept(engine, *map(draft, range(1, 6)))
    for message in messages:
        assert fail(engine, message, 0) == [message]
    engine = opened()
    assert [message.id for message in engine.failed(limit=2)] == messages[:2]
    assert [message.id for message in engine.failed(messages[1])] == messages[2:]
    assert [message.sender for message in engine.failed(messages[3])] == [b"sender5@example.org"]
    engine.commit((), (), [Ending(message, None) for message in messages])
    assert wanting(engine) == []


def test_failures_known_before_an_opening_count_after_it(opened: Callable[[], Engine]) -> None:
    (one,) = accept(opened(), draft(1, recipients=2))
    fail(opened(), one, 0)
    assert opened().commit((), [Mark.done(one, 1)]).failed == [one]


def test_a_bounce_in_a_spool_file_lives_and_its_parent_s_goes(engine: Engine, tmp_path: Path) -> None:
    (one,) = accept(engine, spooled(engine, 1))
    fail(engine, one, 0)
    bounce = spooled(engine, 2)
    (number,) = engine.commit((), (), [Ending(one, bounce)]).bounced
    assert os.listdir(tmp_path / "queue" / "spool") == [bounce.spool]
    assert whole(engine, number) == draft(2).body


def test_a_long_reason_is_cut(engine: Engine) -> None:
    (one,) = accept(engine, draft(1))
    settle(engine, Mark.failed(one, 0, b"x" * 20_000))
    assert [len(r.reason) for r in engine.failures(one)] == [REASON_LIMIT]


def test_a_full_disk_keeps_the_message_and_no_bounce(tmp_path: Path) -> None:
    engine = SqliteEngine.open(tmp_path / "queue", Clock())
    (one,) = accept(engine, draft(1))
    fail(engine, one, 0)
    (pages,) = engine._database.execute("PRAGMA page_count").fetchone()
    engine._database.execute(f"PRAGMA max_page_count = {pages}")
    large = Draft(key(2), Envelope(b"", (b"a@b",)), BIRTH, 0, 0, 1 << 20, bytes(1 << 20))
    with pytest.raises(QueueFull):
        engine.commit((), (), [Ending(one, large)])
    assert wanting(engine) == [one] and engine.known(key(2)) is None
    assert engine.commit((), (), [Ending(one, draft(3))]).ended == [one]
    engine.close()


def test_mail_that_succeeds_asks_nothing_about_failures(tmp_path: Path) -> None:
    engine = SqliteEngine.open(tmp_path / "queue", Clock())
    asked: list[str] = []

    def work(first: int) -> list[str]:
        asked.clear()
        one, two = accept(engine, draft(first), draft(first + 1, recipients=2))
        settle(engine, Mark.done(two, 0))
        settle(engine, Mark.done(one, 0), Mark.done(two, 1))
        return [statement for statement in asked if "failed" in statement]

    engine._database.set_trace_callback(asked.append)
    assert work(1) == [] and asked
    (bad,) = accept(engine, draft(9))
    fail(engine, bad, 0)
    assert work(10) != [], "as long as there are some"
    engine.commit((), (), [Ending(bad, None)])
    assert work(20) == []
    engine._database.set_trace_callback(None)
    engine.close()
