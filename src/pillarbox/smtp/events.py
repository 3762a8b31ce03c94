"""What an SMTP client asks or brings, as values. Each is owed an answer, but for Chunk and Content."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple


class Hello(NamedTuple):
    """HELO or, when `extended`, EHLO. A transaction under way is over."""

    name: bytes
    extended: bool


@dataclass(frozen=True, slots=True)
class StartTls:
    """STARTTLS, RFC 3207."""


@dataclass(frozen=True, slots=True)
class Auth:
    """AUTH, RFC 4954: mechanism in upper case, initial response as sent (base64 or b"="), None without one."""

    mechanism: bytes
    initial: bytes | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class AuthResponse:
    """The client's line after a 334, as sent: base64, or b"*" to cancel."""

    line: bytes = field(repr=False)


class Mail(NamedTuple):
    """MAIL FROM. `sender` raw, b"" for <>; `size` octets declared (RFC 1870); `body` b"7BIT" or b"8BITMIME" (RFC 6152);
    `auth` as sent (RFC 4954 section 5)."""

    sender: bytes
    size: int | None = None
    body: bytes | None = None
    smtputf8: bool = False
    auth: bytes | None = None


class Rcpt(NamedTuple):
    """RCPT TO; `recipient` raw."""

    recipient: bytes


@dataclass(frozen=True, slots=True)
class Data:
    """DATA: may the content come? A 3xx answer lets it."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """BDAT (RFC 3030) of `size` octets begins; no answer yet."""

    size: int
    last: bool


class Content(NamedTuple):
    """Some of the content, in stored form; no answer. Trouble with it is told at the end."""

    block: bytes


@dataclass(frozen=True, slots=True)
class EndOfData:
    """The lone dot has come: what became of the message?"""


@dataclass(frozen=True, slots=True)
class EndOfChunk:
    """All octets of a chunk have come; with `last` the message is whole."""

    last: bool


@dataclass(frozen=True, slots=True)
class Reset:
    """RSET."""


@dataclass(frozen=True, slots=True)
class Verify:
    """VRFY."""

    text: bytes


@dataclass(frozen=True, slots=True)
class Quit:
    """QUIT."""


Event = (
    Hello
    | StartTls
    | Auth
    | AuthResponse
    | Mail
    | Rcpt
    | Data
    | Chunk
    | Content
    | EndOfData
    | EndOfChunk
    | Reset
    | Verify
    | Quit
)
