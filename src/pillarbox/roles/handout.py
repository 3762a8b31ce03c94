"""The queue role's back: which messages go to their owners now, and what became of them.

Log lines are qmail-send's.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, MutableSequence, Sequence
from functools import lru_cache
from typing import NamedTuple, Protocol

from pillarbox.control.table import Settings
from pillarbox.outcome import Outcome, Verdict
from pillarbox.queue.bounce import sender_for, varies
from pillarbox.queue.engine import BodyGone, Draft, Engine, Mark, Message, State
from pillarbox.queue.lane import Channel, Destination, Limits
from pillarbox.queue.schedule import Schedule, Start
from pillarbox.roles.link import LARGEST_TAG, Frame, Link, LinkLost
from pillarbox.roles.log import END, ENDED, INFO, NEW, STARTING, Log, safe
from pillarbox.roles.messages import Fresh, Messages
from pillarbox.roles.process import affordable
from pillarbox.roles.verbs import DOWN, Verb
from pillarbox.routes import BadRoute, Hop, Routes
from pillarbox.routing import REMEMBERED, Local, Routing
from pillarbox.status import Failure, Refusal, Status

ON_THE_WAY = 4 << 20  # octets to the owner role that it has not read yet
RECIPIENTS_AT_ONCE = 500  # in a frame: with the longest addresses they fit in beside the body
RELAY_DESCRIPTORS = 3  # of a transaction in the remote role, which has as many as we: body, connection, a question
RELAYED_AT_ONCE = 100  # recipients in one transaction: every host must take so many (RFC 5321 section 4.5.3.1.8)
BATCH = 64  # deliveries that one slot of control/concurrencylocal stands for
CLAIMS_IN_A_ROUND = 10
ENDS_IN_A_ROUND = 16  # deliveries whose outcomes are seen to between two commits: clients wait for the next one

_VERDICTS = {verdict.value: verdict for verdict in Verdict}
_WORDS = {Verdict.DONE: "success", Verdict.LATER: "deferral", Verdict.NEVER: "failure"}
_REMOTE, _FAILED, _DELIVER = Channel.REMOTE, State.FAILED, Verb.DELIVER
_SILENT = b"The owner's home or processes do not answer. (#4.3.0)\n"
_LOST = b"The delivery was broken off. (#4.3.0)\n"


class Owners(Protocol):
    """roles.owners.OwnerLinks."""

    def find(self, local: bytes, now: float) -> Link | None: ...
    def ask(self, local: bytes) -> None: ...
    def serves_many(self, link: Link) -> bool: ...


class _Running(NamedTuple):
    """A delivery under way at an owner role, or on the "remote" channel."""

    link: Link
    message: int
    number: int
    channel: str = "local"


# A delivery, what it was, what became of it, and whether its whole destination is down.
_Told = tuple[int, _Running, Outcome, bool]


def schedule(settings: Settings) -> Schedule:
    """A schedule with these settings' limits."""
    return Schedule(*limits(settings))


