"""The catalogue of everything the SMTP server says, named for what it says. Texts are qmail's where qmail has one."""

from __future__ import annotations

from functools import lru_cache

from pillarbox.smtp.reply import Reply
from pillarbox.status import Refusal, Status


def _reply(code: int, status: str, text: str, qmail: str | None = None, then: Reply | None = None) -> Reply:
    kind, subject, detail = map(int, status.split("."))
    return Reply(code, Status(kind, subject, detail), (text,), qmail, then)


# The connection


@lru_cache(maxsize=8)
def greeting(text: bytes) -> Reply:
    """The first thing said; `text` begins with the host's name."""
    return Reply(220, None, (f"{text.decode('ascii', 'replace')} ESMTP",))


@lru_cache(maxsize=8)
def hello(me: bytes, keywords: tuple[str, ...] = ()) -> Reply:
    """The answer to HELO, and with keywords to EHLO."""
    return Reply(250, None, (me.decode("ascii", "replace"), *keywords))


@lru_cache(maxsize=8)
def goodbye(me: bytes) -> Reply:
    """The answer to QUIT."""
    return _reply(221, "2.0.0", me.decode("ascii", "replace"))


HELLO = hello(b"ok")
"""Yes to HELO and EHLO; the machine says it with its name and extensions."""

BUSY = _reply(421, "4.3.2", "too many connections, come back later")
CONTROLS_UNREADABLE = _reply(421, "4.3.0", "unable to read controls")
OUT_OF_MEMORY = _reply(421, "4.3.0", "out of memory")
ADDRESSES_UNKNOWN = _reply(421, "4.3.0", "unable to figure out my IP addresses")
SHUTTING_DOWN = _reply(421, "4.3.2", "going down, come back later")
TIMEOUT = _reply(421, "4.4.2", "timeout", qmail="451 timeout (#4.4.2)")
TOO_MANY_ERRORS = _reply(421, "4.7.0", "too many errors")
TOO_MANY_FAILURES = _reply(421, "4.7.0", "too many failed logins")
NOT_THE_WEB = _reply(421, "4.7.0", "this is a mail server, not the web")
NOT_COMMANDS = _reply(421, "4.7.0", "that was a message where commands belong")
BARE_NEWLINE = _reply(
    550,
    "5.5.2",
    "lines end with CR LF, both, always",
    qmail="451 See http://pobox.com/~djb/docs/smtplf.html.",
)

# Commands in general

OK = _reply(250, "2.0.0", "ok")
FLUSHED = _reply(250, "2.0.0", "flushed")
HELP = _reply(
    214,
    "2.0.0",
    "this is Pillarbox; it speaks SMTP as in RFC 5321",
    qmail="214 qmail home page: http://pobox.com/~djb/qmail.html",
)
VERIFY = _reply(252, "2.0.0", "send some mail, i'll try my best")
UNIMPLEMENTED = _reply(502, "5.5.1", "unimplemented")
UNREADABLE = _reply(500, "5.5.2", "that is not a command")
LINE_TOO_LONG = _reply(500, "5.5.2", "line too long")
NO_ARGUMENT = _reply(501, "5.5.4", "that command has no argument")
NAME_MISSING = _reply(501, "5.5.4", "say your name")

# Their order

HELLO_FIRST = _reply(503, "5.5.1", "HELO or EHLO first")
ONE_MAIL = _reply(503, "5.5.1", "one MAIL at a time")
MAIL_FIRST = _reply(503, "5.5.1", "MAIL first")
RCPT_FIRST = _reply(503, "5.5.1", "RCPT first")
MESSAGE_BEGUN = _reply(503, "5.5.1", "the message has begun with BDAT")
NOT_IN_TRANSACTION = _reply(503, "5.5.1", "not during a mail transaction")

# Envelope

SENDER_OK = _reply(250, "2.1.0", "ok")
RECIPIENT_OK = _reply(250, "2.1.5", "ok")
MAIL_SYNTAX = _reply(501, "5.5.4", "syntax is MAIL FROM:<address>", qmail="555 syntax error (#5.5.4)")
RCPT_SYNTAX = _reply(501, "5.5.4", "syntax is RCPT TO:<address>", qmail="555 syntax error (#5.5.4)")
NULL_RECIPIENT = _reply(501, "5.1.3", "nobody is reached at <>")
BAD_PARAMETER = _reply(501, "5.5.4", "that parameter has no such value")
UNKNOWN_PARAMETER = _reply(555, "5.5.4", "unknown parameter")


