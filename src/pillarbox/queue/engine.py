"""The queue's contract: the values that go in and out, and the verbs that every engine has.

Nothing above this file knows which engine runs. The rules that must stay true, whatever is killed when:

- a message whose id `commit` returned is there until all its recipients are done, or its bounce is there in its place,
  or somebody removes it;
- a draft whose commit did not return is there whole or not at all, and `known` says which;
- a pair of id and incarnation never comes twice, not even from a queue that was lost and made anew;
- a mark is in the queue with everything else of its commit, or not at all; to mark twice is to mark once.

An engine belongs to one thread of one process. Times are arguments, in whole seconds since 1970 (qmail's birth and
retry times). Addresses and reasons are bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, Protocol

from pillarbox.envelope import Envelope
from pillarbox.status import Failure, Status

KEY_OCTETS = 16
REASON_LIMIT = 10_000  # octets; qmail-send cuts a report there

Position = tuple[int, int, int]
"""A place in the order in which recipients fall due: (due, message id, recipient number)."""

START: Position = (-1, 0, 0)


class QueueFull(Failure):
    """No room for this commit. Nothing of it happened; everything before it stands, and the queue goes on."""

    status = Status(4, 3, 1)


class QueueBroken(Failure):
    """The queue cannot be used, or whether the commit happened cannot be said. This engine is done for: open it anew
    (recovery decides what was committed) and ask `known`."""

    status = Status(4, 3, 0)


class BodyGone(Failure):
    """A message's body is not where it was put: somebody took the spool file away."""

    status = Status(4, 3, 0)


class State(Enum):
    """Of one recipient. HELD is not tried until somebody says so; DONE needs nothing more; FAILED is not tried again,
    and its sender must be told. What counts below DONE is still to be tried."""

    WAITING = 0
    HELD = 1
    DONE = 2
    FAILED = 3


_DONE = State.DONE  # under Python 3.11 a member is looked up by a slow way each time


class Draft(NamedTuple):
    """A message to commit. `key` is 16 random octets, never used before. The body is either `body` (octets, LF line
    ends) or, larger, the synced spool file `spool`; `size` is its octets either way. `uid` and `pid` are whose
    connection it was, for the log."""

    key: bytes
    envelope: Envelope
    born: int
    uid: int
    pid: int
    size: int
    body: bytes | bytearray | None
    spool: str | None = None


class Message(NamedTuple):
    """A committed message. `incarnation` is 8 hex digits: with `id` it makes names that never come again."""

    id: int
    incarnation: bytes
    born: int
    sender: bytes
    size: int
    uid: int
    pid: int
    spool: str | None


@dataclass(frozen=True, slots=True)
class Recipient:
    """One recipient of a message. `number` counts from 0 in the envelope's order. `attempts` counts those that failed;
    `reason` is what the last of them said; `due` is when the next may be."""

    number: int
    address: bytes
    state: State
    attempts: int
    due: int
    reason: bytes


class Mark(NamedTuple):
    """What became of one recipient: `done`, `later`, `held` or `failed`."""

    message: int
    number: int
    state: State
    due: int = 0
    reason: bytes = b""
    tried: bool = True

    @classmethod
    def done(cls, message: int, number: int) -> Mark:
        """Nothing more to do. The message ends with its last recipient."""
        return cls(message, number, _DONE)

    @classmethod
    def later(cls, message: int, number: int, due: int, reason: bytes, *, tried: bool = True) -> Mark:
        """Again at `due`. Not `tried`: put off without an attempt. A recipient held meanwhile stays held."""
        return cls(message, number, State.WAITING, due, reason, tried)

    @classmethod
    def held(cls, message: int, number: int, reason: bytes) -> Mark:
        """Not again until somebody releases it."""
        return cls(message, number, State.HELD, 0, reason)

    @classmethod
    def failed(cls, message: int, number: int, reason: bytes) -> Mark:
        """Never again. The message stays until its `Ending` is committed, which can be when no other recipient is to be
        tried any more."""
        return cls(message, number, State.FAILED, 0, reason)


