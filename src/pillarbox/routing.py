"""Where does an address go: to an owner on this machine, or to another host? Pure; qmail-send's rewriting.

The rule that must stay true: locals wins over virtualdomains, and what neither names is another host's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # programs that need a few settings do without the table of all
    from pillarbox.control.table import Settings

POSTMASTER = b"postmaster"
REMEMBERED = 1000  # addresses


class Local(NamedTuple):
    """`local` with the prefix that virtualdomains puts ahead (what owns the mail), `domain` and `user` (the local part
    without prefix) in the case they came in."""

    local: bytes
    domain: bytes
    user: bytes


class Relay(NamedTuple):
    """`address` after completion, `domain` in lower case."""

    address: bytes
    domain: bytes


Route = Local | Relay


class Routing:
    """The routes that one set of settings gives."""

    def __init__(self, settings: Settings) -> None:
        self._locals = settings.locals
        self._virtual = settings.virtualdomains
        self._percent = settings.percenthack
        self._envnoathost = settings.envnoathost
        self._known: dict[bytes, Route] = {}
        self._by_user = any(b"@" in key for key in self._virtual)
        self._by_suffix = any(not key or key.startswith(b".") for key in self._virtual)

    def route(self, address: bytes) -> Route:
        """The way of an envelope recipient (raw, unquoted): nothing but settings decide, so it is remembered."""
        known = self._known.get(address)
        if known is None:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            known = self._known[address] = self._route(address)
        return known

    def _route(self, address: bytes) -> Route:
        user, at, domain = address.rpartition(b"@")
        if not at:
            user, domain = address, self._envnoathost
        host = domain.lower()
        while self._percent and host in self._percent and b"%" in user:
            user, _, domain = user.rpartition(b"%")
            host = domain.lower()
        if host in self._locals:
            return Local(user, domain, user)
        prefix = self._prefix(user, host)
        if prefix:
            return Local(prefix + b"-" + user, domain, user)
        if not at and user.lower() == POSTMASTER:
            # RFC 5321 section 4.5.1: bare <postmaster> is this host's own, also where its name is not local.
            return Local(user, domain, user)
        return Relay(user + b"@" + domain, host)

    def serves(self, domain: bytes) -> bool:
        """Whether locals or virtualdomains name the domain (itself or by a suffix; the catch-all does not count)."""
        host = domain.lower()
        if host in self._locals:
            return True
        named = next((key for key in keys(host) if key in self._virtual), b"")
        return bool(named and self._virtual[named])

    def _prefix(self, user: bytes, host: bytes) -> bytes | None:
        """What virtualdomains puts ahead of the local part; None or empty: nothing, the address is remote."""
        virtual = self._virtual
        if self._by_user:
            prefix = virtual.get(user.lower() + b"@" + host)
            if prefix is not None:
                return prefix
        if not self._by_suffix:
            return virtual.get(host)
        return next((virtual[key] for key in keys(host) if key in virtual), None)


def keys(host: bytes) -> list[bytes]:
    """host, each .suffix of it from the longest, and the empty key."""
    keys = [host]
    dot = host.find(b".", 1)
    if host.startswith(b"."):
        dot = 0
    while dot >= 0:
        keys.append(host[dot:])
        dot = host.find(b".", dot + 1)
    keys.append(b"")
    return keys


def shown_local(local: bytes, domain: bytes, owner_home: bytes, home: bytes, settings: Settings) -> bytes:
    """The local part that Delivered-To shows. For an account (its domain's line in virtualdomains is DOMAIN:DOMAIN and
    its home lies in HOME/mail/DOMAIN/) without the prefix: joe, not example.org-joe. For all else as it is.

    `local` and `domain` are those of a Local, `owner_home` the owner's home, `home` the absolute DIR of `serve`."""
    host = domain.lower()
    if settings.virtualdomains.get(host, b"").lower() != host:
        return local
    if not owner_home.startswith(b"%s/mail/%s/" % (home.rstrip(b"/"), host)):
        return local
    return local[len(host) + 1 :] if local[: len(host) + 1].lower() == host + b"-" else local
