"""SMTP commands and their arguments: text in, an event or the reply that says what is wrong with it out."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pillarbox.address import BadPath, parse_path
from pillarbox.smtp import replies as r
from pillarbox.smtp.events import Auth, Chunk, Data, Event, Hello, Mail, Quit, Rcpt, Reset
from pillarbox.smtp.order import MODERN
from pillarbox.smtp.reply import Reply
from pillarbox.status import Status

_MOST_DIGITS: Final = 20  # RFC 1870 section 3: size-value is 1*20DIGIT
_KNOWN: Final = 2000  # commands that are not read anew when they come again
_LONGEST_KNOWN: Final = 100  # octets of one of them
_NEEDS_SMTPUTF8 = BadPath("that address needs SMTPUTF8", Status(5, 6, 7)).refusal
_CONTROL = re.compile(rb"[\0-\x1f\x7f]")
_MECHANISM = re.compile(rb"[A-Za-z0-9_-]{1,20}\Z")


@dataclass(slots=True)
class Command:
    """A line with a command; nobody changes one that was made. `verb` in upper case, `argument` without blanks around
    it, `row`: of the table of order (None: no such command). `read`: the event that it is or the reply that refuses it,
    where the line alone says so."""

    verb: bytes
    argument: bytes
    row: tuple[Reply | None, ...] | None
    read: Event | Reply | None


class _Commands(dict[bytes, Command]):
    """Lines without their end, as the commands they are."""

    def __missing__(self, line: bytes) -> Command:
        verb, _, argument = line.partition(b" ")
        verb, argument = verb.upper(), argument.strip(b" ")
        row, read = MODERN.get(verb), _READ.get(verb)
        command = Command(verb, argument, row, None if read is None else read(argument))
        # The same clients come again, and the same people get mail. AUTH's argument can be a password.
        if row is not None and verb != b"AUTH" and len(line) <= _LONGEST_KNOWN:
            if len(self) >= _KNOWN:
                self.clear()
            self[line] = command
        return command


COMMANDS: Final = _Commands()
"""A line without its end -> the command that it is."""


def hello(argument: bytes, *, extended: bool) -> Hello | Reply:
    """The argument of HELO or EHLO: a name of some kind."""
    return r.NAME_MISSING if not argument or _CONTROL.search(argument) else Hello(argument, extended)


def mail(argument: bytes) -> Mail | Reply:
    """MAIL's argument: FROM:<path> and the parameters SIZE, BODY, SMTPUTF8, AUTH."""
    if argument[:5].upper() != b"FROM:":
        return r.MAIL_SYNTAX
    try:
        sender, parameters = parse_path(argument[5:], utf8=True)
    except BadPath as problem:
        return r.bad_sender(problem.refusal)
    event = _mail_parameters(sender, parameters) if parameters else Mail(sender)
    # SMTPUTF8 stands behind the address that needs it, so this can be known only now.
    if isinstance(event, Mail) and not event.smtputf8 and not sender.isascii():
        return Reply.of(_NEEDS_SMTPUTF8)
    return event


def rcpt(argument: bytes, *, utf8: bool) -> Rcpt | Reply:
    """RCPT's argument: TO:<path>; `utf8` as MAIL had SMTPUTF8. There is no parameter that we know."""
    if argument[:3].upper() != b"TO:":
        return r.RCPT_SYNTAX
    try:
        recipient, parameters = parse_path(argument[3:], utf8=utf8)
    except BadPath as problem:
        return r.bad_recipient(problem.refusal)
    if not recipient:
        return r.NULL_RECIPIENT
    return r.UNKNOWN_PARAMETER if parameters.strip(b" ") else Rcpt(recipient)


def bdat(argument: bytes) -> Chunk | Reply:
    """BDAT's argument: RFC 3030 section 2."""
    size, _, last = argument.partition(b" ")
    last = last.strip(b" ").upper()
    if not size.isdigit() or len(size) > _MOST_DIGITS or last not in (b"", b"LAST"):
        return r.BDAT_SYNTAX
    return Chunk(int(size), last=bool(last))


def auth(argument: bytes) -> Auth | Reply:
    """AUTH's argument: RFC 4954 section 4."""
    mechanism, blank, initial = argument.partition(b" ")
    if not _MECHANISM.match(mechanism):
        return r.AUTH_TYPE
    return Auth(mechanism.upper(), initial if blank else None)


def _mail_parameters(sender: bytes, parameters: bytes) -> Mail | Reply:
    given: dict[bytes, bytes] = {}
    for parameter in parameters.split(b" "):
        if not parameter:
            continue
        keyword, _, value = parameter.partition(b"=")
        keyword = keyword.upper()
        if keyword not in _VALUES:
            return r.UNKNOWN_PARAMETER
        if keyword in given or not _VALUES[keyword].match(value):
            return r.BAD_PARAMETER
        given[keyword] = value
    size = given.get(b"SIZE")
    body = given.get(b"BODY")
    return Mail(
        sender,
        size=None if size is None else int(size),
        body=None if body is None else body.upper(),
        smtputf8=b"SMTPUTF8" in given,
        auth=given.get(b"AUTH"),
    )


def _ascii_rcpt(argument: bytes) -> Rcpt | None:
    """An address that is good with SMTPUTF8 and without."""
    event = rcpt(argument, utf8=False)
    return event if isinstance(event, Rcpt) else None


# verb -> how its argument is read where it means the same in every state
_READ: Final[dict[bytes, Callable[[bytes], Event | Reply | None]]] = {
    b"HELO": lambda argument: hello(argument, extended=False),
    b"EHLO": lambda argument: hello(argument, extended=True),
    b"MAIL": mail,
    b"RCPT": _ascii_rcpt,
    b"DATA": lambda argument: None if argument else Data(),
    b"RSET": lambda argument: r.NO_ARGUMENT if argument else Reset(),
    b"QUIT": lambda argument: Quit(),
}
# keyword -> what its value must look like; the regular expressions hold no more than what they let through
_VALUES: Final = {
    b"SIZE": re.compile(rb"[0-9]{1,20}\Z"),
    b"BODY": re.compile(rb"(?:7BIT|8BITMIME)\Z", re.IGNORECASE),
    b"SMTPUTF8": re.compile(rb"\Z"),
    b"AUTH": re.compile(rb"(?:<>|(?:[!-*,-<>-~]|\+[0-9A-F]{2})+)\Z"),
}
