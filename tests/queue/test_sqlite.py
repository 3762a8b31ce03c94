"""What only the SQLite engine has to get right: full disks, broken disks, plans, and what it keeps in memory."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections.abc import Iterator, Sequence
from itertools import count, islice
from pathlib import Path

import pytest

from pillarbox.envelope import Envelope
from pillarbox.queue import keys, spool, sqlite, statements
from pillarbox.queue.engine import Draft, Mark, QueueBroken, QueueFull, State
from pillarbox.queue.sqlite import SqliteEngine
from tests.queue.drafts import BIRTH, Clock, accept, content, draft, key, settle, spooled


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def engine(tmp_path: Path, clock: Clock) -> Iterator[SqliteEngine]:
    engine = SqliteEngine.open(tmp_path / "queue", clock)
    yield engine
    engine.close()


def large(number: int, octets: int) -> Draft:
    return Draft(key(number), Envelope(b"", (b"a@b",)), BIRTH, 0, 1, octets, b"x" * octets)


def test_a_full_database_refuses_the_batch_and_goes_on(engine: SqliteEngine) -> None:
    (one, two) = accept(engine, draft(1), draft(2, recipients=2))
    pages = engine._database.execute("PRAGMA page_count").fetchone()[0]
    engine._database.execute(f"PRAGMA max_page_count = {pages + 10}")
    with pytest.raises(QueueFull) as caught:
        engine.commit([draft(3), large(4, 100_000)], [Mark.done(one, 0)])
    assert caught.value.status == (4, 3, 1)
    assert [message.id for message, _ in engine.listing()] == [one, two]
    assert (engine.known(key(3)), engine.known(key(4))) == (None, None)
    assert settle(engine, Mark.done(one, 0), Mark.done(two, 1)) == [one]
    (three,) = accept(engine, draft(3))
    assert three > two
    assert settle(engine, Mark.done(two, 0), Mark.done(three, 0)) == [two, three]


def test_new_mail_leaves_room_for_what_ends_old_mail(engine: SqliteEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    (one,) = accept(engine, draft(1))
    monkeypatch.setattr(spool, "SPARE", 1 << 60)
    with pytest.raises(QueueFull):
        engine.commit([draft(2)], [Mark.done(one, 0)])
    with pytest.raises(QueueFull):
        spooled(engine, 3)
    assert settle(engine, Mark.done(one, 0)) == [one]


def test_pages_that_are_free_in_the_database_are_room_too(
    engine: SqliteEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    (one,) = accept(engine, large(1, 1_000_000))
    settle(engine, Mark.done(one, 0))
    available = os.statvfs(engine._spool)
    monkeypatch.setattr(spool, "SPARE", available.f_bavail * available.f_frsize)  # nothing else is
    accept(engine, large(2, 500_000))
    with pytest.raises(QueueFull):
        accept(engine, large(3, 50_000_000))


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system: needs root")
def test_a_queue_that_filled_its_disk_can_finish_what_it_has(tmp_path: Path, clock: Clock) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m,mode=0700", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("may not mount a file system")
    try:
        engine = SqliteEngine.open(tmp_path / "queue", clock)
        ids: list[int] = []
        with pytest.raises(QueueFull):
            for number in range(1000):
                ids += accept(engine, large(number, 40_000))
        assert len(ids) > 50
        with pytest.raises(QueueFull):
            file = engine.spool()
            for _ in range(1000):
                file.write(b"x" * 65536)
        assert os.listdir(tmp_path / "queue" / "spool") == []
        for message in ids:
            assert settle(engine, Mark.done(message, 0)) == [message]
        assert accept(engine, large(1001, 40_000)) == [ids[-1] + 1]
        engine.close()
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def fail_to_commit(engine: SqliteEngine, name: str) -> None:
    """From now on COMMIT fails as SQLite says it, and the transaction stays open, as SQLite leaves it."""

    def execute(statement: str, arguments: Sequence[int] = ()) -> sqlite3.Cursor:
        if statement == "COMMIT":
            problem = sqlite3.OperationalError("trouble")
            problem.sqlite_errorcode = getattr(sqlite3, name)
            problem.sqlite_errorname = name
            raise problem
        return engine._database.execute(statement, arguments)

    engine._execute = execute  # type: ignore[assignment]  # the test stands in front of sqlite


def test_a_disk_that_fills_up_at_the_very_commit_refuses_the_batch_and_goes_on(engine: SqliteEngine) -> None:
    fail_to_commit(engine, "SQLITE_FULL")
    for _ in range(2):
        with pytest.raises(QueueFull):
            accept(engine, draft(1))
    engine._execute = engine._database.execute
    assert engine.listing() == []
    (message,) = accept(engine, draft(2))
    assert [kept.id for kept, _ in engine.listing()] == [message]
    assert (engine.known(key(1)), engine.known(key(2))) == (None, message)


def test_after_a_failed_sync_nothing_more_is_done_until_it_is_opened_anew(
    engine: SqliteEngine, tmp_path: Path, clock: Clock
) -> None:
    """The kernel tells of a failed write once. The next sync would succeed without anything being on the disk."""
    (one,) = accept(engine, draft(1))
    fail_to_commit(engine, "SQLITE_IOERR_FSYNC")
    with pytest.raises(QueueBroken, match="SQLITE_IOERR_FSYNC"):
        accept(engine, draft(2))
    engine._execute = engine._database.execute
    for _ in range(2):
        with pytest.raises(QueueBroken, match="SQLITE_IOERR_FSYNC"):
            accept(engine, draft(3))
        with pytest.raises(QueueBroken):
            engine.known(key(2))
    engine.close()
    engine = SqliteEngine.open(tmp_path / "queue", clock)
    assert [message.id for message, _ in engine.listing()] == [one]
    assert engine.known(key(2)) is None
    engine.close()


def test_leftovers_of_a_crash_are_swept_and_bodies_are_not(engine: SqliteEngine, tmp_path: Path, clock: Clock) -> None:
    accept(engine, kept := spooled(engine, 4))
    spooled(engine, 5)
    engine.spool().write(b"half a bo")
    engine.close()
    engine = SqliteEngine.open(tmp_path / "queue", clock)
    assert os.listdir(tmp_path / "queue" / "spool") == [kept.spool]
    engine.close()


def test_claims_and_keys_are_read_by_index(engine: SqliteEngine) -> None:
    plan = engine._database.execute("EXPLAIN QUERY PLAN " + statements.CLAIM, (0, 0, 0, 100)).fetchall()
    assert [step[3] for step in plan] == ["SEARCH recipients USING INDEX waiting ((due,message,number)>(?,?,?))"]


def test_the_log_stays_bounded(engine: SqliteEngine, tmp_path: Path) -> None:
    """A checkpoint every thousand pages: the log begins again, whatever went through it."""
    for number in range(100):
        settle(engine, *[Mark.done(message, 0) for message in accept(engine, large(number, 200_000))])
    assert (tmp_path / "queue" / "queue.db-wal").stat().st_size < 6_000_000
    assert (tmp_path / "queue" / "queue.db").stat().st_size < 6_000_000


def test_what_is_known_of_open_recipients_is_bounded_and_not_needed(
    engine: SqliteEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "OPEN_BITS_KEPT", 10)
    ids = [accept(engine, draft(number, recipients=2))[0] for number in range(40)]
    assert len(engine._open_bits) <= 10
    for message in ids:
        assert settle(engine, Mark.done(message, 1)) == []
    for message in ids:
        assert settle(engine, Mark.done(message, 0)) == [message]
    assert len(engine._open_bits) <= 10


def test_keys_are_forgotten_in_the_end(engine: SqliteEngine, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of messages that lived long too, though mail never stops coming in."""
    monkeypatch.setattr(keys.Keys, "LOOK", 20)
    for number in range(50):
        settle(engine, *[Mark.done(message, 0) for message in accept(engine, draft(number))])
    (living,) = accept(engine, draft(50))
    numbers = count(100)

    def go_on() -> None:
        for number in islice(numbers, 20):
            clock.now += 301
            settle(engine, *[Mark.done(message, 0) for message in accept(engine, draft(number))])

    go_on()
    assert [engine.known(key(number)) for number in (0, 49, 50)] == [None, None, living]
    assert engine._database.execute("SELECT count(*) FROM commits").fetchone()[0] < 10
    settle(engine, Mark.done(living, 0))
    go_on()
    assert engine.known(key(50)) is None


