"""One conversation over a pair of descriptors: octets to the protocol machine, its events to the session, the session's
effects carried out at once, replies back. The blocking driver: it knows no protocol, as roles/conversation.py does not.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from types import GeneratorType
from typing import Any, Protocol

from pillarbox.sessions.effects import Effect

READ_SIZE = 64 << 10  # octets
# Octets of one write. Descriptors here block, and this much is taken without waiting where select() says that some is.
WRITE_SIZE = select.PIPE_BUF


class Machine(Protocol):
    """smtp.receiver.Receiver, as far as it is used here."""

    def greet(self) -> None: ...
    def receive(self, data: bytes) -> None: ...
    def eof(self) -> None: ...
    def next_event(self) -> Any: ...
    def answer(self, reply: Any) -> None: ...
    def data_to_send(self) -> bytes: ...
    @property
    def closing(self) -> bool: ...


class TimedOut(Exception):
    """The other side said nothing, or took nothing, for too long."""


def converse(
    machine: Machine,
    session: Any,
    execute: Callable[[Effect], Any],
    reading: int,
    writing: int,
    patience: float,
    *,
    at_once: int = READ_SIZE,
) -> None:
    """From the greeting to the end of either side. `patience`: seconds of silence. `at_once`: octets of one read. What
    was answered so far is sent before an effect is carried out. Raises TimedOut, OSError."""

    def flush() -> None:
        send(writing, machine.data_to_send(), patience)

    machine.greet()
    while True:
        while (event := machine.next_event()) is not None:
            reply = _response(session.respond(event), execute, flush)
            if reply is not None:
                machine.answer(reply)
        flush()
        if machine.closing:
            return
        if not select.select([reading], [], [], patience)[0]:
            raise TimedOut
        octets = os.read(reading, at_once)
        if not octets:
            machine.eof()
            return
        machine.receive(octets)


def _response(response: Any, execute: Callable[[Effect], Any], flush: Callable[[], None]) -> Any:
    """The session's answer to an event; what it asks on the way is carried out."""
    if type(response) is not GeneratorType:
        return response
    result = None
    while True:
        try:
            effect = response.send(result)
        except StopIteration as stop:
            return stop.value
        flush()
        result = execute(effect)


def send(writing: int, octets: bytes, patience: float) -> None:
    """All of it, as fast as the other side takes it. Raises TimedOut, OSError."""
    view = memoryview(octets)
    while view:
        if not select.select([], [writing], [], patience)[1]:
            raise TimedOut
        view = view[os.write(writing, view[:WRITE_SIZE]) :]
