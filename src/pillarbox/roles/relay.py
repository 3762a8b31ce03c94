"""One message on its way to another host: which hosts, in which order, and what to try again at once.

What both the remote role and the program qmail-remote do. The rule that must stay true: a recipient whom one host has
taken or refused is not offered to the next.
"""

from __future__ import annotations

import asyncio
import random
import re
import ssl
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from pillarbox.attempt import Advice, Attempt
from pillarbox.credentials import Password
from pillarbox.envelope import Envelope
from pillarbox.net import hosts, interfaces, tls
from pillarbox.net.deaf import Deaf
from pillarbox.net.hosts import Host, NoHost
from pillarbox.net.names import Names
from pillarbox.outcome import Outcome
from pillarbox.roles.carrier import Carrier, Content
from pillarbox.roles.parking import Parked, Parking, Place
from pillarbox.routes import SMTP_PORT, Hop, is_loopback
from pillarbox.sessions.relaying import Line, Order
from pillarbox.status import Status

TRYING = 1800.0  # seconds after which no further host is begun with
# Whoever owns a domain chooses the names of its exchangers, and DNS allows any octets in them; TLS libraries do not.
_HOST_NAME = re.compile(rb"[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*")
NO_CONNECTION = Outcome.later(b"Sorry, I wasn't able to establish an SMTP connection. (#4.4.1)\n", Status(4, 4, 1))


@dataclass(frozen=True, slots=True)
class Errand:
    """One message and some of its recipients, all in `domain` (any case). `hop` is where control/smtproutes sends
    them, None: to the domain's mail exchangers. `clear`: the hop's password may go without TLS, or over TLS to whoever
    is there: control/cleartextroutes allows it, or this is qmail-remote. To this machine it may always."""

    domain: bytes
    hop: Hop | None
    envelope: Envelope
    content: Content
    clear: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """The recipients' outcomes in their order. `down`: no host of the destination worked. `recipients` and `message`
    are the same in qmail-remote's terms, see `attempt.Attempt`."""

    outcomes: tuple[Outcome, ...]
    recipients: tuple[Outcome | None, ...]
    message: Outcome
    down: bool = False

    @classmethod
    def alike(cls, outcome: Outcome, count: int, *, down: bool = False) -> Result:
        """All recipients fare as the message does: nobody was asked about them."""
        return cls((outcome,) * count, (None,) * count, outcome, down)


@dataclass
class Road:
    """What every errand of a process needs: names, our own name, settings in seconds. `carriers` are the connections
    that are open, by the task that waits for each; those that nobody waits for are in `parking`."""

    names: Names
    me: bytes
    connect: float
    patience: float
    carriers: dict[asyncio.Task[Any] | None, Carrier] = field(default_factory=dict)
    deaf: Deaf = field(default_factory=Deaf)
    own: Callable[[], Collection[str]] = interfaces.own_addresses
    parking: Parking = field(default_factory=lambda: Parking(0))

    @cached_property
    def opportunistic(self) -> ssl.SSLContext:
        """For everybody who offers TLS."""
        return tls.opportunistic()

    @cached_property
    def verifying(self) -> ssl.SSLContext:
        """For hosts that get a password."""
        return tls.verifying()


async def run(errand: Errand, road: Road) -> Result:
    """Bring it to the first host that will have it. Never raises for what a network does."""
    count = len(errand.envelope.recipients)
    try:
        found = await _hosts(errand, road)
    except NoHost as failure:
        report = failure.text.encode("ascii", "replace") + b"\n"
        permanent = failure.status.kind == 5
        outcome = (Outcome.never if permanent else Outcome.later)(report, failure.status)
        return Result.alike(outcome, count, down=not permanent)
    return await _Errand(errand, road).run(found)


async def _hosts(errand: Errand, road: Road) -> list[Host]:
    if errand.hop is not None:
        return await hosts.of_relay(road.names, errand.hop.relay)
    return await hosts.of_domain(road.names, errand.domain, road.own(), random.shuffle)