def test_what_was_known_at_a_restart_is_known_as_long_as_a_message_of_that_time_waits(
    engine: SqliteEngine, clock: Clock, tmp_path: Path
) -> None:
    """The message may be the parent of a forward that has left, with the mark that said so lost in the crash."""
    (parent,) = accept(engine, draft(1))
    (child,) = accept(engine, draft(2))
    settle(engine, Mark.done(child, 0))
    engine.close()
    again = SqliteEngine.open(tmp_path / "queue", clock)
    numbers = count(100)

    def go_on() -> None:
        for number in islice(numbers, 20):
            clock.now += 301
            settle(again, *[Mark.done(message, 0) for message in accept(again, draft(number))])

    go_on()
    assert again.known(key(2)) == child
    assert again.known(key(100)) is None, "what came since is forgotten as ever"
    settle(again, Mark.done(parent, 0))
    go_on()
    assert again.known(key(2)) is None
    again.close()


def test_a_deleted_body_is_not_left_in_the_file(engine: SqliteEngine, tmp_path: Path) -> None:
    """Where it costs no write: see schema.py. A short body shares its page with others, which is written anyway."""
    secret = b"the secret of the pillar box"
    body = secret + b"\n"
    (one, _) = accept(engine, Draft(key(1), Envelope(b"", (b"a@b",)), BIRTH, 0, 1, len(body), body), draft(2))
    settle(engine, Mark.done(one, 0))
    engine._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert secret not in (tmp_path / "queue" / "queue.db").read_bytes()


