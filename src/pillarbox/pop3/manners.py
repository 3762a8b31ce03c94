"""How our POP3 servers differ, in one table: `serve`, and qmail's two programs, which share its machine and session.

qmail-popup and qmail-pop3d read lines as C strings: a NUL ends them, a number is its leading digits, what follows is
ignored. They forbid nothing that is merely odd. Their bound on a line is ours: they had none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from pillarbox.pop3 import reply as r
from pillarbox.pop3.commands import AFTER, BEFORE, COMMANDS, NAMED, Command, plain
from pillarbox.pop3.events import Apop, Capa, Dele, Event, Last, List, Noop, Pass, Quit, Rset, Stat, Top, Uidl, User
from pillarbox.pop3.reply import Dialect, Reply

_DIGITS = b"0123456789"
_MOST_DIGITS = 20  # of a number that is not too big for every maildrop
# A browser made to talk to this port: its next lines are under an attacker's control.
_FOREIGN = frozenset([b"GET", b"HEAD", b"POST", b"PUT", b"OPTIONS", b"CONNECT", b"PATCH", b"DELETE", b"TRACE", b"PRI"])


@dataclass(frozen=True, slots=True)
class Manners:
    """What one server does its own way.

    `longest`, `longest_auth`: octets of a line, before its line feed, and of one of AUTH. `c_lines`: a line ends
    at its first NUL, and all blanks between verb and argument go, those ahead of a password too. `bad_commands`: after
    so many in a row the session ends; None: never. `foreign`: verbs of other protocols, which end it at once.
    `unknown`: the answer to any other verb. `capabilities`: what CAPA says, always; None: what holds just now.
    `hands_over`: a login is checked, and the rest of the session led, by another program. `counts_deleted`: STAT's
    count does. `quits_anyway`: QUIT is answered well after trouble was told."""

    dialect: Dialect
    commands: Mapping[bytes, Command]
    unknown: Reply
    longest: int
    longest_auth: int
    c_lines: bool
    bad_commands: int | None
    foreign: frozenset[bytes]
    capabilities: tuple[bytes, ...] | None
    hands_over: bool
    counts_deleted: bool
    quits_anyway: bool


def _digits(text: bytes) -> tuple[int | None, bytes]:
    """The number that a text begins with (None: it does not), and the rest, as qmail's scan_ulong finds them. What is
    absurdly large stays so, where C's number would begin again at 0."""
    rest = text.lstrip(_DIGITS)
    digits = text[: len(text) - len(rest)]
    return int(digits.lstrip(b"0")[: _MOST_DIGITS + 1] or b"0") if digits else None, rest


def _one(event: Callable[[int], Event]) -> Callable[[bytes], Event | None]:
    def read(argument: bytes) -> Event | None:
        number, _rest = _digits(argument)
        return None if number is None else event(number)

    return read


def _one_or_all(event: type[List | Uidl]) -> Callable[[bytes], Event | None]:
    one = _one(event)
    return lambda argument: one(argument) if argument else event(None)


def _message(argument: bytes) -> Event | None:
    """RETR and TOP are one."""
    number, rest = _digits(argument)
    lines, _rest = _digits(rest.lstrip(b" "))
    return None if number is None else Top(number, lines)


def _user(argument: bytes) -> Event | None:
    return User(argument) if argument else None


def _pass(argument: bytes) -> Event | None:
    return Pass(argument) if argument else None


def _apop(argument: bytes) -> Event | None:
    name, space, digest = argument.partition(b" ")
    return Apop(name, digest) if space else None


_POPUP = {
    b"CAPA": Command(BEFORE, plain(Capa)),
    b"USER": Command(BEFORE, _user),
    b"PASS": Command(NAMED, _pass, r.USER_FIRST),
    b"APOP": Command(BEFORE, _apop),
    b"NOOP": Command(BEFORE, plain(Noop)),
    b"QUIT": Command(BEFORE, plain(Quit)),
}

_POP3D = {
    b"CAPA": Command(AFTER, plain(Capa)),
    b"STAT": Command(AFTER, plain(Stat)),
    b"LIST": Command(AFTER, _one_or_all(List)),
    b"UIDL": Command(AFTER, _one_or_all(Uidl)),
    b"RETR": Command(AFTER, _message),
    b"TOP": Command(AFTER, _message),
    b"DELE": Command(AFTER, _one(Dele)),
    b"LAST": Command(AFTER, plain(Last)),
    b"RSET": Command(AFTER, plain(Rset)),
    b"NOOP": Command(AFTER, plain(Noop)),
    b"QUIT": Command(AFTER, plain(Quit)),
}

SERVE = Manners(
    dialect=Dialect.MODERN,
    commands=COMMANDS,
    unknown=r.UNIMPLEMENTED,
    longest=4096,  # RFC 2449 section 4 allows 255 and RFC 6856 more
    longest_auth=12288,  # RFC 5034 section 4
    c_lines=False,
    bad_commands=10,
    foreign=_FOREIGN,
    capabilities=None,
    hands_over=False,
    counts_deleted=False,
    quits_anyway=False,
)

_QMAIL_CAPABILITIES = (b"TOP", b"USER", b"LAST", b"UIDL")

POPUP = Manners(
    dialect=Dialect.QMAIL,
    commands=_POPUP,
    unknown=r.AUTHORIZATION_FIRST,
    longest=65536,
    longest_auth=65536,
    c_lines=True,
    bad_commands=None,
    foreign=frozenset(),
    capabilities=_QMAIL_CAPABILITIES,
    hands_over=True,
    counts_deleted=False,
    quits_anyway=False,
)

POP3D = replace(
    POPUP, commands=_POP3D, unknown=r.UNIMPLEMENTED, hands_over=False, counts_deleted=True, quits_anyway=True
)
