"""One SMTP connection without a network: the machine, the session, and a world in memory that carries out effects."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count

from pillarbox.admission import Admission
from pillarbox.control.table import Settings
from pillarbox.credentials import Credentials, Identity, Password
from pillarbox.envelope import Envelope
from pillarbox.sessions.effects import (
    Abort,
    Authenticate,
    CheckRecipient,
    Commit,
    Committed,
    Effect,
    OpenDraft,
    Pause,
    Result,
    WriteBlock,
)
from pillarbox.sessions.reception import Exchange, Reception
from pillarbox.smtp.events import Event
from pillarbox.smtp.offer import Limits
from pillarbox.smtp.receiver import Receiver
from pillarbox.smtp.reply import Dialect, Reply
from pillarbox.status import Refusal, Status

ME = b"mx.example.org"
WHEN = 1795352635  # 22 Nov 2026 13:03:55
DATE = b"22 Nov 2026 13:03:55 -0000"
TLS = b"TLSv1.3 TLS_AES_256_GCM_SHA384"
JOE = Identity(b"joe", b"joe@example.org", sendas=(b"sales@example.org",))
NO_SUCH_USER = Refusal(Status(5, 1, 1), "sorry, no mailbox here by that name")
WRONG = Refusal(Status(5, 7, 8), "authorization failed")
DISK_FULL = Refusal(Status(4, 3, 1), "the disk is full")


@dataclass
class World:
    """Carries out effects in memory. `refusing` makes an effect fail: its type -> the refusal."""

    known: frozenset[bytes] = frozenset((b"joe@example.org", b"amy@example.org", b"joe"))
    refusing: dict[type, Refusal] = field(default_factory=dict)
    done: list[Effect] = field(default_factory=list)
    queued: list[tuple[Envelope, bytes]] = field(default_factory=list)
    draft: bytearray | None = None

    def execute(self, effect: Effect) -> Result:
        self.done.append(effect)
        if refusal := self.refusing.get(type(effect)):
            self.draft = None
            return refusal
        match effect:
            case CheckRecipient(address):
                return None if address.lower() in self.known else NO_SUCH_USER
            case OpenDraft():
                assert self.draft is None, "a draft is open already"
                self.draft = bytearray()
            case WriteBlock(block):
                assert self.draft is not None, "no draft is open"
                self.draft += block
            case Commit(envelope, rest):
                return self._commit(envelope, rest)
            case Abort():
                assert self.draft is not None, "nothing to abort"
                self.draft = None
            case Authenticate(credentials):
                return self._authenticate(credentials)
            case Pause():
                pass
            case _:
                raise AssertionError(effect)
        return None

    def _commit(self, envelope: Envelope, rest: bytes) -> Committed:
        assert self.draft is not None, "no draft is open"
        self.queued.append((envelope, bytes(self.draft + rest)))
        self.draft = None
        return Committed(b"%d" % len(self.queued))

    def _authenticate(self, credentials: Credentials) -> Result:
        if isinstance(credentials, Password):
            return JOE if (credentials.login, credentials.password) == (b"joe", b"secret") else WRONG
        return JOE if credentials.login == b"joe" and not credentials.response.strip(b"a") else WRONG


def settings(**given: object) -> Settings:
    """Settings of a small host: example.org is local, mail for other hosts is refused."""
    known: dict[str, object] = {
        "me": ME,
        "locals": frozenset((b"localhost", b"example.org", ME)),
        "rcpthosts": frozenset((b"localhost", b"example.org", ME)),
    }
    return Settings(**(known | given))  # type: ignore[arg-type]  # fields of every type by name


def facts(
    service: str = "smtp",
    *,
    policy: Settings | None = None,
    starttls: bool = True,
    mechanisms: tuple[bytes, ...] = (b"PLAIN", b"LOGIN"),
    cleartext: bool = False,
    client: bytes = b"192.0.2.1",
) -> Exchange:
    numbers = count(1)
    return Exchange(
        service=service,
        me=ME,
        client=client,
        admission=Admission(policy or settings()),
        clock=lambda: WHEN + 0.75,
        token=lambda: b"token%d" % next(numbers),
        starttls=starttls and service != "submissions",
        mechanisms=mechanisms,
        cleartext=cleartext,
    )


class Connection:
    """Drives machine and session as the roles do."""

    def __init__(
        self,
        exchange: Exchange | None = None,
        world: World | None = None,
        *,
        dialect: Dialect = Dialect.MODERN,
        limits: Limits = Limits(),
    ) -> None:
        exchange = exchange or facts()
        self.world = world or World()
        me = exchange.qmail.greeting if exchange.qmail else ME
        self.machine = Receiver(me, dialect=dialect, offer=exchange.offer, limits=limits)
        self.session = Reception(exchange)
        self.events: list[Event] = []
        if exchange.service == "submissions":
            self.tls()
        self.machine.greet()

    def tls(self) -> None:
        """The handshake."""
        self.machine.secured()
        self.session.secured(TLS)

    def send(self, *pieces: bytes) -> bytes:
        """What the server says to these pieces, as it comes."""
        return self.hear() + b"".join(self._send(piece) for piece in pieces)

    def say(self, *lines: bytes) -> bytes:
        """What the server says to these lines, sent in one piece."""
        return self.send(b"".join(line + b"\r\n" for line in lines))

    def hear(self) -> bytes:
        return self.machine.data_to_send()

    def hang_up(self) -> None:
        """The client is gone."""
        self.machine.eof()
        if (effect := self.session.lost()) is not None:
            self.world.execute(effect)

    def _send(self, piece: bytes) -> bytes:
        self.machine.receive(piece)
        while (event := self.machine.next_event()) is not None:
            self.events.append(event)
            self._respond(event)
        return self.hear()

    def _respond(self, event: Event) -> None:
        asking = self.session.respond(event)
        if asking is None:
            return
        if isinstance(asking, Reply):
            self.machine.answer(asking)
            return
        result: Result = None
        try:
            while True:
                result = self.world.execute(asking.send(result))
        except StopIteration as stop:
            if stop.value is not None:
                self.machine.answer(stop.value)


def codes(heard: bytes) -> list[int]:
    """The code of each reply (not of each line) in what the server said."""
    return [int(line[:3]) for line in heard.split(b"\r\n")[:-1] if line[3:4] == b" "]


def greeted(exchange: Exchange | None = None, world: World | None = None) -> Connection:
    """A connection that has said EHLO."""
    connection = Connection(exchange, world)
    connection.say(b"EHLO client.example")
    return connection


def body(content: bytes) -> bytes:
    """A queued message without the Received field in front."""
    assert content.startswith(b"Received: from ")
    return content.split(b"\n", 3)[3]
