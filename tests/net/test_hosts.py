"""From a domain to addresses: preferences, ourselves among the exchangers, literals, and what is not to be had."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence

import pytest

from pillarbox.net.hosts import Host, NoHost, literal, of_domain, of_relay
from pillarbox.net.names import Exchanger, NameTrouble, NoSuchName
from pillarbox.status import Status

OURS = frozenset({"127.0.0.1", "192.0.2.9"})
DOMAIN = b"example.org"


class Zone:
    """Names as they stand in DNS; `silent` ones get no answer."""

    def __init__(
        self, exchangers: Sequence[Exchanger], addresses: Mapping[bytes, list[str]], silent: Collection[bytes] = ()
    ) -> None:
        self._exchangers, self._addresses, self._silent = exchangers, addresses, silent

    async def exchangers(self, domain: bytes) -> list[Exchanger]:
        self._known(domain)
        return sorted(self._exchangers)

    async def addresses(self, name: bytes) -> list[str]:
        self._known(name)
        return self._addresses[name]

    def _known(self, name: bytes) -> None:
        if name in self._silent:
            raise NameTrouble("no answer")
        if name not in self._addresses and name != DOMAIN:
            raise NoSuchName("no such name")


def reversed_(exchangers: list[Exchanger]) -> None:
    exchangers.reverse()


def find(zone: Zone, domain: bytes = DOMAIN, ours: Collection[str] = OURS) -> list[str]:
    return [host.address for host in asyncio.run(of_domain(zone, domain, ours, reversed_))]


def refused(zone: Zone, domain: bytes = DOMAIN, ours: Collection[str] = OURS) -> NoHost:
    with pytest.raises(NoHost) as caught:
        find(zone, domain, ours)
    return caught.value


def test_hosts_come_in_the_order_of_preference_and_equals_in_the_order_that_chance_gave() -> None:
    exchangers = [Exchanger(20, b"c"), Exchanger(10, b"a"), Exchanger(10, b"b")]
    zone = Zone(exchangers, {b"a": ["192.0.2.1", "2001:db8::1"], b"b": ["192.0.2.2"], b"c": ["192.0.2.3"]})
    assert find(zone) == ["192.0.2.2", "192.0.2.1", "2001:db8::1", "192.0.2.3"]


def test_an_address_comes_once_at_its_best_preference() -> None:
    zone = Zone([Exchanger(10, b"a"), Exchanger(20, b"b")], {b"a": ["192.0.2.1"], b"b": ["192.0.2.1", "192.0.2.2"]})
    assert find(zone) == ["192.0.2.1", "192.0.2.2"]


def test_a_domain_without_mx_is_its_own_exchanger() -> None:
    assert find(Zone([], {DOMAIN: ["192.0.2.1"]})) == ["192.0.2.1"]


def test_no_host_at_our_own_preference_or_behind_it_is_tried() -> None:
    exchangers = [Exchanger(5, b"a"), Exchanger(10, b"us"), Exchanger(10, b"b"), Exchanger(20, b"c")]
    names = {b"a": ["192.0.2.1"], b"us": ["192.0.2.9"], b"b": ["192.0.2.2"], b"c": ["192.0.2.3"]}
    assert find(Zone(exchangers, names)) == ["192.0.2.1"]


@pytest.mark.parametrize("ourselves", ["127.0.0.1", "192.0.2.9", "::ffff:127.0.0.1"])
def test_to_be_the_best_exchanger_of_a_domain_that_is_not_local_is_an_error(ourselves: str) -> None:
    exchangers = [Exchanger(10, b"us"), Exchanger(20, b"b")]
    failure = refused(Zone(exchangers, {b"us": [ourselves], b"b": ["192.0.2.1"]}))
    assert failure.status == Status(5, 4, 6) and "best-preference MX" in failure.text
    assert refused(Zone([], {DOMAIN: [ourselves]})).status == Status(5, 4, 6)


def test_a_name_that_does_not_exist_is_permanent_and_shown_safely() -> None:
    failure = refused(Zone([], {}), b"no such\xff.example")
    assert failure.text == "Sorry, I couldn't find any host named no?such?.example. (#5.1.2)"
    assert failure.status == Status(5, 1, 2)


def test_no_answer_is_temporary() -> None:
    assert refused(Zone([], {}, silent={DOMAIN})).status == Status(4, 1, 2)
    assert refused(Zone([Exchanger(1, b"a"), Exchanger(2, b"b")], {}, silent={b"b"})).status == Status(4, 1, 2)


def test_an_exchanger_without_an_answer_does_not_hide_the_others() -> None:
    assert find(Zone([Exchanger(1, b"a"), Exchanger(2, b"b")], {b"b": ["192.0.2.1"]}, silent={b"a"})) == ["192.0.2.1"]


def test_exchangers_without_any_address_are_permanent() -> None:
    assert refused(Zone([Exchanger(1, b"a")], {b"a": []})).status == Status(5, 4, 4)
    assert refused(Zone([Exchanger(1, b"gone")], {})).status == Status(5, 4, 4)


def test_the_null_mx_takes_no_mail_and_is_not_asked_for_its_address() -> None:
    failure = refused(Zone([Exchanger(0, b"")], {DOMAIN: ["192.0.2.1"]}))
    assert failure.status == Status(5, 1, 10) and "#5.1.10" in failure.text


# row: known-ipv6
@pytest.mark.parametrize(
    ("domain", "address"),
    [
        (b"[192.0.2.1]", "192.0.2.1"),
        (b"192.0.2.1", "192.0.2.1"),
        (b"[IPv6:2001:DB8:0::1]", "2001:db8::1"),
        (b"[ipv6:::ffff:192.0.2.1]", "192.0.2.1"),
    ],
)
def test_a_literal_is_used_as_it_is(domain: bytes, address: str) -> None:
    assert literal(domain) == address
    assert find(Zone([], {}), domain) == [address]


@pytest.mark.parametrize("domain", [b"[300.1.1.1]", b"1.2.3", b"[x]", b"", b"[IPv6:1.2.3.4.5]"])
def test_what_is_no_address_is_no_literal(domain: bytes) -> None:
    assert literal(domain) is None


def test_a_literal_of_our_own_is_not_another_host() -> None:
    assert refused(Zone([], {}), b"[127.0.0.1]").status == Status(5, 4, 6)
    assert refused(Zone([], {}), b"[IPv6:::ffff:127.0.0.1]").status == Status(5, 4, 6)


# row: smtproutes-relay
def test_a_relay_is_looked_up_without_mx_and_may_be_ourselves() -> None:
    zone = Zone([Exchanger(1, b"other")], {b"relay": ["127.0.0.1", "::1"]})
    assert asyncio.run(of_relay(zone, b"relay")) == [Host("127.0.0.1", b"relay"), Host("::1", b"relay")]
    assert asyncio.run(of_relay(zone, b"::1")) == [Host("::1", b"")]


@pytest.mark.parametrize("relay", [b"gone", b"silent", b"empty"])
def test_a_relay_that_is_not_found_is_temporary_whatever_dns_says(relay: bytes) -> None:
    with pytest.raises(NoHost) as caught:
        asyncio.run(of_relay(Zone([], {b"empty": []}, silent={b"silent"}), relay))
    assert caught.value.status.kind == 4
