"""control/rbl: DNS block lists, by rblsmtpd's rules (rblsmtpd(1) of ucspi-tcp 0.88). Pure: somebody else asks DNS.

The rule that must stay true: where DNS was in trouble nobody is refused for good, for a list that allows him may be the
one that did not answer.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Generator, Iterator
from enum import Enum
from typing import Final, NamedTuple

from pillarbox.control.reading import Fault, Reading, is_host, lines, shown
from pillarbox.status import Refusal, Status

LONGEST_TEXT: Final = 200
"""Octets of a list's text that a client is told."""
LOOKUP_ERROR: Final = b"temporary RBL lookup error"
_PRINTABLE = bytes(byte if 32 <= byte < 127 else ord("?") for byte in range(256))


class Kind(Enum):
    """What a list does to whom it has, and which of its DNS records says so."""

    BLOCKS = "TXT"
    ALLOWS = "A"


class Source(NamedTuple):
    """One list, as rblsmtpd's options have it: `-r` BLOCKS, `-a` ALLOWS. `bounce`: behind -b, who is on it is refused
    for good. `closed`: behind -c, without an answer of DNS he counts as blocked, and is not allowed."""

    kind: Kind
    base: bytes
    bounce: bool = False
    closed: bool = False


class Question(NamedTuple):
    """What DNS is to be asked: has `name` records of that kind?"""

    kind: Kind
    name: bytes


Answer = bytes | None
"""The texts of all records, one behind the other (for ALLOWS anything but b""); b"": there are none; None: trouble."""


def parse(text: bytes) -> Reading:
    """control/rbl: rblsmtpd's options -r, -a, -b, -B, -c and -C in their order, on one line or on several. A word that
    is no option is a list, as behind -r."""
    found: list[Source] = []
    bounce = closed = False
    for at, line in lines(text):
        words = iter(line.split())
        for option, value in _options(words):
            if option in (b"b", b"B"):
                bounce = option == b"b"
            elif option in (b"c", b"C"):
                closed = option == b"c"
            elif option not in (b"r", b"a"):
                return Reading(None, Fault(at, f"unknown option {shown(b'-' + option)}"))
            elif not is_host(value):
                return Reading(None, Fault(at, f"no DNS list: {shown(value)}"))
            else:
                kind = Kind.BLOCKS if option == b"r" else Kind.ALLOWS
                found.append(Source(kind, value.strip(b"."), bounce, closed))
    return Reading(tuple(found))


def _options(words: Iterator[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """getopt: options in one word, their value in the same word or the next."""
    for word in words:
        if not word.startswith(b"-"):
            yield b"r", word
            continue
        for at in range(1, max(2, len(word))):
            option = word[at : at + 1]
            if option in (b"r", b"a"):
                yield option, word[at + 1 :] or next(words, b"")
                break
            yield option, b""


def announced(variable: bytes) -> Refusal | None:
    """What $RBLSMTPD says of a client: None lets him in, whatever a list says."""
    if not variable:
        return None
    permanent = variable.startswith(b"-")
    return _refusal(variable[1:] if permanent else variable, permanent=permanent)


def judge(sources: tuple[Source, ...], address: str) -> Generator[Question, Answer, Refusal | None]:
    """Ask the lists about an IP address, in their order, until one decides. None: he may come."""
    name = reversed_name(address)
    trouble = False
    for source in sources if name else ():
        answer = yield Question(source.kind, name + source.base)
        if answer is None:
            trouble = True
            if source.kind is Kind.BLOCKS and source.closed:
                return _refusal(LOOKUP_ERROR, permanent=False)
            if source.kind is Kind.ALLOWS and not source.closed:
                return None
        elif answer and source.kind is Kind.ALLOWS:
            return None
        elif answer:
            return _refusal(answer, permanent=source.bounce and not trouble)
    return None


def reversed_name(address: str) -> bytes:
    """The address in front of a list's name, with a dot behind it: RFC 5782 sections 2.1 and 2.4. b"" where it is
    none."""
    try:
        pointer = ipaddress.ip_address(address.partition("%")[0]).reverse_pointer
    except ValueError:
        return b""
    return pointer.removesuffix("in-addr.arpa").removesuffix("ip6.arpa").encode("ascii")


def _refusal(text: bytes, *, permanent: bool) -> Refusal:
    said = text[:LONGEST_TEXT].translate(_PRINTABLE).decode("ascii")
    return Refusal(Status(5 if permanent else 4, 7, 1), said)
