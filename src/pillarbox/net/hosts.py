"""From a domain to the addresses where its mail is taken (RFC 5321 section 5.1), best first.

The texts are qmail-remote's. The rule that must stay true: no host that is as good as ourselves or worse is tried when
we are one of the domain's exchangers, or mail would go round for ever.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from pillarbox.net.names import Exchanger, Names, NameTrouble, NoSuchName
from pillarbox.status import Failure, Refusal, Status

MOST_HOSTS = 20  # addresses tried for one delivery

Shuffle = Callable[[list[Exchanger]], None]


class NoHost(Failure):
    """There is nowhere to take the mail, for good or for now: the status says it. The text may have several lines."""


class Host(NamedTuple):
    """Where to connect: an IP address as text, and the name by which it was found (b"": none, it was written so)."""

    address: str
    name: bytes


_LITERAL = re.compile(rb"\[(?:[Ii][Pp][Vv]6:)?([0-9A-Fa-f:.]+)\]|([0-9.]+)", re.DOTALL)

_NULL = Refusal(Status(5, 1, 10), "Sorry, that domain says that it takes no mail. (#5.1.10)")
_NO_EXCHANGER = Refusal(Status(5, 4, 4), "Sorry, I couldn't find a mail exchanger or IP address. (#5.4.4)")
_TROUBLE = Refusal(Status(4, 1, 2), "Sorry, I couldn't find any host by that name. (#4.1.2)")
_OURSELVES = Refusal(
    Status(5, 4, 6),
    "Sorry. Although I'm listed as a best-preference MX or A for that host,\n"
    "it isn't in my control/locals file, so I don't treat it as local. (#5.4.6)",
)


def literal(domain: bytes) -> str | None:
    """The address that `[1.2.3.4]`, `[IPv6:::1]` (RFC 5321 section 4.1.3) or a bare IPv4 address names; else None."""
    found = _LITERAL.fullmatch(domain)
    if found is None:
        return None
    try:
        return _normal((found[1] or found[2]).decode())
    except ValueError:
        return None


def is_written(target: bytes) -> bool:
    """Is this relay or domain an address, for which no name server is asked?"""
    return _address(target) is not None or literal(target) is not None


async def of_relay(names: Names, relay: bytes) -> list[Host]:
    """Where a relay of control/smtproutes is: a host name without MX, or an address. Raises NoHost, always temporary:
    a slip in that file must not send all mail back."""
    found = _address(relay)
    if found is not None:
        return [Host(found, b"")]
    try:
        addresses = await names.addresses(relay)
    except (NoSuchName, NameTrouble):
        addresses = []
    if not addresses:
        raise _no(_TROUBLE)
    return [Host(_normal(address), relay) for address in addresses[:MOST_HOSTS]]


async def of_domain(names: Names, domain: bytes, ours: Collection[str], shuffle: Shuffle) -> list[Host]:
    """Where a domain's mail is taken. `ours` are this machine's addresses; `shuffle` puts exchangers of one preference
    into an order by chance. Raises NoHost."""
    found = literal(domain)
    if found is not None:
        if found in ours:
            raise _no(_OURSELVES)
        return [Host(found, b"")]
    import asyncio  # its own import takes longer than all the rest that a program needs

    exchangers = await _exchangers(names, domain)
    _in_turn(exchangers, shuffle)
    asked = await asyncio.gather(*(_addresses(names, exchanger.name) for exchanger in exchangers))
    hosts = _hosts(exchangers, asked)
    if not hosts:
        raise _no(_TROUBLE if None in asked else _NO_EXCHANGER)
    own = min((preference for preference, host in hosts if host.address in ours), default=None)
    before_us = [host for preference, host in hosts if own is None or preference < own]
    if not before_us:
        raise _no(_OURSELVES)
    return before_us[:MOST_HOSTS]


async def _exchangers(names: Names, domain: bytes) -> list[Exchanger]:
    """The MX records, or the domain itself when it has none."""
    try:
        exchangers = await names.exchangers(domain)
    except NoSuchName:
        raise NoHost(f"Sorry, I couldn't find any host named {_shown(domain)}. (#5.1.2)", Status(5, 1, 2)) from None
    except NameTrouble:
        raise _no(_TROUBLE) from None
    if len(exchangers) == 1 and not exchangers[0].name:
        raise _no(_NULL)
    return [exchanger for exchanger in exchangers if exchanger.name] or [Exchanger(0, domain)]


async def _addresses(names: Names, name: bytes) -> list[str] | None:
    """None: cannot be said for now."""
    found = _address(name)  # no MX may name an address (RFC 5321 section 5.1), and some do
    if found is not None:
        return [found]
    try:
        return [_normal(address) for address in await names.addresses(name)]
    except NoSuchName:
        return []
    except NameTrouble:
        return None


def _hosts(exchangers: Sequence[Exchanger], asked: Sequence[list[str] | None]) -> list[tuple[int, Host]]:
    """Each address once, with the best preference that it has."""
    seen: dict[str, tuple[int, Host]] = {}
    for exchanger, addresses in zip(exchangers, asked, strict=True):
        for address in addresses or ():
            seen.setdefault(address, (exchanger.preference, Host(address, exchanger.name)))
    return list(seen.values())


def _in_turn(exchangers: list[Exchanger], shuffle: Shuffle) -> None:
    shuffle(exchangers)
    exchangers.sort(key=lambda exchanger: exchanger.preference)  # keeps the order of equals


def _address(name: bytes) -> str | None:
    try:
        return _normal(name.decode())
    except ValueError:
        return None


def _normal(address: str) -> str:
    """In the one form that comparison needs; an IPv4 address in IPv6's clothes (RFC 4291 section 2.5.5.2) undressed."""
    found = ipaddress.ip_address(address)
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return str(mapped or found)


def _no(refusal: Refusal) -> NoHost:
    return NoHost(refusal.text, refusal.status)


def _shown(domain: bytes) -> str:
    """qmail-remote: octets below 33 and above 126 as ?"""
    return "".join(chr(octet) if 33 <= octet <= 126 else "?" for octet in domain)
