"""The pop3d role: POP3 sessions on the network. It opens no mailbox: after a login it holds a socket to that one."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pillarbox.content import Head, Stuffer
from pillarbox.control.table import Listener
from pillarbox.pop3.server import Server
from pillarbox.roles import connections
from pillarbox.roles.clients import Verdict
from pillarbox.roles.connections import Connections
from pillarbox.roles.conversation import LATE, PENDING, Conversation
from pillarbox.roles.house import House
from pillarbox.roles.link import Frame, Link, refusal
from pillarbox.roles.log import Log
from pillarbox.roles.logins import Logins
from pillarbox.roles.looplink import Questions
from pillarbox.roles.verbs import MAY_SAY, Verb
from pillarbox.scan import ScanListing
from pillarbox.sessions import effects
from pillarbox.sessions.retrieval import Access, Retrieval
from pillarbox.status import Refusal, Status, SystemTrouble

BLOCK = 64 << 10  # octets of a message read at a time
DELETED_AT_ONCE = 50_000  # messages, in one frame
DESCRIPTORS = 3  # of one client: its own, the maildrop's, a message's
IDLE = 600.0  # seconds of silence; RFC 1939 section 3 wants at least ten minutes
TOTAL = 4 * 3600.0  # seconds of one session
FULL = b"-ERR [SYS/TEMP] too many connections, try again later\r\n"
GONE = Refusal(Status(4, 3, 0), "mailbox not available, try again later")


@dataclass(frozen=True, slots=True)
class Patience:
    """What a POP3 client is given. Farewell is silent: RFC 1939 section 3."""

    idle: float = IDLE
    total: float = TOTAL
    farewell: bytes = b""


PATIENCE = Patience()


class RetrievalExecutor:
    """Carries out one POP3 session's effects."""

    __slots__ = ("_client", "_conversation", "_left", "_logins", "_loop", "_maildrop", "_sending")

    def __init__(self, loop: asyncio.AbstractEventLoop, logins: Logins, client: str) -> None:
        self._loop, self._logins, self._client = loop, logins, client
        self._left = False
        self._maildrop: Questions | None = None
        self._sending: _Sending | None = None
        self._conversation: Conversation | None = None

    def attach(self, conversation: Conversation) -> None:
        """Whose effects these are."""
        self._conversation = conversation

    def execute(self, effect: effects.Effect) -> Any:
        """The result, or PENDING."""
        assert self._conversation is not None
        done = self._conversation.resumer()
        match effect:
            case effects.Authenticate(credentials):
                self._logins.ask(self._client, credentials, done, self._take_maildrop)
            case effects.OpenMaildrop():
                self._open(done)
            case effects.SendContent():
                self._send(effect, done)
            case effects.UpdateMaildrop(deleted):
                self._update(deleted, done)
            case effects.Pause(seconds):
                self._loop.call_later(seconds, done, None)
            case _:
                raise AssertionError(f"POP3 has no {effect!r}")
        return PENDING

    def give_up(self, effect: effects.Effect) -> Refusal:
        """The effect took too long. What it might still bring must not reach the client: the maildrop is let go."""
        self._let_go()
        return LATE

    def lost(self) -> None:
        """The client is gone: let go of the maildrop, deleting nothing."""
        self._left = True
        self._let_go()

    def _let_go(self) -> None:
        if self._sending is not None:
            self._sending.stop()
        if self._maildrop is not None and self._maildrop.link is not None:
            self._maildrop.link.close()

    def _take_maildrop(self, frame: Frame) -> None:
        self._let_go()  # of an earlier login's, which could not be opened
        sock = socket.socket(fileno=frame.descriptors[0])
        if self._left:
            sock.close()
            return
        self._maildrop = Questions()
        self._maildrop.attach(self._loop, Link(sock, MAY_SAY[("maildrop", "pop3d")]))

    def _open(self, done: Callable[[Any], None]) -> None:
        listings: list[ScanListing] = []
        maildrop = self._maildrop
        assert maildrop is not None

        def heard(frame: Frame | None) -> None:
            if frame is not None and frame.verb is Verb.LISTING:
                pairs = zip(frame.fields[::2], frame.fields[1::2], strict=True)
                listings.extend(ScanListing(uid, int(octets)) for uid, octets in pairs)
                maildrop.expect(frame.tag, heard)
            else:
                done(tuple(listings) if frame is not None and frame.verb is Verb.LISTED else _refused(frame))

        maildrop.ask(heard, Verb.OPEN)

    def _send(self, effect: effects.SendContent, done: Callable[[Any], None]) -> None:
        assert self._maildrop is not None and self._conversation is not None
        conversation = self._conversation

        def heard(frame: Frame | None) -> None:
            if frame is None or frame.verb is not Verb.CONTENT:
                done(_refused(frame))
                return
            self._sending = _Sending(conversation, frame.descriptors[0], effect, done)
            self._sending.more()

        self._maildrop.ask(heard, Verb.FETCH, b"%d" % effect.number)

    def _update(self, deleted: tuple[int, ...], done: Callable[[Any], None]) -> None:
        assert self._maildrop is not None
        now, later = deleted[:DELETED_AT_ONCE], deleted[DELETED_AT_ONCE:]

        def heard(frame: Frame | None) -> None:
            if frame is None or frame.verb is not Verb.UPDATED:
                done(_refused(frame))
            elif later:
                self._update(later, done)
            else:
                done(None)

        self._maildrop.ask(heard, Verb.UPDATE, *(b"%d" % number for number in now))


