"""TLS as bytes in, bytes out, over OpenSSL's memory BIOs; and server contexts chosen by the name a client asks for.

Own BIOs rather than asyncio's start_tls: that one loses bytes already buffered, and with ours nothing read in the
clear can reach the session behind the handshake (STARTTLS injection).
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from contextlib import suppress

READ_SIZE = 64 << 10


class TlsFailed(Exception):
    """The handshake or a record was no good; the text is OpenSSL's reason."""


class KeyEncrypted(ssl.SSLError):
    """The private key asks for a passphrase, and nobody is there to say it."""

    reason = "KEY_ENCRYPTED"


class Tls:
    """One side of one TLS connection: the server's, or with `server_name` the client's. That is the name it asks for
    (SNI), and wants to see in the certificate where the context verifies; "" asks for none. A client begins with
    `receive(b"")`."""

    __slots__ = ("_incoming", "_object", "_outgoing", "established")

    def __init__(self, context: ssl.SSLContext, *, server_name: str | None = None) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._object = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_name is None, server_hostname=server_name or None
        )
        self.established = False

    def receive(self, octets: bytes) -> bytes:
        """Take octets from the network; returns the plain bytes they held. Raises TlsFailed."""
        self._incoming.write(octets)
        try:
            if not self.established:
                self._object.do_handshake()
                self.established = True
            return self._read()
        except ssl.SSLWantReadError:
            return b""
        except ssl.SSLError as problem:
            raise TlsFailed(_reason(problem)) from None

    def _read(self) -> bytes:
        plain = []
        try:
            while piece := self._object.read(READ_SIZE):
                plain.append(piece)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            pass  # close_notify: the connection's own end follows
        return b"".join(plain)

    def send(self, plain: bytes) -> None:
        """Encrypt; `outgoing` has the octets. Only once established."""
        view = memoryview(plain)
        while view:
            view = view[self._object.write(view) :]

    def outgoing(self) -> bytes:
        """Octets for the network, handshake included."""
        return self._outgoing.read()

    def close(self) -> None:
        """Queue a close_notify."""
        with suppress(ssl.SSLError):  # the peer's own close_notify is not waited for
            self._object.unwrap()

    @property
    def facts(self) -> bytes:
        """Version and cipher, as b"TLSv1.3 TLS_AES_256_GCM_SHA384"; empty before the handshake's end."""
        cipher = self._object.cipher()
        return f"{self._object.version()} {cipher[0]}".encode() if cipher and self.established else b""


def _reason(problem: ssl.SSLError) -> str:
    said = getattr(problem, "verify_message", "")  # ssl.SSLCertVerificationError's
    return f"{problem.reason}: {said}" if said else problem.reason or str(problem)


def opportunistic() -> ssl.SSLContext:
    """A client's context that believes any server, and takes old ciphers: the other choice is no TLS at all."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    return context


def verifying() -> ssl.SSLContext:
    """A client's context that believes the system's authorities alone. Raises ssl.SSLError, OSError."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _context(certificate: int) -> ssl.SSLContext:
    """A server context from a descriptor of a PEM file with key and chain. Raises ssl.SSLError, OSError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    os.lseek(certificate, 0, os.SEEK_SET)
    context.load_cert_chain(f"/proc/self/fd/{certificate}", password=_no_passphrase)
    return context


def _no_passphrase() -> str:
    """Instead of OpenSSL's own prompt, on which a server in a terminal would hang."""
    raise KeyEncrypted


def contexts(certificates: Mapping[str, int]) -> ssl.SSLContext | None:
    """One context that serves them all: "" is the default, other names are matched against SNI (RFC 6066 section 3),
    "*.example.org" one label deep. None without a default. Raises ssl.SSLError, OSError."""
    if "" not in certificates:
        return None
    by_name = {name.lower(): _context(certificate) for name, certificate in certificates.items()}
    default = by_name.pop("")

    def choose(connection: ssl.SSLObject, asked: str | None, _context: ssl.SSLContext) -> None:
        name = (asked or "").lower().rstrip(".")
        found = by_name.get(name) or by_name.get("*." + name.partition(".")[2])
        if found is not None:
            connection.context = found

    if by_name:
        default.sni_callback = choose
    return default
