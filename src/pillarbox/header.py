"""Header fields that a server reads and writes: trace fields, Date, Message-ID. Stored form: lines end with LF."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

# Long enough for every name looked for; what is longer of an unfinished line is not kept.
_PREFIX: Final = 64
_DATE = re.compile(rb"\ndate[ \t]*:")
_MESSAGE_ID = re.compile(rb"\nmessage-id[ \t]*:")

_MONTHS = (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec")

_SAFE = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.@%+/=:-_[]"
_MASK = bytes(byte if byte in _SAFE else ord("?") for byte in range(256))
# As qmail-smtpd's safestring: no underscore, no brackets.
_QMAIL_SAFE = _SAFE.translate(None, b"_[]")
_QMAIL_MASK = bytes(byte if byte in _QMAIL_SAFE else ord("?") for byte in range(256))
_LONGEST_NAME: Final = 255


class Watcher:
    """Looks at content in stored form as it passes, and learns from its header.

    `hops` counts lines that begin with received or delivered in any case, no colon needed (qmail-smtpd's rule). The
    header ends at the first empty line; a last line without its end is not looked at. At most a short beginning of an
    unfinished line is kept.
    """

    __slots__ = ("_partial", "_skipping", "ended", "has_date", "has_message_id", "hops")

    def __init__(self) -> None:
        self._partial = b"\n"  # a line end, then the beginning of the line that is not finished yet
        self._skipping = False
        self.ended = False
        """The empty line has come."""
        self.hops = 0
        self.has_date = False
        self.has_message_id = False

    def feed(self, block: bytes) -> None:
        """Look at the next block; costs nothing once the header has ended."""
        if self.ended or not block:
            return
        if self._skipping:
            start = block.find(b"\n")
            if start < 0:
                return
            self._skipping = False
            text = block[start:]
        else:
            text = self._partial + block
        end = text.find(b"\n\n")
        if end >= 0:
            self.ended = True
            self._read(text[: end + 1])
            return
        last = text.rfind(b"\n")
        self._partial = text[last:]
        self._read(text[:last])
        if len(self._partial) > _PREFIX:
            self._read(self._partial[:_PREFIX])
            self._partial = b""
            self._skipping = True

    def _read(self, lines: bytes) -> None:
        """`lines`: each begins with its LF, none is empty."""
        lines = lines.lower()
        self.hops += lines.count(b"\nreceived") + lines.count(b"\ndelivered")
        if not self.has_date:
            self.has_date = b"\ndate" in lines and _DATE.search(lines) is not None
        if not self.has_message_id:
            self.has_message_id = b"\nmessage-id" in lines and _MESSAGE_ID.search(lines) is not None


@lru_cache(maxsize=8)
def date(seconds: int) -> bytes:
    """RFC 5322 section 3.3 date in qmail's form, b"22 Nov 2026 13:03:55 -0000"; `seconds` since 1970 (UTC)."""
    moment = datetime.fromtimestamp(seconds, UTC)
    clock = (moment.hour, moment.minute, moment.second)
    return b"%d %s %d %02d:%02d:%02d -0000" % (moment.day, _MONTHS[moment.month - 1], moment.year, *clock)


def received(*, helo: bytes, ip: bytes, me: bytes, protocol: bytes, seconds: int, tls: bytes = b"") -> bytes:
    """A Received field, RFC 5321 section 4.4, with its last LF; bytes that could break it are shown as ?.

    `helo` is what the client called itself (b"" before any HELO), `ip` its address as text, `protocol` a word that
    `protocol_word` gives, `tls` version and cipher, b"" without TLS.
    """
    return b"%s  %s\n" % (_from_by_with(helo[:_LONGEST_NAME], ip, me, protocol, tls), date(seconds))


@lru_cache(maxsize=256)
def _from_by_with(helo: bytes, ip: bytes, me: bytes, protocol: bytes, tls: bytes) -> bytes:
    """A Received field but for its date."""
    client = _name(helo) or b"unknown"
    address = _name(ip)
    if b":" in address:
        address = b"IPv6:" + address
    secured = b" (%s)" % b" ".join(_name(word) for word in tls.split()) if tls else b""
    return b"Received: from %s ([%s])\n  by %s with %s%s;\n" % (client, address, _name(me), protocol, secured)


def qmail_received(*, host: bytes, helo: bytes | None, info: bytes | None, ip: bytes, me: bytes, seconds: int) -> bytes:
    """qmail-smtpd's Received field, with its last LF. `host`, `ip` and `info` (who its user is) are the client's,
    as far as tcpserver knew them; `helo` is None before any HELO. The word is always SMTP."""
    said = b" (HELO %s)" % _safe(helo) if helo is not None and helo.lower() != host.lower() else b""
    client = (_safe(info) + b"@" if info is not None else b"") + _safe(ip)
    return b"Received: from %s%s (%s)\n  by %s with SMTP; %s\n" % (_safe(host), said, client, _safe(me), date(seconds))


def message_id(seconds: int, pid: int, host: bytes) -> bytes:
    """qmail's Message-ID field, with its LF, of a process at a time (seconds since 1970)."""
    moment = datetime.fromtimestamp(seconds, UTC)
    clock = (moment.year, moment.month, moment.day, moment.hour, moment.minute, moment.second)
    return b"Message-ID: <%04d%02d%02d%02d%02d%02d.%d.qmail@%s>\n" % (*clock, pid, host)


def invoked(pid: int, who: bytes, seconds: int) -> bytes:
    """qmail-queue's Received field, with its LF; `who` is b"by uid 1000", b"by alias" or b"from network"."""
    return b"Received: (qmail %d invoked %s); %s\n" % (pid, who, date(seconds))


def protocol_word(*, extended: bool, secured: bool, authenticated: bool, utf8: bool) -> bytes:
    """The registered word for "with": RFC 5321 section 4.4, RFC 3848, RFC 6531 section 4.3."""
    if not extended:
        return b"SMTP"
    return (b"UTF8SMTP" if utf8 else b"ESMTP") + (b"S" if secured else b"") + (b"A" if authenticated else b"")


def _safe(text: bytes) -> bytes:
    return text.translate(_QMAIL_MASK)


def _name(text: bytes) -> bytes:
    return text[:_LONGEST_NAME].translate(_MASK)
