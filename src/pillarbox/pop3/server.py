"""The server's side of POP3 (RFC 1939) as a machine without I/O: bytes in, events out, answers in, bytes out.

Strategy. The driver feeds what it reads (`receive`, `eof`), asks for events until there is none, answers each, and
sends `data_to_send`. While an event is unanswered no further one comes, so a pipelining client (RFC 2449 section 6.6)
is served in order; the driver must then stop reading, which bounds the input. What is allowed when stands in the table
COMMANDS, where an answer leads in ADVANCE and RETREAT, and nowhere else. The rule that must stay true: nothing that
came before the TLS handshake is acted on after it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

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
from pillarbox.pop3.reply import Kind, Reply

# Octets before the line feed. RFC 2449 section 4 allows 255 and RFC 6856 more; RFC 5034 section 4 sets AUTH's.
LONGEST_LINE = 4096
LONGEST_AUTH_LINE = 12288
BAD_COMMANDS = 10
# 20 digits hold every 64-bit count that a client may send for "all lines".
_LONGEST_NUMBER = 20
_DIGEST_LENGTH = 32
_HEX = b"0123456789abcdef"
# A browser made to talk to this port: its next lines are under an attacker's control.
_FOREIGN = frozenset([b"GET", b"HEAD", b"POST", b"PUT", b"OPTIONS", b"CONNECT", b"PATCH", b"DELETE", b"TRACE", b"PRI"])


class State(Enum):
    """RFC 1939 sections 4 to 6. NAMED and AUTHENTICATING are within its AUTHORIZATION state; UPDATE also stands for a
    session that has been broken off."""

    AUTHORIZATION = auto()
    NAMED = auto()
    AUTHENTICATING = auto()
    TRANSACTION = auto()
    UPDATE = auto()


class Server:
    """One connection. Never copies its input more than once, whatever the size of the pieces it comes in."""

    def __init__(self, greeting: bytes, *, stamp: bytes | None = None, authorized: bool = False) -> None:
        """`stamp` is APOP's timestamp with its angle brackets, None where APOP is not offered. `authorized`: begin in
        the TRANSACTION state, as qmail-pop3d does behind qmail-popup."""
        self._greeting = b" ".join(filter(None, [greeting, stamp]))
        self._state = State.TRANSACTION if authorized else State.AUTHORIZATION
        self._input = bytearray()
        self._searched = 0
        self._too_long = False
        self._output = bytearray()
        self._pending: Event | None = None
        self._bad = 0
        self._ended = False
        self._wants_tls = False

    @property
    def wants_tls(self) -> bool:
        """STLS was answered positively: send what there is, shake hands, call `secured`. No events until then."""
        return self._wants_tls

    @property
    def closing(self) -> bool:
        """Send what there is, then close."""
        return self._state is State.UPDATE

    @property
    def buffered(self) -> int:
        """Octets received and not yet looked at."""
        return len(self._input)

    def greet(self) -> None:
        """RFC 1939 section 4: the server speaks first."""
        self._output += r.announcement(self._greeting)

    def receive(self, data: bytes) -> None:
        """Take what came from the client."""
        self._input += data

    def eof(self) -> None:
        """The client sends no more. Whole lines that are here are still served; half a line never is."""
        self._ended = True

    def secured(self) -> None:
        """TLS is on. RFC 2595 section 4: forget all that the client said before, also what is not yet read."""
        self._input.clear()
        self._state = State.AUTHORIZATION
        self._bad = 0
        self._wants_tls = False

    def data_to_send(self) -> bytes:
        """All replies since the last call."""
        data = bytes(self._output)
        self._output.clear()
        return data

    def next_event(self) -> Event | None:
        """The next question, or None: more input, an answer, or a handshake must come first, or the session is over."""
        while self._pending is None and not self.closing:
            line = None if self._wants_tls else self._take_line()
            if line is None:
                if self._ended:
                    self._state = State.UPDATE
                return None
            found = self._read(line)
            if isinstance(found, Reply):
                self._complain(found)
            else:
                self._pending = found
                return found
        return None

    def answer(self, reply: Reply) -> None:
        """Answer the event that `next_event` gave last; a positive reply is the transition."""
        event, self._pending = self._pending, None
        assert event is not None, "nothing was asked"
        self._output += reply.wire
        if reply.closing or isinstance(event, Quit):
            self._state = State.UPDATE
        elif reply.kind is Kind.MORE:
            assert isinstance(event, Auth | AuthResponse)
            self._state = State.AUTHENTICATING
        elif reply.kind is Kind.ERR:
            self._state = RETREAT.get(type(event), self._state)
        else:
            self._bad = 0
            self._wants_tls = isinstance(event, Stls)
            self._state = ADVANCE.get(type(event), self._state)

    def _take_line(self) -> bytes | None:
        """The next line without its end (LF or CR LF); None when it is not whole yet. A line that is too long comes out
        empty with `_too_long` set, and none of it is kept."""
        end = self._input.find(b"\n", self._searched)
        self._too_long = self._too_long or (len(self._input) if end < 0 else end) > self._longest()
        if end < 0:
            if self._too_long:
                self._input.clear()
            self._searched = len(self._input)
            return None
        line = b"" if self._too_long else bytes(self._input[:end])
        del self._input[: end + 1]
        self._searched = 0
        return line.removesuffix(b"\r")

    def _longest(self) -> int:
        auth = self._state is State.AUTHENTICATING or self._input[:5].upper() == b"AUTH "
        return LONGEST_AUTH_LINE if auth else LONGEST_LINE

    def _read(self, line: bytes) -> Event | Reply:
        """The line's event, or what is wrong with it."""
        too_long, self._too_long = self._too_long, False
        if self._state is State.AUTHENTICATING:
            # Too long is empty here, which no mechanism takes: the exchange must end, not this line alone.
            return AuthResponse(line)
        if too_long:
            return r.TOO_LONG
        verb, _, argument = line.partition(b" ")
        verb = verb.upper()
        command = COMMANDS.get(verb)
        if command is None:
            return r.NOT_HTTP if verb in _FOREIGN else r.UNIMPLEMENTED
        if self._state not in command.states:
            return r.AUTHORIZED_ALREADY if self._state is State.TRANSACTION else command.otherwise
        return command.read(argument) or r.SYNTAX_ERROR

    def _complain(self, reply: Reply) -> None:
        self._bad += 1
        if self._bad >= BAD_COMMANDS:
            reply = r.TOO_MANY_BAD_COMMANDS
        if reply.closing:
            self._state = State.UPDATE
        self._output += reply.wire


