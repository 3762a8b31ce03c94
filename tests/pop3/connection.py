"""A POP3 connection without a socket: the machine, the session, and a world in memory that carries out effects.

The world is written from RFC 1939 and knows none of the code it serves: it cuts lines and doubles dots by itself.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pillarbox.credentials import Credentials, Digest, Identity, Password
from pillarbox.pop3.manners import POP3D, SERVE, Manners
from pillarbox.pop3.server import Server
from pillarbox.scan import ScanListing
from pillarbox.sessions.effects import (
    Authenticate,
    Effect,
    HandOver,
    OpenMaildrop,
    Pause,
    Result,
    SendContent,
    UpdateMaildrop,
)
from pillarbox.sessions.retrieval import Access, Retrieval
from pillarbox.status import Refusal, Status

MAILDROP = Path(__file__).parent.parent / "dialogues" / "pop3" / "maildrop"
STAMP = b"<1896.697170952@dbc.mtview.ca.us>"
SECRETS = {b"joe@example.org": b"secret", b"joe": b"secret", b"spacy": b" two  spaces ", b"trailing": b"two  spaces "}
IN_USE = Refusal(Status(4, 2, 0), "maildrop in use")


def messages() -> dict[bytes, bytes]:
    """The maildrop of the dialogues: unique id -> stored form, in order."""
    return {file.name.encode(): file.read_bytes() for file in sorted(MAILDROP.iterdir())}


def wire(content: bytes) -> bytes:
    """Stored form (LF) to CR LF lines without dot-stuffing."""
    return content.replace(b"\n", b"\r\n")


@dataclass
class World:
    """Carries out effects. `refuse` maps a kind of effect to what it shall be answered with instead."""

    maildrop: dict[bytes, bytes] = field(default_factory=messages)
    refuse: dict[type[Effect], Refusal] = field(default_factory=dict)
    done: list[Effect] = field(default_factory=list)
    as_qmail: bool = False
    handed_over: bool = False

    def carry_out(self, effect: Effect, sent: bytearray) -> Result:
        """The effect's result; content goes to `sent`."""
        self.done.append(effect)
        if refusal := self.refuse.get(type(effect)):
            return refusal
        match effect:
            case Authenticate(credentials):
                return self._authenticate(credentials)
            case HandOver(credentials):
                self.handed_over = isinstance(self._authenticate(credentials), Identity)
                return None if self.handed_over else Refusal(Status(5, 7, 8), "authorization failed")
            case OpenMaildrop():
                return tuple(ScanListing(uid, self._size(content)) for uid, content in self.maildrop.items())
            case SendContent(number, lines, announce):
                content = list(self.maildrop.values())[number - 1]
                sent += announce + _stuffed(wire(content), lines) + (b"\r\n.\r\n" if self.as_qmail else b".\r\n")
                return None
            case UpdateMaildrop(deleted):
                kept = [each for number, each in enumerate(self.maildrop.items(), 1) if number not in deleted]
                self.maildrop = dict(kept)
                return None
            case Pause():
                return None
        raise AssertionError(effect)

    def _size(self, content: bytes) -> int:
        return len(content if self.as_qmail else wire(content))

    def _authenticate(self, credentials: Credentials) -> Identity | Refusal:
        secret = SECRETS.get(credentials.login)
        match credentials:
            case Password(password=password):
                good = password == secret
            case Digest(b"APOP", challenge=challenge, response=response):
                good = secret is not None and hashlib.md5(challenge + secret).hexdigest().encode() == response
            case Digest(challenge=challenge, response=response):
                good = secret is not None and hmac.new(secret, challenge, "md5").hexdigest().encode() == response
        if good:
            return Identity(credentials.login, b"joe@example.org")
        why = "no such user" if secret is None else "wrong password"
        return Refusal(Status(5, 7, 8), why)


