"""A POP3 session: the protocol's questions meet our policy. It touches nothing; what it needs, it asks for by effects.

The rules that must stay true: no name, password or digest is taken before TLS unless control/authcleartext allows it;
who mistyped and who does not exist hear the same words after the same pause; only QUIT deletes, so a lost connection
deletes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, replace

from pillarbox import sasl
from pillarbox.credentials import Credentials, Digest, Identity, Password
from pillarbox.pop3 import reply as r
from pillarbox.pop3.events import (
    Apop,
    Auth,
    AuthResponse,
    Capa,
    Dele,
    Event,
    Last,
    List,
    Mechanisms,
    Noop,
    Pass,
    Quit,
    Retr,
    Rset,
    Stat,
    Stls,
    Top,
    Uidl,
    User,
    Utf8,
)
from pillarbox.pop3.manners import SERVE, Manners
from pillarbox.pop3.reply import Reply
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
from pillarbox.status import Refusal

FAILED_LOGINS = 3

Conversation = Generator[Effect, Result, Reply]


@dataclass(frozen=True, slots=True)
class Access:
    """The facts of one connection. `secure`: TLS was on before the greeting (pop3s). `cleartext`: what
    control/authcleartext says. `stamp`: the greeting's APOP timestamp with its angle brackets, None unless
    control/crammd5 keeps secrets. `token` gives printable bytes never given before, for CRAM-MD5 challenges; `me` is
    our name in them. `penalty`: seconds that every failed login waits for its answer."""

    me: bytes
    token: Callable[[], bytes]
    secure: bool = False
    tls_available: bool = False
    cleartext: bool = False
    stamp: bytes | None = None
    penalty: float = 2.0


class ScanList:
    """The scan list of RFC 1939 section 5 with its deletion marks and RFC 1460's LAST."""

    def __init__(self, listings: tuple[ScanListing, ...]) -> None:
        self._listings = listings
        self._deleted: set[int] = set()
        self._octets = sum([listing.octets for listing in listings])
        self._deleted_octets = 0
        self.last = 0

    @property
    def count(self) -> int:
        """Messages not marked as deleted."""
        return len(self._listings) - len(self._deleted)

    @property
    def total(self) -> int:
        """Messages, deleted ones too."""
        return len(self._listings)

    @property
    def octets(self) -> int:
        """Octets of the messages not marked as deleted."""
        return self._octets - self._deleted_octets

    @property
    def deleted(self) -> tuple[int, ...]:
        """The marked numbers, ascending."""
        return tuple(sorted(self._deleted))

    def find(self, number: int) -> ScanListing | Reply:
        """The message of this number, or what is wrong with the number (qmail-pop3d's words and order)."""
        if number == 0:
            return r.COUNTED_FROM_ONE
        if number > len(self._listings):
            return r.NOT_THAT_MANY
        if number in self._deleted:
            return r.DELETED_ALREADY
        return self._listings[number - 1]

    def present(self) -> list[tuple[int, ScanListing]]:
        """Number and listing of every message not marked as deleted."""
        return [each for each in enumerate(self._listings, 1) if each[0] not in self._deleted]

    def delete(self, number: int) -> Reply:
        """Mark a message."""
        found = self.find(number)
        if isinstance(found, Reply):
            return found
        self._deleted.add(number)
        self._deleted_octets += found.octets
        self.accessed(number)
        return r.MARKED

    def accessed(self, number: int) -> None:
        """RFC 1460 section 5: RETR and DELE raise LAST; TOP does not."""
        self.last = max(self.last, number)

    def reset(self) -> None:
        """RFC 1939 section 5 RSET; LAST goes back to what it was when the session began."""
        self._deleted.clear()
        self._deleted_octets = 0
        self.last = 0

    def summary(self) -> bytes:
        """For people."""
        return b"%d messages (%d octets)" % (self.count, self.octets)


