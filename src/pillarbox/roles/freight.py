"""A message on its connection, as octets in and octets out: the sender, the content that it brings block by block, TLS.

No socket and no clock: roles/carrier.py gives those over asyncio, programs/carrying.py by waiting. The rule that must
stay true: the next block is read when the host has room for it, so a slow host slows the reading down.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pillarbox.roles.journey import Content
from pillarbox.smtp.sender import Sender

if TYPE_CHECKING:
    from pillarbox.net.tls import Tls  # slow to import, and not everybody offers TLS


class Freight:
    """Octets between a host and `sender`. `secure` makes the client's side of TLS when that is wanted."""

    __slots__ = ("_content", "_offset", "_secure", "_tls", "sender")

    def __init__(self, sender: Sender, content: Content, secure: Callable[[], Tls]) -> None:
        self.sender, self._content, self._secure = sender, content, secure
        self._tls: Tls | None = None
        self._offset = 0

    def go_on(self, content: Content) -> None:
        """Another message, as the sender has been told."""
        self._content, self._offset = content, 0

    def octets(self) -> bytes:
        """What is to go out next; b"": it is the host's turn."""
        sender = self.sender
        while (octets := self._secret()) == b"" and not sender.finished:
            if data := sender.data_to_send():
                return self._encrypted(data)
            if sender.wants_content:
                self._bring()
            elif sender.wants_tls and self._tls is None:
                self._tls = self._secure()
                self._decrypted(self._tls, b"")
            else:
                break
        return octets

    def hear(self, data: bytes) -> None:
        """Octets from the host."""
        self.sender.receive(data if self._tls is None else self._decrypted(self._tls, data))

    def farewell(self) -> bytes:
        """The last octets of a connection that is closed from here."""
        if self._tls is None or not self._tls.established:
            return b""
        self._tls.close()
        return self._tls.outgoing()

    def _bring(self) -> None:
        try:
            block = self._content.block(self._offset)
        except OSError:
            self.sender.content_lost()
            return
        self._offset += len(block)
        self.sender.content(block)
        if not block or self._content.ends(self._offset):
            self.sender.end_of_content()  # the final dot leaves with the last block

    def _secret(self) -> bytes:
        """What TLS has to say by itself: its handshake, an alert."""
        return b"" if self._tls is None else self._tls.outgoing()

    def _encrypted(self, data: bytes) -> bytes:
        if self._tls is None:
            return data
        self._tls.send(data)
        return self._tls.outgoing()

    def _decrypted(self, tls: Tls, data: bytes) -> bytes:
        from pillarbox.net.tls import TlsFailed

        fresh = not tls.established
        try:
            plain = tls.receive(data)
        except TlsFailed as failure:  # the alert that says why still goes out
            if fresh:
                self.sender.tls_failed(str(failure).encode("ascii", "replace"))
            else:
                self.sender.eof()
            return b""
        if fresh and tls.established:
            self.sender.secured()
        return plain
