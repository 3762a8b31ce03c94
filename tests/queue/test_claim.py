"""Recipients with rows of their own and without are claimed in one order, whatever happens between."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pillarbox.envelope import Envelope
from pillarbox.queue import sqlite
from pillarbox.queue.engine import START, Draft, Ending, Engine, Mark, Position, QueueFull
from pillarbox.queue.sqlite import SqliteEngine
from tests.queue.drafts import BIRTH, Clock, accept, draft, key, settle

KEPT = 4  # messages without rows, in the model test

moments = st.integers(BIRTH, BIRTH + 3)  # few: many recipients fall due together, and the clock goes back
messages = st.integers(1, 12)
numbers = st.integers(0, 2)
drafts = st.tuples(st.just("draft"), st.lists(st.tuples(st.sampled_from([0, 1, 2, 3, 9]), moments), max_size=4))
laters = st.tuples(st.just("later"), messages, numbers, moments)
steps = st.lists(
    drafts
    | laters
    | st.tuples(st.sampled_from(["done", "held"]), messages, numbers)
    | st.tuples(st.just("retry"), messages, moments)
    | st.tuples(st.sampled_from(["hold", "remove", "reopen"]), messages),
    max_size=25,
)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[SqliteEngine]:
    engine = SqliteEngine.open(tmp_path / "queue", Clock())
    yield engine
    engine.close()


def places(engine: Engine, after: Position = START, limit: int = 1000) -> list[Position]:
    """What a claim finds."""
    entries = engine.claim(after, limit)
    return [(one.due, message.id, one.number) for message, recipients in entries for one in recipients]


def expected(engine: Engine) -> list[Position]:
    """Everything that waits, as the listing has it, in its order."""
    listed = engine.listing(0, 1000)
    return sorted((one.due, m.id, one.number) for m, recipients in listed for one in recipients if not one.state.value)


def change(engine: SqliteEngine, verb: str, message: Any, *rest: int) -> None:
    """Take one of `steps`. Drafts are numbered as their ids will be."""
    match verb:
        case "draft":
            accept(engine, *[draft(engine._last + n, many, born) for n, (many, born) in enumerate(message, 1)])
        case "later":
            settle(engine, Mark.later(message, rest[0], rest[1], b"later"))
        case "done":
            settle(engine, Mark.done(message, rest[0]))
        case "held":
            settle(engine, Mark.held(message, rest[0], b"held"))
        case "retry":
            engine.retry([message], rest[0])
        case "hold":
            engine.hold([message], b"stop")
        case "remove":
            engine.remove([message])


@settings(max_examples=60)
@given(steps, st.integers(1, 7), st.tuples(moments, messages, numbers))
def test_claims_find_what_waits_in_its_order_and_write_nothing(
    steps: list[tuple[Any, ...]], limit: int, behind: Position
) -> None:
    with tempfile.TemporaryDirectory() as home, mock.patch.multiple(sqlite, FOLDED_KEPT=KEPT, UNFOLDED_AT_ONCE=2):
        engine = SqliteEngine.open(home, Clock())
        for step in steps:
            if step[0] == "reopen":
                engine.close()
                engine = SqliteEngine.open(home, Clock())
            else:
                change(engine, *step)
            before = engine._database.total_changes, dict(engine._folded)
            waiting, found = expected(engine), [START]
            while page := places(engine, found[-1], limit):
                assert len(page) == min(limit, len(waiting) + 1 - len(found))
                found += page
            assert found[1:] == waiting
            for message, recipients in engine.claim():
                shown = engine.show(message.id)
                assert shown is not None and message == shown[0]
                assert all(one == shown[1][one.number] for one in recipients)
            assert places(engine, behind, limit) == [place for place in waiting if place > behind][:limit]
            assert (engine._database.total_changes, engine._folded) == before
        engine.close()


def long(number: int) -> Draft:
    """To so many and so long addresses that rows for them take a page of the database."""
    addresses = tuple(b"%d" % number + b"x" * 500 + b"@host%d.example" % n for n in range(8))
    return Draft(key(number), Envelope(b"ann@example.net", addresses), BIRTH, 0, 1, 5, b"body\n")


def fill(engine: SqliteEngine, left: int) -> None:
    """From now on the database can grow by so many pages only."""
    (pages,) = engine._database.execute("PRAGMA page_count").fetchone()
    engine._database.execute(f"PRAGMA max_page_count = {pages + left}")


def test_on_a_full_disk_claims_and_marks_need_no_rows_of_others(
    engine: SqliteEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = accept(engine, *[long(number) for number in range(50)])
    monkeypatch.setattr(sqlite, "FOLDED_KEPT", 10)
    fill(engine, 10)
    assert len(places(engine)) == 400
    settle(engine, Mark.later(ids[0], 3, BIRTH + 400, b"later"))
    assert settle(engine, *[Mark.done(ids[1], number) for number in range(8)]) == [ids[1]]
    engine.commit((), [Mark.done(ids[2], 0)])
    assert len(engine._folded) == 47
    with pytest.raises(QueueFull):
        accept(engine, draft(100))
    assert len(engine._folded) == 47 and len(places(engine)) == 400 - 8 - 1


def unfolded(engine: SqliteEngine) -> list[int]:
    rows = engine._database.execute("SELECT DISTINCT message FROM recipients").fetchall()
    return [message for (message,) in rows]


def test_the_oldest_get_rows_a_slice_with_each_commit_of_new_mail(
    engine: SqliteEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = accept(engine, *[draft(number) for number in range(300)])
    monkeypatch.setattr(sqlite, "FOLDED_KEPT", 10)
    accept(engine, draft(300))
    assert unfolded(engine) == ids[:64]
    accept(engine, *[draft(number) for number in range(301, 341)])
    assert unfolded(engine) == ids[: 64 + 80]
    settle(engine, Mark.done(ids[-1], 0))
    assert unfolded(engine) == ids[: 64 + 80]


def test_a_bounce_for_which_no_room_was_looked_for_makes_no_rows(
    engine: SqliteEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = accept(engine, *[draft(number) for number in range(20)])
    settle(engine, Mark.failed(ids[0], 0, b"never"))
    monkeypatch.setattr(sqlite, "FOLDED_KEPT", 10)
    assert engine.commit((), (), [Ending(ids[0], draft(20))]).bounced == [21]
    assert unfolded(engine) == []


def test_only_the_addresses_that_are_claimed_are_read(engine: SqliteEngine) -> None:
    accept(engine, *[draft(number, recipients=8) for number in range(50)])
    read: list[str] = []
    engine._database.set_trace_callback(read.append)
    assert len(engine.claim(limit=20)) == 3
    engine._database.set_trace_callback(None)
    assert len([statement for statement in read if "addresses" in statement]) == 3
