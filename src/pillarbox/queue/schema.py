"""The database of queue/sqlite.py: its tables, how it is opened, and what its errors mean.

The rule that must stay true: whatever this file lets anybody read as committed is on the disk, not in the kernel's
memory only.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from pathlib import Path

from pillarbox.queue.engine import QueueBroken, QueueFull, State
from pillarbox.queue.spool import FULL, give_to_owner, sync_directory
from pillarbox.status import Failure

VERSION = 3
PAGE = 4096  # octets
SHRINK_FROM = 64 << 20  # octets of free pages that a start gives back to the disk
SHRINK_TO = 16 << 20  # octets of pages in use, which have to be copied for it

_APPLICATION = 0x50494C4C  # "PILL": so that a stray database of something else is not taken for a queue

# A page of 4,096 and 1,000 of them between checkpoints: larger ones stalled commits. A transaction larger than that may
# stretch the log, but not for good. FULL: a commit that returned is on the disk. The lock is exclusive because nobody
# else may open the queue, and because shared memory and locks per transaction cost time; it comes first, because what
# reads the file before it makes a file of shared memory, for which a full disk has no room. Debian's SQLite overwrites
# what is deleted, with more writes than the deletion itself; FAST does so only where it costs none.
_PRAGMAS = f"""
PRAGMA locking_mode = EXCLUSIVE;
PRAGMA page_size = {PAGE};
PRAGMA auto_vacuum = NONE;
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
PRAGMA wal_autocheckpoint = 1000;
PRAGMA journal_size_limit = 16777216;
PRAGMA secure_delete = FAST;
PRAGMA temp_store = MEMORY;
"""

_FAILED = """
CREATE TABLE failed (message INTEGER PRIMARY KEY, over INTEGER NOT NULL);
CREATE INDEX over ON failed (message) WHERE over = 1;
"""

_COMMITS = "CREATE TABLE commits (last INTEGER PRIMARY KEY, keys BLOB NOT NULL);"

# commits: one row for each commit, `last` being its last id; ids of one commit follow each other, so keys need no index
# and no row of their own. The newest row is never deleted, so no id comes twice.
# messages: `addresses` are its recipients, folded (see folded.py), as long as they have no rows in recipients.
# failed: messages that failed for somebody; `over` is 1 when nobody else is to be tried any more.
# recipients: in the order in which they fall due by the index, which holds only those that wait.
_SCHEMA = f"""
{_COMMITS}
CREATE TABLE messages (id INTEGER PRIMARY KEY, incarnation BLOB NOT NULL, born INTEGER NOT NULL, sender BLOB NOT NULL,
    size INTEGER NOT NULL, uid INTEGER NOT NULL, pid INTEGER NOT NULL, spool TEXT, addresses BLOB NOT NULL);
CREATE UNIQUE INDEX spooled ON messages (spool) WHERE spool IS NOT NULL;
CREATE TABLE bodies (message INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE recipients (message INTEGER, number INTEGER, address BLOB NOT NULL, state INTEGER NOT NULL,
    attempts INTEGER NOT NULL, due INTEGER NOT NULL, reason BLOB NOT NULL,
    PRIMARY KEY (message, number)) WITHOUT ROWID;
CREATE INDEX waiting ON recipients (due, message, number) WHERE state = {State.WAITING.value};
{_FAILED}
PRAGMA application_id = {_APPLICATION};
PRAGMA user_version = {VERSION};
"""

# format -> what makes the next one of it
_STEPS = {
    1: _FAILED,  # before there were bounces
    2: f"""
ALTER TABLE messages ADD COLUMN addresses BLOB NOT NULL DEFAULT x'';
ALTER TABLE commits RENAME TO numbered;
{_COMMITS}
INSERT INTO commits SELECT last, keys FROM numbered;
INSERT OR IGNORE INTO commits SELECT seq, x'' FROM sqlite_sequence WHERE name = 'numbered';
DROP TABLE numbered;
""",  # recipients had rows from the start, and SQLite counted the ids
}


def connect(file: Path) -> sqlite3.Connection:
    """Open the database, making it when it is not there. Raises QueueBroken, QueueFull, OSError."""
    _make_durable(file)
    try:
        database = sqlite3.connect(file, timeout=0, isolation_level=None)
    except sqlite3.Error as problem:
        raise trouble(problem) from problem
    try:
        database.executescript(_PRAGMAS)
        _expect_log(database)
        _prepare(database)
        # Recovery may have read a log whose last sync failed before a restart: write all of it once more, into the
        # database. On a full disk that must wait; the log itself was synced above.
        with suppress(QueueFull):
            _finish_recovery(database)
    except sqlite3.Error as problem:
        database.close()
        raise trouble(problem) from problem
    except BaseException:
        database.close()
        raise
    return database


def trouble(problem: sqlite3.Error) -> Failure:
    """What an error of SQLite's means to us."""
    name = getattr(problem, "sqlite_errorname", type(problem).__name__)
    code = getattr(problem, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF  # without the extended part
    if code == sqlite3.SQLITE_FULL:
        return QueueFull(FULL)
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return QueueBroken("queue/queue.db: another process has the queue open")
    if code == sqlite3.SQLITE_NOTADB:
        return QueueBroken("queue/queue.db: not a queue of Pillarbox")
    return QueueBroken(f"queue/queue.db: {problem} ({name})")


def _make_durable(file: Path) -> None:
    """After a kill in mid-commit the log may hold a whole commit that was never synced; recovery would take it as
    committed. So the log is synced before anybody reads it. (The database itself is not opened here: to close it would
    drop the locks of an engine in this process.)"""
    log = file.with_name(file.name + "-wal")
    if log.exists():
        descriptor = os.open(log, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    if not file.exists():
        os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        give_to_owner(file)
    sync_directory(file.parent)


def _expect_log(database: sqlite3.Connection) -> None:
    (mode,) = database.execute("PRAGMA journal_mode").fetchone()
    if mode != "wal":
        raise QueueBroken(f"queue/queue.db: no write-ahead log is possible here (journal mode {mode})")


def _prepare(database: sqlite3.Connection) -> None:
    """Make the tables of an empty database, all or none; refuse what is not ours or newer than we are."""
    (application,) = database.execute("PRAGMA application_id").fetchone()
    (version,) = database.execute("PRAGMA user_version").fetchone()
    (tables,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if not tables:
        database.executescript(f"BEGIN; {_SCHEMA} COMMIT;")
    elif application != _APPLICATION:
        raise QueueBroken("queue/queue.db: not a queue of Pillarbox")
    elif version > VERSION:
        newer = f"written by a newer Pillarbox (format {version}, this one knows {VERSION})"
        raise QueueBroken(f"queue/queue.db: {newer}: start that one, or move the queue away")
    elif version < VERSION:
        steps = "".join([step for before, step in _STEPS.items() if before >= version])
        database.executescript(f"BEGIN; {steps} PRAGMA user_version = {VERSION}; COMMIT;")


def free_pages(database: sqlite3.Connection) -> int:
    """Octets in the database that new mail may take without the file growing."""
    (count,) = database.execute("PRAGMA freelist_count").fetchone()
    return int(count) * PAGE


def _finish_recovery(database: sqlite3.Connection) -> None:
    try:
        database.execute("PRAGMA wal_checkpoint(FULL)").fetchall()
        (pages,) = database.execute("PRAGMA page_count").fetchone()
        free = free_pages(database)
        if free >= SHRINK_FROM and pages * PAGE - free <= SHRINK_TO:
            database.execute("VACUUM")
    except sqlite3.Error as problem:
        raise trouble(problem) from problem
