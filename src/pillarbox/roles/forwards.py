"""An owner role's forwards on their way into the queue, over the link on which their jobs came.

Each is a draft as smtpd's are. A job that may have been carried out before asks first whether its forward is there: the
key says, so a crash between the two commits makes no second copy. When the link is lost nothing is kept: the next
queue role hands the jobs out again, as repeated ones.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from pillarbox.delivery.forward import received
from pillarbox.delivery.job import Forwarding
from pillarbox.outcome import Outcome
from pillarbox.roles.link import LARGEST_TAG, Frame, Link, LinkLost, refusal
from pillarbox.roles.verbs import Verb
from pillarbox.status import Refusal, SystemTrouble

BLOCK = 64 << 10  # octets
CREDIT = 256 << 10  # octets of blocks on their way before the queue must say TAKEN
RECIPIENTS_AT_ONCE = 1000  # in one frame: with the longest addresses they fit in beside a body of 1 MiB


@dataclass(slots=True)
class _Draft:
    """One forward under way. `offset`: octets of the content that are sent."""

    step: Forwarding
    delivery: int
    content: bytes | int
    head: bytes
    offset: int = 0
    asking: bool = False
    sent: bool = False
    credit: int = CREDIT


class Forwards:
    """All forwards of one role."""

    def __init__(self) -> None:
        self._drafts: dict[tuple[Link, int], _Draft] = {}
        self._tag = 0

    @property
    def busy(self) -> bool:
        """Some are under way."""
        return bool(self._drafts)

    def begin(self, link: Link, delivery: int, step: Forwarding, now: int) -> Outcome | None:
        """Take a forward on for the delivery with this tag; an outcome when it failed at once. The content is the
        caller's still."""
        content = step.job.content
        try:
            content = os.dup(content) if isinstance(content, int) else content
        except OSError as problem:
            return _unable(SystemTrouble.of(problem).refusal)
        self._tag = self._tag % LARGEST_TAG + 1
        draft = _Draft(step, delivery, content, received(step.owner, os.getpid(), now) + step.delivered_to)
        self._drafts[link, self._tag] = draft
        if step.job.again:
            draft.asking = True
            link.send(Verb.ASK, self._tag, step.key)
            return None
        outcome = self._send(link, self._tag, draft)
        if outcome is not None:
            self._forget(link, self._tag)
        return outcome

    def heard(self, link: Link, frame: Frame) -> tuple[int, Outcome] | None:
        """What the queue says of a draft; the delivery's tag and outcome, when it is decided. Raises LinkLost when it
        is nonsense."""
        draft = self._drafts.get((link, frame.tag))
        if draft is None:
            return None  # of one that was given up
        outcome: Outcome | None
        if frame.verb is Verb.COMMITTED:
            outcome = Outcome.done(b"%sqp %s\n" % (draft.step.report, frame.fields[0]))
        elif frame.verb is Verb.REFUSED and not draft.asking:
            outcome = _unable(refusal(frame.fields))
        elif frame.verb is Verb.TAKEN:
            draft.credit += _number(frame.fields[0])
            outcome = self._stream(link, frame.tag, draft)
        else:
            draft.asking = False
            outcome = self._send(link, frame.tag, draft)
        if outcome is None:
            return None
        self._forget(link, frame.tag)
        return draft.delivery, outcome

    def lost(self, link: Link) -> None:
        """That link is gone."""
        for where in [where for where in self._drafts if where[0] is link]:
            self._forget(*where)

    def _forget(self, link: Link, tag: int) -> None:
        draft = self._drafts.pop((link, tag), None)
        if draft is not None and isinstance(draft.content, int):
            os.close(draft.content)

    def _send(self, link: Link, tag: int, draft: _Draft) -> Outcome | None:
        step = draft.step
        if isinstance(draft.content, bytes) and len(step.recipients) <= RECIPIENTS_AT_ONCE:
            link.send(Verb.MESSAGE, tag, step.key, step.sender, draft.head + draft.content, *step.recipients)
            return None
        link.send(Verb.START, tag, step.key)
        link.send(Verb.BLOCK, tag, draft.head)
        draft.credit -= len(draft.head)
        return self._stream(link, tag, draft)

    def _stream(self, link: Link, tag: int, draft: _Draft) -> Outcome | None:
        """As much of the content as the queue gives credit for; behind the last of it the envelope."""
        if draft.sent:
            return None
        while draft.credit > 0:
            try:
                block = _block(draft.content, draft.offset)
            except OSError as problem:
                link.send(Verb.ABORT, tag)
                return _unable(SystemTrouble.of(problem).refusal)
            if not block:
                return self._commit(link, tag, draft)
            link.send(Verb.BLOCK, tag, block)
            draft.offset += len(block)
            draft.credit -= len(block)
        return None

    def _commit(self, link: Link, tag: int, draft: _Draft) -> Outcome | None:
        step = draft.step
        if draft.offset != step.job.size:
            link.send(Verb.ABORT, tag)
            return Outcome.later(b"Unable to read message. (#4.3.0)\n")
        left = step.recipients
        while len(left) > RECIPIENTS_AT_ONCE:
            link.send(Verb.RECIPIENTS, tag, *left[:RECIPIENTS_AT_ONCE])
            left = left[RECIPIENTS_AT_ONCE:]
        link.send(Verb.COMMIT, tag, step.sender, *left)
        draft.sent = True
        return None


def _block(content: bytes | int, offset: int) -> bytes:
    return os.pread(content, BLOCK, offset) if isinstance(content, int) else content[offset : offset + BLOCK]


def _number(field: bytes) -> int:
    if not field.isdigit() or len(field) > 9:
        raise LinkLost("not a number")
    return int(field)


def _unable(why: Refusal) -> Outcome:
    report = b"Unable to forward message: %s.\n" % why.text.encode("ascii", "replace")
    return Outcome.never(report, why.status) if why.permanent else Outcome.later(report, why.status)
