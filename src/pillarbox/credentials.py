"""What a client claims about itself, and who it turned out to be. Neither ever shows a secret in its repr."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Password:
    """A name and a password in clear (PLAIN, LOGIN, USER/PASS). Bytes as sent, without NUL."""

    login: bytes
    password: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Digest:
    """A name and a keyed digest over a challenge of ours. `mechanism` is b"CRAM-MD5" (RFC 2195: HMAC-MD5) or
    b"APOP" (RFC 1939 section 7: MD5 of challenge + secret). `response` is lowercase hex as sent."""

    mechanism: bytes
    login: bytes
    challenge: bytes
    response: bytes = field(repr=False)


Credentials = Password | Digest


@dataclass(frozen=True, slots=True)
class Identity:
    """A proven login. `address` is the mailbox's full address (b"joe@example.org"); `extension` is b"lists" when the
    login named the mailbox joe-lists; `sendas` are further sender addresses or @domains granted to it; in `domains` too
    the address's local part is his."""

    login: bytes
    address: bytes
    extension: bytes = b""
    sendas: tuple[bytes, ...] = ()
    domains: tuple[bytes, ...] = ()
