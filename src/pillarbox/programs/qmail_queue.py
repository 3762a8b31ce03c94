"""qmail-queue: queue the message on descriptor 0 with the envelope on descriptor 1, qmail-queue(8).

It says nothing; its exit status says all. What the setuid program of qmail does itself is done by the queue role of a
running server: it learns from the kernel who calls, writes the Received field, and commits.
"""

from __future__ import annotations

import os
import signal

from pillarbox.envelope import LONGEST, Envelope
from pillarbox.programs import whereabouts
from pillarbox.programs.content import BLOCK, Content
from pillarbox.programs.injector import NO_ROOM, TOO_LONG, inject

NAME = "qmail-queue"
DEATH = 86400  # seconds until it gives up, however slow its caller is
LARGEST_ENVELOPE = 64 << 20  # octets
TIMEOUT = 52
UNREADABLE = 54
NO_HOME = 61
NONSENSE = 91
OUT_OF_MEMORY = 51


class BadEnvelope(Exception):
    """The envelope cannot be used: `status` is qmail-queue's exit status for it."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def main(arguments: list[str]) -> int:
    """The exit status; arguments are ignored, as in qmail."""
    signal.signal(signal.SIGALRM, lambda number, frame: os._exit(TIMEOUT))
    signal.alarm(DEATH)
    home = whereabouts.find(os.environ)
    if not whereabouts.is_home(home):
        return NO_HOME
    try:
        with Content() as content:
            while octets := _read(0):
                content.write(octets)
            return inject(home, parse(_whole(1)), content).status
    except BadEnvelope as bad:
        return bad.status
    except OSError:
        return NO_ROOM  # for the message's temporary file


def parse(octets: bytes) -> Envelope:
    """F sender NUL, T recipient NUL ..., NUL: envelopes(5). What follows is ignored. Raises BadEnvelope: 54 when the
    end is missing, 91 when it is no envelope, 11 when an address is too long."""
    addresses: list[bytes] = []
    at = 0
    while (letter := octets[at : at + 1]) != b"\0" or not addresses:
        if letter != (b"T" if addresses else b"F"):
            raise BadEnvelope(NONSENSE if letter else UNREADABLE)
        end = octets.find(b"\0", at)
        if (len(octets) if end < 0 else end) - at > LONGEST + 1:
            raise BadEnvelope(TOO_LONG)
        if end < 0:
            raise BadEnvelope(UNREADABLE)
        addresses.append(octets[at + 1 : end])
        at = end + 1
    return Envelope(addresses[0], tuple(addresses[1:]))


def _whole(descriptor: int) -> bytes:
    found = []
    size = 0
    while octets := _read(descriptor):
        found.append(octets)
        size += len(octets)
        if size > LARGEST_ENVELOPE:
            raise BadEnvelope(OUT_OF_MEMORY)
    return b"".join(found)


def _read(descriptor: int) -> bytes:
    """Raises BadEnvelope (54)."""
    try:
        return os.read(descriptor, BLOCK)
    except OSError:
        raise BadEnvelope(UNREADABLE) from None
