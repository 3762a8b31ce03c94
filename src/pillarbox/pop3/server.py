"""The server's side of POP3 (RFC 1939) as a machine without I/O: bytes in, events out, answers in, bytes out.

Strategy. The driver feeds what it reads (`receive`, `eof`), asks for events until there is none, answers each, and
sends `data_to_send`. While an event is unanswered no further one comes, so a pipelining client (RFC 2449 section 6.6)
is served in order; the driver must then stop reading, which bounds the input. What is allowed when stands in a table of
commands, where an answer leads in ADVANCE and RETREAT, what qmail's servers do their own way in manners.py, and nowhere
else. The rule that must stay true: nothing that came before the TLS handshake is acted on after it.
"""

from __future__ import annotations

from pillarbox.pop3 import reply as r
from pillarbox.pop3.commands import ADVANCE, RETREAT, State
from pillarbox.pop3.events import Auth, AuthResponse, Event, Quit, Stls
from pillarbox.pop3.manners import SERVE, Manners
from pillarbox.pop3.reply import Kind, Reply


class Server:
    """One connection. Never copies its input more than once, whatever the size of the pieces it comes in."""

    drained = False
    """Whether there is a further event is known by asking for it."""

    def __init__(
        self, greeting: bytes, *, stamp: bytes | None = None, authorized: bool = False, manners: Manners = SERVE
    ) -> None:
        """`stamp` is APOP's timestamp with its angle brackets, None where APOP is not offered. `authorized`: begin in
        the TRANSACTION state, as qmail-pop3d does behind qmail-popup."""
        self._manners = manners
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
        self._say(r.fact(self._greeting))

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
        self._say(reply)
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
        line = line.removesuffix(b"\r")
        return line.partition(b"\0")[0] if self._manners.c_lines else line

    def _longest(self) -> int:
        auth = self._state is State.AUTHENTICATING or self._input[:5].upper() == b"AUTH "
        return self._manners.longest_auth if auth else self._manners.longest

    def _read(self, line: bytes) -> Event | Reply:
        """The line's event, or what is wrong with it."""
        too_long, self._too_long = self._too_long, False
        if self._state is State.AUTHENTICATING:
            # Too long is empty here, which no mechanism takes: the exchange must end, not this line alone.
            return AuthResponse(line)
        if too_long:
            return r.TOO_LONG
        verb, _, argument = line.partition(b" ")
        if self._manners.c_lines:
            argument = argument.lstrip(b" ")
        verb = verb.upper()
        command = self._manners.commands.get(verb)
        if command is None:
            return r.NOT_HTTP if verb in self._manners.foreign else self._manners.unknown
        if self._state not in command.states:
            return r.AUTHORIZED_ALREADY if self._state is State.TRANSACTION else command.otherwise
        return command.read(argument) or r.SYNTAX_ERROR

    def _complain(self, reply: Reply) -> None:
        self._bad += 1
        if self._bad == self._manners.bad_commands:
            reply = r.TOO_MANY_BAD_COMMANDS
        if reply.closing:
            self._state = State.UPDATE
        self._say(reply)

    def _say(self, reply: Reply) -> None:
        self._output += reply.encode(self._manners.dialect)