def _stuffed(text: bytes, lines: int | None) -> bytes:
    header, blank, body = text.partition(b"\r\n\r\n")
    if lines is not None and blank:
        text = header + blank + b"".join(body.splitlines(keepends=True)[:lines])
    return b"".join([b"." + line if line.startswith(b".") else line for line in text.splitlines(keepends=True)])


def access(**facts: object) -> Access:
    """A connection where a login is allowed without more ado."""
    given: dict[str, object] = {"cleartext": True, "tls_available": True, **facts}
    return Access(b"dbc.mtview.ca.us", lambda: b"1896.697170952", **given)  # type: ignore[arg-type]  # each fact has its own type


class Connection:
    """Say something, hear what comes back."""

    def __init__(
        self,
        facts: Access | None = None,
        world: World | None = None,
        *,
        authorized: bool = False,
        manners: Manners = SERVE,
    ) -> None:
        self.world = world or World()
        self.world.as_qmail = manners is not SERVE
        self.heard = bytearray()
        self._begin(facts or access(), manners, authorized=authorized)

    def _begin(self, facts: Access, manners: Manners, *, authorized: bool) -> None:
        listings = self.world.carry_out(OpenMaildrop(), bytearray()) if authorized else None
        assert listings is None or (isinstance(listings, tuple) and not isinstance(listings, Refusal))
        greeting = b"Pillarbox" if manners is SERVE else b""
        self.machine = Server(greeting, stamp=facts.stamp, authorized=authorized, manners=manners)
        self.session = Retrieval(facts, listings, manners)
        self.machine.greet()
        self.flush()

    def flush(self) -> None:
        """Let what the machine has said reach the client."""
        self.heard += self.machine.data_to_send()

    def say(self, *pieces: bytes) -> bytes:
        """Send pieces; everything heard since the last call."""
        self.say_pieces(pieces)
        return self.hear()

    def say_pieces(self, pieces: Sequence[bytes]) -> None:
        """Send pieces, each in a read of its own."""
        for piece in pieces:
            self.machine.receive(piece)
            self.serve()

    def lines(self, *lines: str) -> bytes:
        """Send lines in one piece."""
        return self.say("".join([line + "\r\n" for line in lines]).encode())

    def hear(self) -> bytes:
        """Everything heard since the last call."""
        heard = bytes(self.heard)
        self.heard.clear()
        return heard

    def serve(self) -> None:
        """What a driver does between two reads."""
        while (event := self.machine.next_event()) is not None:
            conversation = self.session.respond(event)
            result: Result = None
            try:
                while True:
                    effect = conversation.send(result)
                    self.flush()
                    result = self.world.carry_out(effect, self.heard)
            except StopIteration as end:
                self.machine.answer(end.value)
        self.flush()
        if self.world.handed_over:
            self.world.handed_over = False
            self._begin(access(), POP3D, authorized=True)

    def tls(self) -> None:
        """The handshake."""
        assert self.machine.wants_tls
        self.machine.secured()
        self.session.secured(b"TLSv1.3 TLS_AES_256_GCM_SHA384")

    def happen(self, word: str, _argument: str) -> None:
        """What is no line in a dialogue."""
        match word:
            case "tls":
                self.tls()
            case "hangup":
                self.end()
            case "closed":
                assert self.machine.closing
            case "silence":
                pass
            case _:
                raise AssertionError(word)

    def end(self) -> None:
        """The client sends no more."""
        self.machine.eof()
        self.serve()


def logged_in(world: World | None = None, facts: Access | None = None) -> Connection:
    """A connection past its login, with nothing left to hear."""
    connection = Connection(facts, world)
    assert connection.lines("USER joe", "PASS secret").count(b"+OK") == 3
    return connection


def octets(pieces: Sequence[bytes]) -> list[bytes]:
    """The same bytes, each in a piece of its own."""
    whole = b"".join(pieces)
    return [whole[at : at + 1] for at in range(len(whole))]
