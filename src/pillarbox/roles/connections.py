"""The network side of smtpd and pop3d: listening, counting, sweeping, certificates, draining, links to other roles."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import traceback
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, cast

try:
    import uvloop
except ImportError:  # it makes asyncio faster, and is not to be had everywhere
    uvloop = None  # type: ignore[assignment]  # mypy takes the module for the only value of its name

from pillarbox.control.table import Listener
from pillarbox.net import listening, tls
from pillarbox.roles.conversation import Conversation
from pillarbox.roles.house import House
from pillarbox.roles.link import Frame, Link
from pillarbox.roles.log import Log
from pillarbox.roles.looplink import LoopLink
from pillarbox.roles.process import affordable
from pillarbox.roles.verbs import SUPERVISOR_SAYS, Verb

CONNECTIONS = 4000  # of one process, where it may have so many descriptors; more are turned away at once
CONNECTIONS_OF_ONE = 200  # from one client address; loopback may have them all
IMPLICIT_TLS = ("submissions", "pop3s")
SWEEP_PERIOD = 1.0  # seconds

Welcome = Callable[[Listener, str, Callable[[Conversation], None]], Conversation]


class Connections:
    """`welcome(listener, client address, gone)` makes the conversation with a new client; `attach(peer, link)` gets
    each link to another role; `full` is what a client hears that is turned away; `descriptors` is how many a client
    needs at most."""

    def __init__(
        self,
        role: str,
        house: House,
        control: socket.socket,
        *,
        welcome: Welcome,
        attach: Callable[[str, Link], None],
        full: bytes,
        descriptors: int,
        log: Log,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.house = house
        self.context: ssl.SSLContext | None = None
        self._arriving: dict[str, int] = {}  # certificates that have come, while others have not
        self.full = full
        self._most = affordable(CONNECTIONS, descriptors)
        self._role, self._welcome, self._attach, self._log = role, welcome, attach, log
        self._open: set[Conversation] = set()
        self._from: Counter[str] = Counter()
        self._servers: list[asyncio.Server] = []
        self._drained = self.loop.create_future()
        self._draining = False
        self.loop.set_exception_handler(self._bug)
        self._control = LoopLink(self.loop, Link(control, SUPERVISOR_SAYS), self._told, self._alone)

    async def serve(self) -> None:
        """Listen until the supervisor says DRAIN and the last conversation is over."""
        await self._certified()
        for listener, sock in self.house.listeners(self._role):
            self._servers.append(await self.loop.create_server(self._factory(listener), sock=sock, backlog=1024))
        self._control.send(Verb.READY, 0)
        sweeping = self.loop.create_task(self._sweep())
        await self._drained
        sweeping.cancel()

    async def _certified(self) -> None:
        """The supervisor's first frames bring the certificates; nobody is served before they are here. It may have
        died before it sent them."""
        while not self._has_certificates and not self._drained.done():
            await asyncio.sleep(0.005)

    _has_certificates = False

    def _factory(self, listener: Listener) -> Callable[[], asyncio.Protocol]:
        return lambda: Door(self, listener)

    # a new client

    def admit(self, listener: Listener, transport: asyncio.Transport) -> Conversation | None:
        """The conversation with a client that just connected; None when there are too many."""
        client = _address(transport)
        if listener.service in IMPLICIT_TLS and self.context is None:
            self._turned_away(client, "no certificate")  # never in clear on a port that promises TLS
            return None
        if self._draining or len(self._open) >= self._most or self._too_many(client):
            self._turned_away(client, "too many connections")
            return None

        def gone(conversation: Conversation) -> None:
            self._open.discard(conversation)
            self._from[client] -= 1
            if not self._from[client]:
                del self._from[client]
            self._maybe_drained()

        self._from[client] += 1
        conversation = self._welcome(listener, client, gone)
        self._open.add(conversation)
        return conversation

    def _turned_away(self, client: str, why: str) -> None:
        self._log.say(f"{self._role}: turned away {client}: {why}", "turned-away", client=client, why=why)

    def _too_many(self, client: str) -> bool:
        return self._from[client] >= CONNECTIONS_OF_ONE and not client.startswith("127.") and client != "::1"

    def _bug(self, _loop: asyncio.AbstractEventLoop, facts: dict[str, Any]) -> None:
        """What nobody foresaw, in a callback of the loop: one line in the log, and life goes on."""
        bug = facts.get("exception")
        told = traceback.format_exception(bug) if isinstance(bug, BaseException) else [str(facts.get("message"))]
        line = "".join(told[-3:]).strip().replace("\n", " / ")
        self._log.say(f"alert: {self._role} has a bug: {line}", "bug", trace=line)

    # what the supervisor says

    def _told(self, frame: Frame) -> None:
        if frame.verb is Verb.LINK:
            name = frame.fields[0].decode()
            self._attach(name, Link.between(self._role, name, socket.socket(fileno=frame.descriptors[0])))
        elif frame.verb is Verb.CERTIFICATES:
            self._take_certificates(frame)
        elif frame.verb is Verb.RELOAD:
            self.house.reread()
            self._log.as_json = self.house.settings.logformat == "json"
        elif frame.verb is Verb.DRAIN:
            self._drain()

    def _take_certificates(self, frame: Frame) -> None:
        self._arriving.update(zip(map(bytes.decode, frame.fields), frame.descriptors, strict=True))
        if frame.tag:
            return
        self._has_certificates = True
        named, self._arriving = self._arriving, {}
        self.context = tls.contexts(named)
        for number in named.values():
            os.close(number)

    def _alone(self) -> None:
        """The supervisor is gone: stop."""
        self._drain()
        if not self._drained.done():
            self._drained.set_result(None)

    def _drain(self) -> None:
        self._draining = True
        for server in self._servers:
            server.close()
        for conversation in list(self._open):
            conversation.leave()
        self._maybe_drained()

    def _maybe_drained(self) -> None:
        if self._draining and not self._open and not self._drained.done():
            self._drained.set_result(None)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_PERIOD)
            now = self.loop.time()
            for conversation in list(self._open):
                conversation.sweep(now)


class Door(asyncio.Protocol):
    """A connection until its conversation is made, which needs the client's address."""

    def __init__(self, connections: Connections, listener: Listener) -> None:
        self._connections, self._listener = connections, listener

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)  # uvloop's is one only in what it does
        conversation = self._connections.admit(self._listener, transport)
        if conversation is None:
            if self._listener.service not in IMPLICIT_TLS:
                transport.write(self._connections.full)
            transport.close()
            return
        transport.set_protocol(conversation)
        conversation.connection_made(transport)


def _address(transport: asyncio.Transport) -> str:
    peer = transport.get_extra_info("peername")
    return listening.client(str(peer[0])) if peer else "unknown"


def run(serve: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run an asyncio role to its end, on uvloop where there is one."""
    if uvloop is None:
        asyncio.run(serve())
    else:
        # libuv's io_uring costs these roles, whose work is small reads and writes, more processor time than epoll.
        os.environ["UV_USE_IO_URING"] = "0"
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve())
