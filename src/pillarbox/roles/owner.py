"""The owner role: one user's deliveries, dot-qmail files and maildrops, and nobody else's. It ends when no other role
has a link to it any more.

Deliveries are gathered so that one sync serves many; what programs and mbox files have to do is carried out beside them
(errands), and forwards go back into the queue. A maildrop is served to pop3d over a socket of its own: whoever
holds the other end may use that one mailbox and can name no other.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import groupby
from operator import itemgetter

from pillarbox.auth import extension
from pillarbox.delivery.aliases import Table
from pillarbox.delivery.job import Errand, Job
from pillarbox.delivery.local import Deliveries, Step
from pillarbox.mailbox.maildrop import Maildrop
from pillarbox.outcome import Outcome, Verdict
from pillarbox.roles.errands import Errands
from pillarbox.roles.forwards import Forwards
from pillarbox.roles.house import House
from pillarbox.roles.link import Frame, Link, LinkLost
from pillarbox.roles.log import Log, safe
from pillarbox.roles.places import Places
from pillarbox.roles.process import affordable
from pillarbox.roles.rounds import Rounds
from pillarbox.roles.verbs import MAY_SAY, Verb
from pillarbox.routing import shown_local
from pillarbox.scan import ScanListing
from pillarbox.status import Failure, Refusal, Status, SystemTrouble
from pillarbox.users.owner import Owners

# Under Python 3.11 a member of an enumeration is looked up by a slow way each time.
_DELIVER, _OUTCOME = Verb.DELIVER, Verb.OUTCOME

BATCH_MESSAGES = 64
BATCH_OCTETS = 1 << 20
SYNC_INTERVAL = 0.030  # seconds from one batch to the next that is not full: a lone message never waits
LISTINGS_AT_ONCE = 2000  # in one frame
MAILDROPS = 1000  # open at once, where this process may have so many descriptors
MAILDROP_DESCRIPTORS = 5  # of each: its socket, three directories, and a message or the lock
DELIVERY_DESCRIPTORS = 400  # for the Maildirs and bodies of a batch
PASSED_ON = (b"TZ", b"LANG")  # of our environment to programs
DEFAULT_PATH = b"/usr/local/bin:/usr/bin:/bin"
LONELY_TIME = 2.0  # seconds without links to other roles until we end
NOT_MINE = Refusal(Status(4, 3, 5), "that mailbox is not this owner's")
NO_MESSAGE = Refusal(Status(5, 1, 2), "no such message")
TOO_MANY = Refusal(Status(4, 3, 2), "too many mailboxes in use, try again later")


@dataclass(slots=True)
class _Batch:
    """Deliveries gathered so far, each with whom to tell."""

    jobs: list[Job] = field(default_factory=list)
    asked: list[tuple[Link, int]] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)
    shown: dict[tuple[bytes, bytes], bytes] = field(default_factory=dict)
    octets: int = 0
    due: float = 0.0


class Owner:
    """All that one owner's role does in a round."""

    def __init__(self, house: House, control: socket.socket) -> None:
        self._house = house
        self._rounds = Rounds("owner", control)
        self._log = Log("owner", house.settings.logformat == "json")
        self._batch = _Batch()
        self._begun = -SYNC_INTERVAL  # when the last batch was
        self._maildrops: dict[Link, tuple[str, Maildrop | None]] = {}
        self._left, self._last_wanted = False, time.monotonic()
        self._most = affordable(MAILDROPS, MAILDROP_DESCRIPTORS, DELIVERY_DESCRIPTORS)
        self._forwards = Forwards()
        self._places = Places(house.places, house.settings.concurrencylocal)
        variables = _variables(os.fsencode(house.home))
        self.errands = Errands(self._rounds, self._log, house.settings.me, variables, self._places)
        self._reload()

    def _reload(self) -> None:
        settings = self._house.settings
        self._owners = Owners(self._house.home, alias=self._house.alias)
        aliases = Table(self._house.home / settings.aliases)
        self._deliveries = Deliveries(self._owners, settings.defaultdelivery, settings.me, os.getuid(), aliases)
        self.errands.host = settings.me
        self._places.count = settings.concurrencylocal

    def _shown(self, local: bytes, domain: bytes) -> bytes:
        """The address that Delivered-To shows, looked up once a batch."""
        shown = self._batch.shown.get((local, domain))
        if shown is None:
            shown = self._batch.shown[local, domain] = self._find_shown(local, domain)
        return shown

    def _find_shown(self, local: bytes, domain: bytes) -> bytes:
        try:
            home = self._owners.for_delivery(local).home
        except Failure:
            return local + b"@" + domain  # the delivery meets the same trouble and tells it
        settings = self._house.settings
        return shown_local(local, domain, home, os.fsencode(self._house.home), settings) + b"@" + domain

    def run(self) -> None:
        """Serve until nobody is there to want anything, or we were told to stop and no queue hands out more; all that
        was begun is done then."""
        self._rounds.ready()
        while not self._finished():
            heard = self._rounds.wait(self._patience())
            for peer, link, frame in heard:
                if frame is None:
                    self._lost(peer, link)
                else:
                    self._attend(peer, link, frame)
            self._deliver_when_due()
            for link, delivery, step in self.errands.tend(time.monotonic()):
                _tell([(link, delivery, self._go_on(link, delivery, step))])
            self._look_lonely(bool(heard))
            self._rounds.flush()
            self._log.flush()

    def _finished(self) -> bool:
        return self._idle() and (self._left or (self._rounds.draining and not self._rounds.links("queue")))

    def _idle(self) -> bool:
        return not (self._batch.jobs or self.errands.busy or self._forwards.busy)

    def _patience(self) -> float | None:
        """Seconds until something is to be done unasked. One whom nobody wants any more waits a moment for company:
        spawn may have just given away a link to us."""
        now = time.monotonic()
        times = [] if self._wanted() else [LONELY_TIME]
        if self._batch.jobs:
            times.append(max(0.0, self._batch.due - now))
        if (patience := self.errands.patience(now)) is not None:
            times.append(patience)
        return min(times, default=None)

    def _wanted(self) -> bool:
        return bool(self._maildrops) or any(map(self._rounds.links, ("queue", "auth", "users")))

    def _look_lonely(self, heard: bool) -> None:
        now = time.monotonic()
        if heard or self._wanted() or not self._idle():
            self._last_wanted = now
        self._left = now - self._last_wanted >= LONELY_TIME

    def _attend(self, peer: str, link: Link, frame: Frame) -> None:
        if frame.verb is _DELIVER:
            self._gather(link, frame)
        elif frame.verb is Verb.PING:
            link.send(Verb.PONG, frame.tag)
        elif peer == "queue":
            self._heard_of_forward(link, frame)
        elif frame.verb is Verb.DRAIN:
            self.errands.drain(time.monotonic(), self._house.settings.draintime)
        elif peer == "maildrop":
            self._attend_maildrop(link, frame)
        elif frame.verb is Verb.MAILDROP:
            self._hand_maildrop(frame)
        elif frame.verb is Verb.PASSWD:
            self._passwd(link, frame)
        elif frame.verb is Verb.EXISTS:
            self._exists(link, frame)
        elif frame.verb is Verb.RELOAD:
            self._house.reread()
            self._reload()

    # deliveries

    def _gather(self, link: Link, frame: Frame) -> None:
        message, incarnation, born, again, size, sender, body, *rest = frame.fields
        content: bytes | int = body
        if frame.descriptors:
            content = frame.descriptors[0]
            self._batch.descriptors.append(content)
        if not self._batch.jobs:
            self._batch.due = self._begun + SYNC_INTERVAL
        identity, birth, octets, repeated = int(message), int(born), int(size), again == b"1"
        for tag, number, local, domain in zip(*[iter(rest)] * 4, strict=True):
            shown = self._shown(local, domain)
            self._batch.jobs.append(
                Job(identity, incarnation, int(number), birth, repeated, sender, local, domain, shown, content, octets)
            )
            self._batch.asked.append((link, int(tag)))
            self._batch.octets += octets

    def _deliver_when_due(self) -> None:
        batch = self._batch
        full = len(batch.jobs) >= BATCH_MESSAGES or batch.octets >= BATCH_OCTETS
        if not batch.jobs or not (full or self._rounds.draining or time.monotonic() >= batch.due):
            return
        self._batch, self._begun = _Batch(), time.monotonic()
        for start in range(0, len(batch.jobs), BATCH_MESSAGES):
            steps = self._deliveries.deliver(batch.jobs[start : start + BATCH_MESSAGES])
            asked = batch.asked[start : start + BATCH_MESSAGES]
            _tell([(*whom, self._go_on(*whom, step)) for whom, step in zip(asked, steps, strict=True)])
            self._rounds.flush()
        for descriptor in batch.descriptors:
            os.close(descriptor)

    def _go_on(self, link: Link, delivery: int, step: Step) -> Outcome | None:
        """What comes next for a delivery: its outcome, for the queue, or the rest of it is begun."""
        if isinstance(step, Outcome):
            return step
        if isinstance(step, Errand):
            self.errands.take(step, link, delivery, time.monotonic())
            return None
        return self._forwards.begin(link, delivery, step, int(time.time()))

    def _heard_of_forward(self, link: Link, frame: Frame) -> None:
        try:
            decided = self._forwards.heard(link, frame)
        except LinkLost:
            self._rounds.cut(link)
            self._lost("queue", link)
            return
        if decided is not None:
            _tell([(link, *decided)])

    # maildrops

    def _hand_maildrop(self, frame: Frame) -> None:
        """auth says that the holder of the other end of this socket may use this maildrop."""
        link = Link(socket.socket(fileno=frame.descriptors[0]), MAY_SAY[("pop3d", "maildrop")])
        try:
            directory = self._mailbox(*frame.fields)
            if len(self._maildrops) >= self._most:
                raise Failure(TOO_MANY.text, TOO_MANY.status)
        except Failure as failure:
            link.refuse(0, failure.refusal)
            with suppress(LinkLost):  # the client left meanwhile
                link.flush()
            link.close()
            return
        self._maildrops[link] = (directory, None)
        self._rounds.add("maildrop", link)

    def _mailbox(self, login: bytes, ext: bytes) -> str:
        """The Maildir that a login means, if it is this owner's. Raises Failure."""
        owner = self._owners.for_login(login)
        mine = owner is not None and (owner.uid, owner.gid) == (os.getuid(), os.getgid())
        if owner is None or not mine or (ext and not extension.allowed(ext)):
            raise Failure(NOT_MINE.text, NOT_MINE.status)
        base = owner.home + b"/Maildir"
        return os.fsdecode(extension.maildir(base, ext) if ext else base)

    def _attend_maildrop(self, link: Link, frame: Frame) -> None:
        if link not in self._maildrops:
            return
        directory, maildrop = self._maildrops[link]
        try:
            if frame.verb is Verb.OPEN and maildrop is None:
                maildrop = Maildrop.open(directory, time.time())
                self._maildrops[link] = (directory, maildrop)
                _list(link, frame.tag, maildrop.listings)
            elif frame.verb is Verb.FETCH and maildrop is not None:
                self._fetch(link, frame, maildrop)
            elif frame.verb is Verb.UPDATE and maildrop is not None:
                maildrop.update(list(map(_number, frame.fields)))
                link.send(Verb.UPDATED, frame.tag)
            else:
                link.refuse(frame.tag, NO_MESSAGE)
        except LinkLost:
            self._rounds.cut(link)
            self._lost("maildrop", link)
        except Failure as failure:
            link.refuse(frame.tag, failure.refusal)
        except OSError as problem:
            link.refuse(frame.tag, SystemTrouble.of(problem).refusal)

    def _fetch(self, link: Link, frame: Frame, maildrop: Maildrop) -> None:
        number = _number(frame.fields[0])
        if 1 <= number <= len(maildrop.listings):
            link.send(Verb.CONTENT, frame.tag, descriptors=[maildrop.content(number)])
        else:
            link.refuse(frame.tag, NO_MESSAGE)

    def _lost(self, peer: str, link: Link) -> None:
        if peer == "queue":
            # The next queue role hands these out again; the same message twice in a batch would meet itself.
            batch = self._batch
            kept = [index for index, (asker, _tag) in enumerate(batch.asked) if asker is not link]
            batch.jobs = [batch.jobs[index] for index in kept]
            batch.asked = [batch.asked[index] for index in kept]
            self._forwards.lost(link)
            self.errands.lost(link)
            return
        _directory_name, maildrop = self._maildrops.pop(link, ("", None))
        if maildrop is not None:
            maildrop.close()

    # mailboxes with a password of their own

    def _passwd(self, link: Link, frame: Frame) -> None:
        try:
            link.send(Verb.HASH, frame.tag, self._hash_in(self._mailbox(*frame.fields)) or b"")
        except Failure as failure:
            link.refuse(frame.tag, failure.refusal)
        except OSError as problem:
            link.refuse(frame.tag, SystemTrouble.of(problem).refusal)

    def _hash_in(self, directory: str) -> bytes | None:
        try:
            return extension.read(os.fsencode(directory))
        except extension.UnusablePasswd as failure:
            file = safe(os.fsencode(directory) + b"/" + extension.PASSWD)
            self._log.say(f"owner: warning: {file}: {failure.text}", "warning", file=file, why=failure.text)
            return None

    # who exists

    def _exists(self, link: Link, frame: Frame) -> None:
        """users asks for control/rcptcheck=owner: would mail to this local part find a mailbox?"""
        try:
            refusal = self._deliveries.refused(frame.fields[0])
        except Failure as failure:
            refusal = failure.refusal
        if refusal is None:
            link.send(Verb.KNOWN, frame.tag)
        else:
            link.refuse(frame.tag, refusal)


