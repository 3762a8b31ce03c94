"""What a POP3 client can ask (RFC 1939; RFC 1460's LAST; RFC 2449, 2595, 5034, 6856), as values. An answer is owed to
each. All text is bytes as sent; message numbers count from 1 and have not been compared with the maildrop."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Capa:
    """RFC 2449 section 5."""


@dataclass(frozen=True, slots=True)
class Stls:
    """RFC 2595 section 4. After a positive answer the machine wants TLS."""


@dataclass(frozen=True, slots=True)
class Utf8:
    """RFC 6856 section 2.1."""


@dataclass(frozen=True, slots=True)
class User:
    """`name` is not empty and has no NUL."""

    name: bytes


@dataclass(frozen=True, slots=True)
class Pass:
    """`password` is all that follows the first space, spaces included; not empty, no NUL."""

    password: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Apop:
    """RFC 1939 section 7. `digest` is 32 lowercase hex digits."""

    name: bytes
    digest: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Mechanisms:
    """AUTH without an argument: which mechanisms are there? No RFC has it; old clients ask it."""


@dataclass(frozen=True, slots=True)
class Auth:
    """RFC 5034 section 4. `initial` is base64 as sent, None when there is none."""

    mechanism: bytes
    initial: bytes | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class AuthResponse:
    """The client's line after a `+ ` answer, as sent."""

    line: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Stat:
    """Count and octets of the maildrop."""


@dataclass(frozen=True, slots=True)
class List:
    """Sizes: of one message, or of all when `number` is None."""

    number: int | None


@dataclass(frozen=True, slots=True)
class Uidl:
    """Unique ids: of one message, or of all when `number` is None."""

    number: int | None


@dataclass(frozen=True, slots=True)
class Retr:
    """The whole message."""

    number: int


@dataclass(frozen=True, slots=True)
class Top:
    """Header, blank line and `lines` lines of the body; None (no count given, as qmail-pop3d takes it): all of it."""

    number: int
    lines: int | None


@dataclass(frozen=True, slots=True)
class Dele:
    """Mark a message as deleted."""

    number: int


@dataclass(frozen=True, slots=True)
class Last:
    """RFC 1460 section 5: the highest message number accessed."""


@dataclass(frozen=True, slots=True)
class Rset:
    """Take back all deletion marks."""


@dataclass(frozen=True, slots=True)
class Noop:
    """Nothing."""


@dataclass(frozen=True, slots=True)
class Quit:
    """Whatever is answered, the session is over afterwards."""


Event = (
    Capa
    | Stls
    | Utf8
    | User
    | Pass
    | Apop
    | Mechanisms
    | Auth
    | AuthResponse
    | Stat
    | List
    | Uidl
    | Retr
    | Top
    | Dele
    | Last
    | Rset
    | Noop
    | Quit
)