def test_a_removed_message_is_forgotten_in_memory_too(engine: SqliteEngine) -> None:
    (one,) = accept(engine, draft(1, recipients=2))
    engine.remove([one])
    assert settle(engine, Mark.done(one, 0), Mark.done(one, 1)) == []


def test_recipients_of_many_addresses_end_one_by_one(engine: SqliteEngine) -> None:
    (one,) = accept(engine, draft(9, recipients=1000))
    assert settle(engine, *[Mark.done(one, number) for number in range(0, 1000, 2)]) == []
    entry = engine.show(one)
    assert entry is not None
    assert [recipient.state is State.DONE for recipient in entry[1]] == [True, False] * 500
    assert engine.body(entry[0]) == content(9)
    assert settle(engine, *[Mark.done(one, number) for number in range(1000)]) == [one]


def rows(engine: SqliteEngine) -> list[int]:
    """The messages whose recipients have rows."""
    return [number for (number,) in engine._database.execute("SELECT DISTINCT message FROM recipients").fetchall()]


def test_recipients_get_rows_when_the_first_attempt_is_not_their_end(engine: SqliteEngine) -> None:
    ids = accept(engine, *[draft(number, recipients=2) for number in range(5)], draft(5, recipients=9))
    assert rows(engine) == ids[5:]
    before = engine.listing()
    settle(engine, Mark.later(ids[0], 1, BIRTH + 400, b"later"))
    settle(engine, Mark.done(ids[1], 0))
    assert settle(engine, Mark.done(ids[2], 1), Mark.done(ids[2], 0)) == [ids[2]]
    engine.hold([ids[3]], b"stop")
    assert rows(engine) == [ids[0], ids[1], ids[3], ids[5]]
    after = dict((message.id, recipients) for message, recipients in engine.listing())
    assert after[ids[4]] == before[4][1]
    assert [recipient.due for recipient in after[ids[0]]] == [BIRTH, BIRTH + 400]
    assert [recipient.state for recipient in after[ids[1]]] == [State.DONE, State.WAITING]
    assert [recipient.state for recipient in after[ids[3]]] == [State.HELD, State.HELD]
    assert settle(engine, Mark.done(ids[1], 1), Mark.done(ids[0], 0)) == [ids[1]]


def test_recipients_without_rows_are_claimed_in_their_order(engine: SqliteEngine) -> None:
    (one, two) = accept(engine, draft(1, born=BIRTH + 5), draft(2, recipients=2))
    settle(engine, Mark.later(two, 0, BIRTH + 9, b"later"))
    (three,) = accept(engine, draft(3))
    claimed = [(message.id, recipient.number) for message, recipients in engine.claim() for recipient in recipients]
    assert claimed == [(two, 1), (three, 0), (one, 0), (two, 0)]
    assert settle(engine, Mark.done(one, 0), Mark.done(three, 0)) == [one, three]


def test_recipients_without_rows_are_there_after_a_crash(engine: SqliteEngine, tmp_path: Path, clock: Clock) -> None:
    ids = accept(engine, *[draft(number, recipients=3) for number in range(4)])
    settle(engine, Mark.done(ids[0], 2))
    settle(engine, Mark.later(ids[1], 0, BIRTH + 400, b"later"))
    before = engine.listing()
    engine.close()
    engine = SqliteEngine.open(tmp_path / "queue", clock)
    assert engine.listing() == before
    assert settle(engine, *[Mark.done(ids[2], number) for number in range(3)]) == [ids[2]]
    assert settle(engine, Mark.done(ids[0], 0), Mark.done(ids[0], 1)) == [ids[0]]
    assert [message.id for message, _ in engine.claim()] == [ids[1], ids[3], ids[1]]
    engine.close()


