"""Messages of the queue on their way, in memory as far as they fit; the others are read from the engine."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

from pillarbox.queue.engine import Engine, Message
from pillarbox.status import SystemTrouble

IN_MEMORY = 16 << 20  # octets of messages kept for their deliveries, with their recipients
OVERHEAD = 100  # octets that Python needs beside those of a recipient, about; ten times that for a message
INLINE = 1 << 20  # octets of a body that goes in a frame; a larger one goes by descriptor, as one in a file does


class Fresh(NamedTuple):
    """A message in memory: `addresses` are its recipients by number; `body` is None when it is in a spool file."""

    message: Message
    addresses: Sequence[bytes]
    body: bytes | None


class Messages:
    """By number; the oldest fall out first."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._fresh: OrderedDict[int, tuple[Fresh, int]] = OrderedDict()  # with the octets that it takes
        self._octets = 0

    def __len__(self) -> int:
        """How many are in memory."""
        return len(self._fresh)

    def remember(self, fresh: Fresh) -> None:
        """Keep it for its deliveries."""
        octets = _octets(fresh)
        self._fresh[fresh.message.id] = fresh, octets
        self._octets += octets
        while self._octets > IN_MEMORY and len(self._fresh) > 1:  # the newest is just being delivered
            _number, (_oldest, octets) = self._fresh.popitem(last=False)
            self._octets -= octets

    def forget(self, number: int) -> None:
        """It is over. Harmless twice."""
        known = self._fresh.pop(number, None)
        if known is not None:
            self._octets -= known[1]

    def find(self, number: int) -> Fresh | None:
        """The message, from memory or from the engine; None when it is no more. Raises Failure."""
        known = self._fresh.get(number)
        if known is not None:
            return known[0]
        entry = self._engine.show(number)
        if entry is None:
            return None
        message, recipients = entry
        body = None if message.spool else self._engine.body(message)
        fresh = Fresh(message, [recipient.address for recipient in recipients], body)
        self.remember(fresh)  # its other recipients mostly come next
        return fresh

    def descriptors(self, fresh: Fresh) -> list[int]:
        """The body's, for a frame to carry, when it is in a file or too large to go inline. Raises Failure."""
        if fresh.body is None:
            return [self._engine.open_body(fresh.message)]
        return [_memory_file(fresh.body)] if len(fresh.body) > INLINE else []


def _octets(fresh: Fresh) -> int:
    """What it takes of our memory, about."""
    addresses = fresh.addresses
    return len(fresh.body or b"") + sum(map(len, addresses)) + OVERHEAD * (len(addresses) + 10)


def _memory_file(body: bytes) -> int:
    """A descriptor to read these octets from. Raises SystemTrouble."""
    try:
        with open(os.memfd_create("body", os.MFD_CLOEXEC), "wb") as file:
            file.write(body)
            file.flush()
            return os.dup(file.fileno())
    except OSError as problem:
        raise SystemTrouble.of(problem) from problem
