"""One line of a maildrop's scan listing, RFC 1939 section 5 (LIST) and 7 (UIDL)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ScanListing:
    """`uid`: 1 to 70 bytes of 0x21 to 0x7E, never changing while the message lives. `octets`: exactly what RETR sends
    before dot-stuffing and without the final dot, line ends being CRLF. For the program qmail-pop3d both are qmail's: a
    file's name, whatever is in it, and its size."""

    uid: bytes
    octets: int
