"""TLS over memory BIOs, against OpenSSL's client side in the same process."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from pillarbox.cli.certificate import new_key, self_signed
from pillarbox.net.tls import Tls, TlsFailed, contexts


def certificate(name: str) -> tuple[int, bytes]:
    """A memfd with key and certificate for `name`, and the certificate alone."""
    key = new_key()
    chain = self_signed(key, name, datetime.now(UTC))
    descriptor = os.memfd_create(name)
    os.write(descriptor, key + chain)
    return descriptor, chain


@pytest.fixture(scope="module")
def certificates() -> Iterator[dict[str, tuple[int, bytes]]]:
    made = {name: certificate(name or "mx.example.org") for name in ("", "other.example", "*.wild.example")}
    yield made
    for descriptor, _chain in made.values():
        os.close(descriptor)


class Client:
    """OpenSSL's client, joined to a `Tls` without a socket."""

    def __init__(self, server: Tls, trusted: bytes, name: str) -> None:
        context = ssl.create_default_context(cadata=trusted.decode())
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._in, self._out, server_hostname=name)
        self._server = server
        self.heard = b""

    def exchange(self) -> None:
        """Carry octets to and fro until both are quiet."""
        while octets := self._out.read():
            self.heard += self._server.receive(octets)
            self._in.write(self._server.outgoing())

    def shake_hands(self) -> None:
        for _ in range(10):
            try:
                self.tls.do_handshake()
                self.exchange()
                return
            except ssl.SSLWantReadError:
                self.exchange()
        raise AssertionError("no handshake")


@pytest.mark.parametrize(
    ("asked", "served"),
    [
        ("mx.example.org", ""),
        ("other.example", "other.example"),
        ("a.wild.example", "*.wild.example"),
        ("OTHER.example", "other.example"),
    ],
)
def test_a_client_gets_the_certificate_of_the_name_it_asks_for(
    certificates: dict[str, tuple[int, bytes]], asked: str, served: str
) -> None:
    context = contexts({name: descriptor for name, (descriptor, _chain) in certificates.items()})
    assert context is not None
    server = Tls(context)
    client = Client(server, certificates[served][1], asked)
    client.shake_hands()
    assert server.established
    client.tls.write(b"EHLO")
    client.exchange()
    assert client.heard == b"EHLO"
    server.send(b"250 ok" * 10_000)
    client._in.write(server.outgoing())
    read = b""
    while len(read) < 60_000:
        read += client.tls.read(65536)
    assert read == b"250 ok" * 10_000
    assert server.facts.startswith(b"TLSv1.")


def test_plain_text_in_place_of_a_handshake_fails(certificates: dict[str, tuple[int, bytes]]) -> None:
    context = contexts({"": certificates[""][0]})
    assert context is not None
    with pytest.raises(TlsFailed):
        Tls(context).receive(b"EHLO client.example\r\nMAIL FROM:<a@b.example>\r\n")


def test_old_versions_are_not_spoken(certificates: dict[str, tuple[int, bytes]]) -> None:
    context = contexts({"": certificates[""][0]})
    assert context is not None and context.minimum_version == ssl.TLSVersion.TLSv1_2


def test_without_a_default_there_is_no_tls(certificates: dict[str, tuple[int, bytes]]) -> None:
    assert contexts({"other.example": certificates["other.example"][0]}) is None
