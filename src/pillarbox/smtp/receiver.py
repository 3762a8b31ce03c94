"""The server's side of SMTP (RFC 5321) without I/O: bytes in, events out, answers in, bytes out.

Each event is a question, and the next one comes only when it is answered (Chunk and Content want no answer); a positive
answer advances the order of commands. What the machine can say by itself it says. The rules that must stay true: octets
of a message are never read as commands, nothing that came before a TLS handshake counts after it, every buffer has a
bound, and how the input is cut into pieces changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from operator import attrgetter, methodcaller
from typing import Any, Final

from pillarbox.content import ChunkDecoder, Unstuffer
from pillarbox.smtp import commands, lax
from pillarbox.smtp import replies as r
from pillarbox.smtp.commands import COMMANDS
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
from pillarbox.smtp.incoming import Incoming
from pillarbox.smtp.offer import Limits, Offer, ehlo
from pillarbox.smtp.order import MODERN, QMAIL, State
from pillarbox.smtp.reply import Dialect, Reply

_UNANSWERED: Final = (Content, Chunk)
_BLOCK: Final = 65536  # octets of content in one event
# A web page can make a browser post to us what the page wants: it must not get as far as the body (chasquid, Postfix).
_WEB: Final = frozenset(
    (b"GET", b"POST", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"TRACE", b"CONNECT", b"PATCH", b"PRI")
)


class _Progress(Enum):
    AGAIN = auto()  # something was done, without an event
    WAIT = auto()  # nothing can be done with what has come


_Step = Event | _Progress
_AGAIN: Final = _Progress.AGAIN
_WAIT: Final = _Progress.WAIT
_MODERN: Final = Dialect.MODERN
_SPELL_MODERN: Final = attrgetter("modern")
_SPELL_QMAIL: Final = methodcaller("encode", Dialect.QMAIL)
_END_OF_DATA: Final = EndOfData()


class Receiver(Incoming):
    """One SMTP connection, server's side. `me` is the host's name, `greeting` what stands before ESMTP (b"": `me`).
    `rename` is asked in qmail's dialect about hosts of addresses in brackets."""

    __slots__ = (
        "_asked", "_authenticated", "_bad", "_chunks", "_commands", "_content", "_dialect", "_farewell", "_greeting",
        "_idle", "_last", "_left", "_longest", "_longest_command", "_me", "_most_bad", "_offer", "_order", "_out",
        "_read", "_refused", "_rename", "_secure", "_spell", "_state", "_utf8", "_wary", "closing", "wants_tls",
    )  # fmt: skip
    # Made with each message, for its content.
    _content: Unstuffer
    _chunks: ChunkDecoder

    def __init__(
        self,
        me: bytes,
        *,
        greeting: bytes = b"",
        dialect: Dialect = Dialect.MODERN,
        offer: Offer = Offer(),
        limits: Limits = Limits(),
        rename: lax.Rename = bytes,
    ) -> None:
        self._me = me
        self._greeting = greeting or me
        self._dialect = dialect
        modern = dialect is _MODERN
        self._order = MODERN if modern else QMAIL
        self._spell: Callable[[Reply], bytes] = _SPELL_MODERN if modern else _SPELL_QMAIL
        self._commands: _Reader = Receiver._read_command if modern else Receiver._read_qmail_command
        self._rename: lax.Rename = rename
        self._offer = offer
        self._longest = limits.auth_line
        self._longest_command = limits.command_line - 2  # octets without CR LF
        self._most_bad = limits.bad_commands
        self._secure = False
        self._begin_anew()

    def _begin_anew(self) -> None:
        """Nothing was said so far, on either side."""
        self.forget()
        self._read = self._commands  # what reads the octets that come now
        self.wants_tls = False
        """Send what there is, then make the handshake and call `secured`; no events until then."""
        self.closing = False
        """Send what there is, then close."""
        self._out: list[bytes] = []
        self._asked: Event | None = None
        self._farewell: Reply | None = None
        self._state = self._idle = State.STRANGER
        self._authenticated = False
        self._utf8 = False  # the transaction has SMTPUTF8
        self._bad = 0  # bad commands in a row
        self._wary = False  # DATA was refused just now
        self._left = 0  # octets of the chunk still to come
        self._last = False  # it is the last one
        self._refused: Reply | None = None  # what to say when the chunk, out of order, is over

    # what a driver calls

    def greet(self) -> None:
        """Say who we are; over TLS from the start, call `secured` before."""
        self._say(r.greeting(self._greeting))

    def eof(self) -> None:
        """The client sends no more. What came whole is still answered; half a command or message is nothing."""

    def next_event(self) -> Event | None:
        """The next question, or None: first more octets, an answer, or a TLS handshake is needed."""
        while self._asked is None and not self.drained:
            step = self._read(self)
            if step is _WAIT:
                return None
            if step is not _AGAIN:
                if type(step) not in _UNANSWERED:
                    self._asked = step
                return step
        return None

    def answer(self, reply: Reply) -> None:
        """The answer to the last event; a positive one advances the conversation. The one to Hello, if positive, is
        said with our name and extensions."""
        event, self._asked = self._asked, None
        assert event is not None, "nothing was asked"
        if reply.positive:
            self._bad = 0
            if type(event) is Hello:
                reply = self._hello(event)
        self._out.append(self._spell(reply))
        _ADVANCES[type(event)](self, event, reply)
        if reply.final:
            self._close()
        if self._farewell is not None:
            self.dismiss(self._farewell)

    def dismiss(self, reply: Reply) -> None:
        """Say this (a 421) and close; when an answer is owed, right behind it."""
        if self._asked is not None:
            self._farewell = reply
        elif not self.closing:
            self._hang_up(reply)

    def secured(self) -> None:
        """The TLS handshake is done. Nothing said before counts any more (RFC 3207 section 4.2); least of all what came
        in clear behind STARTTLS, for anybody on the way may have put it there."""
        self._begin_anew()
        self._secure = True

    def data_to_send(self) -> bytes:
        """Octets for the client since the last call."""
        if not self._out:
            return b""
        octets = b"".join(self._out)
        self._out.clear()
        return octets

    # octets to events

    def _read_command(self) -> _Step:
        line = self.line(self._longest)
        if line is None:
            return _WAIT
        if self.flawed and (flawed := self._flawed(r.LINE_TOO_LONG)) is not None:
            return flawed
        command = COMMANDS[line]
        verb, row = command.verb, command.row
        if len(line) > self._longest_command and verb != b"AUTH":
            return self._bad_command(r.LINE_TOO_LONG)
        if row is None:
            return self._unknown(verb)
        self._wary = False
        refusal = row[self._state]
        if refusal is not None and verb != b"BDAT":
            self._wary = verb == b"DATA"
            return self._bad_command(refusal)
        read = command.read
        step = _COMMANDS[verb](self, command.argument) if read is None else read
        return self._bad_command(step) if isinstance(step, Reply) else step

    def _read_qmail_command(self) -> _Step:
        """qmail-smtpd: a NUL ends the line, mistakes are not counted, nobody is suspected."""
        line = self.line(self._longest)
        if line is None:
            return _WAIT
        if self.flawed and (flawed := self._flawed(r.LINE_TOO_LONG)) is not None:
            return flawed
        verb, _, argument = line.partition(b"\0")[0].partition(b" ")
        verb = verb.upper()
        row = self._order.get(verb)
        refusal = r.UNIMPLEMENTED if row is None else row[self._state]
        step = _QMAIL_COMMANDS[verb](self, argument.lstrip(b" ")) if refusal is None else refusal
        if isinstance(step, Reply):
            self._say(step)
            return _AGAIN
        return step

    def _unknown(self, verb: bytes) -> _Step:
        if verb in _WEB:
            return self._hang_up(r.NOT_THE_WEB)
        if self._wary:
            # A client that does not wait for 354 is sending its message: not one more line of it is a command.
            return self._hang_up(r.NOT_COMMANDS)
        return self._bad_command(r.UNIMPLEMENTED if verb.isalnum() else r.UNREADABLE)

    def _read_response(self) -> _Step:
        line = self.line(self._longest)
        if line is None:
            return _WAIT
        if self.flawed and (flawed := self._flawed(r.AUTH_TOO_LONG)) is not None:
            return flawed
        self._read = self._commands
        return AuthResponse(line)

    def _read_content(self) -> _Step:
        block = self.take(_BLOCK)
        if not block:
            return _WAIT
        content = self._content
        text = content.feed(block)
        if content.bare_newline:
            return self._hang_up(r.BARE_NEWLINE)
        if content.finished:
            if content.rest:
                self.give_back(block[-content.rest :])
            self._read = Receiver._end_content
        return Content(text) if text else _AGAIN

    def _end_content(self) -> _Step:
        self._read = self._commands
        return _END_OF_DATA

    def _read_chunk(self) -> _Step:
        if not self._left:
            return self._end_chunk()
        block = self.take(min(self._left, _BLOCK))
        if not block:
            return _WAIT
        self._left -= len(block)
        if self._refused is not None:
            return _AGAIN
        text = self._chunks.feed(block)
        if self._chunks.bare_newline:
            return self._hang_up(r.BARE_NEWLINE)
        return Content(text) if text else _AGAIN

    def _end_chunk(self) -> _Step:
        refused, self._refused = self._refused, None
        if refused is None and self._last and (rest := self._chunks.finish()):
            return Content(rest)
        self._read = self._commands
        return EndOfChunk(self._last) if refused is None else self._bad_command(refused)

    def _flawed(self, too_long: Reply) -> _Progress | None:
        """What to do about a line that is bare or overlong. None: take it; qmail-smtpd takes bare ones."""
        if self.bare and self._dialect is _MODERN:
            return self._hang_up(r.BARE_NEWLINE)
        if not self.overlong:
            return None
        self._read = self._commands
        return self._bad_command(too_long)

    # commands to events, or to the reply that refuses them

    def _on_rcpt(self, argument: bytes) -> _Step | Reply:
        return commands.rcpt(argument, utf8=self._utf8)

    def _on_data(self, _argument: bytes) -> _Step | Reply:
        self._wary = True
        return r.NO_ARGUMENT

    def _on_bdat(self, argument: bytes) -> _Step | Reply:
        chunk = commands.bdat(argument)
        if isinstance(chunk, Reply):
            # Without a size nobody knows where the octets end and commands begin again.
            return self._hang_up(chunk)
        self._read = Receiver._read_chunk
        self.drained = False  # a chunk of no octets is over without one
        self._left, self._last = chunk.size, chunk.last
        self._refused = self._order[b"BDAT"][self._state]
        if self._refused is not None:
            return _AGAIN
        if self._state is State.RCPT:
            self._chunks = ChunkDecoder()
            self._state = State.CHUNKS
        return chunk

    def _on_noop(self, _argument: bytes) -> _Step | Reply:
        self._say(r.OK)
        return _AGAIN

    def _on_help(self, _argument: bytes) -> _Step | Reply:
        self._say(r.HELP)
        return _AGAIN

    def _on_starttls(self, argument: bytes) -> _Step | Reply:
        if self._secure:
            return r.TLS_ALREADY
        if not self._offer.starttls:
            return r.UNIMPLEMENTED
        return r.NO_ARGUMENT if argument else StartTls()

    def _on_auth(self, argument: bytes) -> _Step | Reply:
        if not self._offer.mechanisms:
            return r.AUTH_UNAVAILABLE
        if not self._secure and not self._offer.cleartext:
            return r.AUTH_NEEDS_TLS
        return r.AUTH_ALREADY if self._authenticated else commands.auth(argument)

    def _on_qmail_auth(self, argument: bytes) -> _Step | Reply:
        if not self._offer.mechanisms:
            return r.AUTH_UNAVAILABLE
        if self._authenticated:
            return r.AUTH_ALREADY
        return r.AUTH_IN_MAIL if self._state > State.READY else lax.auth(argument)

    # answers to states

    def _advance_hello(self, event: Hello, reply: Reply) -> None:
        if reply.positive:
            self._state = self._idle = State.READY

    def _advance_reset(self, event: Reset, reply: Reply) -> None:
        if reply.positive:
            self._state = self._idle

    def _advance_mail(self, event: Mail, reply: Reply) -> None:
        if reply.positive:
            self._state = State.MAIL
            self._utf8 = event.smtputf8

    def _advance_rcpt(self, event: Rcpt, reply: Reply) -> None:
        if reply.positive:
            self._state = State.RCPT

    def _advance_data(self, event: Data, reply: Reply) -> None:
        if reply.positive:
            self._read = Receiver._read_content
            self._content = Unstuffer()
        else:
            self._wary = True
            if self._dialect is not _MODERN:
                self._state = self._idle

    def _advance_end_of_data(self, event: EndOfData, reply: Reply) -> None:
        self._state = self._idle

    def _advance_end_of_chunk(self, event: EndOfChunk, reply: Reply) -> None:
        # RFC 3030 section 2: one refused chunk refuses the message; chunks behind it are out of order now.
        if event.last or not reply.positive:
            self._state = self._idle

    def _advance_starttls(self, event: StartTls, reply: Reply) -> None:
        if reply.positive:
            self.wants_tls = True
            self._hear_nothing()

    def _stay(self, event: Verify, reply: Reply) -> None:
        """Nothing follows from it."""

    def _advance_quit(self, event: Quit, reply: Reply) -> None:
        self._close()

    def _advance_auth(self, event: Auth | AuthResponse, reply: Reply) -> None:
        if reply.code == 334:
            self._read = Receiver._read_response
        elif reply.positive:
            self._authenticated = True

    def _hello(self, event: Hello) -> Reply:
        if not event.extended:
            return r.hello(self._me)
        return ehlo(self._me, self._dialect, self._offer, self._secure, self._authenticated)

    def _say(self, reply: Reply) -> None:
        self._out.append(self._spell(reply))

    def _bad_command(self, reply: Reply) -> _Progress:
        self._say(reply)
        self._bad += 1
        return self._hang_up(r.TOO_MANY_ERRORS) if self._bad >= self._most_bad else _AGAIN

    def _hang_up(self, reply: Reply) -> _Progress:
        self._say(reply)
        self._close()
        return _WAIT

    def _close(self) -> None:
        self.closing = True
        self._hear_nothing()

    def _hear_nothing(self) -> None:
        """Neither what has come already nor what comes."""
        if not self.drained:
            self.forget()
        self.deaf = True


