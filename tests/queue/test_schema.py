"""Opening the database: who may, what is refused, and that nothing foreign is touched."""

from __future__ import annotations

import os
import sqlite3
import stat
from pathlib import Path

import pytest

from pillarbox.queue import schema
from pillarbox.queue.engine import Mark, QueueBroken, Recipient, State
from pillarbox.queue.sqlite import SqliteEngine
from tests.queue.drafts import BIRTH, Clock, accept, draft, key, settle
from tests.queue.kills import fork


def opened(directory: Path) -> SqliteEngine:
    return SqliteEngine.open(directory, Clock())


def setting(database: sqlite3.Connection, name: str) -> object:
    return database.execute(f"PRAGMA {name}").fetchone()[0]


def test_a_commit_that_returned_is_on_the_disk_by_these_settings(tmp_path: Path) -> None:
    database = schema.connect(tmp_path / "queue.db")
    assert setting(database, "journal_mode") == "wal"
    assert setting(database, "synchronous") == 2
    assert setting(database, "wal_autocheckpoint") == 1000
    assert setting(database, "locking_mode") == "exclusive"
    database.close()


def test_a_queue_is_opened_without_the_file_of_shared_memory_that_a_full_disk_has_no_room_for(tmp_path: Path) -> None:
    engine = opened(tmp_path)
    (one,) = accept(engine, draft(1))
    engine.close()
    (tmp_path / "queue.db-shm").mkdir()  # SQLite cannot use it
    engine = opened(tmp_path)
    assert settle(engine, Mark.done(one, 0)) == [one]
    engine.close()


def test_nobody_else_can_read_the_queue(tmp_path: Path) -> None:
    engine = opened(tmp_path / "queue")
    accept(engine, draft(1))
    for name in ("", "spool", "queue.db", "queue.db-wal"):
        assert stat.S_IMODE((tmp_path / "queue" / name).stat().st_mode) & 0o077 == 0
    engine.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files away: needs root")
def test_what_root_makes_belongs_to_the_owner_of_the_home(tmp_path: Path) -> None:
    os.chown(tmp_path, 4321, 8765)
    engine = opened(tmp_path / "queue")
    accept(engine, draft(1))
    for name in ("", "spool", "queue.db", "queue.db-wal"):
        made = (tmp_path / "queue" / name).stat()
        assert (made.st_uid, made.st_gid) == (4321, 8765), name
    engine.close()


# What the formats before this one looked like.
FIRST_FORMAT = """
CREATE TABLE commits (last INTEGER PRIMARY KEY AUTOINCREMENT, keys BLOB NOT NULL);
CREATE TABLE messages (id INTEGER PRIMARY KEY, incarnation BLOB NOT NULL, born INTEGER NOT NULL, sender BLOB NOT NULL,
    size INTEGER NOT NULL, uid INTEGER NOT NULL, pid INTEGER NOT NULL, spool TEXT);
CREATE UNIQUE INDEX spooled ON messages (spool) WHERE spool IS NOT NULL;
CREATE TABLE bodies (message INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE recipients (message INTEGER, number INTEGER, address BLOB NOT NULL, state INTEGER NOT NULL,
    attempts INTEGER NOT NULL, due INTEGER NOT NULL, reason BLOB NOT NULL,
    PRIMARY KEY (message, number)) WITHOUT ROWID;
CREATE INDEX waiting ON recipients (due, message, number) WHERE state = 0;
PRAGMA application_id = 0x50494C4C;
PRAGMA user_version = 1;
"""
SECOND_FORMAT = """
CREATE TABLE failed (message INTEGER PRIMARY KEY, over INTEGER NOT NULL);
CREATE INDEX over ON failed (message) WHERE over = 1;
PRAGMA user_version = 2;
"""


@pytest.mark.parametrize("format", [FIRST_FORMAT, FIRST_FORMAT + SECOND_FORMAT])
def test_a_queue_of_an_older_format_is_opened_with_all_that_is_in_it(tmp_path: Path, format: str) -> None:
    database = sqlite3.connect(tmp_path / "queue.db", isolation_level=None)
    database.executescript(format)
    database.execute("INSERT INTO commits VALUES (2, ?)", (key(1) + key(2),))
    for number in (1, 2):
        row = (number, b"00000001", BIRTH, b"sender@example.org", 5, 1000, 2000)
        database.execute("INSERT INTO messages VALUES (?, ?, ?, ?, ?, ?, ?, NULL)", row)
        database.execute("INSERT INTO bodies VALUES (?, x'68656c6c6f')", (number,))
        database.execute("INSERT INTO recipients VALUES (?, 0, x'6a6f65', 0, 1, ?, x'6e6f')", (number, BIRTH + 400))
    database.close()
    engine = opened(tmp_path)
    waiting = Recipient(0, b"joe", State.WAITING, 1, BIRTH + 400, b"no")
    assert [(message.id, recipients) for message, recipients in engine.listing()] == [(1, [waiting]), (2, [waiting])]
    assert [message.id for message, _ in engine.claim()] == [1, 2]
    assert engine.known(key(2)) == 2
    assert accept(engine, draft(3)) == [3]
    assert engine.commit((), [Mark.failed(1, 0, b"no")]).failed == [1]
    assert settle(engine, Mark.done(2, 0), Mark.done(3, 0)) == [2, 3]
    engine.close()
    engine = opened(tmp_path)
    assert [(message.id, engine.body(message)) for message in engine.failed()] == [(1, b"hello")]
    engine.close()


