"""May this sender send, may this recipient receive? Pure policy of badmailfrom, databytes, rcpthosts and sendas.

The rule that must stay true: from strangers nothing is taken for a host that rcpthosts does not list; only who logged
in sends anywhere. Whether a local recipient exists is asked afterwards (CheckRecipient), except for postmaster, who
always does.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Set
from typing import TYPE_CHECKING, Protocol

from pillarbox.credentials import Identity
from pillarbox.routing import POSTMASTER, Local, Routing
from pillarbox.status import Refusal, Status

if TYPE_CHECKING:  # programs that need a few settings do without the table of all
    from pillarbox.control.table import Settings

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


LARGEST_ENVELOPE = 64 << 20
"""Octets of recipients that qmail-smtpd's session keeps; qmail-queue takes no more."""


class Policy(Protocol):
    """What a session asks. `databytes`: most octets of a message, 0 for no limit. `maxrecipients` of a message."""

    databytes: int
    maxrecipients: int

    def sender(self, sender: bytes, size: int | None = None, identity: Identity | None = None) -> Refusal | None:
        """May mail with this reverse-path (b"" for <>) and declared size (octets) come from here? `identity` is who
        logged in, None where mail comes from strangers."""

    def recipient(self, address: bytes, identity: Identity | None = None, trusted: bool = False) -> Refusal | None:
        """Is mail to this address (raw, unquoted) taken from this sender? `trusted`: the client may send anywhere
        (RELAYCLIENT). May raise Failure from morercpthosts."""

    def always(self, address: bytes) -> bool:
        """Is nobody to be asked whether this recipient exists?"""


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
        """See Policy; who logged in sends as himself alone."""
        if self.databytes and size is not None and size > self.databytes:
            return TOO_BIG
        if self._bad and sender and bad(sender.lower(), self._bad):
            return BAD_SENDER
        if identity is not None and sender and not owns(identity, sender):
            return NOT_YOURS
        return None

    def recipient(self, address: bytes, identity: Identity | None = None, trusted: bool = False) -> Refusal | None:
        """See Policy."""
        if self.always(address):
            return None
        if identity is None and not trusted and not self._open_to_strangers(address):
            return NOT_LISTED
        return None

    def always(self, address: bytes) -> bool:
        """RFC 5321 section 4.5.1: postmaster, bare or at a domain that is served here, is taken without more ado."""
        if address[: len(POSTMASTER)].lower() != POSTMASTER:
            return False
        user, at, domain = address.rpartition(b"@")
        if not at:
            return address.lower() == POSTMASTER
        return user.lower() == POSTMASTER and self._routing.serves(domain)

    def _open_to_strangers(self, address: bytes) -> bool:
        """Both the host that was named and the one that envnoathost or percenthack make of it must be listed."""
        if not listed(address, self._hosts, self._more):
            return False
        route = self._routing.route(address)
        return isinstance(route, Local) or route.address == address or listed(route.address, self._hosts, self._more)


class QmailAdmission:
    """qmail-smtpd's policy, for one connection: no recipient is looked up, and a sender in badmailfrom is told so at
    RCPT, whoever he is. The lists are in lower case; `rcpthosts` None is no file."""

    def __init__(
        self, badmailfrom: Set[bytes], rcpthosts: Set[bytes] | None, more: Lookup | None = None, databytes: int = 0
    ) -> None:
        self.databytes = databytes
        self.maxrecipients = sys.maxsize
        self._bad = badmailfrom
        self._hosts = rcpthosts
        self._more = more
        self._barred = False
        self._octets = 0

    def sender(self, sender: bytes, size: int | None = None, identity: Identity | None = None) -> Refusal | None:
        """None, whatever there is to be said."""
        self._barred = bool(sender) and bad(sender.lower(), self._bad)
        self._octets = 0
        return None

    def recipient(self, address: bytes, identity: Identity | None = None, trusted: bool = False) -> Refusal | None:
        """See Policy."""
        if self._barred:
            return BAD_SENDER
        if identity is None and not trusted and not listed(address, self._hosts, self._more):
            return NOT_LISTED
        self._octets += len(address) + 2  # with its T and NUL
        return TOO_MANY_RECIPIENTS if self._octets > LARGEST_ENVELOPE else None

    def always(self, address: bytes) -> bool:
        """True: whether he exists is seen at delivery."""
        return True


def bad(sender: bytes, badmailfrom: Set[bytes]) -> bool:
    """qmail-smtpd's badmailfrom with wildcards: a line is the sender, its @host, or a .suffix of the host. All in lower
    case."""
    at = sender.rfind(b"@")
    if sender in badmailfrom or (at >= 0 and sender[at:] in badmailfrom):
        return True
    return at >= 0 and any(suffix in badmailfrom for suffix in _suffixes(sender[at + 1 :]))


def listed(address: bytes, rcpthosts: Set[bytes] | None, more: Lookup | None) -> bool:
    """rcpthosts(5): no file lists everything, and so does no @. May raise Failure from `more`."""
    _, at, domain = address.rpartition(b"@")
    if rcpthosts is None or not at:
        return True
    host = domain.lower()
    if host in rcpthosts or any(suffix in rcpthosts for suffix in _suffixes(host)):
        return True
    return more is not None and (more(host) or any(map(more, _suffixes(host))))


def owns(identity: Identity, sender: bytes) -> bool:
    """May this login send as `sender`: his address, an extension of it, or what control/sendas grants. Who logged in
    to the mailbox joe-lists with its own password is joe-lists, not joe."""
    wanted = sender.lower()
    user, _, domain = wanted.rpartition(b"@")
    own, _, own_domain = identity.address.lower().rpartition(b"@")
    if identity.extension:
        own = own + b"-" + identity.extension.lower()
    if (domain == own_domain or domain in identity.domains) and (user == own or user.startswith(own + b"-")):
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
