"""The client's side of SASL (RFC 4422) for a name and a password: PLAIN, LOGIN, CRAM-MD5."""

from __future__ import annotations

from binascii import Error, a2b_base64, b2a_base64
from collections.abc import Generator
from typing import Final, NamedTuple

from pillarbox.credentials import Password

IN_CLEAR: Final = (b"LOGIN", b"PLAIN")
"""Mechanisms that show the password to whoever listens, the one of qmail's AUTH patch first."""
KEYED: Final = (b"CRAM-MD5",)


class Step(NamedTuple):
    """A line to say, without CR LF, and what it is called where it is refused. `secret` must not be shown."""

    line: bytes
    name: bytes
    secret: bool = False


# Yields lines, is sent the text behind each 334; at its end the server has all it wants.
Claim = Generator[Step, bytes, None]


def choose(offered: tuple[bytes, ...] | None, *, private: bool) -> bytes | None:
    """The mechanism to use. `offered` is in upper case, None where the server told no list: then LOGIN, as qmail's AUTH
    patch. `private`: a password may be said, as nobody can listen. None: there is none to use."""
    if offered is None:
        return b"LOGIN" if private else None
    wanted = IN_CLEAR + KEYED if private else KEYED
    return next((mechanism for mechanism in wanted if mechanism in offered), None)


def claim(mechanism: bytes, credentials: Password) -> Claim:
    """The steps of one AUTH command."""
    match mechanism:
        case b"PLAIN":
            secret = b"\0" + credentials.login + b"\0" + credentials.password
            yield Step(b"AUTH PLAIN " + _base64(secret), b"AUTH PLAIN", secret=True)
        case b"LOGIN":
            yield Step(b"AUTH LOGIN", b"AUTH LOGIN")
            yield Step(_base64(credentials.login), b"username")
            yield Step(_base64(credentials.password), b"password", secret=True)
        case b"CRAM-MD5":
            import hmac  # slow to import, and few hosts want it

            challenge = yield Step(b"AUTH CRAM-MD5", b"AUTH CRAM-MD5")
            digest = hmac.new(credentials.password, _decoded(challenge), "md5").hexdigest().encode()
            yield Step(_base64(credentials.login + b" " + digest), b"response", secret=True)


def _base64(octets: bytes) -> bytes:
    return b2a_base64(octets, newline=False)


def _decoded(text: bytes) -> bytes:
    """The challenge; b"" for one that is no base64, to which no answer is right."""
    try:
        return a2b_base64(text)
    except Error:
        return b""
