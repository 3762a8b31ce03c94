"""A bare connection to a server: what a test sends is exactly what goes out, what comes back is read line by line."""

from __future__ import annotations

import secrets
import socket
import ssl
from collections import deque
from contextlib import ExitStack
from types import TracebackType
from typing import cast

from tests.server import Server

LOCALHOST = "127.0.0.1"
TIMEOUT = 30.0  # seconds
READ_SIZE = 1 << 18  # octets


class Wire:
    """A client of one service. `source` is the loopback address it comes from."""

    def __init__(self, server: Server, service: str, source: str = LOCALHOST) -> None:
        self._trust = server.trust
        port = server.ports[service]
        self.socket = socket.create_connection((LOCALHOST, port), TIMEOUT, source_address=(source, 0))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._lines: deque[bytes] = deque()
        self._begun = b""  # a line whose end has not come
        if service in ("submissions", "pop3s"):
            try:
                self.secure()
            except BaseException:
                self.close()
                raise

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Hang up, without a farewell."""
        self.socket.close()

    def secure(self) -> None:
        """Make the TLS handshake now; the certificate must be good for localhost."""
        assert not self._lines and not self._begun, "said in clear behind the answer to STARTTLS"
        self.socket = self._trust().wrap_socket(self.socket, server_hostname="localhost")

    @property
    def certificate(self) -> bytes:
        """What the server showed, DER."""
        return cast(ssl.SSLSocket, self.socket).getpeercert(binary_form=True) or b""

    def send(self, octets: bytes) -> None:
        """Exactly these."""
        self.socket.sendall(octets)

    def line(self) -> bytes:
        """The next line without CR LF; b"" when the server closed. A line that ends otherwise fails the test."""
        while not self._lines:
            octets = self.socket.recv(READ_SIZE)
            if not octets:
                assert not self._begun, self._begun
                return b""
            self._take(octets)
        return self._lines.popleft()

    def _take(self, octets: bytes) -> None:
        *whole, self._begun = (self._begun + octets).split(b"\r\n")
        assert not any(b"\n" in line or b"\r" in line for line in whole), whole
        self._lines.extend(whole)

    def silent(self, seconds: float) -> bool:
        """Does the server say nothing for so long?"""
        before = self.socket.gettimeout()
        self.socket.settimeout(seconds)
        try:
            if not self._lines:
                self._take(self.socket.recv(READ_SIZE))
        except TimeoutError:
            return True
        finally:
            self.socket.settimeout(before)
        return False

    def reply(self) -> bytes:
        """The next SMTP reply; lines of a longer one are joined by LF."""
        lines = [self.line()]
        while lines[-1][3:4] == b"-":
            lines.append(self.line())
        return b"\n".join(lines)

    def tell(self, command: bytes) -> bytes:
        """Send a line; the SMTP reply (or POP3 status line) to it."""
        self.send(command + b"\r\n")
        return self.reply()

    def listing(self) -> list[bytes]:
        """The lines of a POP3 answer up to the lone dot, as they came."""
        lines = []
        while (line := self.line()) != b".":
            lines.append(line)
        return lines

    def closed(self) -> bool:
        """Has the server nothing more to say, and closed?"""
        try:
            return not self._lines and self.socket.recv(1) == b""
        except (ConnectionResetError, ssl.SSLError):
            return True


def smtp(server: Server, service: str = "smtp", source: str = LOCALHOST) -> Wire:
    """A connection after EHLO."""
    with ExitStack() as until_open:
        wire = until_open.enter_context(Wire(server, service, source))
        assert wire.reply().startswith(b"220 ")
        assert wire.tell(b"EHLO client.example").startswith(b"250-")
        until_open.pop_all()
        return wire


def envelope(wire: Wire, sender: bytes, *recipients: bytes, parameters: bytes = b"") -> None:
    """MAIL and RCPTs that must be taken."""
    said = wire.tell(b"MAIL FROM:<%s>%s" % (sender, b" " + parameters if parameters else b""))
    assert said.startswith(b"250 "), said
    for recipient in recipients:
        said = wire.tell(b"RCPT TO:<%s>" % recipient)
        assert said.startswith(b"250 "), said


def submit(wire: Wire, content: bytes) -> bytes:
    """DATA with content that has CR LF line ends and needs no dots stuffed; the last reply."""
    said = wire.tell(b"DATA")
    assert said.startswith(b"354 "), said
    wire.send(content + b".\r\n")
    return wire.reply()


def deliver(server: Server, content: bytes, recipient: bytes = b"joe@example.org") -> None:
    """A message from outside that must be taken."""
    with smtp(server) as wire:
        envelope(wire, b"sender@example.net", recipient)
        said = submit(wire, content)
        assert said.startswith(b"250 2.0.0 ok "), said


def token() -> bytes:
    """A word that no other message has."""
    return b"token-" + secrets.token_hex(8).encode()


def login(server: Server, name: bytes, password: bytes, service: str = "pop3s", source: str = LOCALHOST) -> Wire:
    """A POP3 connection after a login that must be taken."""
    with ExitStack() as until_open:
        wire = until_open.enter_context(pop3(server, service, source))
        assert wire.tell(b"USER " + name).startswith(b"+OK")
        said = wire.tell(b"PASS " + password)
        assert said.startswith(b"+OK"), said
        until_open.pop_all()
        return wire


def pop3(server: Server, service: str = "pop3s", source: str = LOCALHOST) -> Wire:
    """A POP3 connection after the greeting."""
    with ExitStack() as until_open:
        wire = until_open.enter_context(Wire(server, service, source))
        assert wire.line().startswith(b"+OK")
        until_open.pop_all()
        return wire
