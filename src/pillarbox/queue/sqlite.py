"""The queue in one SQLite database, queue/queue.db, and spool files beside it: the engine that needs nothing else.

A commit is one transaction in the write-ahead log, synced before it returns. What makes it fast was measured, and is
explained where it stands: few and cheap statements per message, constants in the SQL, deletions by range.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby, islice
from pathlib import Path

from pillarbox.queue import schema, spool, statements
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
from pillarbox.queue.folded import FEW, fold, unfold
from pillarbox.queue.keys import Keys
from pillarbox.status import Failure

OPEN_BITS_KEPT = 20_000  # messages whose open recipients are known without asking the database
FOLDED_KEPT = 5_000  # messages whose recipients have no rows; when there are more, the oldest get them
UNFOLDED_AT_ONCE = 64  # of these in one commit, at least: no client shall wait for all of them

_STATES = {state.value: state for state in State}
_DONE = State.DONE
_FAILED = State.FAILED


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
        self._folded: dict[int, tuple[int, int]] = {  # when the message was born, and its recipients as bits
            message: (born, _all_of(len(unfold(addresses))))
            for message, born, addresses in self._execute(statements.FOLDED).fetchall()
        }
        self._unfolded: set[int] = set()  # in the transaction under way
        self._some_failed = self._any_failed()  # what succeeds shall not pay for what fails
        self._keys = Keys(clock, self._last)
        # The incarnation is a constant of the statement: to bind bytes costs a microsecond each time.
        prefix = f"INSERT INTO messages VALUES (?, x'{self.incarnation.hex()}', ?, ?, ?, ?, ?, "
        self._insert_plain = prefix + "NULL, ?)"
        self._insert_spooled = prefix + "?, ?)"

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
        folded: dict[int, tuple[int, int]] = {}
        failed: list[int] = []
        bounced: list[int] = []
        accepted = len(drafts)
        if drafts:
            self._leave_room(drafts)
        with self._writing():
            if endings:
                bounces, bounced = self._end(endings, first + accepted, bits)
                drafts = [*drafts, *bounces]
            if marks:
                failed = self._settle(marks, bits)
            if drafts:
                folded = self._insert(drafts, first, bits)
            ended = sorted(message for message, still_open in bits.items() if not still_open)
            gone = self._delete(ended)
            if accepted and len(self._folded) > FOLDED_KEPT:  # marks alone have room on a full disk, this has not
                oldest = (message for message in self._folded if bits.get(message, 1))
                self._unfold(list(islice(oldest, max(UNFOLDED_AT_ONCE, 2 * len(drafts)))))
            some_failed = self._some_failed and self._any_failed()
            self._keys.forget(self._execute, self._last)
        # From here on it is done; what follows must not fail.
        self._last += len(drafts)
        self._some_failed = some_failed
        self._remember(bits, folded)
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

    def _insert(self, drafts: Sequence[Draft], first: int, bits: dict[int, int]) -> dict[int, tuple[int, int]]:
        """Insert, numbering from `first`. Returns the messages that are folded, as `_folded` has them, and notes in
        `bits` which recipients of the others are open."""
        keys = bytearray().join([draft.key for draft in drafts])
        assert len(keys) == KEY_OCTETS * len(drafts)
        plain, spooled, bodies, recipients = [], [], [], []
        folded: dict[int, tuple[int, int]] = {}
        # bytearray: sqlite3 binds it five times as fast as bytes, for which it looks up adapters each time.
        for message, (_key, envelope, born, uid, pid, size, body, file) in enumerate(drafts, first):
            addresses = envelope.recipients
            count = len(addresses)
            if 0 < count <= FEW:
                folded[message] = born, _all_of(count)
                kept = fold(addresses)
            else:
                bits[message] = _all_of(count)
                recipients += [(message, number, bytearray(one), born) for number, one in enumerate(addresses)]
                kept = bytearray()
            sender = bytearray(envelope.sender)
            if file is None:
                assert body is not None
                plain.append((message, born, sender, size, uid, pid, kept))
                bodies.append((message, bytearray(body)))
            else:
                spooled.append((message, born, sender, size, uid, pid, file, kept))
        self._execute("INSERT INTO commits VALUES (?, ?)", (first + len(drafts) - 1, keys))
        self._many(self._insert_plain, plain)
        self._many("INSERT INTO bodies VALUES (?, ?)", bodies)
        if spooled:
            self._many(self._insert_spooled, spooled)
        if recipients:
            self._many(statements.RECIPIENTS, recipients)
        return folded

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
                folded = self._folded.get(message)
                before = folded[1] if folded else known.get(message) or self._load_bits(message)
            if before:  # else the message is no more
                bits[message] = after = before & ~(1 << mark.number)
                if after:
                    finished.append((message, mark.number))
        finished = [(message, number) for message, number in finished if bits[message]]  # the others end
        if updates or finished:
            changed = dict.fromkeys([update[4] for update in updates] + [message for message, _ in finished])
            self._unfold([message for message in changed if message in self._folded])
        if updates:
            self._many(statements.MARK, updates)
        if finished:
            self._many(statements.FINISH, finished)
        if failed:
            self._many(statements.NOTE, [(message,) for message in failed])
            self._some_failed = True
        if not self._some_failed:
            return failed
        touched = dict.fromkeys(failed + [message for message, _ in finished])
        return [
            message
            for message in touched
            if bits.get(message, 1) and self._execute(statements.OVER, (message,)).rowcount
        ]

    def _unfold(self, messages: Sequence[int]) -> None:
        """Give the recipients of these folded messages rows, in the transaction under way. Harmless twice."""
        rows = []
        for message in messages:
            if message not in self._unfolded:
                self._unfolded.add(message)
                rows += [(message, one.number, bytearray(one.address), one.due) for one in self._spread(message)]
        self._many(statements.RECIPIENTS, rows)

    def _spread(self, message: int) -> list[Recipient]:
        """The recipients of a folded message."""
        born, folded = self._execute("SELECT born, addresses FROM messages WHERE id = ?", (message,)).fetchone()
        return [
            Recipient(number, address, State.WAITING, 0, born, b"") for number, address in enumerate(unfold(folded))
        ]

    def _load_bits(self, message: int) -> int:
        return sum(1 << number for (number,) in self._execute(statements.OPEN, (message,)).fetchall())

    def _any_failed(self) -> bool:
        return self._execute("SELECT 1 FROM failed LIMIT 1").fetchone() is not None

    def _remember(self, bits: dict[int, int], folded: dict[int, tuple[int, int]]) -> None:
        known = self._open_bits
        self._folded.update(folded)
        for message, still_open in bits.items():
            if still_open:
                known[message] = still_open
            else:
                known.pop(message, None)
                self._folded.pop(message, None)
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
            self._execute("DELETE FROM bodies WHERE message BETWEEN ? AND ?", span)
            if self._some_failed:
                self._execute("DELETE FROM failed WHERE message BETWEEN ? AND ?", span)
        for span in _spans([message for message in messages if self._has_rows(message)]):
            self._execute("DELETE FROM recipients WHERE message BETWEEN ? AND ?", span)
        return gone

    def _has_rows(self, message: int) -> bool:
        return message not in self._folded or message in self._unfolded

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
            rows = self._execute(statements.CLAIM, (*after, limit)).fetchall()
            found = {(row[5], row[0], row[1]): _recipient(row) for row in rows}
            places = sorted([*found, *self._folded_behind(after, limit)])[:limit]
            return [
                self._claimed(message, group, found) for message, group in groupby(places, key=lambda place: place[1])
            ]

    def _claimed(self, message: int, places: Iterable[Position], found: dict[Position, Recipient]) -> Entry:
        """A message with its recipients in these places, `found` if they have rows."""
        if message not in self._folded:
            return self._message(message), [found[place] for place in places]
        spread = self._spread(message)
        return self._message(message), [spread[number] for _, _, number in places]

    def _folded_behind(self, after: Position, limit: int) -> list[Position]:
        """The places of recipients of folded messages behind `after`, in order: the next `limit`, if not a few more."""
        births = [(born, message) for message, (born, _) in self._folded.items() if (born, message) >= after[:2]]
        return [
            (born, message, number)
            for born, message in sorted(births)[: limit + 1]  # the first may be the message of `after`, and have none
            for number in range(self._folded[message][1].bit_length())
            if (born, message, number) > after
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
            return [Message(*row) for row in self._execute(statements.WANT_ENDING, (after, limit)).fetchall()]

    def failures(self, message: int, after: int = -1, limit: int = 100) -> list[Recipient]:
        """See Engine."""
        with self._reading():
            rows = self._execute(statements.FAILURES, (message, after, limit)).fetchall()
        return [_recipient(row) for row in rows]

    def listing(self, after: int = 0, limit: int = 100) -> list[Entry]:
        """See Engine."""
        with self._reading():
            rows = self._execute(statements.LISTING, (after, limit))
            return [(Message(*row), self._recipients(row[0])) for row in rows.fetchall()]

    def show(self, message: int) -> Entry | None:
        """See Engine."""
        return next(iter(self.listing(message - 1, 1)), None) if self._exists(message) else None

    def _message(self, message: int) -> Message:
        return Message(*self._execute(statements.SHOW, (message,)).fetchone())

    def _recipients(self, message: int) -> list[Recipient]:
        if message in self._folded:
            return self._spread(message)
        return [_recipient(row) for row in self._execute(statements.SHOW_RECIPIENTS, (message,)).fetchall()]

    def _exists(self, message: int) -> bool:
        with self._reading():
            return self._execute("SELECT 1 FROM messages WHERE id = ?", (message,)).fetchone() is not None

    def _is_spooled(self, name: str) -> bool:
        return self._execute("SELECT 1 FROM messages WHERE spool = ?", (name,)).fetchone() is not None

    def _last_id(self) -> int:
        (last,) = self._execute("SELECT max(last) FROM commits").fetchone()
        return int(last or 0)

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
            self._folded.pop(message, None)
        for name in gone:
            spool.remove(self._spool, name)
        return there

    def _change(self, change: str, messages: Iterable[int], value: int | bytes) -> list[int]:
        messages = list(messages)
        with self._writing():
            self._unfold([message for message in dict.fromkeys(messages) if message in self._folded])
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
        self._unfolded = set()
        try:
            self._execute("BEGIN IMMEDIATE")
            yield
            self._execute("COMMIT")
        except sqlite3.Error as problem:
            raise self._fail(problem) from problem
        except BaseException:
            self._roll_back()
            raise
        for message in self._unfolded:
            _, self._open_bits[message] = self._folded.pop(message)

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


def _recipient(row: tuple[int, int, bytes, int, int, int, bytes]) -> Recipient:
    _, number, address, state, attempts, due, reason = row
    return Recipient(number, address, _STATES[state], attempts, due, reason)


def _all_of(count: int) -> int:
    """The bits of so many recipients, all open."""
    return (1 << count) - 1


def _spans(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Ascending numbers as (first, last) of their runs without gaps."""
    start = 0
    for end in range(1, len(numbers) + 1):
        if end == len(numbers) or numbers[end] != numbers[end - 1] + 1:
            yield numbers[start], numbers[end - 1]
            start = end
