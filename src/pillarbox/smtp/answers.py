"""A server's replies as its client hears them (RFC 5321 section 4.2), and what its reply to EHLO offers.

A reply's code is that of its first line, as in qmail-remote; one whose lines have different codes is no reply. The rule
that must stay true: no server makes us keep more of a reply than MOST_OCTETS.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass
from typing import Final

from pillarbox.status import Status

LONGEST_LINE: Final = 4096
"""Octets of one line, eight times what RFC 5321 section 4.5.3.1.5 allows."""
MOST_OCTETS: Final = 64 << 10
"""Octets of all lines of one reply."""

_SHOWN: Final = 200

_LINE = re.compile(rb"([2-5][0-9][0-9])(?:([ -])(.*))?\Z", re.DOTALL)
_STATUS = re.compile(rb"([245])\.([0-9]{1,3})\.([0-9]{1,3})(?: |\Z)")
_SIZE = re.compile(rb"[0-9]{1,19}\Z")


@dataclass(frozen=True, slots=True)
class Answer:
    """One reply: its code (200 to 599), and its lines whole, without their ends (bytes, any but LF)."""

    code: int
    lines: tuple[bytes, ...]

    @property
    def positive(self) -> bool:
        """2xx: it was done."""
        return self.code < 300

    @property
    def permanent(self) -> bool:
        """5xx: it will not be done."""
        return self.code >= 500

    @property
    def texts(self) -> tuple[bytes, ...]:
        """What stands behind the code on each line."""
        return tuple(line[4:] for line in self.lines)

    @property
    def whole(self) -> bytes:
        """All of it, with LF between the lines."""
        return b"\n".join(self.lines)

    def status(self, kind: int) -> Status:
        """The enhanced status it tells (RFC 2034) if that is of this class (2, 4, 5), else the undefined one of it."""
        for text in self.texts:
            match = _STATUS.match(text)
            if match is not None and int(match[1]) == kind:
                return Status(kind, int(match[2]), int(match[3]))
        return Status(kind, 0, 0)


class Answers:
    """Octets in, replies out. Lines end with LF, with or without CR before it, as in qmail-remote."""

    __slots__ = ("_code", "_lines", "_octets", "_rest", "_waiting", "nonsense", "spoilt")

    def __init__(self) -> None:
        self._waiting: deque[bytes] = deque()  # whole lines that nobody has looked at
        self._rest = b""  # the beginning of the next
        self._code = b""
        self._lines: list[bytes] = []
        self._octets = 0
        self.spoilt = False
        """This is not SMTP, or never ends: no more replies will come."""
        self.nonsense = b""
        """How the line begins that spoilt it."""

    @property
    def empty(self) -> bool:
        """Nothing is here that has not been given out, no part of a reply either."""
        return not (self._rest or self._waiting or self._lines)

    def add(self, data: bytes) -> None:
        """More octets have come."""
        if self.spoilt:
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._waiting.extend(lines)

    def next(self) -> Answer | None:
        """The next whole reply, or None when there is none: see `spoilt`."""
        while self._waiting:
            if self._hear(self._waiting.popleft().removesuffix(b"\r")):
                answer = Answer(int(self._code), tuple(self._lines))
                self._lines, self._octets = [], 0
                return answer
        if len(self._rest) > LONGEST_LINE:
            self._spoil(self._rest)
        return None

    def _hear(self, line: bytes) -> bool:
        """Whether this line ends a reply."""
        match = _LINE.match(line)
        self._octets += len(line)
        if match is not None and not self._lines:
            self._code = match[1]
        if match is None or match[1] != self._code or len(line) > LONGEST_LINE or self._octets > MOST_OCTETS:
            self._spoil(line)
            return False
        self._lines.append(line)
        return match[2] != b"-"

    def _spoil(self, line: bytes) -> None:
        self.spoilt = True
        self.nonsense = line[:_SHOWN]
        self._waiting.clear()
        self._lines.clear()
        self._rest = b""


@dataclass(frozen=True, slots=True)
class Offers:
    """What a server can do beyond RFC 5321's minimum; what HELO leaves is `Offers()`."""

    pipelining: bool = False
    eight_bit: bool = False
    starttls: bool = False
    utf8: bool = False
    size: int | None = None
    """SIZE is offered; the number is the most octets it takes, 0 for no limit (RFC 1870)."""
    mechanisms: tuple[bytes, ...] | None = None
    """SASL mechanisms in upper case; None: AUTH is not on the list at all."""

    @classmethod
    def of(cls, answer: Answer) -> Offers:
        """From the reply to EHLO (RFC 5321 section 4.1.1.1). Any case; `AUTH=LOGIN` as old servers say it."""
        words: dict[bytes, list[bytes]] = {}
        for text in answer.texts[1:]:
            keyword, *parameters = text.upper().replace(b"AUTH=", b"AUTH ", 1).split()[:64] or [b""]
            words.setdefault(keyword, []).extend(parameters)
        return cls(
            pipelining=b"PIPELINING" in words,
            eight_bit=b"8BITMIME" in words,
            starttls=b"STARTTLS" in words,
            utf8=b"SMTPUTF8" in words,
            size=_limit(words.get(b"SIZE")),
            mechanisms=tuple(words[b"AUTH"]) if b"AUTH" in words else None,
        )


def _limit(parameters: list[bytes] | None) -> int | None:
    if parameters is None:
        return None
    return int(parameters[0]) if parameters and _SIZE.match(parameters[0]) else 0
