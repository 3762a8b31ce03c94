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

    def _read(self, key: bytes) -> Hop | None:
        relay, _, login = self._routes[key].partition(b" ")
        if not relay and not login.strip(b" "):
            return None
        user, _, password = login.partition(b" ")
        return _hop(key, relay.lower(), user, password)


def _hop(key: bytes, relay: bytes, user: bytes, password: bytes) -> Hop:
    """The login is taken off first, so that a colon in it is no port. Of a login of one word nothing is used, as in
    other implementations of these lines."""
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
