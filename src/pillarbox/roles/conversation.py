"""One connection of smtpd or pop3d: octets to the protocol machine, its events to the session, the session's effects
to an executor, replies back. The asyncio driver of both protocols; it knows neither.

While an effect is outstanding no event is taken; what the client sends meanwhile is held up to HELD_LIMIT octets, then
reading pauses. A client that does not read its replies is not served on either. The clock is read by `sweep` alone:
every patience begins with the sweep that comes next, so it is up to a sweep longer and never shorter.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Generator
from functools import partial
from types import GeneratorType
from typing import Any, Final, Protocol

from pillarbox.net.tls import Tls, TlsFailed
from pillarbox.sessions.effects import Effect
from pillarbox.status import Refusal, Status

HELD_LIMIT = 64 << 10  # octets from the client that may wait while an effect is outstanding
EFFECT_TIMEOUT = 60.0  # seconds until an effect without result is a temporary refusal
HANDSHAKE_TIMEOUT = 60.0  # seconds
CLOSING_TIME = 30.0  # seconds that a client has to take our last words
LATE = Refusal(Status(4, 3, 0), "no answer in time, try again later")


class Pending:
    """The result comes later, by `Conversation.resumer`."""


PENDING: Final = Pending()


class Machine(Protocol):
    """smtp.receiver.Receiver and pop3.server.Server."""

    def greet(self) -> None: ...
    def receive(self, data: bytes) -> None: ...
    def eof(self) -> None: ...
    def next_event(self) -> Any: ...
    def answer(self, reply: Any) -> None: ...
    def data_to_send(self) -> bytes: ...
    def secured(self) -> None: ...
    @property
    def drained(self) -> bool: ...
    @property
    def wants_tls(self) -> bool: ...
    @property
    def closing(self) -> bool: ...


def _nowhere(_octets: bytes) -> None:
    """To a client that is gone, or has not come yet."""


class Session(Protocol):
    """sessions.reception.Reception and sessions.retrieval.Retrieval."""

    def respond(self, event: Any) -> Any: ...
    def secured(self, facts: bytes) -> None: ...


class Executor(Protocol):
    """Carries out the effects of one session."""

    def attach(self, conversation: Conversation) -> None: ...
    def execute(self, effect: Effect) -> Any: ...
    def give_up(self, effect: Effect) -> Any: ...
    def lost(self) -> None: ...


class Limits(Protocol):
    """Seconds of silence and seconds altogether that a client has, and what it is told when they are over."""

    @property
    def idle(self) -> float: ...
    @property
    def total(self) -> float: ...
    @property
    def farewell(self) -> bytes: ...


class Conversation(asyncio.Protocol):
    """One client. `gone` is called once when the connection is over."""

    __slots__ = (
        "_asking", "_closing", "_context", "_deadline", "_effect", "_end", "_eof", "_executor", "_gone", "_held",
        "_implicit", "_leaving", "_limits", "_loop", "_machine", "_more_room", "_patience", "_paused", "_put",
        "_session", "_tls", "_transport", "_writable",
    )  # fmt: skip

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        parts: tuple[Machine, Session, Executor],
        limits: Limits,
        context: ssl.SSLContext | None,
        implicit: bool,
        gone: Callable[[Conversation], None],
    ) -> None:
        self._loop = loop
        self._machine, self._session, self._executor = parts
        self._limits = limits
        self._context = context
        self._implicit = implicit and context is not None
        self._tls = Tls(context) if implicit and context is not None else None
        self._gone = gone
        self._transport: asyncio.Transport | None = None
        self._put: Callable[[bytes], None] = _nowhere  # takes octets for the client
        self._asking: Generator[Effect, Any, Any] | None = None
        self._effect: Effect | None = None
        self._held = 0
        self._paused = self._eof = self._closing = self._leaving = False
        self._writable = True
        self._more_room: Callable[[], None] | None = None
        self._patience = limits.idle  # seconds for what is waited for now
        self._deadline: float | None = None  # of that; None: to be counted from the next sweep, as `_end` is
        self._end: float | None = None
        self._executor.attach(self)

    # asyncio calls these

    def connection_made(self, transport: Any) -> None:  # uvloop's is an asyncio.Transport only in what it does
        self._transport = transport
        if self._tls is None:
            self._put = transport.write
            self._machine.greet()
            self._flush()
        else:
            self._put = self._encrypt
            self._wait(HANDSHAKE_TIMEOUT)

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        if self._tls is not None:
            data = self._decrypted(self._tls, data)
            if not data:
                return
        self._machine.receive(data)
        if self._asking is None:
            self._deadline = None
            if self._writable:
                self._advance()
                return
        self._hold(len(data))

    def eof_received(self) -> bool:
        self._eof = True
        self._machine.eof()
        if self._asking is None and self._writable and not self._closing:
            self._advance()
        return self._tls is None  # keep a half-closed connection open for the answers still owed

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        if self._more_room is not None:
            more, self._more_room = self._more_room, None
            more()
        else:
            self._loop.call_soon(self._go_on)  # not from inside the transport: it may be closed on the way

    def _go_on(self) -> None:
        if self._asking is None and self._writable and not self._closing:
            self._advance()

    def connection_lost(self, _problem: Exception | None) -> None:
        self._closing = True
        self._transport = None
        self._put = _nowhere
        self._more_room = None
        if self._asking is not None:
            self._asking.close()
            self._asking = None
        self._effect = None
        self._executor.lost()
        self._gone(self)

    # the executor calls these

    def resumer(self) -> Callable[[Any], None]:
        """How to hand in the result of the effect that is outstanding now. A result that comes when the client has
        left, or after the effect was given up, is dropped: it must not answer a later effect."""
        return partial(self._resume, self._effect)

    def _resume(self, effect: Effect | None, result: Any) -> None:
        asking = self._asking
        if effect is not self._effect or effect is None or asking is None or self._closing:
            return
        self._effect = None
        self._wait(self._limits.idle)
        if not self._run(asking, result):
            return
        if self._writable:
            self._advance()
        else:
            self._flush()

    def write(self, octets: bytes) -> bool:
        """Send octets to the client. False: wait for `when_writable` before the next."""
        if self._transport is None:
            return False
        self._put(octets)
        self._wait(self._limits.idle)
        return self._writable

    def abort(self) -> None:
        """End the connection at once, whatever is still owed."""
        if self._transport is not None:
            self._transport.abort()

    def when_writable(self, more: Callable[[], None]) -> None:
        """Call `more` once the client has read enough."""
        if self._writable:
            self._loop.call_soon(more)
        else:
            self._more_room = more

    # the role calls these

    def sweep(self, now: float) -> None:
        """Called about once a second: end what took too long."""
        if self._end is None:
            self._end = now + self._limits.total
        if self._deadline is None:
            self._deadline = now + self._patience
        if now < self._deadline and now < self._end:
            return
        if self._closing:
            self.abort()
        elif self._effect is not None and self._more_room is None:
            self._leaving = now >= self._end
            resume = self.resumer()  # to give up can bring a result of its own
            resume(self._executor.give_up(self._effect))
        else:
            self.leave()

    def leave(self) -> None:
        """Say farewell and close, once no effect is outstanding: the client is too slow, or the server stops."""
        if self._asking is not None and self._more_room is None:
            self._leaving = True
        elif not self._writable or (self._tls is not None and not self._tls.established):
            self.abort()
        elif not self._closing:
            self.write(self._limits.farewell)
            self._close()

    # inside

    def _wait(self, seconds: float) -> None:
        """What comes next has so long from now on."""
        self._patience = seconds
        self._deadline = None

    def _advance(self) -> None:
        """Take events until one has to wait, then say what there is to say."""
        machine = self._machine
        while (event := machine.next_event()) is not None:
            response = self._session.respond(event)
            if type(response) is not GeneratorType:
                if response is not None:
                    machine.answer(response)
            elif not self._run(response, None):
                return
            if machine.drained or not self._writable or self._closing:
                break
        octets = machine.data_to_send()
        if octets:
            self._put(octets)
        if self._closing or not self._writable:
            return
        if machine.closing or self._eof:
            self._close()
        elif self._leaving:
            self.leave()
        elif machine.wants_tls:
            self._start_tls()
        elif self._held:
            self._release()

    def _run(self, asking: Generator[Effect, Any, Any], result: Any) -> bool:
        """Drive one event's generator. False: it waits for a result."""
        execute = self._executor.execute
        try:
            while True:
                effect = asking.send(result)
                self._effect = effect
                self._asking = asking
                result = execute(effect)
                if result is PENDING:
                    self._flush()
                    self._wait(EFFECT_TIMEOUT)
                    return False
                self._effect = None
        except StopIteration as stop:
            self._asking = None
            self._effect = None
            if stop.value is not None:
                self._machine.answer(stop.value)
            return True

    def _flush(self) -> None:
        octets = self._machine.data_to_send()
        if octets:
            self._put(octets)

    def _encrypt(self, octets: bytes) -> None:
        assert self._tls is not None
        self._tls.send(octets)
        self._send_outgoing(self._tls)

    def _hold(self, octets: int) -> None:
        self._held += octets
        if self._held > HELD_LIMIT and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def _release(self) -> None:
        self._held = 0
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()

    def _decrypted(self, tls: Tls, octets: bytes) -> bytes:
        fresh = not tls.established
        try:
            plain = tls.receive(octets)
        except TlsFailed:
            self._send_outgoing(tls)  # the alert that says why
            self._close()
            return b""
        self._send_outgoing(tls)
        if fresh and tls.established:
            self._wait(self._limits.idle)
            self._machine.secured()
            self._session.secured(tls.facts)
            if self._implicit:
                self._machine.greet()
                self._flush()
        return plain

    def _send_outgoing(self, tls: Tls) -> None:
        octets = tls.outgoing()
        if octets and self._transport is not None:
            self._transport.write(octets)

    def _start_tls(self) -> None:
        assert self._context is not None  # STARTTLS is offered only with one
        self._tls = Tls(self._context)
        self._put = self._encrypt
        self._wait(HANDSHAKE_TIMEOUT)
        self._release()

    def _close(self) -> None:
        self._closing = True
        self._wait(CLOSING_TIME)
        if self._transport is not None:
            if self._tls is not None and self._tls.established:
                self._tls.close()
                self._send_outgoing(self._tls)
            self._transport.close()