class Retrieval:
    """One POP3 session. `identity` is who logged in, for the log; None before."""

    def __init__(
        self, access: Access, listings: tuple[ScanListing, ...] | None = None, manners: Manners = SERVE
    ) -> None:
        """`listings`: the maildrop is open already and nobody logs in (qmail-pop3d; the machine begins authorized).
        `manners` are the machine's."""
        self._manners = manners
        self.identity: Identity | None = None
        self._access = access
        self._secure = access.secure
        self._maildrop = None if listings is None else ScanList(listings)
        self._name = b""
        self._exchange: sasl.Exchange | None = None
        self._failures = 0

    def secured(self, facts: bytes = b"") -> None:
        """STLS' handshake is done. RFC 2595 section 4: what was said before is forgotten. `facts` (protocol and
        cipher) tell POP3 nothing; the parameter is here because every session is told so."""
        self._secure = True
        self._name = b""
        self._exchange = None

    def respond(self, event: Event) -> Conversation:
        """The answer to one event, which the machine has found to be in order."""
        match event:
            case Capa():
                return r.fact(b"Capability list follows", self._capabilities())
            case Noop():
                return r.NOTHING_DONE
            case Quit():
                return (yield from self._quit())
            case Utf8():
                return r.UTF8_ON
            case Stls():
                return self._stls()
            case User() | Pass() | Apop() | Mechanisms() | Auth() | AuthResponse():
                if not self._may_log_in:
                    return r.STLS_FIRST
                return (yield from self._authorize(event))
        assert self._maildrop is not None, "the machine lets nobody here before the login"
        return (yield from self._transact(event, self._maildrop))

    @property
    def _may_log_in(self) -> bool:
        return self._secure or self._access.cleartext

    def _stls(self) -> Reply:
        if self._secure:
            return r.TLS_ALREADY
        return r.BEGIN_TLS if self._access.tls_available else r.NO_TLS

    def _mechanisms(self) -> tuple[bytes, ...]:
        return sasl.OFFERED_PLAIN + (sasl.OFFERED_KEYED if self._access.stamp else ())

    def _capabilities(self) -> list[bytes]:
        """RFC 2449 section 6, RFC 2595 section 4, RFC 3206, RFC 5034 section 3, RFC 6856 section 2. Nothing that a
        login needs is named while logging in is refused."""
        if self._manners.capabilities is not None:
            return list(self._manners.capabilities)
        lines = [b"TOP", b"UIDL", b"RESP-CODES", b"AUTH-RESP-CODE", b"PIPELINING", b"UTF8"]
        lines += [b"EXPIRE NEVER", b"LOGIN-DELAY 0"]
        if self._may_log_in:
            lines += [b"USER", b"SASL " + b" ".join(self._mechanisms())]
        if self._maildrop is not None:
            lines.append(b"IMPLEMENTATION Pillarbox")
        elif self._access.tls_available and not self._secure:
            lines.append(b"STLS")
        return lines

    def _authorize(self, event: User | Pass | Apop | Mechanisms | Auth | AuthResponse) -> Conversation:
        match event:
            case User(name):
                self._name = name
                return r.NAME_TAKEN
            case Pass(password):
                return (yield from self._log_in(Password(self._name, password)))
            case Apop(name, digest):
                if self._access.stamp is None:
                    return r.UNIMPLEMENTED
                return (yield from self._log_in(Digest(b"APOP", name, self._access.stamp, digest)))
            case Mechanisms():
                return r.fact(b"mechanisms follow", self._mechanisms())
            case Auth(mechanism, initial):
                self._exchange = sasl.start(mechanism, self._challenge())
                return (yield from self._step(initial))
            case AuthResponse(line):
                return (yield from self._step(line))

    def _challenge(self) -> bytes:
        """RFC 2195 section 2; empty where the mechanism is not offered."""
        if self._access.stamp is None:
            return b""
        return b"<" + self._access.token() + b"@" + self._access.me + b">"

    def _step(self, line: bytes | None) -> Conversation:
        if self._exchange is None:
            return r.NO_SUCH_MECHANISM
        match self._exchange.step(line):
            case sasl.Challenge(text):
                return r.challenge(text)
            case sasl.Failed(problem):
                cancelled = problem is sasl.Problem.CANCELLED
                return r.AUTH_CANCELLED if cancelled else r.AUTH_MALFORMED
            case claim:
                return (yield from self._log_in(claim))

    def _log_in(self, claim: Credentials) -> Conversation:
        if self._manners.hands_over:
            refusal = yield HandOver(claim)
            return Reply.of(refusal, login=True, closing=True) if isinstance(refusal, Refusal) else r.SENT_ALL
        identity = yield Authenticate(claim)
        if isinstance(identity, Refusal):
            return (yield from self._not_authorized(identity))
        assert isinstance(identity, Identity)
        listings = yield OpenMaildrop()
        if isinstance(listings, Refusal):
            return Reply.of(listings, login=True, closing=self._failed_too_often())
        assert isinstance(listings, tuple) and not isinstance(listings, Refusal)
        self.identity = identity
        self._maildrop = ScanList(listings)
        return r.ok(self._maildrop.summary())

    def _not_authorized(self, refusal: Refusal) -> Conversation:
        """The refusal's own words never reach the client when it is about the claim: they could tell which half of it
        was wrong."""
        closing = self._failed_too_often()
        if not refusal.permanent:
            return Reply.of(refusal, login=True, closing=closing)
        yield Pause(self._access.penalty)
        return r.AUTHORIZATION_FAILED_GOODBYE if closing else r.AUTHORIZATION_FAILED

    def _failed_too_often(self) -> bool:
        self._failures += 1
        return self._failures >= FAILED_LOGINS

    def _transact(self, event: Event, maildrop: ScanList) -> Conversation:
        match event:
            case Stat():
                count = maildrop.total if self._manners.counts_deleted else maildrop.count
                return r.fact(b"%d %d" % (count, maildrop.octets))
            case List(None) | Uidl(None):
                # An effect flushes the replies so far: a thousand pipelined LISTs must not pile up in memory.
                yield Pause(0)
                return _listing(event, maildrop)
            case List(int(number)) | Uidl(int(number)):
                found = maildrop.find(number)
                return found if isinstance(found, Reply) else r.fact(_line(event, number, found))
            case Retr(number):
                reply = yield from self._send(maildrop, number, None)
                if reply is r.SENT:
                    maildrop.accessed(number)
                return reply
            case Top(number, lines):
                return (yield from self._send(maildrop, number, lines))
            case Dele(number):
                return maildrop.delete(number)
            case Last():
                return r.fact(b"%d" % maildrop.last)
            case Rset():
                maildrop.reset()
                return r.ok(maildrop.summary())
        raise AssertionError(event)

    def _send(self, maildrop: ScanList, number: int, lines: int | None) -> Conversation:
        """RETR, and TOP (`lines` None: all of it). The effect sends the reply too, once the message is open."""
        found = maildrop.find(number)
        if isinstance(found, Reply):
            return found
        announce = r.ok(b"%d octets" % found.octets if lines is None else b"top of message follows")
        refusal = yield SendContent(number, lines, announce.encode(self._manners.dialect))
        if isinstance(refusal, Refusal):
            return Reply.of(refusal)
        return r.SENT

    def _quit(self) -> Conversation:
        """RFC 1939 section 6. Before the login there is nothing to update."""
        if self._maildrop is None:
            return r.GOODBYE
        refusal = yield UpdateMaildrop(self._maildrop.deleted)
        if not isinstance(refusal, Refusal):
            return r.GOODBYE
        told = Reply.of(refusal)
        return replace(told, body=r.GOODBYE.encode(self._manners.dialect)) if self._manners.quits_anyway else told


def _listing(event: List | Uidl, maildrop: ScanList) -> Reply:
    lines = [_line(event, number, listing) for number, listing in maildrop.present()]
    return r.ok(maildrop.summary(), lines)


def _line(event: List | Uidl, number: int, listing: ScanListing) -> bytes:
    return b"%d %d" % (number, listing.octets) if isinstance(event, List) else b"%d %s" % (number, listing.uid)
