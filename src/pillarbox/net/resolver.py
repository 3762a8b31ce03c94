"""Names to addresses: DNS over dnspython, asynchronous, bounded in time and memory.

Answers are remembered as long as their TTL says. The rules that must stay true: what a name server did not answer is
temporary; only its own "no such name" is permanent; a name is never completed by a search list.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import dns.asyncresolver
import dns.exception
import dns.name
import dns.nameserver
import dns.rdatatype
import dns.resolver

from pillarbox.net.names import Exchanger, NameTrouble, NoSuchName

RESOLV_CONF = "/etc/resolv.conf"
LOOKUP_TIME = 30.0  # seconds that one question may take, over all servers and attempts
SERVER_TIME = 5.0  # seconds until the next server is asked
REMEMBERED = 10_000  # answers
ASKED_AT_ONCE = 100  # questions, each with a socket of its own
MOST_EXCHANGERS = 30  # of one domain; the rest of a longer list is not looked at
MOST_ADDRESSES = 20  # of one host
MOST_TEXTS = 20  # of one name
MOST_NAMES = 5  # of one address
DNS_PORT = 53


class Server(NamedTuple):
    """A name server: IP address without brackets, port."""

    address: str
    port: int = DNS_PORT


class Resolver:
    """Asks `servers`; none: those of /etc/resolv.conf, which is read again when it changes. A question may take
    `lifetime` seconds, at most LOOKUP_TIME. Belongs to one loop."""

    def __init__(self, servers: Sequence[Server] = (), lifetime: float = LOOKUP_TIME) -> None:
        self._servers = [dns.nameserver.Do53Nameserver(server.address, server.port) for server in servers]
        self._lifetime = min(lifetime, LOOKUP_TIME)
        self._cache = dns.resolver.LRUCache(REMEMBERED)
        self._mark: tuple[int, ...] = ()
        self._made: dns.asyncresolver.Resolver | None = None
        self._room = asyncio.Semaphore(ASKED_AT_ONCE)

    async def exchangers(self, domain: bytes) -> list[Exchanger]:
        """The MX records of a domain, best preference first; none: it has an address or nothing. Raises NoSuchName,
        NameTrouble."""
        records = await self._ask(domain, dns.rdatatype.MX)
        found = [Exchanger(int(record.preference), _text(record.exchange)) for record in records]
        return sorted(found, key=lambda exchanger: exchanger.preference)[:MOST_EXCHANGERS]

    async def addresses(self, name: bytes) -> list[str]:
        """The IP addresses of a host, IPv4 first; none: the name exists without any. Raises NoSuchName, NameTrouble.

        One kind that cannot be had does not hide the other."""
        found: list[str] = []
        trouble: NameTrouble | None = None
        for kind in (dns.rdatatype.A, dns.rdatatype.AAAA):
            try:
                found += [str(record.address) for record in await self._ask(name, kind)][:MOST_ADDRESSES]
            except NameTrouble as failure:
                trouble = failure
        if trouble is not None and not found:
            raise trouble
        return [str(ipaddress.ip_address(address)) for address in found]

    async def ipv4(self, name: bytes) -> list[str]:
        """The IPv4 addresses of a host alone. Raises NoSuchName, NameTrouble."""
        return [str(record.address) for record in await self._ask(name, dns.rdatatype.A)][:MOST_ADDRESSES]

    async def texts(self, name: bytes) -> list[bytes]:
        """The TXT records of a name, each in one piece. Raises NoSuchName, NameTrouble."""
        records = await self._ask(name, dns.rdatatype.TXT)
        return [b"".join(record.strings) for record in records[:MOST_TEXTS]]

    async def names(self, address: str) -> list[bytes]:
        """The names that whoever has an IP address gives it (PTR), in lower case, without the last dot. Anybody can
        claim any name: ask `addresses` of it. Raises NoSuchName, NameTrouble."""
        pointer = ipaddress.ip_address(address).reverse_pointer.encode()
        records = await self._ask(pointer, dns.rdatatype.PTR)
        return [_text(record.target).lower() for record in records[:MOST_NAMES]]

    async def _ask(self, name: bytes, kind: dns.rdatatype.RdataType) -> Sequence[Any]:
        """The records; none when the name has none of this kind."""
        asked = _name(name)
        try:
            async with self._room:
                answer = await self._resolver().resolve(asked, kind, raise_on_no_answer=False, lifetime=self._lifetime)
        except dns.resolver.NXDOMAIN:
            raise NoSuchName("no such name") from None
        except dns.resolver.LifetimeTimeout:
            raise NameTrouble("no name server answered in time") from None
        except (dns.exception.DNSException, OSError, ValueError) as problem:
            raise NameTrouble(f"no answer from DNS: {type(problem).__name__}") from None
        return list(answer.rrset or ())

    def _resolver(self) -> dns.asyncresolver.Resolver:
        mark = () if self._servers else _mark()
        if self._made is None or mark != self._mark:
            self._made = self._make()
            self._mark = mark
        return self._made

    def _make(self) -> dns.asyncresolver.Resolver:
        resolver = dns.asyncresolver.Resolver(RESOLV_CONF, configure=not self._servers)
        if self._servers:
            resolver.nameservers = list(self._servers)
        resolver.timeout = min(SERVER_TIME, self._lifetime)
        resolver.cache = self._cache
        return resolver


def _mark() -> tuple[int, ...]:
    """Changes when /etc/resolv.conf does."""
    try:
        facts = os.stat(RESOLV_CONF)
    except OSError:
        return ()
    return (facts.st_ino, facts.st_size, facts.st_mtime_ns)


def _name(name: bytes) -> dns.name.Name:
    """Absolute, with an internationalised label (RFC 6531) in its ASCII form. Raises NoSuchName."""
    try:
        text = name.decode()
        return dns.name.from_text(text.rstrip("."), dns.name.root)
    except (UnicodeError, dns.exception.DNSException):
        raise NoSuchName("that is no host name") from None


def _text(name: dns.name.Name) -> bytes:
    return name.to_text(omit_final_dot=True).encode() if name != dns.name.root else b""
