"""The queue in one SQLite database, queue/queue.db, and spool files beside it: the engine that needs nothing else.

A commit is one transaction in the write-ahead log, synced before it returns. What makes it fast was measured, and is
explained where it stands: few and cheap statements per message, constants in the SQL, deletions by range.
"""

from __future__ import annotations

import os
import sqlite3
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby, islice
from pathlib import Path

from pillarbox.queue import schema, spool
from pillarbox.queue.engine import (
    KEY_OCTETS,
    REASON_LIMIT,
    START,
    BodyGone,
    Draft,
    Ending,
    Entry,
    Mark,
    Message,
    Position,
    QueueBroken,
    QueueFull,
    Receipt,
    Recipient,
    State,
)
from pillarbox.status import Failure

KEYS_KEPT = 600.0  # seconds; see Engine.known
OPEN_BITS_KEPT = 20_000  # messages whose open recipients are known without asking the database

_MESSAGE = "id, incarnation, born, sender, size, uid, pid, spool"
_RECIPIENT = "number, address, state, attempts, due, reason"
_STATES = {state.value: state for state in State}
_DONE = State.DONE
_FAILED = State.FAILED

_CLAIM = f"""
SELECT message, {_RECIPIENT} FROM recipients
WHERE state = {State.WAITING.value} AND (due, message, number) > (?, ?, ?) ORDER BY due, message, number LIMIT ?
"""
# A recipient that is held stays held, a done one done, and a failed one failed, whatever a late outcome says.
_MARK = f"""
UPDATE recipients SET state = max(state, ?), attempts = attempts + ?, due = ?, reason = ?
WHERE message = ? AND number = ? AND state < {State.DONE.value}
"""
_FINISH = f"UPDATE recipients SET state = {State.DONE.value} WHERE message = ? AND number = ?"
_OPEN = f"SELECT number FROM recipients WHERE message = ? AND state <> {State.DONE.value}"
_FAILURES = f"""
SELECT message, {_RECIPIENT} FROM recipients
WHERE message = ? AND number > ? AND state = {State.FAILED.value} ORDER BY number LIMIT ?
"""
_WANT_ENDING = f"""
SELECT {_MESSAGE} FROM failed JOIN messages ON id = message WHERE over = 1 AND message > ? ORDER BY message LIMIT ?
"""
_NOTE = "INSERT OR IGNORE INTO failed SELECT id, 0 FROM messages WHERE id = ?"
_OVER = f"""
UPDATE failed SET over = 1 WHERE message = ? AND over = 0 AND NOT EXISTS
    (SELECT 1 FROM recipients WHERE message = failed.message AND state < {State.DONE.value})
"""
_LOOK = "SELECT last FROM commits WHERE last > ? AND last <= ? ORDER BY last LIMIT ?"
_FORGET = """
DELETE FROM commits WHERE last > ? AND last <= ? AND NOT EXISTS
    (SELECT 1 FROM messages WHERE id <= last AND id > last - length(keys) / 16)
"""


