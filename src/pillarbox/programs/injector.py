"""Bring a message to the queue of a running server, over its socket run/inject.

Results are qmail-queue's exit statuses (qmail-queue(8)), whichever program asks. The rule that must stay true: 0 means
that the queue has committed the message. A commit whose outcome got lost is asked for again by the draft's key when
the queue is back.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Sequence
from typing import Final, NamedTuple

from pillarbox.envelope import LONGEST, Envelope
from pillarbox.net import unix
from pillarbox.programs.content import BLOCK, Content
from pillarbox.roles.link import Frame, Link, LinkLost, refusal
from pillarbox.roles.verbs import MAY_SAY, Verb
from pillarbox.status import Refusal, Status

SOCKET: Final = "run/inject"
KEY_OCTETS: Final = 16
RECIPIENTS_AT_ONCE: Final = 100  # in one frame: with the longest addresses they fit in beside a block
CREDIT: Final = 256 << 10  # octets of blocks on their way before the queue must say TAKEN
AWAY_PATIENCE: Final = 5.0  # seconds that a server may take to come back: a restart loses no mail
ANSWER_PATIENCE: Final = 120.0  # seconds between two signs of life of the queue
FIRST_PAUSE: Final = 0.05

OK: Final = 0
TOO_LONG: Final = 11
REFUSED: Final = 31
NO_ROOM: Final = 53
REFUSED_FOR_NOW: Final = 71
TIMED_OUT: Final = 72
NOT_RUNNING: Final = 73
LOST: Final = 74
NO_RIGHT: Final = 61
_FULL = Status(4, 3, 1)


class Result(NamedTuple):
    """qmail-queue's exit status, and for people why (with an RFC 3463 status), or b"" and the message's number."""

    status: int
    text: str
    number: int = 0

    @property
    def permanent(self) -> bool:
        """Trying again cannot help: qmail's statuses 11 to 40, and 115, which is what 11 once was."""
        return 11 <= self.status <= 40 or self.status == 115


def inject(home: str, envelope: Envelope, content: Content) -> Result:
    """Have this message queued by the server of `home`. Never raises for the server's sake; OSError for `content`."""
    if max(map(len, (envelope.sender, *envelope.recipients))) > LONGEST:
        return Result(TOO_LONG, "envelope address too long (#5.1.3)")
    return _Injection(home, envelope, content).run()


class _Away(Exception):
    """The queue cannot be reached: `result` is what to say if it stays so."""

    def __init__(self, result: Result) -> None:
        super().__init__(result.text)
        self.result = result


class _Injection:
    def __init__(self, home: str, envelope: Envelope, content: Content) -> None:
        self._path = f"{home}/{SOCKET}"
        self._envelope, self._content = envelope, content
        self._asked = b""  # the key of a commit whose outcome we did not hear
        self._heard: list[Frame] = []

    def run(self) -> Result:
        end = time.monotonic() + AWAY_PATIENCE
        pause = FIRST_PAUSE
        while True:
            try:
                return self._attempt()
            except _Away as away:
                left = end - time.monotonic()
                if left <= 0 or away.result.status == NO_RIGHT:
                    return away.result
            time.sleep(min(pause, left))
            pause = min(pause * 2, 1.0)

    def _attempt(self) -> Result:
        """One connection. Raises _Away."""
        link = Link(self._connected(), MAY_SAY["queue", "injector"])
        try:
            if self._asked:
                link.send(Verb.ASK, 1, self._asked)
                said = self._answer(link)
                if said.verb is Verb.COMMITTED:
                    return _committed(said)
                self._asked = b""
            return self._bring(link)
        except LinkLost:
            raise _Away(Result(LOST, f"lost the mail server at {self._path} (#4.4.2)")) from None
        finally:
            link.close()

    def _connected(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(ANSWER_PATIENCE)
            unix.connect(sock, self._path)
        except OSError as problem:
            sock.close()
            if isinstance(problem, TimeoutError):
                raise _Away(Result(TIMED_OUT, f"{self._path}: the mail server does not answer (#4.4.1)")) from None
            if isinstance(problem, PermissionError):
                raise _Away(Result(NO_RIGHT, f"{self._path}: {problem.strerror} (#4.3.0)")) from None
            raise _Away(Result(NOT_RUNNING, f"{self._path}: the mail server is not running (#4.4.1)")) from None
        return sock

    def _bring(self, link: Link) -> Result:
        key = os.urandom(KEY_OCTETS)
        sender, recipients = self._envelope
        if self._content.size <= BLOCK and len(recipients) <= RECIPIENTS_AT_ONCE:
            self._asked = key
            link.send(Verb.MESSAGE, 1, key, sender, b"".join(self._content.blocks()), *recipients)
            return self._verdict(self._answer(link))
        link.send(Verb.START, 1, key)
        refused = self._stream(link)
        if refused is not None:
            return self._verdict(refused)
        while len(recipients) > RECIPIENTS_AT_ONCE:
            link.send(Verb.RECIPIENTS, 1, *recipients[:RECIPIENTS_AT_ONCE])
            recipients = recipients[RECIPIENTS_AT_ONCE:]
        self._asked = key
        link.send(Verb.COMMIT, 1, sender, *recipients)
        while (said := self._answer(link)).verb is Verb.TAKEN:
            pass
        return self._verdict(said)

    def _stream(self, link: Link) -> Frame | None:
        """Send the content with credit. A frame that comes instead of credit is the draft's end."""
        credit = CREDIT
        for block in self._content.blocks():
            while credit < len(block):
                said = self._answer(link)
                if said.verb is not Verb.TAKEN:
                    return said
                credit += _number(said.fields)
            credit -= len(block)
            link.send(Verb.BLOCK, 1, block)
        return None

    def _answer(self, link: Link) -> Frame:
        """The next frame, while all that we have to say goes out. Raises LinkLost, _Away."""
        poll = select.poll()
        while not self._heard:
            done = link.flush()
            poll.register(link.fileno(), select.POLLIN if done else select.POLLIN | select.POLLOUT)
            events = poll.poll(ANSWER_PATIENCE * 1000)
            if not events:
                raise _Away(Result(TIMED_OUT, f"{self._path}: the mail server does not answer (#4.4.1)"))
            if events[0][1] & ~select.POLLOUT:
                self._heard += link.receive()
        return self._heard.pop(0)

    def _verdict(self, said: Frame) -> Result:
        if said.verb is Verb.COMMITTED:
            return _committed(said)
        return _refused(refusal(said.fields))


def _committed(said: Frame) -> Result:
    return Result(OK, "", _number(said.fields))


def _refused(no: Refusal) -> Result:
    text = f"{no.text} (#{no.status})"
    if no.permanent:
        return Result(TOO_LONG if no.status == (5, 1, 3) else REFUSED, text)
    return Result(NO_ROOM if no.status == _FULL else REFUSED_FOR_NOW, text)


def _number(fields: Sequence[bytes]) -> int:
    """Raises LinkLost when the field is no number."""
    if len(fields) != 1 or not fields[0].isdigit() or len(fields[0]) > 20:
        raise LinkLost("not a number")
    return int(fields[0])
