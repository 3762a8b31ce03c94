"""The order of SMTP commands, RFC 5321 section 4.1.4, as one table."""

from __future__ import annotations

from enum import IntEnum, auto
from typing import Final

from pillarbox.smtp import replies as r
from pillarbox.smtp.reply import Reply


class State(IntEnum):
    """How far the client has come."""

    STRANGER = 0
    """No HELO yet."""
    READY = auto()
    MAIL = auto()
    """A sender is known."""
    RCPT = auto()
    """A recipient too."""
    CHUNKS = auto()
    """And a part of the message, by BDAT."""


# verb -> for each State None (go on) or what we say instead
Order = dict[bytes, tuple[Reply | None, ...]]

_ALWAYS: tuple[Reply | None, ...] = (None,) * len(State)

MODERN: Final[Order] = {
    #          STRANGER       READY         MAIL          RCPT        CHUNKS
    b"MAIL": (r.HELLO_FIRST, None, r.ONE_MAIL, r.ONE_MAIL, r.ONE_MAIL),
    b"RCPT": (r.MAIL_FIRST, r.MAIL_FIRST, None, None, r.MESSAGE_BEGUN),
    b"DATA": (r.MAIL_FIRST, r.MAIL_FIRST, r.RCPT_FIRST, None, r.MESSAGE_BEGUN),
    b"BDAT": (r.MAIL_FIRST, r.MAIL_FIRST, r.RCPT_FIRST, None, None),
    b"AUTH": (r.HELLO_FIRST, None, r.AUTH_IN_MAIL, r.AUTH_IN_MAIL, r.AUTH_IN_MAIL),
    b"STARTTLS": (None, None, r.NOT_IN_TRANSACTION, r.NOT_IN_TRANSACTION, r.NOT_IN_TRANSACTION),
    b"HELO": _ALWAYS,
    b"EHLO": _ALWAYS,
    b"RSET": _ALWAYS,
    b"NOOP": _ALWAYS,
    b"HELP": _ALWAYS,
    b"VRFY": _ALWAYS,
    b"QUIT": _ALWAYS,
}
# qmail-smtpd wants no HELO, begins anew with every MAIL, knows no BDAT and no STARTTLS, and has other things to say of
# AUTH ahead of its order.
QMAIL: Final[Order] = {verb: row for verb, row in MODERN.items() if verb not in (b"BDAT", b"STARTTLS")} | {
    b"MAIL": _ALWAYS,
    b"AUTH": _ALWAYS,
}
