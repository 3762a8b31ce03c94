"""An SMTP session: the protocol's questions meet our policy. It touches nothing; what it needs, it asks for by effects.

The rules that must stay true: 250 at the end of a message is said only after Committed; a message that was refused in
its midst is read to its end and thrown away; on a submission service nothing is taken from who has not proved a login
or for a sender that is not his; no login is taken before TLS unless control/authcleartext allows it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from pillarbox import sasl
from pillarbox.admission import HOPS, LOOPING, TOO_BIG, TOO_MANY_RECIPIENTS, Policy
from pillarbox.credentials import Identity
from pillarbox.envelope import Envelope
from pillarbox.header import Watcher, date, protocol_word, qmail_received, received
from pillarbox.sessions.effects import (
    Abort,
    Authenticate,
    CheckRecipient,
    Commit,
    Committed,
    Declined,
    Effect,
    OpenDraft,
    Pause,
    Result,
    WriteBlock,
)
from pillarbox.smtp import replies as r
from pillarbox.smtp.events import (
    Auth,
    AuthResponse,
    Chunk,
    Content,
    Data,
    EndOfChunk,
    EndOfData,
    Event,
    Hello,
    Mail,
    Quit,
    Rcpt,
    Reset,
    StartTls,
    Verify,
)
from pillarbox.smtp.offer import Offer
from pillarbox.smtp.reply import Reply
from pillarbox.status import Failure, Refusal

FAILED_LOGINS: Final = 3
KEPT: Final = 65536
"""Octets of a message that are kept back: a small one leaves with its Commit, and of a submitted one it is known by
then whether its header has Date and Message-ID."""

_SILENT: Final = Hello(b"", extended=False)  # of a client that has not said any

Conversation = Generator[Effect, Result, Reply | None]


@dataclass(frozen=True, slots=True)
class Qmail:
    """What makes a session qmail-smtpd's: a login is offered and not demanded, and the trace is qmail's. `greeting`:
    what QUIT is answered with. `host` and `info`: who the client is by tcpserver, who its user is (None: not known).
    `local`: who we are in the trace."""

    greeting: bytes
    host: bytes
    info: bytes | None
    local: bytes


@dataclass(frozen=True)
class Exchange:
    """The facts of one connection, or of all from one client. `service`: smtp, submission or submissions. `client`:
    its IP address as text. `starttls`: there is a certificate and TLS was not on from the start. `mechanisms`: what
    AUTH offers, on the submission services alone: with logins on port 25, passwords could be tried where all the
    world must be let in. `cleartext`: what control/authcleartext says. `clock`: seconds since 1970. `token`:
    printable bytes never given before, for CRAM-MD5 challenges and Message-ID. `penalty`: seconds that every failed
    login waits for its answer; after `failures` of them the client is sent away. With `qmail` trouble is such a
    failure: that nobody could say must not be cheaper to bring about than a refusal. `relayclient`: None, or what is
    appended to each recipient of a client that may send anywhere, as tcprules(1) gives RELAYCLIENT. `blocked`: what a
    client without a login hears at every RCPT, because a DNS block list or $RBLSMTPD says so."""

    service: str
    me: bytes
    client: bytes
    admission: Policy
    clock: Callable[[], float]
    token: Callable[[], bytes]
    starttls: bool = False
    mechanisms: tuple[bytes, ...] = ()
    cleartext: bool = False
    penalty: float = 2.0
    blocked: Refusal | None = None
    failures: int = FAILED_LOGINS
    relayclient: bytes | None = None
    qmail: Qmail | None = None

    @cached_property
    def submission(self) -> bool:
        """Mail comes from our own users here."""
        return self.service != "smtp"

    @property
    def logins(self) -> bool:
        """May anybody log in?"""
        return self.submission or self.qmail is not None

    @cached_property
    def offer(self) -> Offer:
        """What the receiver offers in EHLO."""
        return Offer(
            size=self.admission.databytes,
            starttls=self.starttls,
            mechanisms=self.mechanisms if self.logins else (),
            cleartext=self.cleartext,
        )

    def allows(self, mechanism: bytes, *, secured: bool) -> bool:
        """May a login be tried so, now? The receiver goes by the offer; this says it once more, for it guards
        passwords."""
        return self.logins and mechanism in self.mechanisms and (secured or self.cleartext)


class Transaction:
    """One mail transaction, from MAIL to the end of its content."""

    __slots__ = ("drafting", "kept", "lacking", "octets", "recipients", "sender", "trouble", "utf8", "watcher")

    def __init__(self, sender: bytes, utf8: bool) -> None:
        self.sender = sender
        self.utf8 = utf8
        self.recipients: list[bytes] = []
        self.drafting = False
        self.octets = 0
        self.trouble: Refusal | None = None  # told at the end of the content
        self.watcher = Watcher()
        self.kept = bytearray()  # not yet written; in one piece, for a client can send an octet at a time
        self.lacking = 0  # not 0: where in it a submitted header may lack fields


class Reception:
    """One client's session, over all its transactions. The receiver keeps the order of commands, so there is a
    transaction wherever one is asserted."""

    __slots__ = ("_facts", "_failures", "_helo", "_sasl", "_secured", "_tls", "_transaction", "identity", "taken_leave")

    def __init__(self, facts: Exchange) -> None:
        self._facts = facts
        self._failures = 0
        self._secured = False
        self._tls = b""
        self.taken_leave = False
        """The client said QUIT."""
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._helo = _SILENT
        self._transaction: Transaction | None = None
        self._sasl: sasl.Exchange | None = None
        self.identity: Identity | None = None
        """Who logged in, on a submission service."""

    def respond(self, event: Event) -> Conversation | Reply | None:
        """The answer, where nothing has to be asked for it. Else a generator: take its effects, send it their results;
        what it returns is the answer. It is None for Chunk and Content."""
        return _RESPONSES[type(event)](self, event)

    def secured(self, facts: bytes) -> None:
        """TLS is on, `facts` are version and cipher. Who the client said it was in clear, it did not say."""
        self._begin_anew()
        self._secured = True
        self._tls = facts

    def lost(self) -> Abort | None:
        """The client is gone: what is left to do."""
        return Abort() if self._transaction is not None and self._transaction.drafting else None

    # the connection

    def _hello(self, event: Hello) -> Conversation | Reply:
        self._helo = event
        return self._end_with(r.HELLO)

    def _start_tls(self, _event: StartTls) -> Reply:
        return r.READY_FOR_TLS

    def _reset(self, _event: Reset) -> Conversation | Reply:
        return self._end_with(r.FLUSHED)

    def _verify(self, _event: Verify) -> Reply:
        return r.VERIFY

    def _quit(self, _event: Quit) -> Conversation | Reply:
        self.taken_leave = True
        qmail = self._facts.qmail
        name = self._facts.me if qmail is None else qmail.greeting
        return self._end_with(r.goodbye(name))

    def _end_with(self, reply: Reply) -> Conversation | Reply:
        """End the transaction, if any, without a message, and answer."""
        return reply if self._transaction is None else self._dropped(reply)

    def _dropped(self, reply: Reply) -> Conversation:
        yield from self._drop()
        return reply

    def _drop(self) -> Generator[Effect, Result, None]:
        """End the transaction, if any, without a message."""
        transaction, self._transaction = self._transaction, None
        if transaction is not None and transaction.drafting:
            yield Abort()

    # logins

    def _auth(self, event: Auth) -> Conversation:
        facts = self._facts
        if not facts.allows(event.mechanism, secured=self._secured):
            return r.AUTH_TYPE
        challenge = b"<%s@%s>" % (facts.token(), facts.me) if event.mechanism == b"CRAM-MD5" else b""
        self._sasl = sasl.start(event.mechanism, challenge, lax=facts.qmail is not None)
        if self._sasl is None:
            return r.AUTH_TYPE
        return (yield from self._authenticate(self._sasl.step(event.initial)))

    def _auth_response(self, event: AuthResponse) -> Conversation:
        assert self._sasl is not None, "no exchange has begun"
        return (yield from self._authenticate(self._sasl.step(event.line)))

    def _authenticate(self, step: sasl.Step) -> Conversation:
        if isinstance(step, sasl.Challenge):
            return r.challenge(step.text)
        self._sasl = None
        if isinstance(step, sasl.Failed):
            return r.AUTH_CANCELLED if step.problem is sasl.Problem.CANCELLED else r.AUTH_MALFORMED
        proof = yield Authenticate(step)
        if isinstance(proof, Identity):
            self.identity = proof
            return r.auth_ok(proof.login)
        assert isinstance(proof, Refusal)
        if not proof.permanent and self._facts.qmail is None:  # auth has its own throttle
            return r.auth_trouble(proof)
        self._failures += 1
        yield Pause(self._facts.penalty)
        last = self._failures >= self._facts.failures
        if not proof.permanent:
            return r.auth_trouble(proof, last=last)
        return r.AUTH_FAILED_LAST if last else r.AUTH_FAILED

    # the envelope

    def _mail(self, event: Mail) -> Reply:
        facts = self._facts
        if facts.submission and self.identity is None:
            return r.TLS_FIRST if facts.starttls and not (self._secured or facts.cleartext) else r.AUTH_NEEDED
        refused = facts.admission.sender(event.sender, event.size, self.identity)
        if refused is not None:
            return Reply.of(refused)
        self._transaction = Transaction(event.sender, event.smtputf8)
        return r.SENDER_OK

    def _rcpt(self, event: Rcpt) -> Conversation:
        transaction, facts, address = self._transaction, self._facts, event.recipient
        assert transaction is not None
        admission, suffix = facts.admission, facts.relayclient
        if facts.blocked is not None and self.identity is None:
            return r.blocked(facts.blocked)
        if len(transaction.recipients) >= admission.maxrecipients:
            return Reply.of(TOO_MANY_RECIPIENTS)
        try:
            refused: Result = admission.recipient(address, self.identity, suffix is not None)
        except Failure as failure:  # morercpthosts could not be read
            if facts.qmail is not None:
                return r.CONTROLS_UNREADABLE
            refused = failure.refusal
        if suffix and self.identity is None:
            address += suffix
        if refused is None and not admission.always(address):
            refused = yield CheckRecipient(address)
        if isinstance(refused, Refusal):
            return Reply.of(refused)
        transaction.recipients.append(address)
        return r.RECIPIENT_OK

    # the content

    def _data(self, _event: Data) -> Conversation:
        refused = yield OpenDraft()
        if isinstance(refused, Refusal):
            return Reply.of(refused)
        self._begin_content()
        return r.GO_AHEAD

    def _chunk(self, _event: Chunk) -> Conversation:
        transaction = self._transaction
        assert transaction is not None
        if not transaction.drafting and transaction.trouble is None:
            refused = yield OpenDraft()
            if isinstance(refused, Refusal):
                transaction.trouble = refused
            else:
                self._begin_content()
        return None

    def _begin_content(self) -> None:
        transaction, facts = self._transaction, self._facts
        assert transaction is not None
        transaction.drafting = True
        transaction.kept += self._trace(transaction) if facts.qmail is None else self._qmail_trace(facts.qmail)
        transaction.lacking = len(transaction.kept) if facts.submission else 0

    def _trace(self, transaction: Transaction) -> bytes:
        facts, hello = self._facts, self._helo
        return received(
            helo=hello.name,
            ip=facts.client,
            me=facts.me,
            protocol=protocol_word(
                extended=hello.extended,
                secured=self._secured,
                authenticated=self.identity is not None,
                utf8=transaction.utf8,
            ),
            seconds=int(facts.clock()),
            tls=self._tls,
        )

    def _qmail_trace(self, qmail: Qmail) -> bytes:
        facts = self._facts
        return qmail_received(
            host=qmail.host,
            helo=None if self._helo is _SILENT else self._helo.name,
            info=qmail.info if self.identity is None else self.identity.login,
            ip=facts.client,
            me=qmail.local,
            seconds=int(facts.clock()),
        )

    def _content(self, event: Content) -> Conversation | None:
        transaction, block = self._transaction, event.block
        assert transaction is not None
        transaction.watcher.feed(block)
        if transaction.trouble is not None:
            return None
        transaction.octets += len(block)
        if 0 < self._facts.admission.databytes < transaction.octets:
            return self._too_big(transaction)
        transaction.kept += block
        return self._write(transaction) if len(transaction.kept) > KEPT else None

    def _too_big(self, transaction: Transaction) -> Conversation:
        transaction.trouble = TOO_BIG
        transaction.drafting = False
        transaction.kept.clear()
        yield Abort()
        return None

    def _write(self, transaction: Transaction) -> Conversation:
        refused = yield WriteBlock(self._release(transaction))
        if isinstance(refused, Refusal):
            transaction.trouble = refused
            transaction.drafting = False
        return None

    def _release(self, transaction: Transaction) -> bytes:
        """What was kept back, with what a submitted header lacks."""
        kept, at = transaction.kept, transaction.lacking
        if at:
            kept[at:at] = self._lacking(transaction.watcher)
            transaction.lacking = 0
        transaction.kept = bytearray()
        return bytes(kept)

    def _lacking(self, watcher: Watcher) -> bytes:
        facts = self._facts
        message_id = b"" if watcher.has_message_id else b"Message-ID: <%s@%s>\n" % (facts.token(), facts.me)
        return message_id + (b"" if watcher.has_date else b"Date: %s\n" % date(int(facts.clock())))

    def _end_of_chunk(self, event: EndOfChunk) -> Conversation:
        assert self._transaction is not None
        trouble = self._transaction.trouble
        if event.last:
            return (yield from self._end(event))
        if trouble is None:
            return r.OK
        yield from self._drop()
        return Reply.of(trouble)

    def _end(self, _event: EndOfData | EndOfChunk) -> Conversation:
        """The message is whole: what became of it?"""
        transaction = self._transaction
        assert transaction is not None
        trouble = LOOPING if transaction.watcher.hops >= HOPS else transaction.trouble
        if trouble is not None:
            yield from self._drop()
            return Reply.of(trouble)
        self._transaction = None
        envelope = Envelope(transaction.sender, tuple(transaction.recipients))
        result = yield Commit(envelope, self._release(transaction))
        if isinstance(result, Committed):
            return r.accepted(result.message)
        if isinstance(result, Declined):
            return r.declined(result.permanent, result.text)
        assert isinstance(result, Refusal)
        return Reply.of(result)


# Any: the key says which event a method takes.
_RESPONSES: Final[dict[type[Event], Callable[[Reception, Any], Conversation | Reply | None]]] = {
    Hello: Reception._hello,
    StartTls: Reception._start_tls,
    Verify: Reception._verify,
    Mail: Reception._mail,
    Auth: Reception._auth,
    AuthResponse: Reception._auth_response,
    Rcpt: Reception._rcpt,
    Data: Reception._data,
    Chunk: Reception._chunk,
    Content: Reception._content,
    EndOfData: Reception._end,
    EndOfChunk: Reception._end_of_chunk,
    Reset: Reception._reset,
    Quit: Reception._quit,
}