def limits(settings: Settings) -> tuple[Limits, Limits, int]:
    """Of the local and the remote channel, and the lifetime."""
    local = settings.concurrencylocal * BATCH
    remote = affordable(settings.concurrencyremote, RELAY_DESCRIPTORS) if settings.concurrencyremote else 0
    one = remote - remote // 4  # of the remote channel a slow host leaves a quarter to others
    return Limits(local, max(BATCH, local // 4)), Limits(remote, one, RELAYED_AT_ONCE), settings.queuelifetime


class Handout:
    """Everything between a commit and the marks that end it."""

    def __init__(self, engine: Engine, settings: Settings, log: Log, owners: Owners) -> None:
        self._engine, self._log, self._owners = engine, log, owners
        self.schedule = schedule(settings)
        self._messages = Messages(engine)
        self._unplaced: dict[bytes, list[Start]] = {}  # by local part: whose it is has been asked
        self._held_up: dict[Link, deque[Start]] = {}  # that owner role has much to read already
        self.remote: Link | None = None
        self._relays: deque[Start] = deque()  # for the remote role, which is away or has much to read already
        self._running: dict[int, _Running] = {}
        self._load: Counter[Link] = Counter()  # how many of them are at each link, and how many held up for it
        self._told: deque[_Told] = deque()  # that were, and are not seen to yet
        self._number = 0
        self.configure(settings)

    def configure(self, settings: Settings) -> None:
        """Take new settings."""
        self._routing = Routing(settings)
        self._destinations: dict[bytes, Destination] = {}
        self._routes = Routes(settings.smtproutes)
        self._limits = limits(settings)
        self.schedule.configure(*self._limits)

    @property
    def busy(self) -> bool:
        """Deliveries are under way."""
        return bool(self._running or self._told)

    @property
    def held_up(self) -> bool:
        """More is to start when spawn answers or an owner role reads on: a link will tell."""
        return bool(self._held_up or self._unplaced)

    def serves(self, owner: Link) -> bool:
        """Is something under way at this owner role?"""
        return self._load[owner] > 0

    def accepted(self, number: int, draft: Draft, incarnation: bytes) -> None:
        """A draft became message `number`."""
        envelope = draft.envelope
        message = Message(
            number, incarnation, draft.born, envelope.sender, draft.size, draft.uid, draft.pid, draft.spool
        )
        body = None if draft.body is None else bytes(draft.body)
        self._messages.remember(Fresh(message, envelope.recipients, body))
        sender = safe(envelope.sender)
        self._log.note(NEW, number)
        self._log.note(INFO, number, draft.size, sender, draft.pid, draft.uid)
        destinations = [self.destination(address) for address in envelope.recipients]
        self.schedule.committed(number, draft.born, destinations, alone=varies(envelope.sender))

    def ended(self, numbers: Sequence[int]) -> None:
        """These messages are over."""
        for number in numbers:
            self._messages.forget(number)
            self._log.note(END, number)

    def shown(self, address: bytes) -> bytes:
        """A recipient as people know him: completed, and without the prefix of virtualdomains."""
        route = self._routing.route(address)
        return route.user + b"@" + route.domain if isinstance(route, Local) else route.address

    def destination(self, address: bytes) -> Destination:
        """What fails as one with this recipient."""
        known = self._destinations.get(address)
        if known is None:
            if len(self._destinations) >= REMEMBERED:
                self._destinations.clear()
            route = self._routing.route(address)
            if isinstance(route, Local):
                known = Destination(Channel.LOCAL, route.local.lower())
            else:
                known = Destination(_REMOTE, route.domain)
            self._destinations[address] = known
        return known

    # handing out

    def read_ahead(self) -> None:
        """Claim from the engine what the schedule has room for. Only when no mark is outstanding."""
        for _ in range(CLAIMS_IN_A_ROUND):
            claim = self.schedule.wanted()
            if claim is None:
                return
            self.schedule.claimed(claim, self._engine.claim(claim.after, claim.limit), self.destination)

    def start(self, now: float) -> None:
        """Hand out what may start, as fast as the owner roles and the remote role read."""
        for owner in list(self._held_up):
            self._go_on(owner, now)
        for start in self.schedule.start(now):
            self._place(start, now)
        while self.remote is not None and self._relays and self.remote.backlog < ON_THE_WAY:
            start, rest = _cut(self._relays.popleft())
            if rest is not None:
                self._relays.appendleft(rest)
            self._relay(self.remote, start, now)

    def changed(self, messages: Collection[int], now: int) -> None:
        """Somebody retried, held, released or removed messages in the engine: what is not on its way stays here, and is
        read anew."""
        self.schedule.changed(messages, now)
        for waiting in (*self._unplaced.values(), self._relays):
            self._withdraw(waiting, messages)
        for owner, starts in self._held_up.items():
            self._unload(owner, self._withdraw(starts, messages))

    def _withdraw(self, waiting: MutableSequence[Start], messages: Collection[int]) -> int:
        """Take these messages out of what waits; how many recipients that were."""
        starts = list(waiting)
        waiting.clear()
        waiting.extend([start for start in starts if start.message not in messages])
        gone = [(start.message, number) for start in starts if start.message in messages for number in start.numbers]
        for message, number in gone:
            self.schedule.withdrawn(message, number)
        return len(gone)

    def _place(self, start: Start, now: float) -> None:
        """To the owner role of its destination, or to wait for that or for the remote role."""
        channel, local = start.destination
        if channel is _REMOTE:
            self._relays.append(start)
            return
        owner = self._owners.find(local, now)
        if owner is None:
            self._unplaced.setdefault(local, []).append(start)
            self._owners.ask(local)
        else:
            self._give(owner, start, now)

    def placed(self, local: bytes, owner: Link | Refusal, now: float) -> None:
        """What waits for the owner of this local part goes there now, or is told why there is none."""
        for start in self._unplaced.pop(local, ()):
            if isinstance(owner, Link):
                self._give(owner, start, now)
            else:
                self._fail(start, Outcome.later(f"{owner.text} (#{owner.status})\n".encode(), owner.status), now)

    def _give(self, owner: Link, start: Start, now: float) -> None:
        if self._crowds(owner):
            for number in start.numbers:
                self.schedule.crowded(start.message, number, now)
        elif owner in self._held_up:
            self._hold_up(owner, start)
        elif owner.backlog < ON_THE_WAY and _cut(start)[1] is None:
            self._hand_out(owner, start, now)
        else:
            self._held_up[owner] = deque()
            self._hold_up(owner, start)
            self._go_on(owner, now)

    def _hold_up(self, owner: Link, start: Start) -> None:
        self._held_up[owner].append(start)
        self._load[owner] += len(start.numbers)

    def _unload(self, link: Link, count: int) -> None:
        """So many fewer are there. A link with none is forgotten: it may be closed for being idle, and nobody would say
        so."""
        self._load[link] -= count
        if not self._load[link]:
            del self._load[link]

    def _crowds(self, owner: Link) -> bool:
        """Has one user's role its share already? He may have as many destinations as he likes, and hang in them all;
        the role that serves all accounts is not one user's."""
        return self._load[owner] >= self._limits[0].each and not self._owners.serves_many(owner)

    def _go_on(self, owner: Link, now: float) -> None:
        """Hand out what this owner role has room for."""
        starts = self._held_up[owner]
        while starts and owner.backlog < ON_THE_WAY:
            start, rest = _cut(starts.popleft())
            if rest is not None:
                starts.appendleft(rest)
            self._unload(owner, len(start.numbers))
            self._hand_out(owner, start, now)
        if not starts:
            del self._held_up[owner]

    def _hand_out(self, owner: Link, start: Start, now: float) -> None:
        fresh = self._found(start, now)
        if fresh is None:
            return
        local: list[tuple[int, Local]] = []
        for number in start.numbers:
            # Asked anew: the settings may have changed since it was scheduled.
            route = self._routing.route(fresh.addresses[number])
            if isinstance(route, Local):
                local.append((number, route))
            else:
                self._place(_elsewhere(start, number, Channel.REMOTE, route.domain), now)
        descriptors = self._descriptors(fresh, start, now) if local else None
        if descriptors is None:
            return
        message = fresh.message
        fields = [
            b"%d" % message.id, message.incarnation, b"%d" % message.born, b"1" if start.again else b"0",
            b"%d" % message.size, self._sender(start, fresh), b"" if descriptors else fresh.body or b"",
        ]  # fmt: skip
        for number, route in local:
            delivery = self._delivery(_Running(owner, message.id, number), route.local + b"@" + route.domain)
            fields += b"%d" % delivery, b"%d" % number, route.local, route.domain
        owner.send(_DELIVER, 0, *fields, descriptors=descriptors)

    def _relay(self, remote: Link, start: Start, now: float) -> None:
        """To the remote role: each domain's recipients together."""
        fresh = self._found(start, now)
        if fresh is None:
            return
        domains: dict[bytes, list[tuple[int, bytes]]] = {}
        for number in start.numbers:
            route = self._routing.route(fresh.addresses[number])
            if isinstance(route, Local):
                self._place(_elsewhere(start, number, Channel.LOCAL, route.local.lower()), now)
            else:
                domains.setdefault(route.domain, []).append((number, route.address))
        for domain, recipients in domains.items():
            for first in range(0, len(recipients), RELAYED_AT_ONCE):
                some = recipients[first : first + RELAYED_AT_ONCE]
                these = start._replace(numbers=tuple([number for number, _address in some]))
                self._relay_to(remote, these, fresh, domain, [address for _number, address in some], now)

    def _relay_to(
        self, remote: Link, start: Start, fresh: Fresh, domain: bytes, addresses: list[bytes], now: float
    ) -> None:
        """One transaction: `addresses` are those of the start's numbers, all in `domain`."""
        try:
            hop = self._routes.find(domain) or Hop(b"")
        except BadRoute as failure:
            self._fail(start, _later(failure), now)
            return
        descriptors = self._descriptors(fresh, start, now)
        if descriptors is None:
            return
        message = fresh.message
        fields = [
            b"%d" % message.id, b"%d" % message.size, self._sender(start, fresh), domain, hop.relay, b"%d" % hop.port,
            hop.user, hop.password, b"" if descriptors else fresh.body or b"",
        ]  # fmt: skip
        for number, address in zip(start.numbers, addresses, strict=True):
            fields += b"%d" % self._delivery(_Running(remote, message.id, number, "remote"), address), address
        remote.send(Verb.RELAY, 0, *fields, descriptors=descriptors)

    def _sender(self, start: Start, fresh: Fresh) -> bytes:
        """Under whose name this delivery goes."""
        if not start.alone:
            return fresh.message.sender
        return sender_for(fresh.message.sender, self.shown(fresh.addresses[start.numbers[0]]))

    def _found(self, start: Start, now: float) -> Fresh | None:
        """The message, or None when it cannot be read: its recipients know already."""
        try:
            fresh = self._messages.find(start.message)
        except Failure as failure:
            self._fail(start, _unreadable(failure), now)
            return None
        if fresh is None:
            self._fail(start, Outcome.never(b"The message is gone. (#5.3.0)\n"), now)
        return fresh

    def _descriptors(self, fresh: Fresh, start: Start, now: float) -> list[int] | None:
        """The body's, when it is in a file or too large for a frame. None when it cannot be had: the start's recipients
        know already."""
        try:
            return self._messages.descriptors(fresh)
        except Failure as failure:
            self._fail(start, _unreadable(failure), now)
            return None

    def _delivery(self, running: _Running, recipient: bytes) -> int:
        """The number of a new delivery; its link is to send it on."""
        delivery = self._next_number()
        self._running[delivery] = running
        self._load[running.link] += 1
        self._log.note(STARTING, delivery, running.message, running.channel, safe(recipient))
        return delivery

    def _next_number(self) -> int:
        """Of a delivery; it is a tag too."""
        self._number = self._number % LARGEST_TAG + 1
        return self._number

    def _fail(self, start: Start, outcome: Outcome, now: float) -> None:
        for number in start.numbers:
            self._note(self._next_number(), start.message, number, outcome, now)

    # what became of it

    def heard(self, link: Link, frame: Frame) -> None:
        """An OUTCOME of an owner role or the remote one, for `conclude` to see to. Raises LinkLost or ValueError when
        it is nonsense, or about a delivery of another."""
        letter, status, report, *more = frame.fields
        if letter not in _VERDICTS:
            raise LinkLost("no such verdict")
        outcome = Outcome(_VERDICTS[letter], report, _status(status))
        down = more[:1] == [DOWN]
        for delivery in (frame.tag, *map(int, more[1:])):
            running = self._running.get(delivery)
            if running is None or running.link is not link:
                raise LinkLost("no such delivery")
            del self._running[delivery]
            self._unload(link, 1)
            self._told.append((delivery, running, outcome, down))

    def conclude(self, now: float) -> bool:
        """See to outcomes that were heard, as many as a round may. True when some are left."""
        for _ in range(min(len(self._told), ENDS_IN_A_ROUND)):
            delivery, running, outcome, down = self._told.popleft()
            self._note(delivery, running.message, running.number, outcome, now, down=down)
        return bool(self._told)

    def _note(
        self, delivery: int, message: int, number: int, outcome: Outcome, now: float, *, down: bool = False
    ) -> None:
        mark = self.schedule.outcome(message, number, outcome, now, down=down)
        self._say(delivery, message, outcome.verdict, outcome.report, mark)

    def _say(self, delivery: int, message: int, verdict: Verdict, report: bytes, mark: Mark | None) -> None:
        if mark is not None and mark.state is _FAILED:  # perhaps because it was the last attempt
            verdict, report = Verdict.NEVER, mark.reason
        self._log.note(ENDED, delivery, _WORDS[verdict], safe(report), msg=message)

    def owner_lost(self, owner: Link, now: float) -> None:
        """That owner role died."""
        self._deliveries_lost(owner, now)
        for start in self._held_up.pop(owner, ()):
            self._place(start, now)

    def owner_silent(self, owner: Link, now: float) -> None:
        """That owner role hangs. What it has is put off as any other failure, not at once tried again."""
        del self._load[owner]
        for delivery, running in [item for item in self._running.items() if item[1].link is owner]:
            del self._running[delivery]
            self._note(delivery, running.message, running.number, Outcome.later(_SILENT), now)
        for start in self._held_up.pop(owner, ()):
            self._fail(start, Outcome.later(_SILENT), now)

    def remote_lost(self, remote: Link, now: float) -> None:
        """The remote role at this link died."""
        if self.remote is remote:
            self.remote = None
        self._deliveries_lost(remote, now)

    def _deliveries_lost(self, link: Link, now: float) -> None:
        """Nobody will tell how they went."""
        del self._load[link]
        for delivery, running in [item for item in self._running.items() if item[1].link is link]:
            del self._running[delivery]
            mark = self.schedule.lost(running.message, running.number, _LOST, now)
            self._say(delivery, running.message, Verdict.LATER, _LOST, mark)

    def status(self) -> None:
        """qmail-send's status line."""
        local, remote, _lifetime = self._limits
        here = sum(running.channel == "local" for running in self._running.values())
        away = len(self._running) - here
        self._log.fact(
            f"status: local {here}/{local.total} remote {away}/{remote.total}",
            "status", local=here, local_limit=local.total, remote=away, remote_limit=remote.total,
        )  # fmt: skip


@lru_cache(100)
def _status(octets: bytes) -> Status:
    """Raises ValueError when it is nonsense."""
    kind, subject, detail = map(int, octets.split(b"."))
    return Status(kind, subject, detail)


def _cut(start: Start) -> tuple[Start, Start | None]:
    """What of a start goes in one frame, and the rest of it."""
    most = 1 if start.alone else RECIPIENTS_AT_ONCE
    if len(start.numbers) <= most:
        return start, None
    return start._replace(numbers=start.numbers[:most]), start._replace(numbers=start.numbers[most:])


def _elsewhere(start: Start, number: int, channel: Channel, name: bytes) -> Start:
    """One recipient of a start that the settings send to the other channel now."""
    return start._replace(destination=Destination(channel, name), numbers=(number,))


def _later(failure: Failure) -> Outcome:
    return Outcome.later(failure.text.encode("ascii", "replace") + b"\n", failure.status)


def _unreadable(failure: Failure) -> Outcome:
    """A body that is gone does not come back."""
    return Outcome.never(_later(failure).report) if isinstance(failure, BodyGone) else _later(failure)
