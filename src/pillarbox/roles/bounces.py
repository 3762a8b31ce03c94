"""The queue role's bounces: the endings of messages that failed, made ready for the next commit.

A message that failed stays in the queue until its bounce is committed, in the transaction that ends it. So nothing here
needs to be remembered: what a crash or a full disk keeps from being written is found in the queue again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from hashlib import sha256
from typing import NamedTuple

from pillarbox.control.table import Settings
from pillarbox.queue.bounce import LOST, STRIPPED, Bounce, Discarded, bounce, paragraph
from pillarbox.queue.engine import (
    KEY_OCTETS,
    BodyGone,
    Draft,
    Ending,
    Engine,
    Message,
    QueueBroken,
    Recipient,
    SpoolFile,
)
from pillarbox.roles.log import Log
from pillarbox.status import Failure, SystemTrouble

AT_ONCE = 64  # bounces in one commit
OCTETS_AT_ONCE = 1 << 20  # of them; what is larger goes alone
BLOCK = 256 << 10  # octets
FULL_PAUSE = 1.0  # seconds until bounces that had no room are tried again
TROUBLE_PAUSE = 123.0  # seconds until one that could not be made is: qmail-send's pause after trouble with a message
MOST_IN_TROUBLE = 100


class Prepared(NamedTuple):
    """An ending for the next commit, the spool file of its bounce if it has one, and why there is none."""

    ending: Ending
    file: SpoolFile | None
    discarded: Discarded | None


class Bounces:
    """All of it. `shown` says how people know a recipient. `due` is when there will be something to `take` without
    anybody saying more, or None."""

    def __init__(self, engine: Engine, settings: Settings, shown: Callable[[bytes], bytes], log: Log) -> None:
        self._engine, self.settings, self._shown, self._log = engine, settings, shown, log
        self._in_trouble: set[int] = set()
        self._trouble_until = 0.0
        self._full_until = 0.0
        self.due: float | None = 0.0 if engine.failed(limit=1) else None

    def are_due(self, now: float) -> bool:
        """Is there something to take?"""
        return self.due is not None and self.due <= now

    def shift(self, step: float) -> None:
        """The clock was set by `step` seconds: pauses are as long as they were."""
        self.due = self.due and self.due + step
        self._trouble_until = self._trouble_until and self._trouble_until + step
        self._full_until = self._full_until and self._full_until + step

    def wanted(self, messages: Collection[int]) -> None:
        """These messages may want an ending."""
        if messages:
            self.due = self._full_until

    def take(self, now: float) -> list[Prepared]:
        """What the next commit shall hold. Follow with `committed` or `refused`."""
        if not self.are_due(now):
            return []
        if self._trouble_until <= now:
            self._in_trouble.clear()
        limit = AT_ONCE + len(self._in_trouble)
        found = self._engine.failed(limit=limit)
        prepared: list[Prepared] = []
        octets = 0
        for message in found:
            if message.id in self._in_trouble:
                continue
            one = self._attempt(message, now)
            if one is None:
                continue
            prepared.append(one)
            octets += one.ending.bounce.size if one.ending.bounce is not None else 0
            if octets >= OCTETS_AT_ONCE:
                break
        self.due = 0.0 if octets >= OCTETS_AT_ONCE or len(found) == limit else None
        self._rest(now)
        return prepared

    def committed(self, prepared: Sequence[Prepared], numbers: Sequence[int]) -> None:
        """The endings are in the queue, their bounces under these numbers; 0: there is none."""
        for one, number in zip(prepared, numbers, strict=True):
            message = one.ending.message
            if number and one.ending.bounce is not None:
                self._log.fact(
                    f"bounce msg {message} qp {one.ending.bounce.pid}",
                    "bounce", msg=message, qp=one.ending.bounce.pid, bounce=number,
                )  # fmt: skip
            elif one.discarded is not None:
                self._log.fact(f"{one.discarded.value} bounce/{message}", "discarded-bounce", msg=message)
            if not number and one.file is not None:
                one.file.discard()  # somebody removed the message meanwhile

    def refused(self, prepared: Sequence[Prepared], now: float) -> None:
        """There was no room for the commit."""
        for one in prepared:
            if one.file is not None:
                one.file.discard()
        self.due = self._full_until = now + FULL_PAUSE

    def _rest(self, now: float) -> None:
        """Come back to what is in trouble, and to the others at once unless there are too many of those."""
        if not self._in_trouble:
            return
        if self._trouble_until <= now:
            self._trouble_until = now + TROUBLE_PAUSE
        if len(self._in_trouble) >= MOST_IN_TROUBLE:
            self.due = self._full_until = self._trouble_until
        elif self.due is None:
            self.due = self._trouble_until

    def _attempt(self, message: Message, now: float) -> Prepared | None:
        """One message's ending; None when that must wait."""
        try:
            return self._prepare(message, now)
        except QueueBroken:
            raise
        except Failure as failure:
            self._in_trouble.add(message.id)
            self._log.fact(
                f"warning: trouble injecting bounce message, will try later: msg {message.id}: {failure.text}",
                "bounce-trouble", msg=message.id, why=failure.text,
            )  # fmt: skip
            return None

    def _prepare(self, message: Message, now: float) -> Prepared:
        answer = bounce(message.sender, self.settings)
        if isinstance(answer, Discarded):
            return Prepared(Ending(message.id, None), None, answer)
        body = _Body(self._engine.spool, self.settings.spoolsize)
        try:
            self._write(body, message, answer, int(now))
            body.finish()
        except OSError as problem:
            body.discard()
            raise SystemTrouble.of(problem) from problem
        except Failure:
            body.discard()
            raise
        # Made from the message, so that it can be told; it is the end of the message that keeps it from being doubled.
        key = sha256(b"bounce %s %d" % (message.incarnation, message.id)).digest()[:KEY_OCTETS]
        octets, name = (body.octets, None) if body.file is None else (None, body.file.name)
        draft = Draft(key, answer.envelope, int(now), os.getuid(), os.getpid(), body.size, octets, name)
        return Prepared(Ending(message.id, draft), body.file, None)

    def _write(self, body: _Body, message: Message, answer: Bounce, now: int) -> None:
        body.write(answer.opening(os.getpid(), now))
        for recipient in self._failures(message.id):
            body.write(paragraph(self._shown(recipient.address), recipient.reason))
        body.write(answer.closing())
        try:
            descriptor = self._engine.open_body(message) if message.spool else -1
            octets = b"" if message.spool else self._engine.body(message)
        except BodyGone:
            body.write(LOST)
            return
        limit = self.settings.bouncesize or message.size
        if descriptor < 0:
            body.write(octets[:limit])
        else:
            _copy(descriptor, limit, body)
        if limit < message.size:
            body.write(STRIPPED)

    def _failures(self, message: int) -> Iterator[Recipient]:
        page = self._engine.failures(message)
        while page:
            yield from page
            page = self._engine.failures(message, page[-1].number)


class _Body:
    """A bounce being written: in memory up to `limit` octets, then in a spool file."""

    def __init__(self, spool: Callable[[], SpoolFile], limit: int) -> None:
        self._spool, self._limit = spool, limit
        self.octets = bytearray()
        self.size = 0
        self.file: SpoolFile | None = None

    def write(self, block: bytes) -> None:
        """Append. Raises QueueFull, SystemTrouble."""
        self.size += len(block)
        if self.file is None and self.size > self._limit:
            self.file = self._spool()
            self.file.write(self.octets)
            self.octets = bytearray()
        if self.file is None:
            self.octets += block
        else:
            self.file.write(block)

    def finish(self) -> None:
        """It is whole: a file is made durable. Raises QueueFull, SystemTrouble."""
        if self.file is not None:
            self.file.sync()

    def discard(self) -> None:
        """It will not be committed."""
        if self.file is not None:
            self.file.discard()


def _copy(descriptor: int, octets: int, body: _Body) -> None:
    """So many octets of a file, which is closed then. Raises OSError, QueueFull, SystemTrouble."""
    with open(descriptor, "rb", buffering=0) as file:
        while octets > 0 and (block := file.read(min(BLOCK, octets))):
            body.write(block)
            octets -= len(block)
