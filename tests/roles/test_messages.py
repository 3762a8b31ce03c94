from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pillarbox.queue.engine import BodyGone, Draft, Message
from pillarbox.queue.sqlite import SqliteEngine
from pillarbox.roles.messages import IN_MEMORY, INLINE, Fresh, Messages
from tests.queue.drafts import draft

FEW = (b"a@example.org",)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[SqliteEngine]:
    engine = SqliteEngine.open(tmp_path / "queue", lambda: 0.0)
    yield engine
    engine.close()


def fresh(number: int, addresses: tuple[bytes, ...] = FEW, body: bytes = b"") -> Fresh:
    return Fresh(Message(number, b"0a0b0c0d", 1, b"", len(body), 0, 0, None), addresses, body)


def test_what_is_kept_is_bounded_whatever_it_is_made_of(engine: SqliteEngine) -> None:
    """A message that waits or is held is not over, and may have many recipients, or be one of many."""
    messages = Messages(engine)
    longest = b"x" * 885 + b"@host0.example"
    for number in range(1, 101):
        messages.remember(fresh(number, (longest,) * 1000))
    assert len(messages) < 20
    for number in range(101, 20_101):
        messages.remember(fresh(number))
    assert len(messages) < 17_000
    messages.remember(fresh(30_000, body=bytes(IN_MEMORY)))
    assert len(messages) == 1, "or it would be read whole for each of its deliveries"
    messages.remember(fresh(30_001))
    assert len(messages) == 1 and messages.find(30_001) is not None


def test_what_fell_out_or_is_over_is_asked_of_the_engine(engine: SqliteEngine) -> None:
    messages = Messages(engine)
    one: Draft = draft(1)
    (number,) = engine.commit([one], []).accepted
    found = messages.find(number)
    assert found is not None and found.body == one.body and tuple(found.addresses) == one.envelope.recipients
    assert messages.find(number) is found
    messages.forget(number)
    engine.remove([number])
    assert messages.find(number) is None


def test_a_body_too_large_for_a_frame_goes_by_descriptor(engine: SqliteEngine) -> None:
    messages = Messages(engine)
    assert messages.descriptors(fresh(1, body=b"x" * INLINE)) == []
    (descriptor,) = messages.descriptors(fresh(1, body=b"x" * (INLINE + 1)))
    try:
        assert os.pread(descriptor, INLINE + 2, 0) == b"x" * (INLINE + 1)
    finally:
        os.close(descriptor)


def test_a_spool_file_that_was_taken_away_is_said(engine: SqliteEngine) -> None:
    message = Message(1, b"0a0b0c0d", 1, b"", 5, 0, 0, "gone")
    with pytest.raises(BodyGone):
        Messages(engine).descriptors(Fresh(message, FEW, None))
