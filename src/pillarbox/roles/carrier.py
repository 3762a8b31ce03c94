"""One connection to a mail host over asyncio: octets between a socket and an `smtp.sender.Sender`.

The carrier brings content block by block as fast as the host takes it, shakes hands when the sender wants TLS, and
gives each phase its time. The rule that must stay true: once the final dot has gone out, nothing but the host's own
words or the end of the patience decides what became of the message.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import cast

from pillarbox.attempt import Attempt
from pillarbox.net.tls import Tls
from pillarbox.roles.freight import Freight
from pillarbox.roles.journey import Content, patience
from pillarbox.smtp.sender import Phase, Sender

TICK = 1.0  # seconds between looks at the deadline
CLOSING_TIME = 10.0  # seconds that our last words may take to leave


class Carrier(asyncio.Protocol):
    """Drives `sender` to its end. `context` and `name` (for SNI, "" sends none) are for STARTTLS; `patience` is
    control/timeoutremote in seconds. `done` is called once, as soon as it is known what became of the message."""

    __slots__ = (
        "_deadline", "_done", "_freight", "_loop", "_patience", "_progress", "_sender", "_ticking", "_transport",
        "_writable",
    )  # fmt: skip

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sender: Sender,
        content: Content,
        context: ssl.SSLContext,
        name: str,
        patience: float,
        done: Callable[[Attempt], None],
    ) -> None:
        self._loop, self._sender, self._patience = loop, sender, patience
        self._freight = Freight(sender, content, lambda: Tls(context, server_name=name))
        self._done: Callable[[Attempt], None] | None = done
        self._transport: asyncio.Transport | None = None
        self._writable = True
        self._progress: tuple[Phase, int] | None = None
        self._deadline = 0.0
        self._ticking: asyncio.TimerHandle | None = None

    @property
    def critical(self) -> bool:
        """The final dot has gone out, and the host has not said what it makes of it."""
        return self._sender.phase is Phase.END

    @property
    def idle(self) -> bool:
        """The connection is open, and its sender would bring another message: go_on() or quit()."""
        return self._sender.idle and self._transport is not None and not self._transport.is_closing()

    def go_on(self, content: Content, done: Callable[[Attempt], None]) -> None:
        """Bring another message, as the sender has been told; `done` as for the first."""
        self._done = done
        self._freight.go_on(content)
        self._go_on()

    def quit(self) -> None:
        """End an idle connection as is polite."""
        if self.idle:
            self._sender.quit()
            self._go_on()

    def abort(self) -> None:
        """End the connection at once. Nobody is told."""
        self._done = None
        if self._transport is not None:
            self._transport.abort()

    # asyncio calls these

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one only in what it does
        self._tick()
        self._go_on()

    def data_received(self, data: bytes) -> None:
        self._freight.hear(data)
        self._go_on()

    def eof_received(self) -> bool:
        self._sender.eof()
        self._go_on()
        return False

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        self._deadline = self._loop.time() + self._time()
        self._loop.call_soon(self._go_on)  # not from inside the transport: it may be closed on the way

    def connection_lost(self, _problem: Exception | None) -> None:
        self._transport = None
        self._sender.eof()
        self._tell()
        if self._ticking is not None:
            self._ticking.cancel()

    # inside

    def _go_on(self) -> None:
        """Say and bring all there is to say and bring now."""
        sender = self._sender
        while self._writable and self._transport is not None and (octets := self._freight.octets()):
            self._transport.write(octets)
        self._note_progress()
        if sender.attempt is not None:
            self._tell()
            if not sender.idle:
                self._close()

    def _tell(self) -> None:
        done, self._done = self._done, None
        if done is not None and self._sender.attempt is not None:
            done(self._sender.attempt)

    def _close(self) -> None:
        """Behind the final word only our QUIT goes out, and its answer is not waited for: nothing hangs on it."""
        if self._transport is not None and not self._transport.is_closing():
            self._deadline = self._loop.time() + CLOSING_TIME
            if last := self._freight.farewell():
                self._transport.write(last)
            self._transport.close()

    # time

    def _time(self) -> float:
        return patience(self._sender.phase, self._patience)

    def _note_progress(self) -> None:
        """The time of a phase begins anew with each reply, and with each block that the host takes, but not with an
        octet of a reply that never ends."""
        if self._progress != self._sender.progress:
            self._progress = self._sender.progress
            self._deadline = self._loop.time() + self._time()

    def _tick(self) -> None:
        late = self._deadline and self._loop.time() > self._deadline
        if late and self.idle:
            self.quit()
        elif late:
            self._sender.timed_out()
            self._go_on()
            if self._transport is not None:
                self._transport.abort()  # what it did not take so far it will not take
            return
        self._ticking = self._loop.call_later(TICK, self._tick)