class _Errand:
    """One errand under way: `_open` are the indices of the recipients nobody has decided on."""

    def __init__(self, errand: Errand, road: Road) -> None:
        self._errand, self._road = errand, road
        self._open = list(range(len(errand.envelope.recipients)))
        self._outcomes: list[Outcome] = [NO_CONNECTION] * len(self._open)
        self._recipients: list[Outcome | None] = [None] * len(self._open)
        self._message = NO_CONNECTION
        self._down = True

    async def run(self, found: list[Host]) -> Result:
        end = asyncio.get_running_loop().time() + TRYING
        for host in found:
            if not self._open or asyncio.get_running_loop().time() > end:
                break
            await self._try(host)
        return Result(tuple(self._outcomes), tuple(self._recipients), self._message, self._down)

    async def _try(self, host: Host) -> None:
        """All that one host gets: at most a connection as offered, one without TLS, one without EHLO."""
        order = self._order(host)
        for _ in range(3):
            attempt = await self._call(host, replace(order, envelope=self._envelope()))
            if attempt is None:
                return
            self._note(attempt)
            if attempt.advice is Advice.WITHOUT_TLS and order.tls:
                order = replace(order, tls=False)
            elif attempt.advice is Advice.WITHOUT_EHLO and order.extended:
                order = replace(order, extended=False)
            else:
                return

    def _note(self, attempt: Attempt) -> None:
        self._message = attempt.message
        for index, outcome, recipient in zip(self._open, attempt.outcomes, attempt.recipients, strict=True):
            self._outcomes[index] = outcome
            self._recipients[index] = recipient
        self._open = [self._open[position] for position in attempt.unsettled]
        self._down = attempt.destination_failed

    def _envelope(self) -> Envelope:
        envelope = self._errand.envelope
        return Envelope(envelope.sender, tuple([envelope.recipients[index] for index in self._open]))

    def _order(self, host: Host) -> Order:
        errand = self._errand
        hop = errand.hop
        return Order(
            me=self._road.me,
            host=host.address.encode(),
            envelope=errand.envelope,
            size=errand.content.size,
            eight_bit=errand.content.eight_bit,
            credentials=Password(hop.user, hop.password) if hop is not None and hop.password else None,
            clear=errand.clear or (hop is not None and hop.at_home and is_loopback(host.address)),
        )

    async def _call(self, host: Host, order: Order) -> Attempt | None:
        """One conversation; None: no connection."""
        port = SMTP_PORT if self._errand.hop is None else self._errand.hop.port
        place = Place(host, port, order.tls, order.extended, order.credentials, order.clear)
        parked = self._road.parking.take(place)
        if parked is not None:
            attempt = await self._go_on(place, parked, order)
            if attempt.advice is Advice.NOTHING and any(attempt.recipients):
                return attempt  # else it may have had enough of this connection
        return await self._connect(place, order)

    async def _go_on(self, place: Place, parked: Parked, order: Order) -> Attempt:
        """One more message over a connection that was parked."""
        told = _Told()
        parked.line.go_on(order)
        parked.carrier.go_on(self._errand.content, told.tell)
        return await self._wait(place, parked._replace(messages=parked.messages + 1), told)

    async def _connect(self, place: Place, order: Order) -> Attempt | None:
        loop, road, told = asyncio.get_running_loop(), self._road, _Told()
        verified = order.credentials is not None and not order.clear
        context = road.verifying if verified else road.opportunistic
        name = place.host.name.decode() if _HOST_NAME.fullmatch(place.host.name) else place.host.address
        line = Line(order)
        carrier = Carrier(loop, line.sender, self._errand.content, context, name, road.patience, told.tell)
        try:
            connected = await self._connected(carrier, place)
        except asyncio.CancelledError:
            carrier.abort()
            raise
        if not connected:
            carrier.abort()
            return None
        return await self._wait(place, Parked(carrier, line, 1), told)

    async def _wait(self, place: Place, parked: Parked, told: _Told) -> Attempt:
        """Until it is known what became of the message; then the connection is parked if it can be."""
        road, carrier = self._road, parked.carrier
        road.carriers[asyncio.current_task()] = carrier
        try:
            attempt = await told.attempt
        finally:
            road.carriers.pop(asyncio.current_task(), None)
            if not told.attempt.done() or told.attempt.cancelled():
                carrier.abort()
        road.parking.park(place, parked)
        return attempt

    async def _connected(self, carrier: Carrier, place: Place) -> bool:
        """A relay of the postmaster's own is always tried: nobody else can take its place."""
        loop, road, address = asyncio.get_running_loop(), self._road, place.host.address
        if self._errand.hop is None and road.deaf.skips(address, loop.time()):
            return False
        try:
            async with asyncio.timeout(road.connect):
                await loop.create_connection(lambda: carrier, address, place.port)
        except TimeoutError:  # a kind of OSError
            road.deaf.timed_out(address, loop.time())
            return False
        except OSError:
            road.deaf.answered(address)
            return False
        road.deaf.answered(address)
        return True


class _Told:
    """Where a carrier says what became of the message."""

    def __init__(self) -> None:
        self.attempt: asyncio.Future[Attempt] = asyncio.get_running_loop().create_future()

    def tell(self, attempt: Attempt) -> None:
        """Only the first time counts."""
        if not self.attempt.done():
            self.attempt.set_result(attempt)
