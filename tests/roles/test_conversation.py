"""The driver of both protocols, with real machines and sessions over real sockets, and an executor that waits."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest

from pillarbox.admission import Admission
from pillarbox.control.table import Settings
from pillarbox.credentials import Identity
from pillarbox.net.tls import contexts
from pillarbox.roles.conversation import HELD_LIMIT, LATE, PENDING, Conversation
from pillarbox.sessions import effects
from pillarbox.sessions.reception import Exchange, Reception
from pillarbox.smtp.receiver import Receiver
from pillarbox.status import Refusal, Status
from tests.net.test_tls import certificate

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
NOBODY = Refusal(Status(5, 1, 1), "nobody")
SETTINGS = Settings(me=b"mx.example.org", locals=frozenset({b"example.org"}), rcpthosts=frozenset({b"example.org"}))


@dataclass
class Patience:
    idle: float = 60.0
    total: float = 600.0
    farewell: bytes = b"421 farewell\r\n"


@dataclass
class Errands:
    """Carries out effects when the test says so, else at once."""

    waits: tuple[type, ...] = ()
    asked: list[effects.Effect] = field(default_factory=list)
    resumers: list[Callable[[Any], None]] = field(default_factory=list)
    given_up: list[effects.Effect] = field(default_factory=list)
    gone: bool = False

    def attach(self, conversation: Conversation) -> None:
        self.conversation = conversation

    def execute(self, effect: effects.Effect) -> Any:
        self.asked.append(effect)
        if isinstance(effect, self.waits):
            self.resumers.append(self.conversation.resumer())
            return PENDING
        if isinstance(effect, effects.Authenticate):
            return Identity(b"joe", b"joe@example.org")
        return effects.Committed(b"457") if isinstance(effect, effects.Commit) else None

    def give_up(self, effect: effects.Effect) -> Any:
        self.given_up.append(effect)
        return LATE

    def lost(self) -> None:
        self.gone = True


@dataclass
class House:
    """A listening server of one conversation at a time."""

    errands: Errands
    patience: Patience = field(default_factory=Patience)
    service: str = "smtp"
    context: ssl.SSLContext | None = None
    current: Conversation | None = None
    ended: int = 0

    def welcome(self) -> Conversation:
        implicit = self.service == "submissions"
        facts = Exchange(
            service=self.service, me=b"mx.example.org", client=b"127.0.0.1", admission=Admission(SETTINGS),
            clock=time.time, token=lambda: b"1", starttls=self.context is not None and not implicit,
            mechanisms=(b"PLAIN",),
        )  # fmt: skip
        parts = (Receiver(b"mx.example.org", offer=facts.offer), Reception(facts), self.errands)
        loop = asyncio.get_running_loop()
        self.current = Conversation(loop, parts, self.patience, self.context, implicit, self._gone)
        return self.current

    def _gone(self, _conversation: Conversation) -> None:
        self.ended += 1


def converse(
    house: House, client: Callable[[House, Streams], Awaitable[None]], tls: ssl.SSLContext | None = None
) -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(house.welcome, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        streams = await asyncio.open_connection(
            "127.0.0.1", port, ssl=tls, server_hostname="mx.example.org" if tls else None
        )
        try:
            async with asyncio.timeout(20):
                await client(house, streams)
        finally:
            streams[1].transport.abort()
            server.close()
            if house.current is not None:
                house.current.abort()
            await asyncio.sleep(0.05)

    asyncio.run(run())


async def lines(reader: asyncio.StreamReader, count: int) -> list[bytes]:
    return [await reader.readline() for _ in range(count)]


def let_pass(conversation: Conversation | None, seconds: float) -> None:
    """Two sweeps, so far apart."""
    assert conversation is not None
    conversation.sweep(1000.0)
    conversation.sweep(1000.0 + seconds)


ENVELOPE = b"HELO c.example\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<joe@example.org>\r\nDATA\r\n"
MESSAGE = b"Subject: x\r\n\r\nbody\r\n.\r\n"


def test_a_pipelined_session_in_one_write_is_answered_in_order() -> None:
    async def client(house: House, streams: Streams) -> None:
        reader, writer = streams
        writer.write(ENVELOPE + MESSAGE + b"QUIT\r\n")
        heard = await reader.read()
        assert [line[:3] for line in heard.splitlines()] == [b"220", b"250", b"250", b"250", b"354", b"250", b"221"]
        assert b"457" in heard

    house = House(Errands())
    converse(house, client)
    assert house.ended == 1 and house.errands.gone


def test_while_an_effect_waits_replies_so_far_are_out_and_nothing_further_happens() -> None:
    async def client(house: House, streams: Streams) -> None:
        reader, writer = streams
        writer.write(ENVELOPE)
        assert [line[:3] for line in await lines(reader, 3)] == [b"220", b"250", b"250"]
        await asyncio.sleep(0.05)
        assert [type(effect) for effect in house.errands.asked] == [effects.CheckRecipient]
        house.errands.resumers[0](None)
        assert [line[:3] for line in await lines(reader, 2)] == [b"250", b"354"]

    converse(House(Errands(waits=(effects.CheckRecipient,))), client)


def test_what_a_client_sends_while_an_effect_waits_is_held_up_to_a_limit() -> None:
    async def client(house: House, streams: Streams) -> None:
        reader, writer = streams
        writer.write(ENVELOPE)
        await lines(reader, 3)
        for _ in range(64):
            writer.write(b"NOOP\r\n" * 20_000)
            await asyncio.sleep(0)
        await asyncio.sleep(0.2)
        assert house.current is not None
        held = house.current._held
        assert HELD_LIMIT < held < HELD_LIMIT + (1 << 20)
        house.errands.resumers[0](None)
        assert [line[:3] for line in await lines(reader, 2)] == [b"250", b"354"]
        writer.transport.abort()

    converse(House(Errands(waits=(effects.CheckRecipient,))), client)


def test_a_result_that_comes_after_its_effect_was_given_up_answers_no_later_effect() -> None:
    async def client(house: House, streams: Streams) -> None:
        reader, writer = streams
        writer.write(ENVELOPE)
        await lines(reader, 3)
        conversation = house.current
        assert conversation is not None
        let_pass(conversation, 61)
        assert [line[:3] for line in await lines(reader, 2)] == [b"451", b"503"]
        writer.write(b"RCPT TO:<jim@example.org>\r\n")
        await asyncio.sleep(0.05)
        assert len(house.errands.resumers) == 2
        house.errands.resumers[0](None)  # joe exists, says the late answer; jim was asked about
        await asyncio.sleep(0.05)
        house.errands.resumers[1](LATE)
        assert (await reader.readline())[:3] == b"451"

    house = House(Errands(waits=(effects.CheckRecipient,)))
    converse(house, client)
    assert len(house.errands.given_up) == 1


def test_a_result_that_giving_up_brings_is_the_only_one() -> None:
    class LettingGo(Errands):
        def give_up(self, effect: effects.Effect) -> Any:
            self.resumers[-1](NOBODY)
            return super().give_up(effect)

    async def client(house: House, streams: Streams) -> None:
        reader, writer = streams
        writer.write(b"HELO c.example\r\nMAIL FROM:<a@b.example>\r\n" + b"RCPT TO:<joe@example.org>\r\n" * 2)
        await lines(reader, 3)
        let_pass(house.current, 61)
        assert (await reader.readline())[:3] == b"550"
        house.errands.resumers[1](None)
        assert (await reader.readline())[:3] == b"250"

    converse(House(LettingGo(waits=(effects.CheckRecipient,))), client)


def test_an_effect_has_its_own_time_also_when_replies_went_out_before_it() -> None:
    async def client(house: House, streams: Streams) -> None:
        reader, writer = streams
        writer.write(ENVELOPE)
        await lines(reader, 3)
        let_pass(house.current, 61)
        assert (await reader.readline())[:3] == b"451"

    converse(House(Errands(waits=(effects.CheckRecipient,)), Patience(idle=1200.0)), client)


def test_a_silent_client_is_sent_away_and_a_busy_one_is_not() -> None:
    async def client(house: House, streams: Streams) -> None:
        reader, _writer = streams
        await reader.readline()
        let_pass(house.current, 59)
        assert house.current is not None and not house.current._closing
        let_pass(house.current, 61)
        assert await reader.read() == b"421 farewell\r\n"

    converse(House(Errands()), client)


def test_the_whole_session_has_an_end() -> None:
    async def client(house: House, streams: Streams) -> None:
        reader, _writer = streams
        await reader.readline()
        let_pass(house.current, 601)
        assert await reader.read() == b"421 farewell\r\n"

    converse(House(Errands(), Patience(idle=10_000.0)), client)


def test_a_server_that_stops_lets_a_commit_end_and_says_farewell_behind_its_answer() -> None:
    async def client(house: House, streams: Streams) -> None:
        reader, writer = streams
        writer.write(ENVELOPE + MESSAGE)
        await lines(reader, 5)
        await asyncio.sleep(0.05)
        assert house.current is not None
        house.current.leave()
        house.errands.resumers[0](effects.Committed(b"458"))
        heard = await reader.read()
        assert heard.startswith(b"250 ") and heard.endswith(b"421 farewell\r\n")

    converse(House(Errands(waits=(effects.Commit,))), client)


def test_a_client_that_leaves_while_an_effect_waits_is_forgotten() -> None:
    async def client(house: House, streams: Streams) -> None:
        reader, writer = streams
        writer.write(ENVELOPE)
        await lines(reader, 3)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()  # with a reset: a client that only sends no more may still wait for its answers
        await asyncio.sleep(0.05)
        assert house.errands.gone and house.ended == 1
        house.errands.resumers[0](None)

    converse(House(Errands(waits=(effects.CheckRecipient,))), client)


def test_commands_before_the_end_of_input_are_still_answered() -> None:
    async def client(house: House, streams: Streams) -> None:
        reader, writer = streams
        writer.write(b"HELO c.example\r\nNOOP\r\nhalf a li")
        writer.write_eof()
        assert [line[:3] for line in (await reader.read()).splitlines()] == [b"220", b"250", b"250"]

    converse(House(Errands()), client)


@pytest.fixture(scope="module")
def tls() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    descriptor, chain = certificate("mx.example.org")
    server = contexts({"": descriptor})
    assert server is not None
    return server, ssl.create_default_context(cadata=chain.decode())


def test_a_handshake_that_trickles_gets_no_more_time(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    async def client(house: House, streams: Streams) -> None:
        reader, writer = streams
        writer.write(b"\x16\x03\x01")
        await asyncio.sleep(0.05)
        let_pass(house.current, 61)
        assert await reader.read() == b""

    converse(House(Errands(), Patience(idle=1200.0), service="submissions", context=tls[0]), client)


def test_after_the_handshake_a_client_has_its_time(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    async def client(house: House, streams: Streams) -> None:
        reader, writer = streams
        writer.write(b"EHLO c.example\r\nSTARTTLS\r\n")
        while not (await reader.readline()).startswith(b"220 2.0.0"):
            pass
        await writer.start_tls(tls[1], server_hostname="mx.example.org")
        await asyncio.sleep(0.05)
        let_pass(house.current, 61)
        writer.write(b"NOOP\r\n")
        assert (await reader.readline())[:3] == b"250"

    converse(House(Errands(), Patience(idle=1200.0), context=tls[0]), client)


def test_a_result_that_comes_after_a_broken_record_is_dropped(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    """A client that does not read keeps the connection open for a while after TLS broke. Whoever brings the result
    brings those of other clients too, and must not meet an exception."""

    async def run() -> None:
        errands = Errands(waits=(effects.Commit,))
        conversation = House(errands, service="submissions", context=tls[0]).welcome()
        transport = Unread()
        conversation.connection_made(transport)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = tls[1].wrap_bio(incoming, outgoing, server_hostname="mx.example.org")
        for _ in range(2):
            with suppress(ssl.SSLWantReadError):
                client.do_handshake()
            conversation.data_received(outgoing.read())
            incoming.write(transport.taken())
        client.write(b"EHLO c\r\nAUTH PLAIN AGpvZQBzZWNyZXQ=\r\nMAIL FROM:<joe@example.org>\r\n")
        client.write(b"RCPT TO:<joe@example.org>\r\nDATA\r\n")
        conversation.data_received(outgoing.read())
        client.write(MESSAGE)
        conversation.data_received(outgoing.read())
        conversation.data_received(b"\x17\x03\x03\x00\x20" + b"?" * 32)
        assert transport.closed
        errands.resumers[0](effects.Committed(b"457"))
        conversation.connection_lost(None)
        assert errands.gone

    asyncio.run(run())


class Unread(asyncio.Transport):
    """To a client that does not read: once closed it stays open for what is unsent."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = False
        self._octets = b""

    def write(self, octets: bytes | bytearray | memoryview) -> None:
        self._octets += octets

    def taken(self) -> bytes:
        octets, self._octets = self._octets, b""
        return octets

    def close(self) -> None:
        self.closed = True