def _number(text: bytes) -> int | None:
    return int(text) if text.isdigit() and len(text) <= _LONGEST_NUMBER else None


def _user(argument: bytes) -> Event | None:
    name = argument.strip(b" ")
    return User(name) if name and b"\0" not in name else None


def _pass(argument: bytes) -> Event | None:
    """Nothing is stripped: a password may begin and end with spaces."""
    return Pass(argument) if argument and b"\0" not in argument else None


def _apop(argument: bytes) -> Event | None:
    name, _, digest = argument.strip(b" ").rpartition(b" ")
    name, digest = name.rstrip(b" "), digest.lower()
    if not name or b"\0" in name or len(digest) != _DIGEST_LENGTH or digest.strip(_HEX):
        return None
    return Apop(name, digest)


def _auth(argument: bytes) -> Event | None:
    mechanism, _, initial = argument.strip(b" ").partition(b" ")
    return Auth(mechanism, initial.strip(b" ") or None) if mechanism else Mechanisms()


def _top(argument: bytes) -> Event | None:
    first, _, second = argument.strip(b" ").partition(b" ")
    number, lines = _number(first), _number(second.strip(b" "))
    if number is None or (second and lines is None):
        return None
    return Top(number, lines)


def _plain(event: type[Capa | Stls | Utf8 | Stat | Last | Rset | Noop | Quit]) -> Callable[[bytes], Event | None]:
    """A command without arguments; what follows it is ignored, as qmail does."""
    only = event()
    return lambda argument: only


def _one(event: type[Retr | Dele]) -> Callable[[bytes], Event | None]:
    def read(argument: bytes) -> Event | None:
        number = _number(argument.strip(b" "))
        return None if number is None else event(number)

    return read


def _one_or_all(event: type[List | Uidl]) -> Callable[[bytes], Event | None]:
    def read(argument: bytes) -> Event | None:
        text = argument.strip(b" ")
        number = _number(text)
        return None if text and number is None else event(number)

    return read


@dataclass(frozen=True, slots=True)
class Command:
    """A row of the table: `read` turns the argument into an event (None: syntax error); outside `states` the answer is
    `otherwise`, or that the client is authorized already."""

    states: frozenset[State]
    read: Callable[[bytes], Event | None]
    otherwise: Reply = r.AUTHORIZATION_FIRST


_BEFORE = frozenset([State.AUTHORIZATION, State.NAMED])
_NAMED = frozenset([State.NAMED])
_AFTER = frozenset([State.TRANSACTION])
_EVER = _BEFORE | _AFTER

COMMANDS = {
    b"CAPA": Command(_EVER, _plain(Capa)),
    b"STLS": Command(_BEFORE, _plain(Stls)),
    b"UTF8": Command(_BEFORE, _plain(Utf8)),
    b"USER": Command(_BEFORE, _user),
    b"PASS": Command(_NAMED, _pass, r.USER_FIRST),
    b"APOP": Command(_BEFORE, _apop),
    b"AUTH": Command(_BEFORE, _auth),
    b"STAT": Command(_AFTER, _plain(Stat)),
    b"LIST": Command(_AFTER, _one_or_all(List)),
    b"UIDL": Command(_AFTER, _one_or_all(Uidl)),
    b"RETR": Command(_AFTER, _one(Retr)),
    b"TOP": Command(_AFTER, _top),
    b"DELE": Command(_AFTER, _one(Dele)),
    b"LAST": Command(_AFTER, _plain(Last)),
    b"RSET": Command(_AFTER, _plain(Rset)),
    # qmail-popup takes NOOP before the login too.
    b"NOOP": Command(_EVER, _plain(Noop)),
    b"QUIT": Command(_EVER, _plain(Quit)),
}

# Event -> the state that a positive reply leads to. QUIT is not here: any reply to it ends the session.
ADVANCE: dict[type[Event], State] = {
    User: State.NAMED,
    Pass: State.TRANSACTION,
    Apop: State.TRANSACTION,
    Auth: State.TRANSACTION,
    AuthResponse: State.TRANSACTION,
}

# Event -> the state that a negative reply leads to.
RETREAT: dict[type[Event], State] = {
    User: State.AUTHORIZATION,
    Pass: State.AUTHORIZATION,
    Apop: State.AUTHORIZATION,
    Auth: State.AUTHORIZATION,
    AuthResponse: State.AUTHORIZATION,
}
