"""One connection to a mail host, by waiting: octets between a socket and an `smtp.sender.Sender`.

What roles/carrier.py does over asyncio, for programs that bring one message and end. The rule that must stay true: once
the final dot has gone out, nothing but the host's own words or the end of the patience decides what became of the
message.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from pillarbox.attempt import Attempt
from pillarbox.roles.freight import Freight
from pillarbox.roles.journey import Content, patience
from pillarbox.smtp.sender import Phase, Sender

if TYPE_CHECKING:
    from pillarbox.net.tls import Tls

READ_SIZE = 64 << 10  # octets


class Carrying:
    """Drives `sender` until it is known what became of the message. `secure` makes TLS's side of a connection when it
    is wanted; `most` is control/timeoutremote in seconds."""

    def __init__(
        self, connection: socket.socket, sender: Sender, content: Content, secure: Callable[[], Tls], most: float
    ) -> None:
        self._socket, self._sender, self._most = connection, sender, most
        self._freight = Freight(sender, content, secure)
        self._out = bytearray()  # on its way
        self._progress: tuple[Phase, int] | None = None
        self._deadline = 0.0

    def run(self) -> Attempt:
        """All of it, the farewell too, which is not waited for. The connection is the caller's to close."""
        self._socket.setblocking(False)
        while (attempt := self._sender.attempt) is None:
            self._note_progress()
            self._out += self._freight.octets()
            if self._out:
                self._flush()
            elif self._sender.attempt is None and self._wait(select.POLLIN):
                self._hear()
        self._take_leave()
        return attempt

    def _flush(self) -> None:
        """All that is on its way, hearing meanwhile what the host says: who refuses may take no more."""
        while self._out and self._sender.attempt is None and (ready := self._wait(select.POLLIN | select.POLLOUT)):
            if ready & ~select.POLLOUT:
                self._hear()
            if ready & select.POLLOUT and self._sender.attempt is None:
                self._send()
        self._deadline = time.monotonic() + patience(self._sender.phase, self._most)

    def _send(self) -> None:
        try:
            del self._out[: self._socket.send(self._out, socket.MSG_NOSIGNAL)]
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            self._hear()  # it takes no more; what it has still said counts, then it is gone

    def _hear(self) -> None:
        try:
            data = self._socket.recv(READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self._sender.eof()
            return
        self._freight.hear(data)

    def _wait(self, events: int) -> int:
        """What the socket is ready for; 0: not in time, and the sender knows."""
        self._note_progress()
        left = self._deadline - time.monotonic()
        if left > 0:  # else it talks on and on and says nothing
            waiting = select.poll()
            waiting.register(self._socket, events)
            for _, ready in waiting.poll(left * 1000):
                return ready
        self._sender.timed_out()
        return 0

    def _note_progress(self) -> None:
        """The time of a phase begins anew with each reply, and with each block that the host takes, but not with an
        octet of a reply that never ends."""
        if self._progress != self._sender.progress:
            self._progress = self._sender.progress
            self._deadline = time.monotonic() + patience(self._sender.phase, self._most)

    def _take_leave(self) -> None:
        if self._out:
            return  # cut off amid something: nothing that is said behind it would be understood
        with suppress(OSError):
            self._socket.send(self._freight.octets() + self._freight.farewell(), socket.MSG_NOSIGNAL)
