"""SASL mechanisms: PLAIN (RFC 4616), LOGIN (what qmail's AUTH patch and everybody speaks), CRAM-MD5 (RFC 2195).

An exchange turns a client's base64 lines into a claim (Credentials); it proves nothing, that is the auth role's work.
The rule that must stay true: no claim leaves here with an empty name, an empty secret or a NUL in either, because
checkpassword's descriptor 3 joins its fields by NUL.
"""

from __future__ import annotations

import re
from binascii import a2b_base64, b2a_base64
from collections.abc import Generator
from dataclasses import dataclass
from enum import Enum

from pillarbox.credentials import Credentials, Digest, Password

OFFERED_PLAIN = (b"PLAIN", b"LOGIN")
# Only where control/crammd5 keeps the secrets these need: clients choose them by themselves and fail otherwise.
OFFERED_KEYED = (b"CRAM-MD5",)

# Octets of one name or password. RFC 4616 section 2 wants 255 at least.
LONGEST_FIELD = 1024
_DIGEST_LENGTH = 32
_DIGIT = re.compile(rb"[A-Za-z0-9+/]*")
_BASE64 = re.compile(rb"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}(?:==)?|[A-Za-z0-9+/]{3}=?)?")
_HEX = b"0123456789abcdef"


@dataclass(frozen=True, slots=True)
class Challenge:
    """Send `text` (base64, ready for the wire, b"" for an empty challenge) and step with the client's next line."""

    text: bytes


class Problem(Enum):
    """Why an exchange ended without a claim."""

    CANCELLED = "cancelled"
    MALFORMED = "malformed"


@dataclass(frozen=True, slots=True)
class Failed:
    """The exchange is over and nobody was named."""

    problem: Problem


Step = Challenge | Credentials | Failed

# Yields challenges in clear, is sent decoded responses, returns the claim; None when the client broke the rules.
_Dialogue = Generator[bytes, bytes, Credentials | None]


class Exchange:
    """One AUTH command's dialogue. Step it with the initial response or None, then with each line after a Challenge."""

    def __init__(self, dialogue: _Dialogue, *, server_first: bool = False, lax: bool = False) -> None:
        self._dialogue = dialogue
        self._server_first = server_first
        self._decode = _decode_laxly if lax else _decode
        self._begun = False

    def step(self, line: bytes | None) -> Step:
        """Take a line as received, without CRLF: base64, or b"*" to cancel; None for no initial response. An empty
        response (b"=" as initial one, RFC 4954 section 4) is malformed with every mechanism here. Never raises; after
        anything but a Challenge the exchange is over."""
        initial = not self._begun
        self._begun = True
        if line == b"*":
            return self._end(Problem.CANCELLED)
        if initial and (line is None or self._server_first):
            # qmail's AUTH ignores an initial response to CRAM-MD5.
            return self._advance(None)
        response = self._decode(line)
        if response is None:
            return self._end(Problem.MALFORMED)
        if initial:
            # The first challenge only asks for what the client has sent already.
            next(self._dialogue)
        return self._advance(response)

    def _advance(self, response: bytes | None) -> Step:
        try:
            challenge = next(self._dialogue) if response is None else self._dialogue.send(response)
        except StopIteration as end:
            claim: Credentials | None = end.value
            return claim if claim is not None else Failed(Problem.MALFORMED)
        return Challenge(b2a_base64(challenge, newline=False))

    def _end(self, problem: Problem) -> Failed:
        self._dialogue.close()
        return Failed(problem)


def start(mechanism: bytes, challenge: bytes, *, lax: bool = False) -> Exchange | None:
    """Begin an exchange; `mechanism` in any case. `challenge` is CRAM-MD5's (`<...@host>`, never used before) and b""
    where that mechanism is not offered. `lax`: as qmail-smtpd-auth reads what the client says, which looks at no
    authorization identity and leaves a digest to the checker. None: no such mechanism here."""
    match mechanism.upper():
        case b"PLAIN":
            return Exchange(_plain(lax), lax=lax)
        case b"LOGIN":
            return Exchange(_login(), lax=lax)
        case b"CRAM-MD5" if challenge:
            return Exchange((_lax_cram_md5 if lax else _cram_md5)(challenge), server_first=True, lax=lax)
    return None


def _plain(lax: bool) -> _Dialogue:
    """RFC 4616 section 2: authzid NUL authcid NUL passwd. Nobody acts for somebody else here."""
    fields = (yield b"").split(b"\0")
    if len(fields) != 3:
        return None
    authorize, login, password = fields
    if not lax and authorize not in (b"", login):
        return None
    return _password(login, password)


def _login() -> _Dialogue:
    login = yield b"Username:"
    if not _fits(login):
        return None
    return _password(login, (yield b"Password:"))


def _lax_cram_md5(challenge: bytes) -> _Dialogue:
    """The name ends at the first space; the digest is the checker's to judge."""
    login, _, response = (yield challenge).partition(b" ")
    response = response.lstrip(b" ")
    return Digest(b"CRAM-MD5", login, challenge, response) if _fits(login) and _fits(response) else None


def _cram_md5(challenge: bytes) -> _Dialogue:
    """RFC 2195 section 2: name, space, 32 lowercase hex digits. The name may hold spaces, the digest may not."""
    login, _, response = (yield challenge).rpartition(b" ")
    login, response = login.rstrip(b" "), response.lower()
    if not _fits(login) or len(response) != _DIGEST_LENGTH or response.strip(_HEX):
        return None
    return Digest(b"CRAM-MD5", login, challenge, response)


def _password(login: bytes, password: bytes) -> Password | None:
    return Password(login, password) if _fits(login) and _fits(password) else None


def _fits(field: bytes) -> bool:
    return 0 < len(field) <= LONGEST_FIELD and b"\0" not in field


def _decode_laxly(line: bytes | None) -> bytes | None:
    """base64.c of qmail-smtpd-auth: the first = is the end, what lacks of the last group is zero, and zeros at the end
    are dropped (a password loses those that it ends with). None when it is not base64, or there is no line."""
    digits = (line or b"").partition(b"=")[0]
    if not line or not _DIGIT.fullmatch(digits):
        return None
    return a2b_base64(digits + b"A" * (-len(digits) % 4)).rstrip(b"\0")


def _decode(line: bytes | None) -> bytes | None:
    """RFC 4648 section 4, with missing padding tolerated as qmail's AUTH does. None when it is not base64 or empty."""
    if not line or not _BASE64.fullmatch(line):
        return None
    return a2b_base64(line + b"=" * (-len(line) % 4))
