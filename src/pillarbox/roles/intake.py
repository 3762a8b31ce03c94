"""The queue role's front: drafts on their way in, until they are ready for the next commit.

The queue copies every body itself: blocks come over the link, and no other process holds a writable descriptor to
accepted mail.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from pillarbox.envelope import LONGEST, Envelope
from pillarbox.header import invoked
from pillarbox.queue.engine import KEY_OCTETS, Draft, SpoolFile
from pillarbox.roles.link import Frame, Link
from pillarbox.roles.process import affordable
from pillarbox.roles.verbs import Verb
from pillarbox.status import Failure, Refusal, Status, SystemTrouble

OPEN_DRAFTS = 10_000  # large ones under way at once, where this process may have so many descriptors
IN_MEMORY = 32 << 20  # octets of them all; what has no room there goes to a file before its own limit
STRANGERS_OCTETS = 1 << 30  # the largest message a program may bring
STRANGERS_DRAFTS = 4  # large ones under way at once of one program; ours bring one
STRANGERS_RECIPIENTS = 64 << 20  # octets of memory for the recipients of all drafts of programs that are under way
RECIPIENT_OVERHEAD = 64  # octets that an address takes beside its own
TOO_MANY = Refusal(Status(4, 3, 2), "too many messages at once, try again later")
NONSENSE = Refusal(Status(4, 3, 0), "no such draft")
TOO_LARGE = Refusal(Status(5, 3, 4), "sorry, that message is too large")
TOO_LONG = Refusal(Status(5, 1, 3), "envelope address too long")
UNPRINTABLE = Refusal(Status(5, 1, 3), "sorry, I can't accept addresses with control characters")
_MESSAGE = Verb.MESSAGE
_CONTROLS = bytes((*range(32), 127))


class Stranger(NamedTuple):
    """A program at the other end of a link, by the kernel's word. `who` stands behind "invoked" in its Received field:
    b"by uid 1000"."""

    uid: int
    pid: int
    who: bytes


@dataclass(slots=True)
class Waiting:
    """A draft to be in the next commit, and who is told."""

    link: Link
    tag: int
    draft: Draft
    file: SpoolFile | None

    def refuse(self, refusal: Refusal) -> None:
        """It was not committed: its spool file goes, and whoever waits is told."""
        if self.file is not None:
            self.file.discard()
        self.link.refuse(self.tag, refusal)


@dataclass(slots=True)
class _Open:
    """A large draft under way: in memory up to the spool limit, then in a spool file."""

    key: bytes
    recipients: list[bytes] = field(default_factory=list)
    blocks: list[bytes] = field(default_factory=list)
    size: int = 0
    counted: int = 0  # octets of it in Intake's count of what is in memory
    file: SpoolFile | None = None
    addressed: int = 0  # octets of its recipients in Intake's count of strangers' ones


class Intake:
    """Drafts of all links. `spool` begins a spool file; bodies over `limit` octets go there."""

    def __init__(self, spool: Callable[[], SpoolFile], limit: int) -> None:
        self._spool = spool
        self.limit = limit
        self._open: dict[tuple[Link, int], _Open] = {}
        self._in_memory = 0
        self._most = affordable(OPEN_DRAFTS, 2)  # as many again are on their way to be delivered
        self._addressed = 0
        self._strangers: dict[Link, Stranger] = {}
        self._mixed: dict[Link, bytes] = {}  # what goes ahead of the keys of those whom we do not take at their word
        self.waiting: list[Waiting] = []
        self._ids = (os.getuid(), os.getpid())

    def introduce(self, link: Link, stranger: Stranger) -> None:
        """The drafts of this link are a program's of our machine, until the link is lost. They are kept within bounds,
        begin with a Received field that says whose they are, and their addresses are looked at."""
        self._strangers[link] = stranger
        self._mixed[link] = b"injected by %d:" % stranger.uid

    def of_owner(self, link: Link, owner: bytes) -> None:
        """The drafts of this link are forwards of one owner's role; `owner` tells owners apart."""
        for closed in [known for known in self._mixed if known.fileno() < 0]:  # a link may be closed for being idle
            del self._mixed[closed]
        self._mixed[link] = b"forwarded by %s:" % owner

    def knows(self, link: Link) -> bool:
        """Is it told who is at this link, and not lost since? What comes behind the end of a program's or owner's link
        must never be taken for smtpd's."""
        return link in self._mixed

    def key(self, link: Link, key: bytes) -> bytes:
        """What a draft's key is in the queue. A stranger's and an owner's are mixed with who he is: keys of forwards
        can be foretold, and who could take one beforehand would make somebody else's forward look done."""
        who = self._mixed.get(link)
        return key if who is None else hashlib.sha256(who + key).digest()[:KEY_OCTETS]

    def take(self) -> list[Waiting]:
        """All drafts that are complete; they are the caller's now."""
        waiting, self.waiting = self.waiting, []
        return waiting

    def hear(self, link: Link, frame: Frame, now: int) -> None:
        """One frame of smtpd's: MESSAGE, START, BLOCK, RECIPIENTS, COMMIT or ABORT."""
        try:
            self._hear(link, frame, now)
        except Failure as failure:
            self._drop(link, frame.tag)
            link.refuse(frame.tag, failure.refusal)
        except OSError as problem:
            self._drop(link, frame.tag)
            link.refuse(frame.tag, SystemTrouble.of(problem).refusal)

    def _hear(self, link: Link, frame: Frame, now: int) -> None:
        verb, tag, fields, _descriptors = frame
        if verb is _MESSAGE:
            key, sender, body, *recipients = fields
            if len(key) == KEY_OCTETS:
                self._whole(link, tag, key, Envelope(sender, tuple(recipients)), body, now)
            else:
                link.refuse(tag, NONSENSE)
        elif verb is Verb.START:
            self._drop(link, tag)
            if self._has_enough(link) or len(fields[0]) != KEY_OCTETS:
                link.refuse(tag, TOO_MANY)
                return
            self._open[link, tag] = self._begin(link, fields[0], now)
        elif verb is Verb.BLOCK:
            self._block(link, tag, fields[0])
        elif verb is Verb.RECIPIENTS:
            self._recipients(link, tag, fields)
        elif verb is Verb.COMMIT:
            sender, *recipients = fields
            closed = self._close(link, tag)
            if closed is not None:
                envelope = Envelope(sender, (*closed.recipients, *recipients))
                body = b"".join(closed.blocks)
                draft = Draft(closed.key, envelope, now, *self._whose(link), closed.size, body)
                self._complete(link, tag, draft, closed.file)
            else:
                link.refuse(tag, NONSENSE)
        elif verb is Verb.ABORT:
            self._drop(link, tag)

    def _has_enough(self, link: Link) -> bool:
        """A program of anybody's must not take the places of everybody."""
        if link in self._strangers and sum(at[0] is link for at in self._open) >= STRANGERS_DRAFTS:
            return True
        return len(self._open) >= self._most

    def _whole(self, link: Link, tag: int, key: bytes, envelope: Envelope, body: bytes, now: int) -> None:
        file = None
        if link in self._mixed:
            key, body = self.key(link, key), self._trace(link, now) + body
        if len(body) > self.limit:
            file = self._spool()
            file.write(body)
        self._complete(link, tag, Draft(key, envelope, now, *self._whose(link), len(body), body), file)

    def _begin(self, link: Link, key: bytes, now: int) -> _Open:
        trace = self._trace(link, now)
        return _Open(self.key(link, key), [], [trace], len(trace))

    def _trace(self, link: Link, now: int) -> bytes:
        """What goes ahead of the message of a program."""
        stranger = self._strangers.get(link)
        return b"" if stranger is None else invoked(stranger.pid, stranger.who, now)

    def _recipients(self, link: Link, tag: int, recipients: Sequence[bytes]) -> None:
        opened = self._open.get((link, tag))
        if opened is None:
            return
        opened.recipients += recipients
        if link in self._strangers:
            octets = sum(map(len, recipients)) + RECIPIENT_OVERHEAD * len(recipients)
            opened.addressed += octets
            self._addressed += octets
            if self._addressed > STRANGERS_RECIPIENTS:
                self._drop(link, tag)
                link.refuse(tag, TOO_MANY)

    def _block(self, link: Link, tag: int, block: bytes) -> None:
        opened = self._open.get((link, tag))
        if opened is None:
            return  # refused before; blocks that were on their way are thrown away
        opened.size += len(block)
        if opened.size > STRANGERS_OCTETS and link in self._strangers:
            self._drop(link, tag)
            link.refuse(tag, TOO_LARGE)
            return
        if opened.file is not None:
            opened.file.write(block)
        else:
            opened.blocks.append(block)
            opened.counted += len(block)
            self._in_memory += len(block)
            if opened.size > self.limit or self._in_memory > IN_MEMORY:
                self._to_file(opened)
        link.send(Verb.TAKEN, tag, b"%d" % len(block))

    def _to_file(self, opened: _Open) -> None:
        self._discount(opened)
        opened.file = self._spool()
        for block in opened.blocks:
            opened.file.write(block)
        opened.blocks = []

    def _complete(self, link: Link, tag: int, draft: Draft, file: SpoolFile | None) -> None:
        """The message is whole, in the draft or in `file`."""
        if (wrong := _wrong(draft.envelope)) is not None:
            if file is not None:
                file.discard()
            link.refuse(tag, wrong)
            return
        if file is not None:
            try:
                file.sync()
            except (Failure, OSError):
                file.discard()
                raise
            draft = draft._replace(body=None, spool=file.name)
        self.waiting.append(Waiting(link, tag, draft, file))

    def _whose(self, link: Link) -> tuple[int, int]:
        """Who says so, for the log: user and process."""
        stranger = self._strangers.get(link) if self._strangers else None
        return stranger[:2] if stranger else self._ids

    def _close(self, link: Link, tag: int) -> _Open | None:
        opened = self._open.pop((link, tag), None)
        if opened is not None:
            self._discount(opened)
        return opened

    def _discount(self, opened: _Open) -> None:
        self._in_memory -= opened.counted
        opened.counted = 0
        self._addressed -= opened.addressed
        opened.addressed = 0

    def _drop(self, link: Link, tag: int) -> None:
        opened = self._close(link, tag)
        if opened is not None and opened.file is not None:
            opened.file.discard()

    def lost(self, link: Link) -> None:
        """Who brought these drafts is gone: its unfinished drafts go too. Complete ones are committed: it may have told
        nobody, but their senders will ask again by key."""
        for opened_link, tag in [at for at in self._open if at[0] is link]:
            self._drop(opened_link, tag)
        self._strangers.pop(link, None)
        self._mixed.pop(link, None)


def _wrong(envelope: Envelope) -> Refusal | None:
    """Why an envelope cannot be queued."""
    addresses = (envelope.sender, *envelope.recipients)
    octets = b"".join(addresses)
    if len(octets.translate(None, _CONTROLS)) != len(octets):
        return UNPRINTABLE  # they come into header fields, SMTP and logs; a dot-qmail file may hold anything
    return TOO_LONG if len(octets) > LONGEST and max(map(len, addresses)) > LONGEST else None
