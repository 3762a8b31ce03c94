"""control/smtproutes: which domain's mail goes to a relay, at which port, with which login. Pure.

The rule that must stay true: a login never goes to a host that its line does not name. A line that has one and names
no relay is trouble, not a reason to ask DNS who might get it.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from pillarbox.control.reading import shown
from pillarbox.routing import keys
from pillarbox.status import Failure, Status

SMTP_PORT = 25
REMEDY = "write HOST:RELAY[:PORT] [USER PASSWORD]"


class BadRoute(Failure):
    """A line of smtproutes that sends mail nowhere: temporary, the postmaster can mend it."""

    status = Status(4, 3, 5)


@dataclass(frozen=True, slots=True)
class Hop:
    """A relay: a host name (looked up without MX) or an IP address without brackets, in lower case. `user` and
    `password` are empty when the line has none."""

    relay: bytes
    port: int = SMTP_PORT
    user: bytes = b""
    password: bytes = field(default=b"", repr=False)

    def among(self, relays: Collection[bytes]) -> bool:
        """Do these lines of control/cleartextroutes name it: RELAY or RELAY:PORT?"""
        return self.relay in relays or b"%s:%d" % (self.relay, self.port) in relays

    @property
    def at_home(self) -> bool:
        """Does the line itself say that the relay is this machine: `localhost`, or a loopback address? What DNS makes
        of any other name does not count."""
        return self.relay == b"localhost" or (_is_address(self.relay) and is_loopback(self.relay.decode()))


_RELAY = re.compile(rb"(?:\[(?:ipv6:)?([0-9a-f:.]+)\]|([^\x00-\x20\x7f@:\[\]/#]+))(?::([0-9]{1,5}))?\Z")


class Routes:
    """The routes of one set of settings: host name or .suffix in lower case to the rest of its line."""

    def __init__(self, smtproutes: Mapping[bytes, bytes]) -> None:
        self._routes = smtproutes

    def find(self, domain: bytes) -> Hop | None:
        """Where mail for `domain` (lower case) goes instead of to its MX: the line of the domain itself, of its longest
        .suffix, or of the empty key. None: its MX, which an empty relay says too. Raises BadRoute."""
        if not self._routes:
            return None
        key = next((key for key in keys(domain) if key in self._routes), None)
        return None if key is None else self._read(key)

    def faults(self) -> Iterator[BadRoute]:
        """What `find` would raise, for each line that sends mail nowhere."""
        for key in self._routes:
            try:
                self._read(key)
            except BadRoute as failure:
                yield failure

    def logins(self) -> Iterator[tuple[str, Hop]]:
        """The lines that have a password, each as it is called in complaints; lines at fault are left out."""
        for key in self._routes:
            try:
                hop = self._read(key)
            except BadRoute:
                continue
            if hop is not None and hop.password:
                yield _line(key), hop

    def _read(self, key: bytes) -> Hop | None:
        relay, user, password = _parts(self._routes[key])
        if not relay and not user:
            return None
        return _hop(key, relay.lower(), user, password)


def masked(route: bytes) -> bytes:
    """A line's right side, RELAY[:PORT] [USER PASSWORD], without the password, and without what may be one: somebody
    may have parted the words by tabs."""
    relay, user, password = _parts(route)
    if password and len(relay.split()) < 2 and len(user.split()) < 2:
        return b" ".join([relay, user, b"(password not shown)"])
    if len(route.split()) > 1 or (user and not relay):
        return b" ".join([*relay.split()[:1], b"(login not shown)"])
    return route


def is_loopback(address: str) -> bool:
    """Nobody but this machine gets what is sent to this IP address."""
    return ipaddress.ip_address(address).is_loopback


def _parts(route: bytes) -> tuple[bytes, bytes, bytes]:
    """Relay with port, user, password: split at blanks, before anybody looks for a port. The password is all that
    stands behind the blank after the user, blanks and colons too."""
    relay, _, login = route.partition(b" ")
    user, _, password = login.lstrip(b" ").partition(b" ")
    return relay, user, password


def _hop(key: bytes, relay: bytes, user: bytes, password: bytes) -> Hop:
    """Of a login of one word nothing is used, as in other implementations of these lines."""
    if not relay:
        raise BadRoute(f"{_line(key)} has a login but no relay: {REMEDY}")
    found = _RELAY.match(relay)
    if found is None:
        raise BadRoute(f"{_line(key)} names no relay: {REMEDY}")
    literal, name, digits = found.groups()
    port = int(digits) if digits else SMTP_PORT
    if not 0 < port < 65536:
        raise BadRoute(f"{_line(key)} names no port: {REMEDY}")
    if literal is not None and not _is_address(literal):
        raise BadRoute(f"{_line(key)} names no address: {REMEDY}")
    return Hop(literal or name, port, user, password) if password else Hop(literal or name, port)


def _line(key: bytes) -> str:
    """The line by its key: what stands behind the colon may be a password."""
    return f"control/smtproutes: the line {shown(key + b':')}"


def _is_address(literal: bytes) -> bool:
    try:
        ipaddress.ip_address(literal.decode())
    except ValueError:
        return False
    return True
