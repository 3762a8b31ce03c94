"""Mail hosts that do what a test says, on loopback addresses that share one port, and names that lead to them."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path

from pillarbox.net.names import Exchanger, NoSuchName

RELAY = b"relay.example"
OFFER = b"250-host.example\r\n250-PIPELINING\r\n250 8BITMIME\r\n"
OFFER_TLS = b"250-host.example\r\n250-STARTTLS\r\n250 AUTH PLAIN LOGIN\r\n"


class Talk:
    """A host's side of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def say(self, octets: bytes) -> None:
        self.writer.write(octets)
        await self.writer.drain()

    async def hear(self) -> bytes:
        """The next line; b"" at the end."""
        return await self.reader.readline()

    async def content(self) -> bytes:
        """Up to the final dot."""
        text = bytearray()
        while text != b".\r\n" and not text.endswith(b"\r\n.\r\n"):
            line = await self.hear()
            if not line:
                return bytes(text) + b"<cut off>"
            text += line
        return bytes(text)

    async def secure(self, certificate: Path) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        await self.writer.start_tls(context)


Script = Callable[[Talk], Awaitable[None]]


async def envelope(talk: Talk, refused: dict[bytes, bytes] | None = None) -> int:
    """Hear MAIL, RCPT and DATA, answer them; how many recipients were taken. `refused`: local parts and replies."""
    taken = 0
    while not (line := await talk.hear()).startswith(b"DATA"):
        if line.startswith(b"RCPT"):
            reply = (refused or {}).get(line.partition(b"<")[2].partition(b"@")[0], b"250 taken\r\n")
            taken += reply.startswith(b"2")
            await talk.say(reply)
        else:
            await talk.say(b"250 ok\r\n")
        if not line:
            return taken
    return taken


def good(said: list[bytes], refused: dict[bytes, bytes] | None = None, last: bytes = b"250 queued\r\n") -> Script:
    """A host that takes mail: what it got goes to `said`."""

    async def script(talk: Talk) -> None:
        await talk.say(b"220 host.example ESMTP\r\n")
        said.append(await talk.hear())
        await talk.say(OFFER)
        if not await envelope(talk, refused):
            await talk.say(b"554 nobody\r\n")
            return
        await talk.say(b"354 go\r\n")
        said.append(await talk.content())
        await talk.say(last)
        if last.endswith(b"\n"):
            said.append(await talk.hear())

    return script


def says(*replies: bytes) -> Script:
    """A host that says these, hearing a line between each two, and hangs up."""

    async def script(talk: Talk) -> None:
        for number, reply in enumerate(replies):
            if number and not await talk.hear():
                return
            await talk.say(reply)

    return script


def dictated(said: list[bytes], *replies: bytes) -> Script:
    """A host that says these one by one; what it hears to each, the content behind a 354, goes to `said`."""

    async def script(talk: Talk) -> None:
        for reply in replies:
            await talk.say(reply)
            heard = await (talk.content() if reply.startswith(b"354") else talk.hear())
            if not heard:
                return
            said.append(heard)

    return script


class Names:
    """`relay.example` is at these addresses, in this order; nothing else exists."""

    def __init__(self, addresses: list[str]) -> None:
        self._addresses = addresses

    async def exchangers(self, domain: bytes) -> list[Exchanger]:
        raise NoSuchName("no such name")

    async def addresses(self, name: bytes) -> list[str]:
        return self._addresses


@asynccontextmanager
async def hosts(*scripts: Script | None) -> AsyncIterator[tuple[int, Names]]:
    """Hosts at 127.0.0.2, 127.0.0.3, ... on one port, each with its script for every connection (None: nobody is
    there); the port, and names that lead to all of them in this order."""
    addresses = [f"127.0.0.{number}" for number in range(2, 2 + len(scripts))]
    port = free_port(addresses)
    talks: set[asyncio.Task[None]] = set()

    def serve(script: Script) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
        async def met(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            talks.add(task)
            try:
                await script(Talk(reader, writer))
            except (OSError, asyncio.CancelledError):
                pass
            finally:
                writer.close()
                talks.discard(task)

        return met

    servers = [
        await asyncio.start_server(serve(script), address, port)
        for address, script in zip(addresses, scripts, strict=True)
        if script is not None
    ]
    try:
        yield port, Names(addresses)
    finally:
        for server in servers:
            server.close()
        if talks:
            _ended, left = await asyncio.wait(talks, timeout=0.5)
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)


@contextmanager
def unanswering() -> Iterator[int]:
    """A port of 127.0.0.2 whose queue of connections is full: the kernel answers no more."""
    with socket.socket() as full, ExitStack() as fillers:
        full.bind(("127.0.0.2", 0))
        full.listen(0)
        for _ in range(3):
            filler = fillers.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        yield int(full.getsockname()[1])


def free_port(addresses: list[str]) -> int:
    """A port that is free at all of them."""
    while True:
        with socket.socket() as first:
            first.bind((addresses[0], 0))
            port = int(first.getsockname()[1])
            try:
                for address in addresses[1:]:
                    with socket.socket() as other:
                        other.bind((address, port))
            except OSError:
                continue
            return port
