"""SMTP replies, RFC 5321 section 4.2, with enhanced status codes (RFC 2034), in two spellings.

This is the only place where a Status becomes a reply code. The rule that must stay true: whatever a text holds, a reply
is whole lines of printable ASCII, each short enough for RFC 5321 section 4.5.3.1.5.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from typing import Final

from pillarbox.status import Refusal, Status


class Dialect(Enum):
    """How replies are spelled: `250 2.1.0 ok`, or qmail's `250 ok` with the status of a failure at its end."""

    MODERN = "modern"
    QMAIL = "qmail"


_LONGEST_TEXT: Final = 480
_PRINTABLE = bytes(byte if 32 <= byte < 127 else ord("?") for byte in range(256))


@dataclass(slots=True)
class Reply:
    """One reply; nobody changes one that was made. `text` holds its lines, of which anything but printable ASCII is
    shown as ?; `status` is None where RFC 2034 has none (greeting, EHLO, 3xx). `qmail` is the whole line where qmail's
    is not made of the same parts. `then` is said right behind this reply, to end the connection (421)."""

    code: int
    status: Status | None
    text: tuple[str, ...]
    qmail: str | None = None
    then: Reply | None = None
    positive: bool = field(init=False, repr=False, compare=False)
    """The command did, or so far does, what it should: 2xx and 3xx."""
    final: bool = field(init=False, repr=False, compare=False)
    """The connection is closed behind this reply: RFC 5321 section 3.8."""
    modern: bytes = field(init=False, repr=False, compare=False)
    """`encode` in our own spelling."""

    def __post_init__(self) -> None:
        self.positive = self.code < 400
        self.final = self.code == 421 or self.then is not None
        self.modern = _lines(self.code, self.status, self.text, b"\r\n")
        if self.then is not None:
            self.modern += self.then.modern

    def encode(self, dialect: Dialect) -> bytes:
        """The reply as bytes with CR LF, `then` included."""
        if dialect is Dialect.MODERN:
            return self.modern
        wire = self._qmail() if self.qmail is None else self.qmail.encode("ascii") + b"\r\n"
        return wire if self.then is None else wire + self.then.encode(dialect)

    @classmethod
    def of(cls, refusal: Refusal) -> Reply:
        """The reply that tells a refusal."""
        fallback = 550 if refusal.permanent else 451
        return cls(_CODES.get(refusal.status, fallback), refusal.status, (refusal.text,))

    def _qmail(self) -> bytes:
        if self.status is None or self.positive:
            return _lines(self.code, None, self.text, b"\r\n")
        code = _QMAIL_CODES.get(self.status, self.code)
        return _lines(code, None, self.text, b" (#%d.%d.%d)\r\n" % self.status)


# What RFC 5321, 1870, 4954 and 6531 or custom want for a status; others are 550 or 451.
_CODES: Final = {
    Status(4, 3, 1): 452,
    Status(4, 5, 3): 452,
    Status(5, 3, 4): 552,
    Status(5, 4, 6): 554,
    Status(5, 6, 7): 553,
    Status(4, 7, 0): 454,
    Status(5, 7, 0): 530,
    Status(5, 7, 8): 535,
    Status(5, 7, 11): 538,
}


# qmail-smtpd says 553 to badmailfrom and rcpthosts.
_QMAIL_CODES: Final = {Status(5, 7, 1): 553}


def _lines(code: int, status: Status | None, text: tuple[str, ...], end: bytes) -> bytes:
    """Every line with code, status and end; a blank behind the code of the last, a hyphen behind the others."""
    lines = b""
    left = len(text)
    for line in text:
        left -= 1
        printable = line[:_LONGEST_TEXT].encode("ascii", "replace").translate(_PRINTABLE)
        lines += _beginning(code, b"-" if left else b" ", status) + printable + end
    return lines


@lru_cache(maxsize=256)
def _beginning(code: int, mark: bytes, status: Status | None) -> bytes:
    beginning = b"%d%s" % (code, mark)
    return beginning if status is None else b"%s%d.%d.%d " % (beginning, *status)
