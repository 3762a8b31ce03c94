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
        self._socket, self._sender, self._content = connection, sender, content
        self._secure, self._most = secure, most
        self._tls: Tls | None = None
        self._out = bytearray()  # on its way, in TLS's form where there is TLS
        self._offset = 0
        self._progress: tuple[Phase, int] | None = None
        self._deadline = 0.0

    def run(self) -> Attempt:
        """All of it, the farewell too, which is not waited for. The connection is the caller's to close."""
        self._socket.setblocking(False)
        sender = self._sender
        while (attempt := sender.attempt) is None:
            if self._out:
                self._flush()
            elif data := sender.data_to_send():
                self._say(data)
            elif sender.wants_content:
                self._bring()
            elif sender.wants_tls and self._tls is None:
                self._tls = self._secure()
                self._decrypted(self._tls, b"")
            elif self._wait(select.POLLIN):
                self._hear()
        self._take_leave()
        return attempt

    def _bring(self) -> None:
        try:
            block = self._content.block(self._offset)
        except OSError:
            self._sender.content_lost()
            return
        self._offset += len(block)
        self._sender.content(block)
        if not block or self._content.ends(self._offset):
            self._sender.end_of_content()  # the final dot leaves with the last block

    def _say(self, data: bytes) -> None:
        if self._tls is None:
            self._out += data
        else:
            self._tls.send(data)
            self._out += self._tls.outgoing()

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
        self._sender.receive(data if self._tls is None else self._decrypted(self._tls, data))

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
        if self._tls is None or self._tls.established:
            self._say(self._sender.data_to_send())
        if self._tls is not None:
            self._tls.close()
            self._out += self._tls.outgoing()
        with suppress(OSError):
            self._socket.send(self._out, socket.MSG_NOSIGNAL)

    # TLS

    def _decrypted(self, tls: Tls, data: bytes) -> bytes:
        from pillarbox.net.tls import TlsFailed

        fresh = not tls.established
        try:
            plain = tls.receive(data)
        except TlsFailed as failure:
            self._out += tls.outgoing()  # the alert that says why
            if fresh:
                self._sender.tls_failed(str(failure).encode("ascii", "replace"))
            else:
                self._sender.eof()
            return b""
        self._out += tls.outgoing()
        if fresh and tls.established:
            self._sender.secured()
        return plain