_Reader = Callable[[Receiver], _Step]
# event -> what its answer does to the state; Any: the key says which event a method takes
_ADVANCES: Final[dict[type[Event], Callable[[Receiver, Any, Reply], None]]] = {
    Hello: Receiver._advance_hello,
    Reset: Receiver._advance_reset,
    Mail: Receiver._advance_mail,
    Rcpt: Receiver._advance_rcpt,
    Data: Receiver._advance_data,
    EndOfData: Receiver._advance_end_of_data,
    EndOfChunk: Receiver._advance_end_of_chunk,
    StartTls: Receiver._advance_starttls,
    Verify: Receiver._stay,
    Quit: Receiver._advance_quit,
    Auth: Receiver._advance_auth,
    AuthResponse: Receiver._advance_auth,
}
# What a line alone does not say.
_COMMANDS: Final[dict[bytes, Callable[[Receiver, bytes], _Step | Reply]]] = {
    b"RCPT": Receiver._on_rcpt,
    b"DATA": Receiver._on_data,
    b"BDAT": Receiver._on_bdat,
    b"NOOP": Receiver._on_noop,
    b"HELP": Receiver._on_help,
    b"VRFY": lambda receiver, argument: Verify(argument),
    b"STARTTLS": Receiver._on_starttls,
    b"AUTH": Receiver._on_auth,
}
_QMAIL_COMMANDS: Final[dict[bytes, Callable[[Receiver, bytes], _Step | Reply]]] = _COMMANDS | {
    b"HELO": lambda receiver, argument: Hello(argument, extended=False),
    b"EHLO": lambda receiver, argument: Hello(argument, extended=True),
    b"MAIL": lambda receiver, argument: lax.mail(argument, receiver._rename),
    b"RCPT": lambda receiver, argument: lax.rcpt(argument, receiver._rename),
    b"DATA": lambda receiver, argument: Data(),
    b"RSET": lambda receiver, argument: Reset(),
    b"QUIT": lambda receiver, argument: Quit(),
    b"AUTH": Receiver._on_qmail_auth,
}