def _tell(ended: Iterable[tuple[Link, int, Outcome | None]]) -> None:
    """Deliveries and what became of them, None of one under way: those in a row with the same outcome in one frame."""
    for (link, outcome), some in groupby(ended, itemgetter(0, 2)):
        if outcome is not None:
            first, *more = [delivery for _link, delivery, _outcome in some]
            others = (b"", *[b"%d" % delivery for delivery in more]) if more else ()
            link.send(_OUTCOME, first, *_spelled(outcome.verdict, outcome.status), outcome.report, *others)


@lru_cache(maxsize=100)
def _spelled(verdict: Verdict, status: Status) -> tuple[bytes, bytes]:
    return verdict.value, str(status).encode()


def _variables(home: bytes) -> dict[bytes, bytes]:
    """What programs get beside qmail-command's variables: a little of our own environment, and which server this is,
    so that `sendmail` and its like send through it. `home`/bin is where qmail's programs are."""
    passed = {name: os.environb[name] for name in PASSED_ON if name in os.environb}
    path = home + b"/bin:" + os.environb.get(b"PATH", DEFAULT_PATH)
    return {b"PATH": path, b"PILLARBOX_HOME": home, **passed}


def _number(field: bytes) -> int:
    """What pop3d says is a number. Raises LinkLost."""
    if not field.isdigit() or len(field) > 9:
        raise LinkLost("not a number")
    return int(field)


def _list(link: Link, tag: int, listings: tuple[ScanListing, ...]) -> None:
    for start in range(0, len(listings), LISTINGS_AT_ONCE):
        some = listings[start : start + LISTINGS_AT_ONCE]
        fields = [field for listing in some for field in (listing.uid, b"%d" % listing.octets)]
        link.send(Verb.LISTING, tag, *fields)
    link.send(Verb.LISTED, tag)


def run(house: House, control: socket.socket) -> None:
    """The role, to its end."""
    owner = Owner(house, control)
    try:
        owner.run()
    finally:  # a lost supervisor ends us at any moment
        owner.errands.forsake()
