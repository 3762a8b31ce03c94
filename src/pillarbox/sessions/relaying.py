"""One message to one host: what a sender says, and what becomes of each recipient.

qmail-remote's conversation and its words (report texts are read by people and by programs), with what it never had:
EHLO, STARTTLS, AUTH, PIPELINING, SIZE, 8BITMIME, SMTPUTF8. The rules that must stay true: 2xx behind the final dot is
the only success, 5xx there the only refusal of those who were taken, anything else is temporary; no address and no
content can break out of its line; no password goes where somebody can listen.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from pillarbox.address import quote
from pillarbox.attempt import Attempt
from pillarbox.credentials import Password
from pillarbox.envelope import Envelope
from pillarbox.outcome import Outcome
from pillarbox.sasl import claim as sasl
from pillarbox.sessions import reports
from pillarbox.smtp.answers import Answer, Offers
from pillarbox.smtp.sender import (
    Bring,
    Command,
    Dialogue,
    HangUp,
    Heard,
    Phase,
    Say,
    Secure,
    Sender,
    Trouble,
    Turn,
)

LARGEST_GROUP: Final = 4096
"""Octets said in one go where PIPELINING is offered, and then all replies are awaited: so both sides' buffers hold what
is under way, and two programs that both write before they read cannot wait for each other."""

_BREAKS = re.compile(rb"[\r\n\0]")


@dataclass(frozen=True, slots=True)
class Order:
    """What to bring where. `me` is our name (control/helohost), `host` what reports call the host: its address.

    `size`: octets in stored form, at least. `eight_bit`: the content holds octets above 127 (True where nobody looked).
    `credentials`: to log in with, said only over TLS unless `clear` is set (control/cleartextroutes); CRAM-MD5, which
    does not show the password, may be spoken without. `tls`: use STARTTLS where it is offered; False is for a
    connection made again on Advice.WITHOUT_TLS. `insist`: rather wait than send without TLS. `extended`: say EHLO;
    False is for Advice.WITHOUT_EHLO. `secure`: the connection began with TLS (port 465).
    """

    me: bytes
    host: bytes
    envelope: Envelope
    size: int = 0
    eight_bit: bool = True
    credentials: Password | None = None
    clear: bool = False
    tls: bool = True
    insist: bool = False
    extended: bool = True
    secure: bool = False

    @property
    def verified(self) -> bool:
        """Over TLS this is for nobody but who proves by a certificate that he is the host: a password is said."""
        return self.credentials is not None and not self.clear


class _Peer(NamedTuple):
    """What is known of the server after its reply to EHLO."""

    offers: Offers
    secure: bool


class Line:
    """One connection to one host for one message after the other. `sender` is the machine; where it is idle, `go_on`
    brings the next. The host, our name, TLS and the login are the first order's."""

    __slots__ = ("_offers", "sender")

    def __init__(self, order: Order) -> None:
        self._offers = Offers()
        self.sender = Sender(self._first(order), stays=True)

    def go_on(self, order: Order) -> None:
        """Bring another message; only where the sender is idle."""
        self.sender.go_on(_transaction(order, self._offers))

    def _first(self, order: Order) -> Dialogue:
        peer = yield from _opened(order)
        if isinstance(peer, Attempt):
            return peer
        self._offers = peer.offers
        return (yield from _transaction(order, peer.offers))


_Hello = Generator[Turn, Heard, _Peer | Attempt]
_Login = Generator[Turn, Heard, Attempt | None]


def sender(order: Order) -> Sender:
    """The machine for one conversation; `pillarbox.smtp.sender` says how to drive it. Never raises."""
    return Sender(_conversation(order))


def _conversation(order: Order) -> Dialogue:
    peer = yield from _opened(order)
    if isinstance(peer, Attempt):
        return peer
    return (yield from _transaction(order, peer.offers))


