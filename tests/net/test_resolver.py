"""Names to addresses, asked of a real name server."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from pillarbox.net import resolver
from pillarbox.net.names import Exchanger, NameTrouble, NoSuchName
from pillarbox.net.resolver import MOST_ADDRESSES, Resolver, Server
from tests.nameserver import nameserver

ZONE = (
    """
far.example. MX 20 backup.far.example.
far.example. MX 10 mx.far.example.
mx.far.example. A 192.0.2.1
mx.far.example. AAAA 2001:db8::1
backup.far.example. A 192.0.2.2
also.example. CNAME far.example.
host.example. CNAME mx.far.example.
plain.example. A 192.0.2.3
six.example. AAAA 2001:db8::2
nothing.example. TXT "no address, no exchanger"
null.example. MX 0 .
xn--bcher-kva.example. MX 5 mx.far.example.
listed.example. TXT "see " "http://bl.example/"
1.2.0.192.in-addr.arpa. PTR MX.Far.Example.
1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa. PTR mx.far.example.
"""
    + "".join(f"9.2.0.192.in-addr.arpa. PTR name-{number}.example.\n" for number in range(20))
    + "".join(f"wide.example. A 192.0.2.{number}\n" for number in range(1, 101))
    + "".join(f"many.example. MX {number} a-rather-long-name-of-exchanger-{number}.example.\n" for number in range(100))
)

Found = TypeVar("Found")


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with nameserver(ZONE) as port:
        yield port


def ask(port: int, question: Callable[[Resolver], Awaitable[Found]], lifetime: float = 10) -> Found:
    async def asked() -> Found:
        return await question(Resolver([Server("127.0.0.1", port)], lifetime))

    return asyncio.run(asked())


# row: known-dns
def test_exchangers_come_best_first_also_behind_an_alias(port: int) -> None:
    expected = [Exchanger(10, b"mx.far.example"), Exchanger(20, b"backup.far.example")]
    assert ask(port, lambda dns: dns.exchangers(b"far.example")) == expected
    assert ask(port, lambda dns: dns.exchangers(b"ALSO.example.")) == expected


def test_addresses_of_both_kinds_are_found_also_behind_an_alias(port: int) -> None:
    assert ask(port, lambda dns: dns.addresses(b"mx.far.example")) == ["192.0.2.1", "2001:db8::1"]
    assert ask(port, lambda dns: dns.addresses(b"host.example")) == ["192.0.2.1", "2001:db8::1"]
    assert ask(port, lambda dns: dns.addresses(b"six.example")) == ["2001:db8::2"]


def test_a_name_without_what_is_asked_for_is_not_a_name_that_does_not_exist(port: int) -> None:
    assert ask(port, lambda dns: dns.exchangers(b"plain.example")) == []
    assert ask(port, lambda dns: dns.addresses(b"nothing.example")) == []


def test_the_null_mx_is_told_apart(port: int) -> None:
    assert ask(port, lambda dns: dns.exchangers(b"null.example")) == [Exchanger(0, b"")]


def test_an_internationalised_name_is_asked_for_in_its_ascii_form(port: int) -> None:
    assert ask(port, lambda dns: dns.exchangers("bücher.example".encode())) == [Exchanger(5, b"mx.far.example")]


@pytest.mark.parametrize("name", [b"gone.example", b"a..b", b"x" * 64 + b".example", b"\xff.example", b"y." * 200])
def test_what_does_not_exist_or_cannot_is_permanent(port: int, name: bytes) -> None:
    for question in (lambda dns: dns.exchangers(name), lambda dns: dns.addresses(name)):
        with pytest.raises(NoSuchName):
            ask(port, question)


def test_a_server_that_fails_is_temporary(port: int) -> None:
    for question in (lambda dns: dns.exchangers(b"x.broken"), lambda dns: dns.addresses(b"x.broken")):
        with pytest.raises(NameTrouble):
            ask(port, question, lifetime=2)


# row: known-dns
def test_answers_too_long_for_a_datagram_are_fetched_whole_and_bounded(port: int) -> None:
    assert len(ask(port, lambda dns: dns.exchangers(b"many.example"))) == 30
    assert len(ask(port, lambda dns: dns.addresses(b"wide.example"))) == MOST_ADDRESSES


def test_a_server_that_does_not_answer_is_given_up_in_time() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        begun = time.monotonic()
        with pytest.raises(NameTrouble):
            ask(silent.getsockname()[1], lambda dns: dns.exchangers(b"far.example"), lifetime=0.5)
        assert time.monotonic() - begun < 5


def test_an_answer_is_asked_for_once_while_it_lasts(port: int) -> None:
    async def twice() -> list[Exchanger]:
        dns = Resolver([Server("127.0.0.1", port)])
        await dns.exchangers(b"far.example")
        dns._made.nameservers = []  # type: ignore[union-attr]  # nobody is there to be asked again
        return await dns.exchangers(b"far.example")

    assert asyncio.run(twice())[0] == Exchanger(10, b"mx.far.example")


def test_without_servers_of_our_own_those_of_the_system_are_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "resolv.conf"
    monkeypatch.setattr(resolver, "RESOLV_CONF", str(file))
    dns = Resolver()
    for address in ("192.0.2.53", "192.0.2.153"):
        file.write_text(f"search example.net\nnameserver {address}\n")
        assert [str(server) for server in dns._resolver().nameservers] == [address]
    file.unlink()
    with pytest.raises(NameTrouble):
        asyncio.run(dns.addresses(b"far.example"))


def test_no_name_is_completed_by_the_search_list_of_the_system() -> None:
    assert resolver._name(b"far.example") == resolver._name(b"far.example.")
    assert resolver._name(b"localhost").is_absolute()


def test_the_texts_of_a_name_come_each_in_one_piece(port: int) -> None:
    assert ask(port, lambda dns: dns.texts(b"listed.example")) == [b"see http://bl.example/"]
    assert ask(port, lambda dns: dns.texts(b"plain.example")) == []
    with pytest.raises(NoSuchName):
        ask(port, lambda dns: dns.texts(b"nobody.example"))


def test_ipv4_addresses_can_be_asked_for_alone(port: int) -> None:
    assert ask(port, lambda dns: dns.ipv4(b"mx.far.example")) == ["192.0.2.1"]
    assert ask(port, lambda dns: dns.ipv4(b"six.example")) == []


def test_the_names_of_an_address_are_in_lower_case_and_not_too_many(port: int) -> None:
    assert ask(port, lambda dns: dns.names("192.0.2.1")) == [b"mx.far.example"]
    assert ask(port, lambda dns: dns.names("2001:db8::1")) == [b"mx.far.example"]
    assert len(ask(port, lambda dns: dns.names("192.0.2.9"))) == 5
    with pytest.raises(NoSuchName):
        ask(port, lambda dns: dns.names("192.0.2.8"))
