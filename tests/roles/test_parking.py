"""Connections that bring more than one message, and what they may not spoil."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from pillarbox.envelope import Envelope
from pillarbox.roles import carrier, parking, relay
from pillarbox.roles.journey import PATIENCE, Content, Errand
from pillarbox.roles.parking import MOST_MESSAGES, Parking
from pillarbox.roles.relay import Road
from pillarbox.routes import Hop
from pillarbox.smtp.sender import Phase
from tests.roles.hosts import OFFER, RELAY, Script, Talk, envelope, hosts

Errands = Callable[[Callable[[int], Awaitable[bytes]], Road], Awaitable[None]]


class Host:
    """A host that takes `most` messages over a connection, and then does `last`; what it got, by connection."""

    def __init__(self, most: int = 1000, last: Script | None = None, *, offer: bytes = OFFER) -> None:
        self.most, self.last, self.offer = most, last, offer
        self.got: list[list[bytes]] = []

    async def talk(self, talk: Talk) -> None:
        got: list[bytes] = []
        self.got.append(got)
        await talk.say(b"220 host.example ESMTP\r\n")
        await talk.hear()
        await talk.say(self.offer)
        while len(got) < self.most:
            if not await envelope(talk):
                return
            await talk.say(b"354 go\r\n")
            content = await talk.content()
            got.append(content.partition(b"\r\n")[0])
            await talk.say(b"250 queued\r\n")
        if self.last is not None:
            await self.last(talk)


def bring(host: Host, errands: Errands, most: int = parking.MOST) -> None:
    """Run these errands on one road; each is given a number and returns its letter."""

    async def run() -> None:
        async with hosts(host.talk) as (port, names):
            road = Road(names, b"mx.example.org", 5.0, 20.0, parking=Parking(most))

            async def one(number: int, login: bytes = b"") -> bytes:
                return await errand(number, road, port, login)

            await errands(one, road)

    asyncio.run(run())


async def errand(number: int, road: Road, port: int, login: bytes) -> bytes:
    body = b"%d\n" % number
    sent = Errand(b"far.example", Hop(RELAY, port), Envelope(b"", (b"joe@far.example",)), Content(body, len(body)))
    if login:
        sent = replace(sent, hop=Hop(RELAY, port, login, b"secret"), clear=True)
    result = await relay.run(sent, road)
    return result.outcomes[0].verdict.value


async def five(one: Callable[[int], Awaitable[bytes]], _road: Road) -> None:
    assert [await one(number) for number in range(5)] == [b"K"] * 5


def test_messages_for_one_host_share_a_connection() -> None:
    host = Host()
    bring(host, five)
    assert host.got == [[b"0", b"1", b"2", b"3", b"4"]]


def test_without_a_place_to_park_each_message_has_its_own() -> None:
    host = Host()
    bring(host, five, most=0)
    assert host.got == [[b"0"], [b"1"], [b"2"], [b"3"], [b"4"]]


def test_after_some_messages_a_new_connection_is_made() -> None:
    host = Host()

    async def many(one: Callable[[int], Awaitable[bytes]], _road: Road) -> None:
        for number in range(MOST_MESSAGES + 1):
            assert await one(number) == b"K"

    bring(host, many)
    assert [len(got) for got in host.got] == [MOST_MESSAGES, 1]


async def _hang_up(_talk: Talk) -> None:
    return


async def _hang_up_at_mail(talk: Talk) -> None:
    await talk.hear()


async def _say_421(talk: Talk) -> None:
    await talk.hear()
    await talk.say(b"421 enough\r\n")


async def _refuse_the_sender(talk: Talk) -> None:
    await talk.hear()
    await talk.say(b"452 4.3.2 too many messages in this session\r\n")
    await talk.hear()


async def _say_it_unasked(talk: Talk) -> None:
    await talk.say(b"421 idle for too long\r\n")
    await talk.hear()


@pytest.mark.parametrize(
    "last",
    [_hang_up, _hang_up_at_mail, _say_421, _refuse_the_sender, _say_it_unasked],
    ids=lambda last: last.__name__,
)
@pytest.mark.parametrize("pause", [0.0, 0.05])
def test_a_connection_that_fails_when_it_is_used_again_is_replaced(last: Script, pause: float) -> None:
    host = Host(2, last)

    async def errands(one: Callable[[int], Awaitable[bytes]], _road: Road) -> None:
        for number in range(4):
            assert await one(number) == b"K"
            await asyncio.sleep(pause)

    bring(host, errands)
    assert host.got == [[b"0", b"1"], [b"2", b"3"]]


# The host may have it: a second time over a new connection would be one time too many.
def test_a_message_whose_final_dot_was_not_answered_is_not_sent_again_at_once() -> None:
    seen: list[bytes] = []

    async def take_and_go(talk: Talk) -> None:
        await envelope(talk)
        await talk.say(b"354 go\r\n")
        seen.append(await talk.content())

    host = Host(1, take_and_go)

    async def errands(one: Callable[[int], Awaitable[bytes]], _road: Road) -> None:
        assert [await one(0), await one(1)] == [b"K", b"Z"]

    bring(host, errands)
    assert seen == [b"1\r\n.\r\n"]
    assert host.got == [[b"0"]]


def test_a_connection_that_did_not_log_in_brings_nothing_that_needs_it() -> None:
    said: list[bytes] = []

    class Asking(Host):
        async def talk(self, talk: Talk) -> None:
            await talk.say(b"220 host.example\r\n")
            await talk.hear()
            await talk.say(b"250-host.example\r\n250 AUTH PLAIN\r\n")
            while line := await talk.hear():
                said.append(line)
                if line.startswith(b"DATA"):
                    await talk.say(b"354 go\r\n")
                    await talk.content()
                await talk.say(b"235 ok\r\n" if line.startswith(b"AUTH") else b"250 ok\r\n")

    async def run() -> None:
        async with hosts(Asking().talk) as (port, names):
            road = Road(names, b"mx.example.org", 5.0, 20.0, parking=Parking())
            for login in (b"", b"joe", b"amy", b"joe", b""):
                assert await errand(1, road, port, login) == b"K"

    asyncio.run(run())
    assert [line.split()[0] for line in said if not line.startswith((b"RCPT", b"DATA"))] == [
        b"MAIL", b"AUTH", b"MAIL", b"AUTH", b"MAIL", b"MAIL", b"MAIL",
    ]  # fmt: skip


def test_nobody_is_kept_waiting_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carrier, "TICK", 0.02)
    monkeypatch.setitem(PATIENCE, Phase.IDLE, 0.05)
    quit_: list[bytes] = []

    async def hear(talk: Talk) -> None:
        quit_.append(await talk.hear())
        await talk.say(b"221 bye\r\n")

    host = Host(1, hear)

    async def errands(one: Callable[[int], Awaitable[bytes]], _road: Road) -> None:
        assert await one(0) == b"K"
        await asyncio.sleep(0.3)
        assert quit_ == [b"QUIT\r\n"]

    bring(host, errands)


def test_places_to_park_are_few() -> None:
    host = Host()

    async def errands(one: Callable[[int], Awaitable[bytes]], _road: Road) -> None:
        for _ in range(2):
            assert await asyncio.gather(*[one(number) for number in range(5)]) == [b"K"] * 5

    bring(host, errands, most=2)
    assert sorted(len(got) for got in host.got) == [1] * 6 + [2] * 2
