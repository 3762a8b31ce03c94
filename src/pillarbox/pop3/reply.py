"""What a POP3 server can say: RFC 1939 section 3 replies with the response codes of RFC 2449 and RFC 3206.

The only place where a Status becomes a POP3 response code. Texts are qmail-popup's and qmail-pop3d's where they have
one. No reply line is longer than RFC 2449 section 4 allows (512 octets).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from pillarbox.status import Refusal, Status

_LONGEST_TEXT = 480

# What these mean is so only of a login: RFC 2449 section 8.1.1 and RFC 3206 section 3. The rest goes by its class.
_LOGIN_CODES = {
    Status(4, 2, 0): b"IN-USE",
    Status(5, 7, 8): b"AUTH",
}


class Kind(Enum):
    """RFC 1939 section 3, and RFC 5034 section 4 for MORE."""

    OK = b"+OK "
    ERR = b"-ERR "
    MORE = b"+ "


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply; `wire` is all of it, ready to send. `closing`: the connection ends after it."""

    kind: Kind
    wire: bytes
    closing: bool = False

    @classmethod
    def of(cls, refusal: Refusal, *, login: bool = False, closing: bool = False) -> Reply:
        """A refusal in POP3's words; `login` when it is a login that was refused."""
        code = b"SYS/PERM" if refusal.permanent else b"SYS/TEMP"
        if login:
            code = _LOGIN_CODES.get(refusal.status, code)
        return err(_printable(refusal.text), code, closing=closing)


def ok(text: bytes, lines: Iterable[bytes] | None = None) -> Reply:
    """A positive reply; with `lines` a multi-line one. No line may begin with a dot or hold a CR or LF."""
    if lines is None:
        return Reply(Kind.OK, announcement(text))
    return Reply(Kind.OK, announcement(text) + b"".join([line + b"\r\n" for line in lines]) + b".\r\n")


def err(text: bytes, code: bytes = b"", *, closing: bool = False) -> Reply:
    """A negative reply, with a response code of RFC 2449 section 8 when there is one."""
    return Reply(Kind.ERR, b"-ERR " + (b"[" + code + b"] " if code else b"") + text + b"\r\n", closing)


def challenge(text: bytes) -> Reply:
    """RFC 5034 section 4: `text` is base64 already."""
    return Reply(Kind.MORE, b"+ " + text + b"\r\n")


def announcement(text: bytes) -> bytes:
    """The first line of a reply whose content somebody else sends."""
    return b"+OK " + text + b"\r\n"


def _printable(text: str) -> bytes:
    """A refusal's text on one line, with nothing in it that could end the line or run a terminal."""
    clean = "".join([letter if " " <= letter <= "~" else "?" for letter in text[:_LONGEST_TEXT]])
    return clean.encode("ascii")


# What effects have sent already needs no more words.
SENT = Reply(Kind.OK, b"")

NAME_TAKEN = ok(b"send your password")
BEGIN_TLS = ok(b"begin TLS")
UTF8_ON = ok(b"UTF-8 it is")
NOTHING_DONE = ok(b"nothing done")
MARKED = ok(b"marked as deleted")
GOODBYE = ok(b"goodbye")

SYNTAX_ERROR = err(b"syntax error")
UNIMPLEMENTED = err(b"unimplemented")
TOO_LONG = err(b"line too long")
TOO_MANY_BAD_COMMANDS = err(b"too many bad commands", closing=True)
NOT_HTTP = err(b"this is not HTTP", closing=True)

AUTHORIZATION_FIRST = err(b"authorization first")
AUTHORIZED_ALREADY = err(b"authorized already")
USER_FIRST = err(b"USER first")
STLS_FIRST = err(b"must issue STLS first")
TLS_ALREADY = err(b"TLS is on already")
NO_TLS = err(b"TLS is not available")
NO_SUCH_MECHANISM = err(b"auth type unimplemented")
AUTH_CANCELLED = err(b"auth exchange cancelled")
AUTH_MALFORMED = err(b"malformed auth input")
# RFC 3206. The same words whoever does not exist or mistyped: they must not tell which.
AUTHORIZATION_FAILED = err(b"authorization failed", b"AUTH")
AUTHORIZATION_FAILED_GOODBYE = err(b"authorization failed", b"AUTH", closing=True)

COUNTED_FROM_ONE = err(b"messages are counted from 1")
NOT_THAT_MANY = err(b"not that many messages")
DELETED_ALREADY = err(b"already deleted")
