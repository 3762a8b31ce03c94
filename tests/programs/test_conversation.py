"""The blocking driver, with a machine that says back what it is told, a line at a time."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Generator
from contextlib import closing
from typing import Any

import pytest

from pillarbox.programs.conversation import TimedOut, converse, send
from pillarbox.sessions.effects import Pause


class Echo:
    """A line is an event; it is said back; `end` ends it."""

    def __init__(self) -> None:
        self._input = b""
        self._output = b""
        self.closing = self.ended = False
        self.pieces: list[bytes] = []

    def greet(self) -> None:
        self._output += b"hello\n"

    def receive(self, data: bytes) -> None:
        self.pieces.append(data)
        self._input += data

    def eof(self) -> None:
        self.ended = True

    def next_event(self) -> bytes | None:
        line, newline, rest = self._input.partition(b"\n")
        if not newline or self.closing:
            return None
        self._input = rest
        return line

    def answer(self, reply: bytes) -> None:
        self.closing = reply == b"end\n"
        self._output += reply

    def data_to_send(self) -> bytes:
        said, self._output = self._output, b""
        return said


class Slow:
    """A session that asks for an effect where the line is `effect`."""

    def respond(self, event: bytes) -> Generator[Any, Any, bytes]:
        if event == b"effect":
            yield Pause(0)
        return event + b"\n"


def talk(text: bytes, **how: int) -> tuple[Echo, list[bytes], bytes]:
    """The machine, what had been heard when each effect was carried out, and all that was heard."""
    ours, theirs = socket.socketpair()
    with closing(ours), closing(theirs):
        theirs.sendall(text)
        theirs.shutdown(socket.SHUT_WR)
        machine, heard = Echo(), b""
        seen: list[bytes] = []

        def execute(_effect: object) -> None:
            nonlocal heard
            heard += theirs.recv(1 << 16, socket.MSG_DONTWAIT)
            seen.append(heard)

        converse(machine, Slow(), execute, ours.fileno(), ours.fileno(), 5.0, **how)
        ours.shutdown(socket.SHUT_WR)
        while block := theirs.recv(1 << 16):
            heard += block
    return machine, seen, heard


def test_what_was_answered_is_sent_before_an_effect_is_carried_out() -> None:
    _machine, seen, heard = talk(b"one\neffect\ntwo\n")
    assert seen == [b"hello\none\n"]
    assert heard == b"hello\none\neffect\ntwo\n"


def test_half_a_line_at_the_end_is_left() -> None:
    machine, _seen, heard = talk(b"one\ntw")
    assert machine.ended and heard == b"hello\none\n"


def test_no_more_is_read_at_once_than_was_asked_for() -> None:
    machine, _seen, heard = talk(b"end\nnext", at_once=1)
    assert machine.pieces == [b"e", b"n", b"d", b"\n"] and heard == b"hello\nend\n"


def test_a_client_that_says_nothing_is_waited_for_no_longer_than_it_may() -> None:
    ours, theirs = socket.socketpair()
    with closing(ours), closing(theirs), pytest.raises(TimedOut):
        converse(Echo(), Slow(), lambda effect: None, ours.fileno(), ours.fileno(), 0.05)


@pytest.mark.parametrize("pipe", [True, False])
def test_a_client_that_takes_nothing_does_not_hold_us_up_for_ever(pipe: bool) -> None:
    """The descriptors block: a write of everything would never come back."""
    ends = os.pipe() if pipe else tuple(end.detach() for end in socket.socketpair())
    trouble: list[BaseException] = []

    def say() -> None:
        try:
            send(ends[1], bytes(10 << 20), 0.1)
        except TimedOut as problem:
            trouble.append(problem)

    saying = threading.Thread(target=say, daemon=True)
    saying.start()
    saying.join(20)
    still = saying.is_alive()
    for end in ends:
        os.close(end)
    assert not still and len(trouble) == 1
