"""May this sender send, may this recipient receive? Pure policy of badmailfrom, databytes, rcpthosts and sendas.

The rule that must stay true: from strangers nothing is taken for a host that rcpthosts does not list; only who logged
in sends anywhere. Whether a local recipient exists is asked afterwards (CheckRecipient), except for postmaster, who
always does.
"""

from __future__ import annotations

from collections.abc import Callable

from pillarbox.control.table import Settings
from pillarbox.credentials import Identity
from pillarbox.routing import POSTMASTER, Local, Routing
from pillarbox.status import Refusal, Status

HOPS = 100
"""A message with this many Received and Delivered-To lines is looping (qmail-smtpd's MAXHOPS)."""

BAD_SENDER = Refusal(Status(5, 7, 1), "sorry, your envelope sender is in my badmailfrom list")
TOO_BIG = Refusal(Status(5, 3, 4), "sorry, that message size exceeds my databytes limit")
NOT_YOURS = Refusal(Status(5, 7, 1), "sorry, you may not send as that address")
NOT_LISTED = Refusal(Status(5, 7, 1), "sorry, that domain isn't in my list of allowed rcpthosts")
TOO_MANY_RECIPIENTS = Refusal(Status(4, 5, 3), "too many recipients, send the rest in another message")
LOOPING = Refusal(Status(5, 4, 6), "too many hops, this message is looping")

Lookup = Callable[[bytes], bool]
"""Whether morercpthosts.cdb holds a key (host or .suffix in lower case). May raise Failure."""


class Admission:
    """The policy that one set of settings gives. `morercpthosts` is asked after rcpthosts where both exist."""

    def __init__(self, settings: Settings, morercpthosts: Lookup | None = None) -> None:
        self.databytes = settings.databytes
        self.maxrecipients = settings.maxrecipients
        self._bad = settings.badmailfrom
        self._hosts = settings.rcpthosts
        self._more = morercpthosts
        self._routing = Routing(settings)

    def sender(self, sender: bytes, size: int | None = None, identity: Identity | None = None) -> Refusal | None:
        """May mail with this reverse-path (b"" for <>) and declared size (octets) come from here? `identity` is who
        logged in on a submission service, None where mail comes from strangers."""
        if self.databytes and size is not None and size > self.databytes:
            return TOO_BIG
        if self._bad and sender and self._is_bad(sender.lower()):
            return BAD_SENDER
        if identity is not None and sender and not owns(identity, sender):
            return NOT_YOURS
        return None

    def recipient(self, address: bytes, identity: Identity | None = None) -> Refusal | None:
        """Is mail to this address (raw, unquoted) taken from this sender? May raise Failure from morercpthosts."""
        if self.always(address):
            return None
        if identity is None and not self._open_to_strangers(address):
            return NOT_LISTED
        return None

    def always(self, address: bytes) -> bool:
        """RFC 5321 section 4.5.1: postmaster, bare or at a domain that is served here, is taken without more ado."""
        user, at, domain = address.rpartition(b"@")
        if not at:
            return address.lower() == POSTMASTER
        return user.lower() == POSTMASTER and self._routing.serves(domain)

    def _is_bad(self, sender: bytes) -> bool:
        at = sender.rfind(b"@")
        if sender in self._bad or (at >= 0 and sender[at:] in self._bad):
            return True
        return at >= 0 and any(suffix in self._bad for suffix in _suffixes(sender[at + 1 :]))

    def _open_to_strangers(self, address: bytes) -> bool:
        """Both the host that was named and the one that envnoathost or percenthack make of it must be listed."""
        if not self._listed(address):
            return False
        route = self._routing.route(address)
        return isinstance(route, Local) or route.address == address or self._listed(route.address)

    def _listed(self, address: bytes) -> bool:
        """rcpthosts(5): no file lists everything, and so does no @."""
        _, at, domain = address.rpartition(b"@")
        if self._hosts is None or not at:
            return True
        host = domain.lower()
        if host in self._hosts or any(suffix in self._hosts for suffix in _suffixes(host)):
            return True
        return self._more is not None and (self._more(host) or any(map(self._more, _suffixes(host))))


def owns(identity: Identity, sender: bytes) -> bool:
    """May this login send as `sender`: his address, an extension of it, or what control/sendas grants. Who logged in
    to the mailbox joe-lists with its own password is joe-lists, not joe."""
    wanted = sender.lower()
    user, _, domain = wanted.rpartition(b"@")
    own, _, own_domain = identity.address.lower().rpartition(b"@")
    if identity.extension:
        own = own + b"-" + identity.extension.lower()
    if domain == own_domain and (user == own or user.startswith(own + b"-")):
        return True
    return wanted in identity.sendas or (b"@" in wanted and b"@" + domain in identity.sendas)


def _suffixes(host: bytes) -> list[bytes]:
    """Every part of the host that begins at a dot, the longest first."""
    found = []
    dot = host.find(b".")
    while dot >= 0:
        found.append(host[dot:])
        dot = host.find(b".", dot + 1)
    return found
