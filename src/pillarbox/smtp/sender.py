"""The client's side of SMTP (RFC 5321) without I/O: it says what a dialogue wants said, and hears what comes back.

What to say is `pillarbox.sessions.relaying`'s business; here are lines, groups of commands, the content's wire form,
the moment of TLS, the end. The rule that must stay true: a reply counts only in its own place. One that comes while the
content still goes out is never taken for the reply to its final dot.

The driver's loop, with octets from a socket or a pair of descriptors:

    while not sender.finished:
        if data := sender.data_to_send():
            write(data)                         # and read meanwhile: a server may be answering already
        elif sender.wants_tls:
            handshake                           # then sender.secured() or sender.tls_failed(reason)
        elif sender.wants_content:
            sender.content(block)               # or sender.end_of_content(), or sender.content_lost()
        else:
            read                                # at most as long as sender.phase allows;
                                                # then sender.receive(data), .eof() or .timed_out()

`sender.attempt` is there as soon as the outcomes are known, before QUIT is answered, and nothing changes it any more.
After a failed write, read what the server has still said, then call eof(). A sender that `stays` is `idle` behind a
message that the server took, and does not say QUIT: go_on() brings another, quit() ends it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from enum import Enum
from typing import Final, NamedTuple

from pillarbox.attempt import Attempt
from pillarbox.content import Stuffer
from pillarbox.outcome import Verdict
from pillarbox.smtp.answers import Answer, Answers


class Phase(Enum):
    """What is waited for; each has its own patience (RFC 5321 section 4.5.3.2)."""

    GREETING = "greeting"
    HELLO = "EHLO"
    TLS = "TLS"
    """The handshake, from the reply to STARTTLS on."""
    AUTH = "AUTH"
    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"
    """The reply to DATA."""
    CONTENT = "content"
    """The server takes the next block; the driver's own reading of the message is included."""
    END = "final dot"
    IDLE = "idle"
    """Nothing; a server may hang up at any time."""
    QUIT = "QUIT"
    OVER = "over"


class Trouble(Enum):
    """Why a conversation ended before its end. After each of these nothing more is said to the server."""

    HUNG_UP = "hung up"
    TIMED_OUT = "timed out"
    NOT_SMTP = "not SMTP"
    """What came is no reply."""
    OUT_OF_TURN = "out of turn"
    """It spoke when it was our turn: in the content, or in clear ahead of a TLS handshake."""
    HANDSHAKE = "handshake"
    """TLS failed."""
    CONTENT_LOST = "content lost"
    """The message could not be read to its end; the server never saw the final dot."""


class Command(NamedTuple):
    """A line with its CR LF, and what waiting for its reply is called. b"" says nothing and hears: the greeting."""

    line: bytes
    phase: Phase


class Say(NamedTuple):
    """Say these commands in one go and hear a reply to each. More than one only to a server that offers PIPELINING."""

    commands: tuple[Command, ...]


class Secure(NamedTuple):
    """The server has agreed to STARTTLS: let the driver shake hands."""


class Bring(NamedTuple):
    """The server has agreed to DATA: bring the content, then the final dot, and hear one reply."""


class HangUp(NamedTuple):
    """Not one octet more, no QUIT either."""


Turn = Say | Secure | Bring | HangUp


class Heard(NamedTuple):
    """What came of a turn: the replies in order, all of them unless there was trouble. `critical`: the final dot has
    gone out, so the server may have taken the message. `why`: OpenSSL's reason for Trouble.HANDSHAKE, what the server
    said for Trouble.NOT_SMTP (its beginning) and OUT_OF_TURN."""

    answers: tuple[Answer, ...] = ()
    trouble: Trouble | None = None
    critical: bool = False
    why: bytes = b""


_QUIT: Final = Say((Command(b"QUIT\r\n", Phase.QUIT),))

# Yields turns, is sent what came of them, returns what became of the message. After trouble and HangUp it must return.
Dialogue = Generator[Turn, Heard, Attempt]


