"""The client's side of SMTP (RFC 5321) without I/O: say, hear, decide.

One transaction: greeting, EHLO (HELO where that is refused), MAIL, RCPT for each recipient, DATA, QUIT. The rule that
must stay true: no address and no content can break out of its line.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from pillarbox.address import quote
from pillarbox.content import Stuffer
from pillarbox.envelope import Envelope
from pillarbox.status import Failure, Status

_LONGEST_LINE: Final = 4096
_MOST_LINES: Final = 256
_LINE = re.compile(rb"([2-5][0-9][0-9])(?:([ -])(.*))?\Z", re.DOTALL)
_BREAKS = re.compile(rb"[\r\n\0]")


class BadPeer(Failure):
    """The server does not speak SMTP, or was not there to the end."""

    status = Status(4, 5, 0)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A server's reply: its code, and the texts of its lines as they came (bytes, any)."""

    code: int
    text: tuple[bytes, ...]

    @property
    def positive(self) -> bool:
        """2xx or 3xx."""
        return self.code < 400


# Yields what to say next, is sent the reply; returns what became of each recipient.
_Dialogue = Generator[Iterable[bytes], Verdict, list[Verdict]]


class Sender:
    """Brings one message to one server. `me` is our name; `content` gives blocks in stored form and is taken block by
    block, as the driver asks for octets. Raises BadPeer for a server that speaks something else."""

    __slots__ = ("_dialogue", "_line", "_saying", "_text", "verdicts")

    def __init__(self, me: bytes, envelope: Envelope, content: Iterable[bytes]) -> None:
        self._dialogue = _transaction(me, envelope, content)
        self._saying: Iterator[bytes] = iter(next(self._dialogue))
        self._line = b""
        self._text: list[bytes] = []
        self.verdicts: list[Verdict] | None = None
        """One for each recipient in order, once the conversation is over."""

    def data_to_send(self) -> bytes:
        """The next octets for the server; b"" when it is its turn."""
        return next(self._saying, b"")

    def receive(self, data: bytes) -> None:
        """Octets from the server."""
        *lines, self._line = (self._line + data).split(b"\n")
        for line in lines:
            self._hear(line.removesuffix(b"\r"))
        if len(self._line) > _LONGEST_LINE:
            raise BadPeer("the server's reply never ends")

    def eof(self) -> None:
        """The server is gone; raises BadPeer when it should not be."""
        if self.verdicts is None:
            raise BadPeer("the server went away", Status(4, 4, 2))

    def _hear(self, line: bytes) -> None:
        match = _LINE.match(line)
        if match is None or self.verdicts is not None or len(self._text) >= _MOST_LINES:
            raise BadPeer("the server does not speak SMTP")
        code, more, text = match.groups(b"")
        self._text.append(text)
        if more != b"-":
            reply, self._text = Verdict(int(code), tuple(self._text)), []
            self._decide(reply)

    def _decide(self, reply: Verdict) -> None:
        try:
            self._saying = iter(self._dialogue.send(reply))
        except StopIteration as end:
            self.verdicts = end.value


def _transaction(me: bytes, envelope: Envelope, content: Iterable[bytes]) -> _Dialogue:
    sender = _path(b"MAIL FROM:", envelope.sender)
    recipients = [_path(b"RCPT TO:", recipient) for recipient in envelope.recipients]
    reply = yield ()
    if reply.positive:
        reply = yield (b"EHLO " + me + b"\r\n",)
        if not reply.positive:
            reply = yield (b"HELO " + me + b"\r\n",)
    if reply.positive:
        reply = yield (sender,)
    verdicts = [reply] * len(recipients)
    if reply.positive:
        for number, recipient in enumerate(recipients):
            verdicts[number] = yield (recipient,)
    if any(verdict.positive for verdict in verdicts):
        reply = yield (b"DATA\r\n",)
        if reply.positive:
            reply = yield _stuffed(content)
        verdicts = [reply if verdict.positive else verdict for verdict in verdicts]
    yield (b"QUIT\r\n",)
    return verdicts


def _path(command: bytes, address: bytes) -> bytes:
    if _BREAKS.search(address):
        raise Failure("an address with a line end or NUL cannot be sent", Status(5, 1, 0))
    return command + b"<" + quote(address) + b">\r\n"


def _stuffed(content: Iterable[bytes]) -> Iterator[bytes]:
    stuffer = Stuffer()
    for block in content:
        if wire := stuffer.feed(block):  # b"" would end our turn
            yield wire
    yield stuffer.finish()