def _opened(order: Order) -> _Hello:
    """Everything ahead of the first MAIL."""
    heard = yield _say(b"", Phase.GREETING)
    answer = _only(heard)
    if answer is None or answer.code != 220:
        return reports.unusable(order.host, b"but greeting failed", heard, len(order.envelope.recipients))
    peer = yield from _hello(order, secure=order.secure)
    if isinstance(peer, _Peer):
        peer = yield from _secured(order, peer)
    if isinstance(peer, Attempt):
        return peer
    if order.credentials is not None:
        failed = yield from _logged_in(order, peer, order.credentials)
        if failed is not None:
            return failed
    return peer


def _hello(order: Order, *, secure: bool) -> _Hello:
    """EHLO, and HELO where that is refused for good (RFC 5321 section 3.2)."""
    count = len(order.envelope.recipients)
    if order.extended:
        heard = yield _say(b"EHLO " + order.me, Phase.HELLO)
        answer = _only(heard)
        if answer is not None and answer.code == 250:
            return _Peer(Offers.of(answer), secure)
        if heard.trouble is Trouble.HUNG_UP and not heard.answers and not secure:
            return reports.deaf_to_ehlo(order.host, count)
        if answer is None or not answer.permanent:
            return reports.unusable(order.host, b"but my name was rejected", heard, count)
    heard = yield _say(b"HELO " + order.me, Phase.HELLO)
    answer = _only(heard)
    if answer is None or answer.code != 250:
        return reports.unusable(order.host, b"but my name was rejected", heard, count)
    return _Peer(Offers(), secure)


def _secured(order: Order, peer: _Peer) -> _Hello:
    """STARTTLS where it is offered (RFC 3207), and EHLO again: nothing the server said in clear counts."""
    count = len(order.envelope.recipients)
    if peer.secure:
        return peer
    if order.tls and peer.offers.starttls:
        heard = yield _say(b"STARTTLS", Phase.TLS)
        answer = _only(heard)
        if answer is None:
            return reports.unusable(order.host, b"", heard, count)
        if answer.code == 220:
            heard = yield Secure()
            if heard.trouble is not None:
                return reports.handshake_failed(order.host, heard, count, insist=_needs_tls(order))
            return (yield from _hello(order, secure=True))
    return reports.insecure(order.host, count) if order.insist else peer


def _needs_tls(order: Order) -> bool:
    """Trying again without TLS would be no use."""
    return order.insist or (order.credentials is not None and not order.clear)


def _logged_in(order: Order, peer: _Peer, credentials: Password) -> _Login:
    """AUTH (RFC 4954). Every refusal is temporary: a wrong password in a control file must not bounce the queue."""
    count = len(order.envelope.recipients)
    mechanism = sasl.choose(peer.offers.mechanisms, private=peer.secure or order.clear)
    if mechanism is None:
        return reports.no_way_to_log_in(order.host, count, private=peer.secure or order.clear)
    claim = sasl.claim(mechanism, credentials)
    step = next(claim)
    while True:
        heard = yield _say(step.line, Phase.AUTH)
        answer = _only(heard)
        if answer is not None and answer.positive:
            return None
        try:
            if answer is None or answer.code != 334:
                return reports.login_refused(order.host, step, credentials.password, heard, count)
            step = claim.send(answer.texts[0])
        except StopIteration:
            return reports.login_refused(order.host, step, credentials.password, heard, count)


def _transaction(order: Order, offers: Offers) -> Dialogue:
    """MAIL, RCPT for each recipient, DATA, the content."""
    sayable = _sayable(order, offers)
    recipients = [*sayable]
    wanted = [number for number, outcome in enumerate(recipients) if outcome is None]
    problem = _sender_problem(order, offers)
    if problem is not None or not wanted:
        return Attempt(tuple(recipients), problem or reports.giving_up(order.host))
    heard = yield from _envelope(order, offers, wanted)
    for number, answer in zip(wanted, heard.answers[1:], strict=False):
        recipients[number] = reports.recipient(order.host, answer, another_taken=reports.TAKEN in recipients)
    if not heard.answers or not heard.answers[0].positive:
        if _data_taken(heard, wanted):
            yield HangUp()
        return reports.sender_refused(order.host, heard, sayable)
    return (yield from _content(order, heard, wanted, tuple(recipients)))


