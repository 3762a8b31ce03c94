r"""Arguments of SMTP commands as qmail-smtpd reads them: nearly everything is an address.

The one rule is the length; parameters are not looked at. What comes out may hold any octet but NUL, so nothing but
qmail's own dialect may be spoken with it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from pillarbox.address import LONGEST
from pillarbox.smtp import replies as r
from pillarbox.smtp.events import Auth, Mail, Rcpt
from pillarbox.smtp.reply import Reply

Rename = Callable[[bytes], bytes]
"""What stands for the host of an address that is [IN.BRACKETS]: control/localiphost for our own, else what it was."""

# An escaped octet, a quotation mark, a run of others; a lone backslash at the very end says nothing.
_PIECE: Final = re.compile(rb'\\(.)|"|[^\\"]+', re.DOTALL)


def mail(argument: bytes, rename: Rename) -> Mail | Reply:
    """MAIL's argument."""
    sender = path(argument, rename)
    return r.MAIL_SYNTAX if sender is None else Mail(sender)


def rcpt(argument: bytes, rename: Rename) -> Rcpt | Reply:
    """RCPT's argument."""
    recipient = path(argument, rename)
    return r.RCPT_SYNTAX if recipient is None else Rcpt(recipient)


def auth(argument: bytes) -> Auth:
    """AUTH's argument; nothing behind the mechanism's name is no initial response."""
    mechanism, _, initial = argument.partition(b" ")
    return Auth(mechanism.upper(), initial.lstrip(b" ") or None)


def path(argument: bytes, rename: Rename) -> bytes | None:
    """qmail-smtpd's addrparse: the raw address, None when it is too long.

    What stands behind the first <, up to > or the end; without < behind the first colon, up to a space. A source route
    is dropped, quotation marks and backslashes are taken off.
    """
    _, opened, text = argument.partition(b"<")
    end = b">"
    if not opened:
        text, end = argument.partition(b":")[2].lstrip(b" "), b" "
    if text.startswith(b"@"):
        text = text.partition(b":")[2]
    address = _unquoted(text, end)
    user, at, host = address.rpartition(b"@")
    if at and host.startswith(b"["):
        address = user + at + rename(host)
    return address if len(address) <= LONGEST else None


def _unquoted(text: bytes, end: bytes) -> bytes:
    """Up to the first `end` that is neither escaped nor between quotation marks."""
    taken: list[bytes] = []
    quoted = False
    for piece in _PIECE.finditer(text):
        octets = piece[0]
        if octets == b'"':
            quoted = not quoted
        elif piece[1] is not None:
            taken.append(piece[1])
        elif quoted or end not in octets:
            taken.append(octets)
        else:
            taken.append(octets[: octets.index(end)])
            break
    return b"".join(taken)
