"""What is asked of a resolver and what it answers, without what it takes to ask: importing a resolver is slow."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from pillarbox.status import Failure, Status


class NoSuchName(Failure):
    """There is no such name, or it cannot be one."""

    status = Status(5, 1, 2)


class NameTrouble(Failure):
    """No answer, for now: a server is away, says SERVFAIL or speaks nonsense, or there is none to ask."""

    status = Status(4, 4, 3)


class Exchanger(NamedTuple):
    """One MX record. `name` is without the last dot, b"" for the null MX (RFC 7505)."""

    preference: int
    name: bytes


class Names(Protocol):
    """net.resolver.Resolver, or what stands for it. Names are bytes as in an address; both raise NoSuchName and
    NameTrouble."""

    async def exchangers(self, domain: bytes) -> list[Exchanger]:
        """The MX records of a domain, best preference first; none: it has an address or nothing."""

    async def addresses(self, name: bytes) -> list[str]:
        """The IP addresses of a host, IPv4 first; none: the name exists without any."""
