"""The network side of smtpd and pop3d: listening, counting, sweeping, certificates, draining, links to other roles."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import traceback
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

try:
    import uvloop
except ImportError:  # it makes asyncio faster, and is not to be had everywhere
    uvloop = None  # type: ignore[assignment]  # mypy takes the module for the only value of its name

from pillarbox.control.table import Listener
from pillarbox.net import listening, tls
from pillarbox.roles.clients import WELCOME, Clients, Verdict
from pillarbox.roles.conversation import HELD_LIMIT, Conversation
from pillarbox.roles.house import House
from pillarbox.roles.link import Frame, Link
from pillarbox.roles.log import Log
from pillarbox.roles.looplink import LoopLink
from pillarbox.roles.process import affordable
from pillarbox.roles.verbs import SUPERVISOR_SAYS, Verb
from pillarbox.status import Refusal

CONNECTIONS = 4000  # of one process, where it may have so many descriptors; more are turned away at once
CONNECTIONS_OF_ONE = 200  # from one client address; loopback may have them all
IMPLICIT_TLS = ("submissions", "pop3s")
SWEEP_PERIOD = 1.0  # seconds

Welcome = Callable[[Listener, str, Verdict, Callable[[Conversation], None]], Conversation]


class Connections:
    """`welcome(listener, client address, verdict, gone)` makes the conversation with a new client; `attach(peer,
    link)` gets each link to another role; `full` is what a client hears that finds no room; `descriptors` is how many a
    client needs at most."""

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
        self._from: dict[str, int] = {}  # client address -> its connections
        self._waiting: set[Door] = set()  # clients that are being looked up
        self._clients = Clients(house)
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
        if trouble := self._clients.trouble:
            self._log.say(f"{self._role}: nobody is let in: {trouble}", "nobody-let-in", why=trouble)
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

    def knock(self, door: Door, client: str) -> None:
        """A client has connected: let it in, look it up first, or turn it away."""
        service, theirs = door.listener.service, self._from.get(client, 0)
        if service in IMPLICIT_TLS and self.context is None:
            self._turn_away(door, client, "no certificate")  # never in clear on a port that promises TLS
        elif (
            self._draining
            or len(self._open) + len(self._waiting) >= self._most
            or (theirs >= CONNECTIONS_OF_ONE and not _is_loopback(client))
        ):
            self._turn_away(door, client, "too many connections", b"" if service in IMPLICIT_TLS else self.full)
        else:
            self._from[client] = theirs + 1
            verdict = WELCOME if self._clients.anybody else self._clients.verdict(service, client)
            if verdict is None:
                self._waiting.add(door)
                looking = self.loop.create_task(self._clients.look_up(service, client))
                looking.add_done_callback(partial(self._looked_up, door, client))
                door.wait(looking)
            else:
                self._decided(door, client, verdict)

    def _looked_up(self, door: Door, client: str, looking: asyncio.Task[Verdict]) -> None:
        self._waiting.discard(door)
        verdict = Verdict(away="it could not be looked up")
        if not looking.cancelled() and (bug := looking.exception()) is not None:
            self._bug(self.loop, {"exception": bug})
        elif not looking.cancelled():
            verdict = looking.result()
        self._decided(door, client, verdict)

    def _decided(self, door: Door, client: str, verdict: Verdict) -> None:
        """Of a client that is counted already."""
        if door.left or verdict.away:
            self._leaves(client)
            if not door.left:
                self._turn_away(door, client, verdict.away)
            return
        if verdict.blocked is not None:
            self._blocked(client, verdict.blocked)
        conversation = self._welcome(door.listener, client, verdict, partial(self._gone, client))
        self._open.add(conversation)
        door.let_in(conversation)

    def _gone(self, client: str, conversation: Conversation) -> None:
        self._open.discard(conversation)
        self._leaves(client)

    def _leaves(self, client: str) -> None:
        left = self._from[client] - 1
        if left:
            self._from[client] = left
        else:
            del self._from[client]
        if self._draining:
            self._maybe_drained()

    def _turn_away(self, door: Door, client: str, why: str, last_words: bytes = b"") -> None:
        self._log.say(f"{self._role}: turned away {client}: {why}", "turned-away", client=client, why=why)
        door.shut(last_words)

    def _blocked(self, client: str, refusal: Refusal) -> None:
        """rblsmtpd's line."""
        said = f"{553 if refusal.permanent else 451} {refusal.text}"
        self._log.say(f"rblsmtpd: {client} pid {os.getpid()}: {said}", "blocked", client=client, why=said)

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
        for door in list(self._waiting):
            door.shut(b"")
        for conversation in list(self._open):
            conversation.leave()
        self._maybe_drained()

    def _maybe_drained(self) -> None:
        if self._draining and not self._open and not self._waiting and not self._drained.done():
            self._drained.set_result(None)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_PERIOD)
            now = self.loop.time()
            for conversation in list(self._open):
                conversation.sweep(now)


class Door(asyncio.Protocol):
    """A connection until its conversation is made, which needs the client's address, and what is known of that."""

    __slots__ = ("_connections", "_eof", "_looking", "_said", "_transport", "left", "listener")

    def __init__(self, connections: Connections, listener: Listener) -> None:
        self.listener = listener
        self.left = False  # or had to
        self._connections = connections
        self._transport: asyncio.Transport | None = None
        self._looking: asyncio.Task[Verdict] | None = None
        self._said = b""
        self._eof = False

    def connection_made(self, transport: Any) -> None:  # uvloop's is an asyncio.Transport only in what it does
        self._transport = transport
        self._connections.knock(self, _address(transport))

    # while the client waits

    def wait(self, looking: asyncio.Task[Verdict]) -> None:
        """The client is being looked up."""
        self._looking = looking

    def data_received(self, data: bytes) -> None:
        self._said += data
        if len(self._said) > HELD_LIMIT and self._transport is not None:
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        self._eof = True
        return True

    def connection_lost(self, _problem: Exception | None) -> None:
        self.left = True
        if self._looking is not None:
            self._looking.cancel()

    # the end of waiting

    def let_in(self, conversation: Conversation) -> None:
        """Hand the connection over, with what the client said meanwhile."""
        transport = self._transport
        assert transport is not None
        transport.set_protocol(conversation)
        conversation.connection_made(transport)
        if self._looking is not None and not transport.is_closing():
            transport.resume_reading()
            if self._said:
                conversation.data_received(self._said)
            if self._eof and not conversation.eof_received():
                transport.close()

    def shut(self, last_words: bytes) -> None:
        """End the connection."""
        transport = self._transport
        assert transport is not None
        self.left = True
        if last_words:
            transport.write(last_words)
        transport.close()


def _is_loopback(client: str) -> bool:
    return client.startswith("127.") or client == "::1"


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
