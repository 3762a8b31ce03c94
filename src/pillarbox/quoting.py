"""Addresses as they stand in header fields and commands: the one quoter. Apart from the parser, because every program
that sends needs it, and the parser takes time to import."""

from __future__ import annotations

import re
from typing import Final

ATEXT: Final = rb"A-Za-z0-9!#$%&'*+/=?^_`{|}~\-"
"""What an atom is made of (RFC 5322 section 3.2.3), as a class of a regular expression."""

_SPECIAL = re.compile(rb'([\r\n"\\])')
_PLAIN = re.compile(rb"[" + ATEXT + rb"]+(?:\.[" + ATEXT + rb"]+)*\Z")


def quote(address: bytes) -> bytes:
    """The address as it stands between < and >: its local part quoted where needed (qmail's quote2).

    Addresses with CR or LF come out with these bytes behind a backslash: they may go into no protocol line.
    """
    if not address:
        return b""
    local, at, domain = address.rpartition(b"@")
    if not at:
        return _quote_local(address)
    return _quote_local(local) + at + domain


def _quote_local(local: bytes) -> bytes:
    if _PLAIN.match(local):
        return local
    return b'"' + _SPECIAL.sub(rb"\\\1", local) + b'"'
