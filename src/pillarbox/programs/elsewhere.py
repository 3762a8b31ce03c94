"""$QMAILQUEUE: another program takes the place of qmail-queue, as with the patch of that name. It gets the message on
descriptor 0 and the envelope on descriptor 1, and its exit status says what became of it (qmail-queue(8))."""

from __future__ import annotations

import os
import subprocess

from pillarbox.envelope import Envelope
from pillarbox.programs.content import Content
from pillarbox.programs.injector import Result

PATIENCE = 86400.0  # seconds, as long as qmail-queue itself takes
CRASHED = 81
NOT_RUN = 120

# qmail.c's words for exit statuses.
_TEXTS = {
    11: "envelope address too long for qq (#5.1.3)",
    31: "mail server permanently rejected message (#5.3.0)",
    51: "qq out of memory (#4.3.0)",
    52: "qq timeout (#4.3.0)",
    53: "qq write error or disk full (#4.3.0)",
    54: "qq read error (#4.3.0)",
    55: "qq unable to read configuration (#4.3.0)",
    56: "qq trouble making network connection (#4.3.0)",
    61: "qq trouble in home directory (#4.3.0)",
    71: "mail server temporarily rejected message (#4.3.0)",
    72: "connection to mail server timed out (#4.4.1)",
    73: "connection to mail server rejected (#4.4.1)",
    74: "communication with mail server failed (#4.4.2)",
    81: "qq internal bug (#4.3.0)",
    91: "qq internal bug (#4.3.0)",
    120: "unable to exec qq (#4.3.0)",
}
_TEXTS |= {115: _TEXTS[11], **dict.fromkeys(range(62, 67), "qq trouble creating files in queue (#4.3.0)")}


def hand_over(program: bytes, envelope: Envelope, content: Content) -> Result:
    """Run `program` and tell it everything. Raises OSError for `content`."""
    message_out, message_in = os.pipe()
    envelope_out, envelope_in = os.pipe()
    with open(message_in, "wb") as message, open(envelope_in, "wb") as addresses:
        try:
            child = subprocess.Popen([program], stdin=message_out, stdout=envelope_out)
        except OSError:
            return Result(NOT_RUN, text(NOT_RUN))
        finally:
            os.close(message_out)
            os.close(envelope_out)
        try:
            for block in content.blocks():
                message.write(block)
            message.close()
            recipients = b"".join(b"T" + address + b"\0" for address in envelope.recipients)
            addresses.write(b"F" + envelope.sender + b"\0" + recipients + b"\0")
            addresses.flush()
        except BrokenPipeError:
            pass  # its status says why it would not hear the end
    status = child.wait(PATIENCE)
    if status < 0:
        return Result(CRASHED, "qq crashed (#4.3.0)")
    return Result(status, text(status)) if status else Result(0, "", child.pid)  # what qmail's programs call `qp`


def text(status: int) -> str:
    """What qmail's programs say for an exit status of qmail-queue."""
    other = "qq permanent problem (#5.3.0)" if 11 <= status <= 40 else "qq temporary problem (#4.3.0)"
    return _TEXTS.get(status, other)