def _refused(frame: Frame | None) -> Refusal:
    return refusal(frame.fields) if frame is not None and frame.verb is Verb.REFUSED else GONE


class _Sending:
    """One message on its way to the client, a block at a time, as fast as the client reads."""

    __slots__ = ("_conversation", "_descriptor", "_done", "_first", "_head", "_stuffer")

    def __init__(
        self, conversation: Conversation, descriptor: int, effect: effects.SendContent, done: Callable[[Any], None]
    ) -> None:
        self._conversation, self._descriptor, self._done = conversation, descriptor, done
        self._stuffer = Stuffer()
        self._head = None if effect.lines is None else Head(effect.lines)
        self._first = effect.announce

    def more(self) -> None:
        """Send until the client has to catch up."""
        while self._descriptor >= 0:
            try:
                block = os.read(self._descriptor, BLOCK)
            except OSError as problem:
                self._break_off(problem)
                return
            if not block or (self._head is not None and self._head.full):
                self._finish()
                return
            if self._head is not None:
                block = self._head.feed(block)
            octets, self._first = self._first + self._stuffer.feed(block), b""
            if octets and not self._conversation.write(octets):
                self._conversation.when_writable(self.more)
                return

    def _break_off(self, problem: OSError) -> None:
        """The message cannot be read on. Half of one must not look like a whole one: then the connection ends."""
        self.stop()
        if self._first:
            self._done(SystemTrouble.of(problem).refusal)
        else:
            self._conversation.abort()

    def _finish(self) -> None:
        rest = self._stuffer.feed(self._head.finish()) if self._head is not None else b""
        self._conversation.write(self._first + rest + self._stuffer.finish())
        self.stop()
        self._done(None)

    def stop(self) -> None:
        """Let go of the message."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class Pop3d:
    """All POP3 sessions of this process."""

    def __init__(self, house: House, control: socket.socket) -> None:
        self._house = house
        self._loop = asyncio.get_running_loop()
        self._log = Log("pop3d", house.settings.logformat == "json")
        self._logins = Logins("pop3d", self._log)
        self._connections = Connections(
            "pop3d", house, control, welcome=self._welcome, attach=self._attach,
            full=FULL, descriptors=DESCRIPTORS, log=self._log,
        )  # fmt: skip
        self._pid = os.getpid()

    async def serve(self) -> None:
        """To the role's end."""
        await self._connections.serve()

    def _attach(self, peer: str, link: Link) -> None:
        assert peer == "auth"
        self._logins.questions.attach(self._loop, link)

    def _stamp(self) -> bytes:
        """The greeting's timestamp (RFC 1939 section 7), never the same twice."""
        return b"<%d.%d.%s@%s>" % (self._pid, time.time(), _token(), self._house.settings.me)

    def _welcome(
        self, listener: Listener, client: str, _verdict: Verdict, gone: Callable[[Conversation], None]
    ) -> Conversation:
        settings, context = self._house.settings, self._connections.context
        implicit = listener.service == "pop3s"
        stamp = self._stamp() if settings.crammd5 else None
        access = Access(
            me=settings.me,
            token=_token,
            secure=implicit,
            tls_available=context is not None,
            cleartext=settings.authcleartext,
            stamp=stamp,
        )
        parts = (
            Server(b"Pillarbox ready", stamp=stamp),
            Retrieval(access),
            RetrievalExecutor(self._loop, self._logins, client),
        )
        return Conversation(self._loop, parts, PATIENCE, context, implicit, gone)


def _token() -> bytes:
    return secrets.token_hex(8).encode()


def run(house: House, control: socket.socket) -> None:
    """The role, to its end."""

    async def serve() -> None:
        await Pop3d(house, control).serve()

    connections.run(serve)
