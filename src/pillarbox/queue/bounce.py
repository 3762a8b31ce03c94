"""The text of a bounce, and whom it goes to: qmail-send's injectbounce and addbounce, byte for byte. Pure.

The form is QSBMF (the qmail-send bounce message format, https://cr.yp.to/proto/qsbmf.txt), which mailing list programs
parse: a paragraph that begins `Hi. This is the`, one for each recipient, a paragraph that begins with a dash, then the
message. The rule that must stay true: a bounce is never answered by more than one double bounce, and that by nothing.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import NamedTuple

from pillarbox.address import quote
from pillarbox.control.table import Settings
from pillarbox.envelope import Envelope
from pillarbox.header import date
from pillarbox.queue.engine import REASON_LIMIT

DOUBLE_BOUNCE = b"#@[]"  # the sender of a double bounce: no mail system can answer it
STRIPPED = b"\n\n--- End of message stripped.\n"  # what qmail's patches write behind a copy that is not whole
LOST = b"\nThis host has lost the message's text.\n"

_VERP = b"-@[]"
_SECOND_LF = re.compile(rb"(?<=\n)\n")

_SORRY = b"""\
I'm afraid I wasn't able to deliver your message to the following addresses.
This is a permanent error; I've given up. Sorry it didn't work out.

"""
_SORRY_TWICE = b"""\
I tried to deliver a bounce message to this address, but the bounce bounced!

"""
_COPY = b"--- Below this line is a copy of the message.\n\n"
_ORIGINAL = b"--- Below this line is the original bounce.\n\n"


class Discarded(Enum):
    """Why nobody is told, in qmail-send's words for the log."""

    DOUBLE = "double bounce: discarding"
    TRIPLE = "triple bounce: discarding"


class Bounce(NamedTuple):
    """One bounce: its envelope, who writes it (a quoted address), at which host, and whose message it answers
    (`returned`, b"" when that was a bounce itself)."""

    envelope: Envelope
    author: bytes
    host: bytes
    returned: bytes

    def opening(self, pid: int, now: int) -> bytes:
        """What stands ahead of the recipients' paragraphs. `pid` is the process that injects it."""
        (recipient,) = self.envelope.recipients
        when = date(now)
        return b"".join((
            b"Received: (qmail %d invoked for bounce); %s\n" % (pid, when),
            b"Date: %s\nFrom: %s\nTo: %s\nSubject: failure notice\n\n" % (when, self.author, quote(recipient)),
            b"Hi. This is the qmail-send program at %s.\n" % self.host,
            _SORRY if self.returned else _SORRY_TWICE,
        ))  # fmt: skip

    def closing(self) -> bytes:
        """What stands between the recipients' paragraphs and the message's own first octet."""
        return (_COPY if self.returned else _ORIGINAL) + b"Return-Path: <%s>\n" % quote(self.returned)


def bounce(sender: bytes, settings: Settings) -> Bounce | Discarded:
    """Who is told that mail from `sender` (raw, unquoted) failed. A sender `list-owner-@host-@[]`, whose deliveries go
    out under one name for each recipient (see `sender_for`), is told as `list-owner-@host`."""
    returned = sender.removesuffix(_VERP)
    if returned == DOUBLE_BOUNCE:
        return Discarded.TRIPLE
    if returned:
        envelope = Envelope(b"", (returned,))
    elif settings.doublebounceto:
        envelope = Envelope(DOUBLE_BOUNCE, (settings.doublebounceto + b"@" + settings.doublebouncehost,))
    else:
        return Discarded.DOUBLE
    host = settings.bouncehost
    return Bounce(envelope, quote(settings.bouncefrom + b"@" + host), host, returned)


def paragraph(address: bytes, report: bytes) -> bytes:
    """What a bounce says of one recipient. Within it no line is empty: that would end the paragraph, and a report could
    forge another recipient's."""
    text = b"<%s>:\n" % address.replace(b"\n", b"_") + report.partition(b"\0")[0]
    if not text.endswith(b"\n"):
        text += b"\n"
    return _SECOND_LF.sub(b"/", text[:-1]) + b"\n\n"


def last_words(reason: bytes, line: bytes) -> bytes:
    """Why an attempt failed, and a line that says why there will be no other. Long as the reason may be, the line can
    be read."""
    reason = reason[: REASON_LIMIT - len(line) - 1]
    return reason + (b"" if not reason or reason.endswith(b"\n") else b"\n") + line


def varies(sender: bytes) -> bool:
    """Does the sender name each recipient, so that they cannot be delivered together? See `sender_for`."""
    return sender.endswith(_VERP)


def sender_for(sender: bytes, recipient: bytes) -> bytes:
    """The sender under which a message goes to `recipient`: `list-owner-@host-@[]` and joe@example.org make
    `list-owner-joe=example.org@host` (variable envelope return paths; qmail-send's senderadd); others stay as they
    are."""
    if not varies(sender):
        return sender
    box, at, host = sender.removesuffix(_VERP).rpartition(b"@")
    local, recipient_at, domain = recipient.rpartition(b"@")
    if not at or not recipient_at:
        return sender
    return box + local + b"=" + domain + b"@" + host
