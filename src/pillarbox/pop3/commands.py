"""The commands of POP3 (RFC 1939, 2449, 2595, 5034, 6856; RFC 1460's LAST): their grammar, when each is allowed, and
where an answer leads."""

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
from pillarbox.pop3.reply import Reply

# 20 digits hold every 64-bit count that a client may send for "all lines".
_LONGEST_NUMBER = 20
_DIGEST_LENGTH = 32
_HEX = b"0123456789abcdef"


class State(Enum):
    """RFC 1939 sections 4 to 6. NAMED and AUTHENTICATING are within its AUTHORIZATION state; UPDATE also stands for a
    session that has been broken off."""

    AUTHORIZATION = auto()
    NAMED = auto()
    AUTHENTICATING = auto()
    TRANSACTION = auto()
    UPDATE = auto()


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


def plain(event: type[Capa | Stls | Utf8 | Stat | Last | Rset | Noop | Quit]) -> Callable[[bytes], Event | None]:
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


# Before the login, with a name given and none, and after it.
BEFORE = frozenset([State.AUTHORIZATION, State.NAMED])
NAMED = frozenset([State.NAMED])
AFTER = frozenset([State.TRANSACTION])
_EVER = BEFORE | AFTER

COMMANDS = {
    b"CAPA": Command(_EVER, plain(Capa)),
    b"STLS": Command(BEFORE, plain(Stls)),
    b"UTF8": Command(BEFORE, plain(Utf8)),
    b"USER": Command(BEFORE, _user),
    b"PASS": Command(NAMED, _pass, r.USER_FIRST),
    b"APOP": Command(BEFORE, _apop),
    b"AUTH": Command(BEFORE, _auth),
    b"STAT": Command(AFTER, plain(Stat)),
    b"LIST": Command(AFTER, _one_or_all(List)),
    b"UIDL": Command(AFTER, _one_or_all(Uidl)),
    b"RETR": Command(AFTER, _one(Retr)),
    b"TOP": Command(AFTER, _top),
    b"DELE": Command(AFTER, _one(Dele)),
    b"LAST": Command(AFTER, plain(Last)),
    b"RSET": Command(AFTER, plain(Rset)),
    # qmail-popup takes NOOP before the login too.
    b"NOOP": Command(_EVER, plain(Noop)),
    b"QUIT": Command(_EVER, plain(Quit)),
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