class SqliteEngine:
    """An `Engine` over the directory queue/. `open` one; never two over one directory."""

    def __init__(self, database: sqlite3.Connection, directory: Path, clock: Callable[[], float]) -> None:
        self.incarnation = os.urandom(4).hex().encode("ascii")
        self._database = database
        self._execute = database.execute
        self._many = database.executemany
        self._spool = directory / "spool"
        self._broken = ""
        self._last: int = self._last_id()
        self._open_bits: dict[int, int] = {}
        self._some_failed = self._any_failed()  # what succeeds shall not pay for what fails
        self._keys = _Keys(clock, self._last)
        # The incarnation is a constant of the statement: to bind bytes costs a microsecond each time.
        prefix = f"INSERT INTO messages VALUES (?, x'{self.incarnation.hex()}', ?, ?, ?, ?, ?, "
        self._insert_plain = prefix + "NULL)"
        self._insert_spooled = prefix + "?)"

    @classmethod
    def open(cls, directory: Path | str, clock: Callable[[], float]) -> SqliteEngine:
        """Open the queue, making it when it is not there, and sweep what a crash left in its spool. `clock` counts
        seconds from anywhere and never goes back (time.monotonic). Raises QueueBroken, QueueFull."""
        directory = Path(directory)
        try:
            spool.make_directory(directory)
            spool.make_directory(directory / "spool")
            database = schema.connect(directory / "queue.db")
        except OSError as problem:
            raise QueueBroken(f"{problem.filename or directory}: {problem.strerror}") from problem
        try:
            engine = cls(database, directory, clock)
            spool.sweep(directory / "spool", engine._is_spooled)
        except sqlite3.Error as problem:
            database.close()
            raise schema.trouble(problem) from problem
        except OSError as problem:
            database.close()
            raise QueueBroken(f"{problem.filename or directory}: {problem.strerror}") from problem
        return engine

    def spool(self) -> spool.SpoolFile:
        """Begin a body too large for `Draft.body`."""
        return spool.SpoolFile(self._spool)

    # Commits.

    def commit(self, drafts: Sequence[Draft], marks: Sequence[Mark], endings: Sequence[Ending] = ()) -> Receipt:
        """See Engine."""
        first = self._last + 1
        bits: dict[int, int] = {}
        failed: list[int] = []
        bounced: list[int] = []
        accepted = len(drafts)
        if drafts:
            self._leave_room(drafts)
        with self._writing():
            if endings:
                bounces, bounced = self._end(endings, first + accepted, bits)
                drafts = [*drafts, *bounces]
            if drafts:
                self._insert(drafts, first, bits)
            if marks:
                failed = self._settle(marks, bits)
            ended = sorted(message for message, still_open in bits.items() if not still_open)
            gone = self._delete(ended)
            some_failed = self._some_failed and self._any_failed()
            self._keys.forget(self._execute, self._last)
        # From here on it is done; what follows must not fail.
        self._last += len(drafts)
        self._some_failed = some_failed
        self._remember(bits)
        for name in gone:
            spool.remove(self._spool, name)
        return Receipt(list(range(first, first + accepted)), ended, failed, bounced)

    def _end(self, endings: Sequence[Ending], first: int, bits: dict[int, int]) -> tuple[list[Draft], list[int]]:
        """The bounces to insert, numbered from `first`, and the number of each ending's, 0 for none. Notes in `bits`
        that nothing is open in the messages that end."""
        bounces: list[Draft] = []
        numbers: list[int] = []
        for message, bounce in endings:
            query = "SELECT 1 FROM failed WHERE message = ? AND over = 1"
            counts = message not in bits and self._execute(query, (message,)).fetchone() is not None
            if counts:
                bits[message] = 0
            if counts and bounce is not None:
                bounces.append(bounce)
                numbers.append(first + len(bounces) - 1)
            else:
                numbers.append(0)
        return bounces, numbers

    def _insert(self, drafts: Sequence[Draft], first: int, bits: dict[int, int]) -> None:
        """Insert, numbering from `first`, and note in `bits` which recipients are open."""
        keys = b"".join([draft.key for draft in drafts])
        assert len(keys) == KEY_OCTETS * len(drafts)
        plain, spooled, bodies, recipients = [], [], [], []
        # bytearray: sqlite3 binds it five times as fast as bytes, for which it looks up adapters each time.
        for message, draft in enumerate(drafts, first):
            envelope = draft.envelope
            born = draft.born
            row = (message, born, bytearray(envelope.sender), draft.size, draft.uid, draft.pid)
            if draft.spool is None:
                assert draft.body is not None
                plain.append(row)
                bodies.append((message, bytearray(draft.body)))
            else:
                spooled.append((*row, draft.spool))
            number = 0
            for address in envelope.recipients:
                recipients.append((message, number, bytearray(address), born))
                number += 1
            bits[message] = (1 << number) - 1
        self._execute("INSERT INTO commits VALUES (?, ?)", (first + len(drafts) - 1, keys))
        self._many(self._insert_plain, plain)
        if spooled:
            self._many(self._insert_spooled, spooled)
        self._many("INSERT INTO bodies VALUES (?, ?)", bodies)
        self._many("INSERT INTO recipients VALUES (?, ?, ?, 0, 0, ?, x'')", recipients)

    def _leave_room(self, drafts: Sequence[Draft]) -> None:
        """New mail must not take the last of the disk: without room for marks nothing that is queued could ever leave.
        Raises QueueFull."""
        size = sum([draft.size for draft in drafts if draft.spool is None])
        room = spool.room(self._spool)
        if room < size and room + schema.free_pages(self._database) < size:
            raise QueueFull(spool.FULL)

    def _settle(self, marks: Sequence[Mark], bits: dict[int, int]) -> list[int]:
        """Write what became of recipients, and note in `bits` what is still open in each message with a done one: a
        failed one is open until the message's ending. Returns the messages that now want an ending."""
        updates: list[tuple[int, int, int, bytearray, int, int]] = []
        finished: list[tuple[int, int]] = []
        failed: list[int] = []
        known = self._open_bits
        for mark in marks:
            message = mark.message
            if mark.state is not _DONE:
                if mark.state is _FAILED:
                    failed.append(message)
                reason = bytearray(mark.reason[:REASON_LIMIT])
                updates.append((mark.state.value, mark.tried, mark.due, reason, message, mark.number))
                continue
            before = bits.get(message)
            if before is None:
                before = known.get(message) or self._load_bits(message)
            if before:  # else the message is no more
                bits[message] = after = before & ~(1 << mark.number)
                if after:
                    finished.append((message, mark.number))
        if updates:
            self._many(_MARK, updates)
        if finished:
            self._many(_FINISH, finished)
        if failed:
            self._many(_NOTE, [(message,) for message in failed])
            self._some_failed = True
        if not self._some_failed:
            return failed
        touched = dict.fromkeys(failed + [message for message, _ in finished])
        return [message for message in touched if bits.get(message, 1) and self._execute(_OVER, (message,)).rowcount]

    def _load_bits(self, message: int) -> int:
        return sum(1 << number for (number,) in self._execute(_OPEN, (message,)).fetchall())

    def _any_failed(self) -> bool:
        return self._execute("SELECT 1 FROM failed LIMIT 1").fetchone() is not None

    def _remember(self, bits: dict[int, int]) -> None:
        known = self._open_bits
        for message, still_open in bits.items():
            if still_open:
                known[message] = still_open
            else:
                known.pop(message, None)
        if len(known) > OPEN_BITS_KEPT:
            for message in list(islice(known, len(known) - OPEN_BITS_KEPT // 2)):
                del known[message]

    def _delete(self, messages: list[int]) -> list[str]:
        """Delete these messages, ascending; return the spool files to remove once that is committed. By ranges without
        gaps: messages that came together mostly end together."""
        gone: list[str] = []
        for span in _spans(messages):
            named = "SELECT spool FROM messages WHERE id BETWEEN ? AND ? AND +spool IS NOT NULL"
            gone += [name for (name,) in self._execute(named, span).fetchall()]
            self._execute("DELETE FROM messages WHERE id BETWEEN ? AND ?", span)
            self._execute("DELETE FROM recipients WHERE message BETWEEN ? AND ?", span)
            self._execute("DELETE FROM bodies WHERE message BETWEEN ? AND ?", span)
            if self._some_failed:
                self._execute("DELETE FROM failed WHERE message BETWEEN ? AND ?", span)
        return gone

    # Questions.

    def known(self, key: bytes) -> int | None:
        """See Engine."""
        with self._reading():
            rows = self._execute("SELECT last, keys FROM commits WHERE instr(keys, ?)", (key,)).fetchall()
        for last, keys in rows:
            for start in range(0, len(keys), KEY_OCTETS):
                if keys[start : start + KEY_OCTETS] == key:
                    return int(last) - (len(keys) - start) // KEY_OCTETS + 1
        return None

    def claim(self, after: Position = START, limit: int = 100) -> list[Entry]:
        """See Engine."""
        with self._reading():
            rows = self._execute(_CLAIM, (*after, limit)).fetchall()
            return [
                (self._message(message), [_recipient(row) for row in group])
                for message, group in groupby(rows, key=lambda row: row[0])
            ]

    def body(self, message: Message) -> bytes:
        """See Engine."""
        with self._reading():
            row = self._execute("SELECT body FROM bodies WHERE message = ?", (message.id,)).fetchone()
        if row is None:
            raise BodyGone(f"queue/queue.db: the body of message {message.id} is gone")
        return bytes(row[0])

    def open_body(self, message: Message) -> int:
        """See Engine."""
        assert message.spool is not None
        return spool.open_file(self._spool, message.spool)

    def failed(self, after: int = 0, limit: int = 100) -> list[Message]:
        """See Engine."""
        with self._reading():
            return [Message(*row) for row in self._execute(_WANT_ENDING, (after, limit)).fetchall()]

    def failures(self, message: int, after: int = -1, limit: int = 100) -> list[Recipient]:
        """See Engine."""
        with self._reading():
            rows = self._execute(_FAILURES, (message, after, limit)).fetchall()
        return [_recipient(row) for row in rows]

    def listing(self, after: int = 0, limit: int = 100) -> list[Entry]:
        """See Engine."""
        with self._reading():
            rows = self._execute(f"SELECT {_MESSAGE} FROM messages WHERE id > ? ORDER BY id LIMIT ?", (after, limit))
            return [(Message(*row), self._recipients(row[0])) for row in rows.fetchall()]

    def show(self, message: int) -> Entry | None:
        """See Engine."""
        return next(iter(self.listing(message - 1, 1)), None) if self._exists(message) else None

    def _message(self, message: int) -> Message:
        return Message(*self._execute(f"SELECT {_MESSAGE} FROM messages WHERE id = ?", (message,)).fetchone())

    def _recipients(self, message: int) -> list[Recipient]:
        query = f"SELECT message, {_RECIPIENT} FROM recipients WHERE message = ? ORDER BY number"
        return [_recipient(row) for row in self._execute(query, (message,)).fetchall()]

    def _exists(self, message: int) -> bool:
        with self._reading():
            return self._execute("SELECT 1 FROM messages WHERE id = ?", (message,)).fetchone() is not None

    def _is_spooled(self, name: str) -> bool:
        return self._execute("SELECT 1 FROM messages WHERE spool = ?", (name,)).fetchone() is not None

    def _last_id(self) -> int:
        row = self._execute("SELECT seq FROM sqlite_sequence WHERE name = 'commits'").fetchone()
        return int(row[0]) if row else 0

    # What the postmaster says.

    def retry(self, messages: Iterable[int], now: int) -> list[int]:
        """See Engine."""
        change = f"UPDATE recipients SET state = 0, due = ? WHERE message = ? AND state < {State.DONE.value}"
        return self._change(change, messages, now)

    def release(self, messages: Iterable[int], now: int) -> list[int]:
        """See Engine."""
        change = f"UPDATE recipients SET state = 0, due = ? WHERE message = ? AND state = {State.HELD.value}"
        return self._change(change, messages, now)

    def hold(self, messages: Iterable[int], reason: bytes) -> list[int]:
        """See Engine."""
        change = f"UPDATE recipients SET state = {State.HELD.value}, reason = ? WHERE message = ? AND state = 0"
        return self._change(change, messages, reason[:REASON_LIMIT])

    def remove(self, messages: Iterable[int]) -> list[int]:
        """See Engine."""
        with self._writing():
            there = sorted({message for message in messages if self._exists(message)})
            gone = self._delete(there)
        for message in there:
            self._open_bits.pop(message, None)
        for name in gone:
            spool.remove(self._spool, name)
        return there

    def _change(self, change: str, messages: Iterable[int], value: int | bytes) -> list[int]:
        with self._writing():
            return [message for message in messages if self._execute(change, (value, message)).rowcount]

    def close(self) -> None:
        """See Engine."""
        self._broken = self._broken or "the queue is closed"
        self._database.close()

    # Trouble.

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One transaction: all of it or nothing."""
        self._check()
        try:
            self._execute("BEGIN IMMEDIATE")
            yield
            self._execute("COMMIT")
        except sqlite3.Error as problem:
            raise self._fail(problem) from problem
        except BaseException:
            self._roll_back()
            raise

    @contextmanager
    def _reading(self) -> Iterator[None]:
        self._check()
        try:
            yield
        except sqlite3.Error as problem:
            raise self._fail(problem) from problem

    def _check(self) -> None:
        if self._broken:
            raise QueueBroken(self._broken)

    def _fail(self, problem: sqlite3.Error) -> Failure:
        """Tell a full disk, after which life goes on, from everything else. After a failed sync the kernel may believe
        the disk is right when it is not, and the next sync would be told so: nothing more is done here then."""
        failure = schema.trouble(problem)
        if isinstance(failure, QueueFull):
            self._roll_back()
        else:
            self._broken = failure.text
        return failure

    def _roll_back(self) -> None:
        if not self._database.in_transaction:
            return
        try:
            self._execute("ROLLBACK")
        except sqlite3.Error as problem:
            self._broken = schema.trouble(problem).text


class _Keys:
    """When keys of past commits may be forgotten: ten minutes of this engine's life after they were committed, or
    after it was opened (who asks may have had to wait for that), and not while a message of the same commit lives.
    Those that were there when it was opened stay as long as any message of that time: it may be the parent of a forward
    whose own end a crash has lost, and be tried again days later."""

    LOOK = 500  # commits looked at in one commit
    INTERVAL = 0.1  # seconds between two looks: LOOK is far more than the commits made in that time
    REST = 10.0  # seconds between two rounds
    NOTE = 1.0  # seconds between two notes

    def __init__(self, clock: Callable[[], float], last: int) -> None:
        self._clock = clock
        now = clock()
        self._notes = deque([(now, last)])  # how far commits had come at that time: at most KEYS_KEPT / NOTE of them
        self._opened = last
        self._old = 0  # commits up to this id are old enough
        self._end = 0  # up to which this round goes
        self._looked = 0  # and has come
        self._next = now

    def forget(self, execute: Callable[..., sqlite3.Cursor], last: int) -> None:
        """Look at a few commits, `last` being the newest before this transaction. What a rollback brings back comes
        again in the next round."""
        now = self._clock()
        if now < self._next:
            return
        self._next = now + self.INTERVAL
        notes = self._notes
        while notes and notes[0][0] <= now - KEYS_KEPT:
            self._old = notes.popleft()[1]
        if not notes or now >= notes[-1][0] + self.NOTE:
            notes.append((now, last))
        looked = execute(_LOOK, (self._looked, self._end, self.LOOK)).fetchall()
        if looked:
            execute(_FORGET, (self._looked, looked[-1][0]))
            self._looked = looked[-1][0]
        if len(looked) < self.LOOK:
            (oldest,) = execute("SELECT min(id) FROM messages").fetchone()
            before = oldest is not None and oldest <= self._opened
            self._looked, self._end = self._opened if before else 0, self._old
            self._next = now + self.REST


def _recipient(row: tuple[int, int, bytes, int, int, int, bytes]) -> Recipient:
    _, number, address, state, attempts, due, reason = row
    return Recipient(number, address, _STATES[state], attempts, due, reason)


def _spans(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Ascending numbers as (first, last) of their runs without gaps."""
    start = 0
    for end in range(1, len(numbers) + 1):
        if end == len(numbers) or numbers[end] != numbers[end - 1] + 1:
            yield numbers[start], numbers[end - 1]
            start = end