class Ending(NamedTuple):
    """The end of a message that failed for some of its recipients: `bounce` tells its sender, None: nobody is told."""

    message: int
    bounce: Draft | None


class Receipt(NamedTuple):
    """What a commit did: `accepted` are the drafts' ids in their order; `ended` the messages that are over, ascending;
    `failed` those which now want an `Ending`; `bounced` the ids of the endings' bounces in their order, 0 where there
    is none."""

    accepted: list[int]
    ended: list[int]
    failed: list[int]
    bounced: list[int]


Entry = tuple[Message, list[Recipient]]


class SpoolFile(Protocol):
    """A large body on its way in. It is nobody's message until a commit names it; `discard` unless that happens."""

    name: str
    size: int

    def write(self, block: bytes | bytearray | memoryview) -> None:
        """Append. Raises QueueFull (nothing is left behind) or SystemTrouble."""

    def sync(self) -> None:
        """Make content and name durable and close. After this only may a draft name it."""

    def discard(self) -> None:
        """Remove it; harmless after `sync` and twice, wrong after the commit."""


class Engine(Protocol):
    """The verbs. All raise QueueBroken; those that write raise QueueFull."""

    incarnation: bytes

    def spool(self) -> SpoolFile:
        """Begin a body too large for `Draft.body`."""

    def commit(self, drafts: Sequence[Draft], marks: Sequence[Mark], endings: Sequence[Ending] = ()) -> Receipt:
        """All of it in one durable transaction: new messages (due at birth), marks in their order, and the end of
        messages whose recipients are all done. A mark for a message or recipient that is no more is ignored. A draft
        without recipients is accepted and ends at once, as in qmail. An engine keeps some room that drafts may not
        take: after QueueFull commit the marks alone, which may well succeed.

        An ending counts for a message that `failed` names: it is over then, and its bounce there. For any other, or
        the second of one message, nothing happens and the bounce is not accepted: its spool file is still the
        caller's."""

    def known(self, key: bytes) -> int | None:
        """The id of the message committed with this key: while it lives, and at least ten minutes longer."""

    def claim(self, after: Position = START, limit: int = 100) -> list[Entry]:
        """The next waiting recipients behind `after` in the order in which they fall due, at most `limit` of them,
        neighbours of one message together. Reads by index: the cost does not depend on the queue's length."""

    def body(self, message: Message) -> bytes:
        """The whole body of a message without spool file. Raises BodyGone."""

    def open_body(self, message: Message) -> int:
        """A read-only descriptor of the spool file, the caller's to close. Raises BodyGone, SystemTrouble."""

    def failed(self, after: int = 0, limit: int = 100) -> list[Message]:
        """The next `limit` messages behind id `after`, in order, that want an `Ending`: some recipients failed, and no
        other is to be tried any more."""

    def failures(self, message: int, after: int = -1, limit: int = 100) -> list[Recipient]:
        """The next `limit` recipients of a message behind number `after`, in order, that failed."""

    def listing(self, after: int = 0, limit: int = 100) -> list[Entry]:
        """The next `limit` messages behind id `after`, in order, with all their recipients."""

    def show(self, message: int) -> Entry | None:
        """One message with all its recipients."""

    def retry(self, messages: Iterable[int], now: int) -> list[int]:
        """Make everything in these messages that waits or is held due now. Returns those it changed."""

    def hold(self, messages: Iterable[int], reason: bytes) -> list[int]:
        """Hold everything in these messages that waits. Returns those it changed."""

    def release(self, messages: Iterable[int], now: int) -> list[int]:
        """Make everything in these messages that is held due now. Returns those it changed."""

    def remove(self, messages: Iterable[int]) -> list[int]:
        """End these messages, whatever they wait for. Returns those that there were."""

    def close(self) -> None:
        """Let go of the queue. Harmless twice."""
