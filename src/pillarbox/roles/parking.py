"""Connections that have brought a message and may bring another to the same place, for a moment.

Saves connecting, greeting, TLS and login where a lot goes to one host. The rule that must stay true: what fails on a
connection that had been parked says nothing about the host, and is tried again on one of its own.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from pillarbox.credentials import Password
from pillarbox.net.hosts import Host
from pillarbox.roles.carrier import Carrier
from pillarbox.sessions.relaying import Line

MOST: Final = 64
"""Connections parked at a time: descriptors that nobody else can have."""
MOST_MESSAGES: Final = 10
"""Messages brought over one connection. From the eleventh on Exim puts mail aside until its next queue run."""


class Place(NamedTuple):
    """Connections to the same place can stand in for each other. `tls`, `extended` and the login are how the
    conversation began."""

    host: Host
    port: int
    tls: bool
    extended: bool
    credentials: Password | None
    clear: bool


class Parked(NamedTuple):
    """A connection, what is said over it, and how many messages it has brought."""

    carrier: Carrier
    line: Line
    messages: int


class Parking:
    """All parked connections, at most `most`. Those that were closed meanwhile, by either side, are forgotten."""

    __slots__ = ("_most", "_parked")

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._parked: list[tuple[Place, Parked]] = []

    def park(self, place: Place, parked: Parked) -> None:
        """Keep it for a moment, unless there are too many or it has done enough: then it says QUIT."""
        self._forget()
        if not parked.carrier.idle:
            return
        if parked.messages < MOST_MESSAGES and len(self._parked) < self._most:
            self._parked.append((place, parked))
        else:
            parked.carrier.quit()

    def take(self, place: Place) -> Parked | None:
        """The one parked last that can go to this place."""
        self._forget()
        for number in range(len(self._parked) - 1, -1, -1):
            if self._parked[number][0] == place:
                return self._parked.pop(number)[1]
        return None

    def _forget(self) -> None:
        self._parked = [entry for entry in self._parked if entry[1].carrier.idle]