def test_what_gets_no_rows_as_its_commit_fails_gets_them_with_the_next(engine: SqliteEngine) -> None:
    (one, two) = accept(engine, draft(1, recipients=2), draft(2))
    fail_to_commit(engine, "SQLITE_FULL")
    with pytest.raises(QueueFull):
        settle(engine, Mark.done(one, 0), Mark.later(two, 0, BIRTH + 400, b"later"))
    engine._execute = engine._database.execute
    assert rows(engine) == []
    settle(engine, Mark.done(one, 0), Mark.later(two, 0, BIRTH + 400, b"later"))
    assert settle(engine, Mark.done(one, 1)) == [one]
    assert [message.id for message, _ in engine.claim()] == [two]


def test_messages_whose_recipients_have_no_rows_are_bounded(
    engine: SqliteEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "FOLDED_KEPT", 10)
    ids: list[int] = []
    for number in range(30):
        marks = [Mark.done(ids[-1], 0)] if ids else []
        ids += engine.commit([draft(number, recipients=2)], marks).accepted
        assert len(engine._folded) <= 11
    assert len(rows(engine)) > 10
    for message in ids[:-1]:
        assert settle(engine, Mark.done(message, 1)) == [message]
    assert settle(engine, Mark.done(ids[-1], 1), Mark.done(ids[-1], 0)) == ids[-1:]
    assert (rows(engine), engine._folded) == ([], {})


def test_rows_are_made_once_when_there_are_too_many_messages_without(
    engine: SqliteEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "FOLDED_KEPT", 5)
    ids = accept(engine, *[draft(number, recipients=2) for number in range(6)])
    (later, held, failed, partly, over, _) = ids
    receipt = engine.commit(
        [draft(6)],
        [
            Mark.later(later, 0, BIRTH + 400, b"later"),
            Mark.held(held, 1, b"held"),
            Mark.failed(failed, 0, b"no"),
            Mark.done(partly, 1),
            Mark.done(over, 0),
            Mark.done(over, 1),
        ],
    )
    assert receipt.ended == [over]
    assert rows(engine) == [one for one in ids if one != over]
    shown = {message.id: [one.state for one in recipients] for message, recipients in engine.listing()}
    assert shown[later] == [State.WAITING, State.WAITING] and shown[partly] == [State.WAITING, State.DONE]
    assert shown[held] == [State.WAITING, State.HELD] and shown[failed] == [State.FAILED, State.WAITING]
    assert engine._folded.keys() == set(receipt.accepted)


def test_a_mark_for_an_id_that_nobody_knows_yet_is_ignored(engine: SqliteEngine) -> None:
    later, held = Mark.later(2, 0, BIRTH + 400, b"later"), Mark.held(3, 0, b"held")
    for mark in (Mark.failed(1, 0, b"no"), later, held, Mark.done(4, 0)):
        receipt = engine.commit([draft(mark.message)], [mark])
        assert receipt.ended == []
        assert (receipt.accepted, receipt.failed) == ([mark.message], [])
        assert states(engine)[-1] is State.WAITING


def states(engine: SqliteEngine) -> list[State]:
    return [one.state for _, recipients in engine.listing() for one in recipients]


def test_a_removed_message_without_rows_is_forgotten_too(engine: SqliteEngine) -> None:
    (one, two) = accept(engine, draft(1), draft(2))
    assert engine.remove([one]) == [one]
    assert settle(engine, Mark.later(one, 0, BIRTH + 400, b"later"), Mark.done(one, 0)) == []
    assert [message.id for message, _ in engine.claim()] == [two]


def test_ids_never_come_again_when_all_keys_are_forgotten(engine: SqliteEngine, tmp_path: Path, clock: Clock) -> None:
    for number in range(3):
        settle(engine, *[Mark.done(message, 0) for message in accept(engine, draft(number))])
    for _ in range(10):
        clock.now += 601
        engine.commit((), ())
    assert engine._database.execute("SELECT count(*) FROM commits").fetchone() == (1,)
    engine.close()
    engine = SqliteEngine.open(tmp_path / "queue", clock)
    assert accept(engine, draft(3)) == [4]
    engine.close()
