"""How the remote role speaks with the hosts of an errand: over asyncio, over connections that it keeps for the next.

Which hosts, in which order, and what is tried again is `journey`'s business.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pillarbox.attempt import Advice, Attempt
from pillarbox.net import hosts, interfaces, tls
from pillarbox.net.deaf import Deaf
from pillarbox.net.hosts import Host, NoHost
from pillarbox.net.names import Names
from pillarbox.roles import journey
from pillarbox.roles.carrier import Carrier
from pillarbox.roles.journey import Errand, Journey, Result, server_name
from pillarbox.roles.parking import Parked, Parking, Place
from pillarbox.sessions.relaying import Line, Order


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
    try:
        found = await _hosts(errand, road)
    except NoHost as failure:
        return journey.nowhere(failure, len(errand.envelope.recipients))
    return await Journey(errand, road.me, _Calls(errand, road).call, asyncio.get_running_loop().time).run(found)


async def _hosts(errand: Errand, road: Road) -> list[Host]:
    if errand.hop is not None:
        return await hosts.of_relay(road.names, errand.hop.relay)
    return await hosts.of_domain(road.names, errand.domain, road.own(), random.shuffle)


class _Calls:
    """How the hosts of one errand are spoken with."""

    def __init__(self, errand: Errand, road: Road) -> None:
        self._errand, self._road = errand, road

    async def call(self, host: Host, order: Order) -> Attempt | None:
        """One conversation; None: no connection."""
        place = Place(host, self._errand.port, order.tls, order.extended, order.credentials, order.clear)
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
        context = road.verifying if order.verified else road.opportunistic
        name = server_name(place.host)
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