class Sender:
    """One conversation with one server, led by a dialogue. See the module's page for how to drive it."""

    __slots__ = (
        "_answers", "_dialogue", "_early", "_heard", "_out", "_phase", "_replies", "_stays", "_stuffer", "_waiting",
        "attempt",
    )  # fmt: skip

    def __init__(self, dialogue: Dialogue, *, stays: bool = False) -> None:
        self._dialogue = dialogue
        self._stays = stays
        self._answers = Answers()
        self._out: list[bytes] = []
        self._waiting: deque[Phase] = deque()  # a reply is owed for each
        self._heard: list[Answer] = []
        self._stuffer: Stuffer | None = None
        self._early = False
        self._replies = 0
        self._phase = Phase.OVER
        self.attempt: Attempt | None = None
        """What became of the message, as soon as that is known."""
        self._take(next(dialogue))

    # what the driver asks

    @property
    def phase(self) -> Phase:
        """What is waited for now."""
        return self._waiting[0] if self._waiting else self._phase

    @property
    def progress(self) -> tuple[Phase, int]:
        """Changes with every whole reply and every turn: as long as it does, the server is not too slow."""
        return self.phase, self._replies

    @property
    def finished(self) -> bool:
        """The connection can be closed, and `attempt` is there. What is still in data_to_send() need not go out."""
        return self.phase is Phase.OVER

    @property
    def idle(self) -> bool:
        """The message is at the server, which would take another: go_on() or quit()."""
        return self.phase is Phase.IDLE

    @property
    def wants_tls(self) -> bool:
        """Shake hands now; what the socket brings belongs to TLS from here on."""
        return self._phase is Phase.TLS

    @property
    def wants_content(self) -> bool:
        """Give the next block, once data_to_send() has nothing: only so does a slow server slow the reading down."""
        return self._stuffer is not None and not self._early

    def data_to_send(self) -> bytes:
        """Octets for the server; b"" when there are none."""
        if not self._out:
            return b""
        data = b"".join(self._out)
        self._out.clear()
        return data

    # what the driver tells

    def receive(self, data: bytes) -> None:
        """Octets from the server, in clear or out of TLS."""
        if self.finished or not data:
            return
        if self.idle:
            self._close()  # unasked it can only say that it is closing
        elif self.wants_tls:
            self._trouble(Trouble.OUT_OF_TURN)
        else:
            self._listen(data)

    def _listen(self, data: bytes) -> None:
        self._early = self._stuffer is not None
        self._answers.add(data)
        while not self.finished and (answer := self._answers.next()) is not None:
            self._hear(answer)
        if self._answers.spoilt and not self.finished:
            self._trouble(Trouble.NOT_SMTP, self._answers.nonsense)

    def eof(self) -> None:
        """The server is gone."""
        self._trouble(Trouble.HUNG_UP)

    def timed_out(self) -> None:
        """The server was given the time that `phase` is worth. Hang up."""
        self._trouble(Trouble.TIMED_OUT)

    def secured(self) -> None:
        """The handshake succeeded. Nothing heard before counts any more."""
        assert self.wants_tls
        self._end_turn(Heard())

    def tls_failed(self, why: bytes) -> None:
        """The handshake did not succeed; `why` is one line for people. Hang up."""
        assert self.wants_tls
        self._trouble(Trouble.HANDSHAKE, why)

    def content(self, block: bytes) -> None:
        """The next block of the message in stored form (LF line ends), of any size. Too late, it is dropped."""
        if self._stuffer is not None and (wire := self._stuffer.feed(block)):
            self._out.append(wire)

    def end_of_content(self) -> None:
        """The message is whole: its last line is ended if it was not, and the final dot goes out."""
        if self._stuffer is None or self._early:
            return  # it spoke or went away while the driver was reading
        self._out.append(self._stuffer.finish())
        self._stuffer = None
        self._phase = Phase.END
        self._waiting.append(Phase.END)

    def content_lost(self) -> None:
        """The message cannot be read to its end: the final dot is never sent. Hang up."""
        self._trouble(Trouble.CONTENT_LOST)

    def go_on(self, dialogue: Dialogue) -> None:
        """Bring another message: this dialogue begins where the server waits for MAIL."""
        assert self.idle
        self._dialogue, self.attempt = dialogue, None
        self._phase = Phase.OVER
        self._take(next(dialogue))

    def quit(self) -> None:
        """Bring nothing more."""
        assert self.idle
        self._phase = Phase.OVER
        self._take(_QUIT)

    # turns

    def _take(self, turn: Turn) -> None:
        match turn:
            case Say(commands):
                self._out.extend(command.line for command in commands)
                self._waiting.extend(command.phase for command in commands)
            case Secure():
                self._phase = Phase.TLS
                if not self._answers.empty:  # RFC 3207 section 6: what was put behind the 220 came from nobody we know
                    self._trouble(Trouble.OUT_OF_TURN)
            case Bring():
                self._phase = Phase.CONTENT
                self._stuffer = Stuffer()
                self._early = not self._answers.empty
            case HangUp():
                self._stop(Heard(trouble=Trouble.HUNG_UP))

    def _hear(self, answer: Answer) -> None:
        self._heard.append(answer)
        self._replies += 1
        if self._stuffer is not None:
            self._trouble(Trouble.OUT_OF_TURN, answer.whole)
            return
        self._waiting.popleft()
        if not self._waiting:
            if self.attempt is not None:
                self._phase = Phase.OVER
            else:
                self._end_turn(Heard(tuple(self._heard)))

    def _trouble(self, trouble: Trouble, why: bytes = b"") -> None:
        if self.finished:
            return
        self._stop(Heard(tuple(self._heard), trouble, Phase.END in self._waiting, why))

    def _stop(self, heard: Heard) -> None:
        self._close()
        if self.attempt is None:
            turn = self._advance(heard)
            assert turn is None, f"{turn} to a server that is gone"

    def _end_turn(self, heard: Heard) -> None:
        self._phase = Phase.OVER
        self._heard = []
        turn = self._advance(heard)
        if turn is not None:
            self._take(turn)
        elif self.attempt is not None and self._stays and self.attempt.message.verdict is Verdict.DONE:
            self._phase = Phase.IDLE if self._answers.empty else Phase.OVER
        else:
            self._take(_QUIT)

    def _advance(self, heard: Heard) -> Turn | None:
        """The dialogue's next turn, or None at its end."""
        try:
            return self._dialogue.send(heard)
        except StopIteration as end:
            self.attempt = end.value
            return None

    def _close(self) -> None:
        self._phase = Phase.OVER
        self._waiting.clear()
        self._out.clear()
        self._stuffer = None
        self._early = False