def test_commands_smuggled_in_ahead_of_the_handshake_are_forgotten(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    async def client(house: House, streams: Streams) -> None:
        reader, writer = streams
        writer.write(b"EHLO mallory.example\r\nSTARTTLS\r\nEHLO injected.example\r\n")
        while not (await reader.readline()).startswith(b"220 2.0.0"):
            pass
        await writer.start_tls(tls[1], server_hostname="mx.example.org")
        writer.write(b"NOOP\r\nMAIL FROM:<a@b.example>\r\n")
        heard = await lines(reader, 2)
        assert heard[0].startswith(b"250 2.0.0 ok") and heard[1].startswith(b"503 ")

    converse(House(Errands(), context=tls[0]), client)


def test_octets_after_the_handshake_in_the_clear_end_the_connection(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    async def client(house: House, streams: Streams) -> None:
        reader, writer = streams
        writer.write(b"EHLO c.example\r\nSTARTTLS\r\n")
        while not (await reader.readline()).startswith(b"220 2.0.0"):
            pass
        writer.write(b"MAIL FROM:<a@b.example>\r\n")
        assert b"250" not in await reader.read()

    converse(House(Errands(), context=tls[0]), client)


def test_with_implicit_tls_the_greeting_comes_inside_and_starttls_is_not_offered(
    tls: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    async def client(house: House, streams: Streams) -> None:
        reader, writer = streams
        assert (await reader.readline()).startswith(b"220 ")
        writer.write(b"EHLO c.example\r\nQUIT\r\n")
        heard = await reader.read()
        assert b"AUTH PLAIN" in heard and b"STARTTLS" not in heard

    converse(House(Errands(), service="submissions", context=tls[0]), client, tls[1])


def test_a_client_that_does_not_read_its_replies_is_not_served_on() -> None:
    async def client(house: House, streams: Streams) -> None:
        reader, writer = streams
        reader._transport.pause_reading()  # type: ignore[attr-defined]  # no public way to stop reading
        noops = b"EHLO c.example\r\n" * 4096
        for _ in range(200):
            writer.write(noops)
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.2)
        assert house.current is not None and house.current._transport is not None
        assert house.current._transport.get_write_buffer_size() < 2 << 20
        writer.transport.abort()

    converse(House(Errands()), client)
