"""What a POP3 server can say: RFC 1939 section 3 replies with the response codes of RFC 2449 and RFC 3206, in two
spellings.

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


class Dialect(Enum):
    """How replies are spelled: `+OK marked as deleted` and `-ERR [AUTH] authorization failed`, or as qmail-popup and
    qmail-pop3d do, without words for people behind `+OK ` and without response codes."""

    MODERN = "modern"
    QMAIL = "qmail"


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply. `text` is its first line's, None where an effect has sent the reply already; `qmail` is that text
    where qmail's is another. `code`: RFC 2449 section 8. `body`: whole lines behind the first one. `closing`: the
    connection ends after it."""

    kind: Kind
    text: bytes | None
    body: bytes = b""
    code: bytes = b""
    closing: bool = False
    qmail: bytes | None = None

    def encode(self, dialect: Dialect) -> bytes:
        """All of it, ready to send."""
        if self.text is None:
            return b""
        if dialect is Dialect.QMAIL:
            return self.kind.value + (self.text if self.qmail is None else self.qmail) + b"\r\n" + self.body
        code = b"[" + self.code + b"] " if self.code else b""
        return self.kind.value + code + self.text + b"\r\n" + self.body

    @classmethod
    def of(cls, refusal: Refusal, *, login: bool = False, closing: bool = False) -> Reply:
        """A refusal in POP3's words; `login` when it is a login that was refused."""
        code = b"SYS/PERM" if refusal.permanent else b"SYS/TEMP"
        if login:
            code = _LOGIN_CODES.get(refusal.status, code)
        return err(_printable(refusal.text), code, closing=closing)


def ok(words: bytes, lines: Iterable[bytes] | None = None) -> Reply:
    """A positive reply, in words for people; with `lines` a multi-line one, of lines without CR, LF and first dot."""
    return Reply(Kind.OK, words, _body(lines), qmail=b"")


def fact(text: bytes, lines: Iterable[bytes] | None = None) -> Reply:
    """A positive reply with what programs read, which is the same in both spellings."""
    return Reply(Kind.OK, text, _body(lines))


def err(text: bytes, code: bytes = b"", *, closing: bool = False) -> Reply:
    """A negative reply, with a response code of RFC 2449 section 8 when there is one."""
    return Reply(Kind.ERR, text, code=code, closing=closing)


def challenge(text: bytes) -> Reply:
    """RFC 5034 section 4: `text` is base64 already."""
    return Reply(Kind.MORE, text)


def _body(lines: Iterable[bytes] | None) -> bytes:
    return b"" if lines is None else b"".join([line + b"\r\n" for line in lines]) + b".\r\n"


def _printable(text: str) -> bytes:
    """A refusal's text on one line, with nothing in it that could end the line or run a terminal."""
    clean = "".join([letter if " " <= letter <= "~" else "?" for letter in text[:_LONGEST_TEXT]])
    return clean.encode("ascii")


# What effects have sent already needs no more words.
SENT = Reply(Kind.OK, None)
SENT_ALL = Reply(Kind.OK, None, closing=True)

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
