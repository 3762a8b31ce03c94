"""One message on its way to another host: which hosts, in which order, and what to try again at once.

What the remote role does over asyncio and the program qmail-remote by waiting: how a host is spoken with is theirs, and
nothing here waits for anything else. The rule that must stay true: a recipient whom one host has taken or refused is
not offered to the next.
"""

from __future__ import annotations

import os
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from pillarbox.attempt import Advice, Attempt
from pillarbox.credentials import Password
from pillarbox.envelope import Envelope
from pillarbox.net.hosts import Host, NoHost
from pillarbox.outcome import Outcome
from pillarbox.routes import SMTP_PORT, Hop, is_loopback
from pillarbox.sessions.relaying import Order
from pillarbox.smtp.sender import Phase
from pillarbox.status import Status

BLOCK = 64 << 10  # octets of content at a time
TRYING = 1800.0  # seconds after which no further host is begun with
# RFC 5321 section 4.5.3.2: seconds that a host is given at least, phase by phase. control/timeoutremote may be less,
# and is what the final dot gets in full: who hangs up there sends the message twice.
PATIENCE = {
    Phase.GREETING: 300.0,
    Phase.HELLO: 300.0,
    Phase.TLS: 60.0,
    Phase.AUTH: 300.0,
    Phase.MAIL: 300.0,
    Phase.RCPT: 300.0,
    Phase.DATA: 120.0,
    Phase.CONTENT: 180.0,
    Phase.IDLE: 2.0,
}
# Whoever owns a domain chooses the names of its exchangers, and DNS allows any octets in them; TLS libraries do not.
_HOST_NAME = re.compile(rb"[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*")
NO_CONNECTION = Outcome.later(b"Sorry, I wasn't able to establish an SMTP connection. (#4.4.1)\n", Status(4, 4, 1))


def patience(phase: Phase, most: float) -> float:
    """Seconds that a host has for a phase; `most` is control/timeoutremote."""
    return min(most, PATIENCE.get(phase, most))


def server_name(host: Host) -> str:
    """What a host's certificate must be for, and what it is told by SNI."""
    return host.name.decode() if _HOST_NAME.fullmatch(host.name) else host.address


@dataclass(frozen=True, slots=True)
class Content:
    """A message in stored form: its octets, or a descriptor of a file that holds `size` of them (not closed here)."""

    source: bytes | int
    size: int

    def block(self, start: int) -> bytes:
        """Some octets from `start` on; b"" at the end. Raises OSError, also when the file is shorter than it was."""
        if isinstance(self.source, bytes):
            return self.source[start : start + BLOCK]
        wanted = min(BLOCK, self.size - start)
        block = os.pread(self.source, wanted, start)
        if wanted and not block:
            raise OSError("the message is shorter than it was")
        return block

    def ends(self, start: int) -> bool:
        """No octets are left from `start` on."""
        return start >= (len(self.source) if isinstance(self.source, bytes) else self.size)

    @property
    def eight_bit(self) -> bool:
        """Octets above 127 may be in it."""
        return not (isinstance(self.source, bytes) and self.source.isascii())


@dataclass(frozen=True, slots=True)
class Errand:
    """One message and some of its recipients, all in `domain` (any case). `hop` is where control/smtproutes sends
    them, None: to the domain's mail exchangers. `clear`: the hop's password may go without TLS, or over TLS to whoever
    is there: control/cleartextroutes allows it, or this is qmail-remote. To this machine it may always."""

    domain: bytes
    hop: Hop | None
    envelope: Envelope
    content: Content
    clear: bool = False

    @property
    def port(self) -> int:
        """Where its hosts listen."""
        return SMTP_PORT if self.hop is None else self.hop.port


@dataclass(frozen=True, slots=True)
class Result:
    """The recipients' outcomes in their order. `down`: no host of the destination worked. `recipients` and `message`
    are the same in qmail-remote's terms, see `attempt.Attempt`."""

    outcomes: tuple[Outcome, ...]
    recipients: tuple[Outcome | None, ...]
    message: Outcome
    down: bool = False

    @classmethod
    def alike(cls, outcome: Outcome, count: int, *, down: bool = False) -> Result:
        """All recipients fare as the message does: nobody was asked about them."""
        return cls((outcome,) * count, (None,) * count, outcome, down)


def nowhere(failure: NoHost, count: int) -> Result:
    """What it means that no host was found."""
    permanent = failure.status.kind == 5
    outcome = (Outcome.never if permanent else Outcome.later)(
        failure.text.encode("ascii", "replace") + b"\n", failure.status
    )
    return Result.alike(outcome, count, down=not permanent)


Call = Callable[[Host, Order], Awaitable[Attempt | None]]
"""One conversation with one host; None: no connection."""


class Journey:
    """One errand under way: `_open` are the indices of the recipients nobody has decided on. `me` is our name, `clock`
    counts seconds."""

    def __init__(self, errand: Errand, me: bytes, call: Call, clock: Callable[[], float]) -> None:
        self._errand, self._me, self._call, self._clock = errand, me, call, clock
        self._open = list(range(len(errand.envelope.recipients)))
        self._outcomes: list[Outcome] = [NO_CONNECTION] * len(self._open)
        self._recipients: list[Outcome | None] = [None] * len(self._open)
        self._message = NO_CONNECTION
        self._down = True

    async def run(self, found: list[Host]) -> Result:
        """Bring it to the first of these hosts that will have it."""
        end = self._clock() + TRYING
        for host in found:
            if not self._open or self._clock() > end:
                break
            await self._try(host)
        return Result(tuple(self._outcomes), tuple(self._recipients), self._message, self._down)

    async def _try(self, host: Host) -> None:
        """All that one host gets: at most a connection as offered, one without TLS, one without EHLO."""
        order = self._order(host)
        for _ in range(3):
            attempt = await self._call(host, replace(order, envelope=self._envelope()))
            if attempt is None:
                return
            self._note(attempt)
            if attempt.advice is Advice.WITHOUT_TLS and order.tls:
                order = replace(order, tls=False)
            elif attempt.advice is Advice.WITHOUT_EHLO and order.extended:
                order = replace(order, extended=False)
            else:
                return

    def _note(self, attempt: Attempt) -> None:
        self._message = attempt.message
        for index, outcome, recipient in zip(self._open, attempt.outcomes, attempt.recipients, strict=True):
            self._outcomes[index] = outcome
            self._recipients[index] = recipient
        self._open = [self._open[position] for position in attempt.unsettled]
        self._down = attempt.destination_failed

    def _envelope(self) -> Envelope:
        envelope = self._errand.envelope
        return Envelope(envelope.sender, tuple([envelope.recipients[index] for index in self._open]))

    def _order(self, host: Host) -> Order:
        errand = self._errand
        hop = errand.hop
        return Order(
            me=self._me,
            host=host.address.encode(),
            envelope=errand.envelope,
            size=errand.content.size,
            eight_bit=errand.content.eight_bit,
            credentials=Password(hop.user, hop.password) if hop is not None and hop.password else None,
            clear=errand.clear or (hop is not None and hop.at_home and is_loopback(host.address)),
        )