def bad_sender(refusal: Refusal) -> Reply:
    """An address in MAIL that is none."""
    return Reply(501, Status(5, 1, 7), (refusal.text,))


def bad_recipient(refusal: Refusal) -> Reply:
    """An address in RCPT that is none, or one that needs SMTPUTF8."""
    if refusal.status == Status(5, 6, 7):
        return Reply.of(refusal)
    return Reply(501, Status(5, 1, 3), (refusal.text,))


def blocked(refusal: Refusal) -> Reply:
    """rblsmtpd's answer to whom a block list has: 553 or 451, and the list's own words."""
    code = 553 if refusal.permanent else 451
    return Reply(code, refusal.status, (refusal.text,), qmail=f"{code} {refusal.text}")


# Content

GO_AHEAD = Reply(354, None, ("go ahead",))
BDAT_SYNTAX = _reply(501, "5.5.4", "syntax is BDAT octets [LAST]")


_DONE = Status(2, 0, 0)


def accepted(message: bytes) -> Reply:
    """The message is on disk under this id."""
    return Reply(250, _DONE, ("ok " + message.decode("ascii", "replace"),))


def declined(permanent: bool, text: str) -> Reply:
    """What a qmail-queue said of the message; `text` has its status in itself, as in qmail."""
    return Reply(554 if permanent else 451, None, (text,))


# STARTTLS

READY_FOR_TLS = _reply(220, "2.0.0", "ready for TLS")
TLS_ALREADY = _reply(503, "5.5.1", "TLS is on already")
TLS_FIRST = _reply(530, "5.7.0", "must issue a STARTTLS command first")

# AUTH

AUTH_NEEDED = _reply(530, "5.7.0", "authentication required")
AUTH_NEEDS_TLS = _reply(538, "5.7.11", "encryption required: STARTTLS first")
AUTH_UNAVAILABLE = _reply(503, "5.5.1", "auth not available", qmail="503 auth not available (#5.3.3)")
AUTH_ALREADY = _reply(
    503,
    "5.5.1",
    "you're already authenticated",
    qmail="503 you're already authenticated (#5.5.0)",
)
AUTH_IN_MAIL = _reply(
    503,
    "5.5.1",
    "no auth during mail transaction",
    qmail="503 no auth during mail transaction (#5.5.0)",
)
AUTH_TYPE = _reply(504, "5.5.4", "auth type unimplemented", qmail="504 auth type unimplemented (#5.5.1)")
AUTH_CANCELLED = _reply(501, "5.0.0", "auth exchange cancelled")
AUTH_MALFORMED = _reply(501, "5.5.2", "malformed auth input", qmail="501 malformed auth input (#5.5.4)")
AUTH_TOO_LONG = _reply(500, "5.5.6", "line too long")
AUTH_FAILED = _reply(535, "5.7.8", "authorization failed", qmail="535 authorization failed (#5.7.0)")
AUTH_FAILED_LAST = _reply(
    535,
    "5.7.8",
    "authorization failed",
    qmail="535 authorization failed (#5.7.0)",
    then=TOO_MANY_FAILURES,
)


def auth_ok(login: bytes) -> Reply:
    """He is who he says. In qmail's spelling, as with the patch smtpauthlog, by name for who records sessions: no octet
    of it can end the line, or be taken for more than one word."""
    shown = bytes(octet if 32 < octet < 127 else ord("?") for octet in login).decode("ascii")
    return _reply(235, "2.7.0", "ok, go ahead", qmail=f"235 ok, {shown}, go ahead (#2.0.0)")


def challenge(text: bytes) -> Reply:
    """A step of AUTH; `text` is base64."""
    return Reply(334, None, (text.decode("ascii"),))


def auth_trouble(refusal: Refusal, *, last: bool = False) -> Reply:
    """Nobody can say now whether the login is good: RFC 4954 section 6 wants 454, whatever stands in the way. `last`:
    the client is sent away behind it."""
    qmail = f"454 {ascii(refusal.text)[1:-1]} (#{refusal.status})"
    return Reply(454, Status(4, 7, 0), (refusal.text,), qmail=qmail, then=TOO_MANY_FAILURES if last else None)