@pytest.mark.parametrize("last", [4, 7])
def test_the_ids_of_a_queue_of_an_older_format_do_not_come_again(tmp_path: Path, last: int) -> None:
    """Its commits were forgotten in the end, and SQLite knew how far they had come."""
    database = sqlite3.connect(tmp_path / "queue.db", isolation_level=None)
    database.executescript(FIRST_FORMAT + SECOND_FORMAT)
    database.execute("INSERT INTO commits VALUES (7, x'')")
    database.execute("DELETE FROM commits")
    if last != 7:
        database.execute("INSERT INTO commits VALUES (?, ?)", (last, key(1)))  # of a message that waits
    database.close()
    engine = opened(tmp_path)
    assert accept(engine, draft(2)) == [8]
    engine.close()


def test_the_queue_cannot_be_opened_twice(tmp_path: Path) -> None:
    engine = opened(tmp_path)

    def second() -> None:
        with pytest.raises(QueueBroken, match="another process has the queue open"):
            opened(tmp_path)

    _, status = os.waitpid(fork(second), 0)
    assert status == 0
    accept(engine, draft(1))
    engine.close()


def test_a_queue_of_a_newer_pillarbox_is_left_alone(tmp_path: Path) -> None:
    opened(tmp_path).close()
    database = sqlite3.connect(tmp_path / "queue.db")
    database.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    database.close()
    with pytest.raises(QueueBroken, match="written by a newer Pillarbox"):
        opened(tmp_path)


def test_a_database_of_something_else_is_left_alone(tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / "queue.db")
    database.execute("CREATE TABLE messages (id)")
    database.close()
    with pytest.raises(QueueBroken, match="not a queue of Pillarbox"):
        opened(tmp_path)


def test_a_file_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "queue.db").write_bytes(b"From joe@example.org\n" * 500)
    with pytest.raises(QueueBroken, match="not a queue of Pillarbox"):
        opened(tmp_path)
    assert (tmp_path / "queue.db").read_bytes() == b"From joe@example.org\n" * 500


@pytest.mark.parametrize("name", ["queue.db", "spool"])
def test_a_place_that_cannot_be_used_is_named_in_one_line(tmp_path: Path, name: str) -> None:
    if name == "spool":
        (tmp_path / name).touch()
    else:
        (tmp_path / name).mkdir()
    with pytest.raises(QueueBroken) as caught:
        opened(tmp_path)
    assert name in caught.value.text
    assert "\n" not in caught.value.text


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(QueueBroken, match="file/queue: Not a directory"):
        opened(tmp_path / "file" / "queue")


def test_a_start_gives_back_the_disk_that_a_flood_took(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "SHRINK_FROM", 100_000)
    engine = opened(tmp_path)
    ids = accept(engine, *[draft(number * 5 + 4) for number in range(400)])
    settle(engine, *[Mark.done(message, 0) for message in ids[:-1]])
    engine.close()
    large = (tmp_path / "queue.db").stat().st_size
    assert large > 400_000
    engine = opened(tmp_path)
    assert [message.id for message, _ in engine.listing()] == ids[-1:]
    assert accept(engine, draft(1)) == [ids[-1] + 1]
    engine.close()
    assert (tmp_path / "queue.db").stat().st_size < 100_000


def test_a_place_without_a_log_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "_PRAGMAS", schema._PRAGMAS.replace("journal_mode = WAL", "journal_mode = DELETE"))
    with pytest.raises(QueueBroken, match="no write-ahead log"):
        opened(tmp_path)


def test_the_tables_are_made_all_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "_SCHEMA", schema._SCHEMA.replace("CREATE INDEX waiting", "CREATE NONSENSE waiting"))
    with pytest.raises(QueueBroken):
        opened(tmp_path)
    monkeypatch.undo()
    engine = opened(tmp_path)
    accept(engine, draft(1))
    engine.close()


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (sqlite3.SQLITE_FULL, "the queue's disk is full"),
        (sqlite3.SQLITE_BUSY, "queue/queue.db: another process has the queue open"),
        (sqlite3.SQLITE_IOERR_FSYNC, "queue/queue.db: trouble (SQLITE_IOERR_FSYNC)"),
    ],
)
def test_errors_say_what_they_mean(code: int, text: str) -> None:
    problem = sqlite3.OperationalError("trouble")
    problem.sqlite_errorcode = code
    problem.sqlite_errorname = "SQLITE_IOERR_FSYNC"
    assert schema.trouble(problem).text == text
