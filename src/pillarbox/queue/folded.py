"""Recipients of a message that has just come, folded into one value of the message's row.

Most messages have few recipients and end with the first attempt: no recipient of theirs ever needs a row of its own,
with its place in the order of due times. Until one does, all of them wait, due at the message's birth.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

FEW = 8  # recipients of a message that is folded, at most


def fold(addresses: Sequence[bytes]) -> bytearray:
    """Any octets may stand in an address: the number of addresses and the octets of each go ahead of them all."""
    count = len(addresses)
    return bytearray().join([struct.pack(f"<{count + 1}I", count, *map(len, addresses)), *addresses])


def unfold(folded: bytes) -> list[bytes]:
    """The addresses that `fold` was given."""
    (count,) = struct.unpack_from("<I", folded)
    at = 4 + 4 * count
    addresses = []
    for octets in struct.unpack_from(f"<{count}I", folded, 4):
        addresses.append(folded[at : at + octets])
        at += octets
    return addresses
