"""smtpd's side of the queue: small messages go in one frame, others in blocks with credit, and a commit whose
outcome got lost is asked for again by the draft's key when the queue is back."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from functools import partial
from typing import Any

from pillarbox.envelope import Envelope
from pillarbox.queue.engine import KEY_OCTETS
from pillarbox.roles.conversation import PENDING
from pillarbox.roles.link import Frame, Link, refusal
from pillarbox.roles.looplink import Answer, Questions
from pillarbox.roles.verbs import Verb
from pillarbox.sessions.effects import Committed
from pillarbox.status import Refusal, Status

BLOCK = 64 << 10  # octets in one frame
RECIPIENTS_AT_ONCE = 1000  # in one frame: with the longest addresses they fit in beside a small body
CREDIT = 256 << 10  # octets of blocks on their way before the queue must say TAKEN
LOST_PATIENCE = 30.0  # seconds until a commit of unknown outcome is answered 451
AWAY = Refusal(Status(4, 3, 0), "queue not available, try again later")

# Under Python 3.11 a member of an enumeration is looked up by a slow way each time.
_MESSAGE, _COMMITTED = Verb.MESSAGE, Verb.COMMITTED

Done = Callable[[Any], None]


class QueueLink:
    """The queue as the drafts of this process see it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.questions = Questions(unasked=self._said)
        self._refuses: Refusal | None = AWAY
        self._unknown: dict[bytes, Done] = {}

    def attach(self, link: Link) -> None:
        """A new queue role is there: ask it about every commit whose outcome is unknown."""
        self.questions.attach(self._loop, link)
        self._refuses = None
        for key, done in list(self._unknown.items()):
            self.questions.ask(self._recalled(key, done), Verb.ASK, key)

    @property
    def refuses(self) -> Refusal | None:
        """Why no draft can be opened now; None when it can."""
        return AWAY if self.questions.link is None else self._refuses

    def _said(self, frame: Frame) -> None:
        if frame.verb is Verb.ACCEPTING:
            self._refuses = refusal(frame.fields) if frame.fields else None

    def answered(self, key: bytes, done: Done, frame: Frame | None) -> None:
        """What the queue says of the commit with this key: `done` gets Committed or a Refusal. When it went away with
        the commit, that is when it is back."""
        if frame is None:
            self._unknown[key] = done
            self._loop.call_later(LOST_PATIENCE, self._settle, key, AWAY)
        elif frame.verb is _COMMITTED:
            done(Committed(frame.fields[0]))
        elif frame.verb is Verb.TAKEN:
            self.questions.expect(frame.tag, partial(self.answered, key, done))
        else:
            done(refusal(frame.fields))

    def _recalled(self, key: bytes, done: Done) -> Callable[[Frame | None], None]:
        def answered(frame: Frame | None) -> None:
            if frame is not None:  # else it went away again: the key stays, the next one is asked
                self._settle(key, Committed(frame.fields[0]) if frame.verb is _COMMITTED else AWAY)

        return answered

    def _settle(self, key: bytes, result: Any) -> None:
        done = self._unknown.pop(key, None)
        if done is not None:
            done(result)


class Draft:
    """A message that is being taken. `resumer` gives what takes a result that had to wait."""

    __slots__ = ("_credit", "_gone", "_key", "_queue", "_resumer", "_tag", "_waiting")

    def __init__(self, queue: QueueLink, resumer: Callable[[], Done]) -> None:
        self._queue, self._resumer = queue, resumer
        self._key = os.urandom(KEY_OCTETS)
        self._tag = 0  # not 0: the queue knows of it
        self._credit = CREDIT
        self._gone: Refusal | None = None
        self._waiting: Done | None = None

    def write(self, block: bytes) -> Any:
        """Append; PENDING when the queue has to catch up."""
        if self._gone is not None:
            return self._gone
        self._send(block)
        if self._credit > 0:
            return None
        self._waiting = self._resumer()
        return PENDING

    def _send(self, octets: bytes) -> None:
        questions = self._queue.questions
        if not self._tag:
            self._tag = questions.tag()
            questions.expect(self._tag, self._heard)
            questions.say(self._tag, Verb.START, self._key)
        self._credit -= len(octets)
        for start in range(0, len(octets), BLOCK):
            questions.say(self._tag, Verb.BLOCK, octets[start : start + BLOCK])

    def _heard(self, frame: Frame | None) -> None:
        """Of a large draft that is not yet to be committed: credit, or its end."""
        if frame is not None and frame.verb is Verb.TAKEN:
            self._credit += int(frame.fields[0])
            self._queue.questions.expect(frame.tag, self._heard)
        else:
            self._gone = AWAY if frame is None else refusal(frame.fields)
        if self._waiting is not None and (self._gone or self._credit > 0):
            resume, self._waiting = self._waiting, None
            resume(self._gone)

    def commit(self, envelope: Envelope, rest: bytes) -> Any:
        """Append the rest and wait for the queue's word."""
        if self._gone is not None:
            return self._gone
        sender, recipients = envelope
        answered = partial(self._queue.answered, self._key, self._resumer())
        if self._tag or len(recipients) > RECIPIENTS_AT_ONCE:
            self._send(rest)
            self._say_envelope(sender, recipients, answered)
        else:
            self._queue.questions.ask(answered, _MESSAGE, self._key, sender, rest, *recipients)
        return PENDING

    def _say_envelope(self, sender: bytes, recipients: tuple[bytes, ...], answered: Answer) -> None:
        questions, tag = self._queue.questions, self._tag
        self._tag = 0
        questions.expect(tag, answered)
        while len(recipients) > RECIPIENTS_AT_ONCE:
            questions.say(tag, Verb.RECIPIENTS, *recipients[:RECIPIENTS_AT_ONCE])
            recipients = recipients[RECIPIENTS_AT_ONCE:]
        questions.say(tag, Verb.COMMIT, sender, *recipients)

    def abort(self) -> None:
        """Forget an uncommitted draft. A commit under way is not touched: it may have happened."""
        if self._tag:
            self._queue.questions.forget(self._tag)
            self._queue.questions.say(self._tag, Verb.ABORT)
            self._tag = 0
        self._waiting = None
