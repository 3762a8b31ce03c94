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
    machine: Machine, session: Any, execute: Callable[[Effect], Any], reading: int, writing: int, patience: float
) -> None:
    """From the greeting to the end of either side. `patience`: seconds of silence. Raises TimedOut, OSError."""
    machine.greet()
    while True:
        while (event := machine.next_event()) is not None:
            reply = _response(session.respond(event), execute)
            if reply is not None:
                machine.answer(reply)
        _send(writing, machine.data_to_send(), patience)
        if machine.closing:
            return
        if not select.select([reading], [], [], patience)[0]:
            raise TimedOut
        octets = os.read(reading, READ_SIZE)
        if not octets:
            machine.eof()
            return
        machine.receive(octets)


def _response(response: Any, execute: Callable[[Effect], Any]) -> Any:
    """The session's answer to an event; what it asks on the way is carried out."""
    if type(response) is not GeneratorType:
        return response
    result = None
    while True:
        try:
            effect = response.send(result)
        except StopIteration as stop:
            return stop.value
        result = execute(effect)


def _send(writing: int, octets: bytes, patience: float) -> None:
    while octets:
        if not select.select([], [writing], [], patience)[1]:
            raise TimedOut
        octets = octets[os.write(writing, octets) :]
