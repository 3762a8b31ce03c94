"""What a service offers in the answer to EHLO, and how much it bears."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from pillarbox.smtp import replies as r
from pillarbox.smtp.reply import Dialect, Reply


@dataclass(frozen=True, slots=True)
class Offer:
    """What a service offers in EHLO beside what every one does. `size`: octets, 0 for no limit. `starttls`: there is a
    certificate. `mechanisms` of AUTH in upper case, before TLS only with `cleartext`."""

    size: int = 0
    starttls: bool = False
    mechanisms: tuple[bytes, ...] = ()
    cleartext: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """Octets of a line with its CR LF (RFC 5321 section 4.5.3.1.4 wants 512 at least, RFC 4954 section 4 12288 for
    AUTH), and bad commands in a row until the client is sent away."""

    command_line: int = 4096
    auth_line: int = 12288
    bad_commands: int = 10


@lru_cache(maxsize=64)
def ehlo(me: bytes, dialect: Dialect, offer: Offer, secure: bool, authenticated: bool) -> Reply:
    """The extensions that may be used now."""
    if dialect is Dialect.QMAIL:
        return r.hello(me, (*_qmail_logins(offer), "PIPELINING", "8BITMIME"))
    size = f"SIZE {offer.size}" if offer.size else "SIZE"
    keywords = ["PIPELINING", size, "8BITMIME", "SMTPUTF8", "CHUNKING", "ENHANCEDSTATUSCODES"]
    if offer.starttls and not secure:
        keywords.append("STARTTLS")
    if offer.mechanisms and (secure or offer.cleartext) and not authenticated:
        keywords.append("AUTH " + _words(offer))
    return r.hello(me, tuple(keywords))


def _qmail_logins(offer: Offer) -> tuple[str, ...]:
    """qmail-smtpd-auth says it twice, the second time as the draft of RFC 2554 did, for clients of that time; and to
    the end of the connection."""
    words = _words(offer)
    return (f"AUTH {words}", f"AUTH={words}") if words else ()


def _words(offer: Offer) -> str:
    return b" ".join(offer.mechanisms).decode("ascii")
