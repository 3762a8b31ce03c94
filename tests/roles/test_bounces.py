"""Bounces made ready for a commit, with the real queue engine."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path

import pytest

from pillarbox.control.table import Settings
from pillarbox.envelope import Envelope
from pillarbox.queue.bounce import LOST, STRIPPED
from pillarbox.queue.engine import Draft, Mark, Message, QueueBroken, QueueFull, Receipt
from pillarbox.queue.sqlite import SqliteEngine
from pillarbox.roles import bounces
from pillarbox.roles.bounces import Bounces, Prepared
from pillarbox.roles.log import Log
from pillarbox.status import SystemTrouble
from tests.queue.drafts import BIRTH, accept, draft, spooled
from tests.queue.kills import READS_CALLS, calls_of, run_until

SETTINGS = Settings(me=b"mx.example.org", rcpthosts=frozenset())


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[SqliteEngine]:
    engine = SqliteEngine.open(tmp_path / "queue", time.monotonic)
    yield engine
    engine.close()


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    return Log("queue", False)


def shown(address: bytes) -> bytes:
    return address.removeprefix(b"prefix-")


def a_bouncer(engine: SqliteEngine, log: Log, settings: Settings = SETTINGS) -> Bounces:
    return Bounces(engine, settings, shown, log)


def failed(engine: SqliteEngine, given: Draft) -> int:
    (message,) = accept(engine, given)
    marks = [Mark.failed(message, number, b"no %d\n" % number) for number in range(len(given.envelope.recipients))]
    assert engine.commit((), marks).failed == [message]
    return message


def commit(engine: SqliteEngine, bouncer: Bounces, now: float = BIRTH) -> tuple[list[Prepared], Receipt]:
    prepared = bouncer.take(now)
    receipt = engine.commit((), (), [one.ending for one in prepared])
    bouncer.committed(prepared, receipt.bounced)
    bouncer.wanted(receipt.failed)
    return prepared, receipt


def content(engine: SqliteEngine, number: int) -> bytes:
    entry = engine.show(number)
    assert entry is not None
    if entry[0].spool is None:
        octets = engine.body(entry[0])
    else:
        with open(engine.open_body(entry[0]), "rb") as file:
            octets = file.read()
    assert len(octets) == entry[0].size
    return octets


def test_a_failed_message_is_answered_with_all_its_failures_and_itself(engine: SqliteEngine, log: Log) -> None:
    given = draft(3, recipients=2)
    message = failed(engine, given._replace(envelope=Envelope(b"ann@example.net", (b"prefix-joe@x", b"sue@y"))))
    bouncer = a_bouncer(engine, log)
    assert bouncer.are_due(BIRTH)
    (one,), receipt = commit(engine, bouncer)
    assert receipt.ended == [message] and not bouncer.are_due(BIRTH + 1e9)
    entry = engine.show(receipt.bounced[0])
    assert entry is not None and one.ending.bounce is not None
    assert entry[0].sender == b"" and [r.address for r in entry[1]] == [b"ann@example.net"]
    text = content(engine, receipt.bounced[0])
    assert b"\n\n<joe@x>:\nno 0\n\n<sue@y>:\nno 1\n\n--- Below this line is a copy of the message.\n\n" in text
    assert text.endswith(b"\nReturn-Path: <ann@example.net>\n" + bytes(given.body or b""))
    assert log._lines == [f"bounce msg {message} qp {os.getpid()}"]


def test_many_failures_are_all_told(engine: SqliteEngine, log: Log) -> None:
    failed(engine, draft(1, recipients=350))
    _, receipt = commit(engine, a_bouncer(engine, log))
    text = content(engine, receipt.bounced[0])
    assert [b"<recipient1@host%d.example>:\n" % number in text for number in range(350)] == [True] * 350


@pytest.mark.parametrize("sender", [b"", b"#@[]"])
def test_nobody_is_told_of_what_must_be_discarded(engine: SqliteEngine, log: Log, sender: bytes) -> None:
    message = failed(engine, draft(1)._replace(envelope=Envelope(sender, (b"a@b",))))
    bouncer = a_bouncer(engine, log, replace(SETTINGS, doublebounceto=b""))
    _, receipt = commit(engine, bouncer)
    assert receipt.ended == [message] and receipt.bounced == [0] and engine.listing() == []
    assert log._lines == [f"{'triple' if sender else 'double'} bounce: discarding bounce/{message}"]


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("limit", [0, 100, 1 << 20])
def test_a_copy_is_whole_or_says_that_it_is_not(engine: SqliteEngine, log: Log, large: bool, limit: int) -> None:
    given = spooled(engine, 4) if large else draft(4)
    body = bytes(draft(4).body or b"")
    failed(engine, given)
    _, receipt = commit(engine, a_bouncer(engine, log, replace(SETTINGS, bouncesize=limit)))
    copy = content(engine, receipt.bounced[0]).partition(b"\nReturn-Path: <sender4@example.org>\n")[2]
    assert copy == (body[:100] + STRIPPED if limit == 100 else body)


@pytest.mark.parametrize("large", [False, True])
def test_a_bounce_over_the_limit_goes_to_a_file_whatever_its_message_was(
    engine: SqliteEngine, log: Log, large: bool, tmp_path: Path
) -> None:
    failed(engine, spooled(engine, 4) if large else draft(4))
    (one,), receipt = commit(engine, a_bouncer(engine, log, replace(SETTINGS, spoolsize=500)))
    assert one.file is not None and os.listdir(tmp_path / "queue" / "spool") == [one.file.name]
    assert content(engine, receipt.bounced[0]).endswith(bytes(draft(4).body or b""))


@pytest.mark.skipif(not READS_CALLS, reason="knows the system calls of x86-64 only")
def test_a_bounce_in_a_file_is_on_disk_before_its_commit(log: Log, tmp_path: Path) -> None:
    def end() -> None:
        engine = SqliteEngine.open(tmp_path / "queue", time.monotonic)
        failed(engine, draft(4))
        commit(engine, a_bouncer(engine, log, replace(SETTINGS, spoolsize=10)))
        os._exit(0)

    calls = [(name, Path(file).name) for name, file in calls_of(end)]
    written = max(place for place, (name, file) in enumerate(calls) if name == "write" and len(file) == 32)
    synced = calls.index(("fsync", calls[written][1]), written)
    directory = calls.index(("fsync", "spool"), synced)
    assert ("fdatasync", "queue.db-wal") in calls[directory:]


def test_killed_between_any_two_system_calls_of_a_bounce_the_message_is_there_or_its_bounce(
    log: Log, tmp_path: Path
) -> None:
    """One whose bounce goes from file to file, and one that is small."""
    settings = replace(SETTINGS, spoolsize=1500)

    def fail(home: Path) -> None:
        engine = SqliteEngine.open(home, time.monotonic)
        failed(engine, spooled(engine, 9))
        failed(engine, draft(1))
        engine.close()

    def end(home: Path) -> None:
        engine = SqliteEngine.open(home, time.monotonic)
        commit(engine, a_bouncer(engine, log, settings))
        engine.close()

    seen: set[tuple[int, ...]] = set()
    for calls in count(1):
        home = tmp_path / str(calls)
        fail(home)
        killed = run_until(partial(end, home), calls)
        engine = SqliteEngine.open(home, time.monotonic)
        living = engine.listing()
        seen.add(tuple(message.id for message, _ in living))
        for message, _ in living:
            assert content(engine, message.id).endswith(bytes(draft((9, 1)[(message.id - 1) % 2]).body or b""))
        assert set(os.listdir(home / "spool")) == {message.spool for message, _ in living if message.spool}
        commit(engine, a_bouncer(engine, log, settings))
        assert [message.id for message, _ in engine.listing()] == [3, 4], "each has one bounce in the end"
        engine.close()
        if not killed:
            break
    assert seen == {(1, 2), (3, 4)}


def test_a_large_message_is_copied_in_blocks(engine: SqliteEngine, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounces, "BLOCK", 100)
    failed(engine, spooled(engine, 4))
    _, receipt = commit(engine, a_bouncer(engine, log, replace(SETTINGS, spoolsize=500)))
    assert content(engine, receipt.bounced[0]).endswith(bytes(draft(4).body or b""))


def test_a_message_whose_text_is_lost_bounces_and_says_so(engine: SqliteEngine, log: Log, tmp_path: Path) -> None:
    given = spooled(engine, 4)
    failed(engine, given)
    (tmp_path / "queue" / "spool" / str(given.spool)).unlink()
    _, receipt = commit(engine, a_bouncer(engine, log))
    assert content(engine, receipt.bounced[0]).endswith(b"\nReturn-Path: <sender4@example.org>\n" + LOST)


def test_one_commit_holds_so_many_bounces_and_the_next_the_others(engine: SqliteEngine, log: Log) -> None:
    for number in range(1, 101):
        failed(engine, draft(number))
    bouncer = a_bouncer(engine, log)
    counts = []
    while bouncer.are_due(BIRTH):
        counts.append(len(commit(engine, bouncer)[0]))
    assert counts == [64, 36] and len(engine.listing(limit=200)) == 100


def test_one_commit_holds_so_many_octets_of_bounces(
    engine: SqliteEngine, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounces, "OCTETS_AT_ONCE", 2000)
    for number in (4, 9, 14):
        failed(engine, draft(number))
    bouncer = a_bouncer(engine, log)
    assert [len(commit(engine, bouncer)[0]) for _ in range(3)] == [2, 1, 0]


def test_what_there_was_no_room_for_is_tried_again_after_a_pause(
    engine: SqliteEngine, log: Log, tmp_path: Path
) -> None:
    failed(engine, draft(4))
    bouncer = a_bouncer(engine, log, replace(SETTINGS, spoolsize=10))
    prepared = bouncer.take(BIRTH)
    assert len(os.listdir(tmp_path / "queue" / "spool")) == 1
    bouncer.refused(prepared, BIRTH)
    assert os.listdir(tmp_path / "queue" / "spool") == []
    failed(engine, draft(5))
    bouncer.wanted([2])
    assert not bouncer.are_due(BIRTH + 0.5) and bouncer.take(BIRTH + 0.5) == []
    assert bouncer.due == BIRTH + 1
    assert len(commit(engine, bouncer, BIRTH + 1)[1].bounced) == 2


def test_one_that_cannot_be_made_waits_and_keeps_no_other_back(
    engine: SqliteEngine, log: Log, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = failed(engine, spooled(engine, 1))
    second = failed(engine, draft(2))
    healthy = SqliteEngine.open_body

    def sick(self: SqliteEngine, message: Message) -> int:
        if message.id == first:
            raise SystemTrouble("Input/output error")
        return healthy(self, message)

    monkeypatch.setattr(SqliteEngine, "open_body", sick)
    bouncer = a_bouncer(engine, log, replace(SETTINGS, spoolsize=10))
    assert commit(engine, bouncer)[1].ended == [second]
    assert [line for line in log._lines if "will try later" in line and f"msg {first}" in line]
    assert len(os.listdir(tmp_path / "queue" / "spool")) == 2, "its own file and the other's bounce"
    third = failed(engine, draft(3))
    bouncer.wanted([third])
    assert commit(engine, bouncer, BIRTH + 1)[1].ended == [third]
    assert not bouncer.are_due(BIRTH + 122) and bouncer.due == BIRTH + 123
    monkeypatch.undo()
    assert commit(engine, bouncer, BIRTH + 123)[1].ended == [first]
    assert bouncer.due is None


def test_a_body_that_cannot_be_read_is_trouble_for_now(
    engine: SqliteEngine, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = failed(engine, spooled(engine, 4))
    monkeypatch.setattr(SqliteEngine, "open_body", lambda *_: os.open("/proc/self/mem", os.O_RDONLY))  # EIO at 0
    bouncer = a_bouncer(engine, log)
    before = len(os.listdir("/proc/self/fd"))
    assert bouncer.take(BIRTH) == [] and bouncer.due == BIRTH + 123
    assert len(os.listdir("/proc/self/fd")) == before
    assert [one.id for one in engine.failed()] == [message] and "Input/output error" in log._lines[-1]


def test_when_nothing_can_be_made_it_is_not_tried_all_the_time(
    engine: SqliteEngine, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(1, 151):
        failed(engine, draft(number))
    asked: list[int] = []

    def full(self: SqliteEngine, message: Message) -> bytes:
        asked.append(message.id)
        raise QueueFull("no room")

    monkeypatch.setattr(SqliteEngine, "body", full)
    bouncer = a_bouncer(engine, log)
    for _ in range(10):
        bouncer.take(BIRTH)
        bouncer.wanted([1])
    assert len(asked) == 128 and bouncer.due == BIRTH + 123
    monkeypatch.undo()
    while bouncer.are_due(BIRTH + 123):
        commit(engine, bouncer, BIRTH + 123)
    assert engine.failed() == []


def test_a_broken_queue_is_not_taken_for_trouble_with_one_message(
    engine: SqliteEngine, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed(engine, draft(1))

    def broken(self: SqliteEngine, message: Message) -> bytes:
        raise QueueBroken("disk I/O error")

    monkeypatch.setattr(SqliteEngine, "body", broken)
    with pytest.raises(QueueBroken):
        a_bouncer(engine, log).take(BIRTH)


def test_the_bounce_of_a_message_that_was_removed_meanwhile_leaves_nothing(
    engine: SqliteEngine, log: Log, tmp_path: Path
) -> None:
    message = failed(engine, draft(4))
    bouncer = a_bouncer(engine, log, replace(SETTINGS, spoolsize=10))
    prepared = bouncer.take(BIRTH)
    engine.remove([message])
    bouncer.committed(prepared, engine.commit((), (), [one.ending for one in prepared]).bounced)
    assert engine.listing() == [] and os.listdir(tmp_path / "queue" / "spool") == [] and log._lines == []


def test_without_failures_nothing_is_due(engine: SqliteEngine, log: Log) -> None:
    accept(engine, draft(1))
    bouncer = a_bouncer(engine, log)
    assert bouncer.due is None and bouncer.take(BIRTH) == []