def _content(order: Order, heard: Heard, wanted: list[int], recipients: tuple[Outcome | None, ...]) -> Dialogue:
    taken = any(recipients[number] is not None and recipients[number] == reports.TAKEN for number in wanted)
    if heard.trouble is not None:
        return reports.died(order.host, heard, recipients)
    if not taken:
        if _data_taken(heard, wanted):
            # RFC 2920 section 3.1: DATA went out ahead of the refusals; an empty message for nobody ends it.
            yield _say(b".", Phase.END)
        return Attempt(recipients, reports.giving_up(order.host))
    if not _data_taken(heard, wanted):
        return reports.data_refused(order.host, heard, recipients)
    heard = yield Bring()
    return reports.delivered(order.host, heard, recipients)


def _envelope(order: Order, offers: Offers, wanted: list[int]) -> Generator[Turn, Heard, Heard]:
    """Everything up to DATA: as many replies as were heard, in order, until one ended it. A 421 ends it as the host's
    going away does (RFC 5321 section 3.8): it is not about this sender or recipient."""
    answers: tuple[Answer, ...] = ()
    commands = list(_commands(order, offers, wanted))
    for group in _groups(commands, together=offers.pipelining):
        if group[0].phase is Phase.DATA and not any(answer.positive for answer in answers[1:]):
            break
        said = yield Say(group)
        heard = reports.without_421(said)
        answers += heard.answers
        if heard.trouble is not None:
            if said.trouble is None:
                yield HangUp()
            return heard._replace(answers=answers)
        if not answers[0].positive:
            break
    return Heard(answers)


def _commands(order: Order, offers: Offers, wanted: list[int]) -> Iterator[Command]:
    sender, recipients = order.envelope
    line = b"MAIL FROM:<" + quote(sender) + b">"
    if offers.size is not None and order.size:
        line += b" SIZE=%d" % order.size
    if offers.eight_bit and order.eight_bit:
        line += b" BODY=8BITMIME"  # a host without it gets the octets as they are, as from qmail-remote
    if not all(address.isascii() for address in (sender, *(recipients[number] for number in wanted))):
        line += b" SMTPUTF8"
    yield Command(line + b"\r\n", Phase.MAIL)
    for number in wanted:
        yield Command(b"RCPT TO:<" + quote(recipients[number]) + b">\r\n", Phase.RCPT)
    yield Command(b"DATA\r\n", Phase.DATA)


def _groups(commands: list[Command], *, together: bool) -> Iterator[tuple[Command, ...]]:
    group: list[Command] = []
    octets = 0
    for command in commands:
        if group and (not together or octets + len(command.line) > LARGEST_GROUP):
            yield tuple(group)
            group, octets = [], 0
        group.append(command)
        octets += len(command.line)
    yield tuple(group)


def _sayable(order: Order, offers: Offers) -> tuple[Outcome | None, ...]:
    """For each recipient None, or why his address cannot be said to this host."""
    return tuple(_address_problem(order, offers, address) for address in order.envelope.recipients)


def _sender_problem(order: Order, offers: Offers) -> Outcome | None:
    if offers.size and order.size > offers.size:
        return reports.too_large(order.host, offers.size)
    return _address_problem(order, offers, order.envelope.sender)


def _address_problem(order: Order, offers: Offers, address: bytes) -> Outcome | None:
    if _BREAKS.search(address):
        return reports.unsayable(order.host)
    if not address.isascii() and not offers.utf8:
        return reports.needs_utf8(order.host)
    return None


def _data_taken(heard: Heard, wanted: list[int]) -> bool:
    """The server has said 354, for one reason or another, and waits for content."""
    answers = heard.answers[1 + len(wanted) :]
    return bool(answers) and 300 <= answers[0].code < 400


def _say(line: bytes, phase: Phase) -> Say:
    return Say((Command(line + b"\r\n" if line else b"", phase),))


def _only(heard: Heard) -> Answer | None:
    """The one reply that was asked for, None when trouble came instead."""
    return heard.answers[0] if heard.answers and heard.trouble is None else None
