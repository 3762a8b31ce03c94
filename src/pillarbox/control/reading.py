"""How the bytes of one control file become a value: qmail's control.c, and the stricter kinds of our own files.

A reader never refuses: it returns qmail's reading together with what is odd about it. Whether odd is a warning
(qmail's own files) or an error (ours) is decided in pillarbox.control.table, in one place.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # programs read a few files, and need nothing that makes them slow to begin
    from pathlib import Path

LARGEST_FILE = 64 << 20
_BLANKS = b" \t\n"
_SHOWN = 60


@dataclass(frozen=True, slots=True)
class Listener:
    """One line of control/listen. `address` is an IP address without brackets; port 0 lets the system choose."""

    service: str
    address: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{self.service} {host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Fault:
    """Something odd in a file. `line` counts from 1. `more` is the number of further odd lines."""

    line: int | None
    problem: str
    more: int = 0


@dataclass(frozen=True, slots=True)
class Reading:
    """`value` is None when the file is to be taken as absent."""

    value: object
    fault: Fault | None = None


_BLOCK = 1 << 16

Accepts = Callable[[bytes], bool]


def content(file: Path | str) -> bytes | None:
    """The whole file, or None when there is none. Raises OSError for everything else, EFBIG over LARGEST_FILE."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    text = bytearray()
    with open(descriptor, "rb") as stream:
        # In blocks: to ask for all that it may be takes that much of a memory limit (softlimit -m) at once.
        while len(text) <= LARGEST_FILE and (block := stream.read(_BLOCK)):
            text += block
    if len(text) > LARGEST_FILE:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    return bytes(text)


def shown(value: bytes) -> str:
    """`value` in quotes for a line of text: printable ASCII, cut after 60 bytes."""
    text = value[:_SHOWN].decode("ascii", "backslashreplace")
    text = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
    return f"'{text}{'...' if len(value) > _SHOWN else ''}'"


def first_line(text: bytes) -> bytes:
    """control_readline: the first line without trailing blanks. `#` starts no comment."""
    return text.partition(b"\n")[0].rstrip(_BLANKS)


def lines(text: bytes) -> list[tuple[int, bytes]]:
    """control_readfile: numbered lines without trailing blanks; empty lines and lines beginning with # dropped."""
    stripped = ((number, line.rstrip(_BLANKS)) for number, line in enumerate(text.split(b"\n"), 1))
    return [(number, line) for number, line in stripped if line and not line.startswith(b"#")]


def is_host(value: bytes) -> bool:
    """A domain or address literal as it may stand in an envelope: no blanks, controls, @, colons outside brackets."""
    return _HOST.fullmatch(value) is not None


def is_host_or_suffix(value: bytes) -> bool:
    """A host, or .suffix for every host below it."""
    return is_host(value.removeprefix(b"."))


def is_sender(value: bytes) -> bool:
    """A line of badmailfrom: an address, @host or .suffix."""
    return _SENDER.fullmatch(value) is not None


def is_word(value: bytes) -> bool:
    """Anything without blanks and control bytes."""
    return _WORD.fullmatch(value) is not None


def is_text(value: bytes) -> bool:
    """A line without control bytes, blanks allowed."""
    return _TEXT.fullmatch(value) is not None


def is_virtual_key(value: bytes) -> bool:
    """The left side of virtualdomains: user@host, host, .suffix, or nothing for everything else."""
    return not value or is_host_or_suffix(value) or (b"@" in value and is_word(value))


_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}")
_HOST = re.compile(rb"\[[^\x00-\x20\x7f@\[\]]+\]|[^\x00-\x20\x7f@:\[\]/#.][^\x00-\x20\x7f@:\[\]/#]*")
_SENDER = re.compile(rb"[^\x00-\x20\x7f]*@[^\x00-\x20\x7f@]+|\.[^\x00-\x20\x7f@]+")
_WORD = re.compile(rb"[^\x00-\x20\x7f]+")
_TEXT = re.compile(rb"[^\x00-\x1f\x7f]*")


def line(text: bytes, accepts: Accepts) -> Reading:
    """One line; an empty file is an empty line."""
    value = first_line(text)
    return Reading(value, None if accepts(value) else Fault(1, f"odd value {shown(value)}"))


def number(text: bytes, least: int, most: int, *, strict: bool) -> Reading:
    """control_readint: leading digits count. Outside least..most the nearest bound holds. `strict`: digits alone."""
    value = first_line(text)
    digits = value[: len(value) - len(value.lstrip(b"0123456789"))]
    if not digits or (strict and digits != value):
        return Reading(None, Fault(1, f"not a number: {shown(value)}"))
    significant = digits.lstrip(b"0")
    meant = int(significant or b"0") if len(significant) <= 20 else most + 1  # int() refuses thousands of digits
    taken = min(max(meant, least), most)
    if taken != meant:
        return Reading(taken, Fault(1, f"{shown(digits)} is outside {least} to {most}"))
    if digits != value:
        return Reading(taken, Fault(1, f"{shown(value)} is read as {taken}: only leading digits count"))
    return Reading(taken)


def flag(text: bytes) -> Reading:
    """0 or 1."""
    value = first_line(text)
    if value not in (b"0", b"1"):
        return Reading(None, Fault(1, f"neither 0 nor 1: {shown(value)}"))
    return Reading(value == b"1")


def choice(text: bytes, choices: tuple[str, ...]) -> Reading:
    """One word of a closed list."""
    value = first_line(text)
    word = value.decode("latin-1")
    if word not in choices:
        return Reading(None, Fault(1, f"unknown word {shown(value)}"))
    return Reading(word)


def path(text: bytes) -> Reading:
    """A file name as str, absolute or relative to the home."""
    value = first_line(text)
    if not value or not is_text(value):
        return Reading(None, Fault(1, f"not a file name: {shown(value)}"))
    return Reading(os.fsdecode(value))


def delivery(text: bytes) -> Reading:
    """dot-qmail lines, unparsed. A blank first line would be an error at every single delivery."""
    if not first_line(text):
        return Reading(None, Fault(1, "no delivery instruction in the first line"))
    if b"\0" in text:
        return Reading(None, Fault(None, "holds a NUL byte"))
    return Reading(text)


def entries(text: bytes, accepts: Accepts, *, fold: bool = True) -> Reading:
    """A list as a tuple in file order; `fold`: in lower case."""
    numbered = lines(text)
    odd = [Fault(at, f"{shown(entry)} matches nothing") for at, entry in numbered if not accepts(entry)]
    return Reading(tuple(entry.lower() if fold else entry for _, entry in numbered), _one(odd))


def mapping(text: bytes, accepts: Accepts, *, secret: bool = False) -> Reading:
    """A colon map: split at the first colon, keys in lower case, the last of equal keys wins, lines without a colon
    are ignored. `secret`: the file may hold passwords, so no complaint quotes it."""
    pairs: dict[bytes, bytes] = {}
    odd = []
    for at, entry in lines(text):
        key, colon, value = entry.partition(b":")
        quoted = "the line" if secret else shown(entry)
        if not colon:
            odd.append(Fault(at, f"{quoted} has no colon and is ignored"))
            continue
        if not accepts(key):
            odd.append(Fault(at, f"{quoted} matches nothing"))
        pairs[key.lower()] = value
    return Reading(pairs, _one(odd))


def servers(text: bytes) -> Reading:
    """control/resolvers: lines ADDRESS or ADDRESS:PORT, an IPv6 address with a port in brackets; as pairs."""
    import ipaddress

    found = []
    for at, entry in lines(text):
        parts = _SERVER.fullmatch(entry.decode("latin-1"))
        try:
            address = str(ipaddress.ip_address(parts[1] or parts[2] or parts[3])) if parts else ""
        except ValueError:
            address = ""
        port = int(parts[4] or 53) if parts else 0
        if not address or not 0 < port < 65536:
            return Reading(None, Fault(at, f"not ADDRESS or ADDRESS:PORT: {shown(entry)}"))
        found.append((address, port))
    return Reading(tuple(found))


_SERVER = re.compile(
    r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+)|([0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*))(?::([0-9]{1,5}))?"
)


def grants(text: bytes) -> Reading:
    """control/sendas: lines LOGIN:ADDRESS or LOGIN:@DOMAIN, several for one login. Everything in lower case."""
    pairs: dict[bytes, tuple[bytes, ...]] = {}
    for at, entry in lines(text):
        login, _, granted = entry.lower().partition(b":")
        if not is_word(login) or b"@" not in granted or not is_sender(granted):
            return Reading(None, Fault(at, f"not LOGIN:ADDRESS or LOGIN:@DOMAIN: {shown(entry)}"))
        pairs[login] = (*pairs.get(login, ()), granted)
    return Reading(pairs)


def names(text: bytes, allowed: tuple[str, ...]) -> Reading:
    """control/roleusers: lines ROLE:USER."""
    pairs: dict[str, str] = {}
    for at, entry in lines(text):
        role, _, user = entry.decode("latin-1").partition(":")
        if role not in allowed or not _USER.fullmatch(user):
            return Reading(None, Fault(at, f"not ROLE:USER: {shown(entry)}"))
        pairs[role] = user
    return Reading(pairs)


def users(text: bytes) -> Reading:
    """control/checkerusers: names of system users."""
    numbered = [(at, entry.decode("latin-1")) for at, entry in lines(text)]
    for at, entry in numbered:
        if not _USER.fullmatch(entry):
            return Reading(None, Fault(at, f"not the name of a user: {shown(entry.encode('latin-1'))}"))
    return Reading(tuple(entry for _, entry in numbered))


def commands(text: bytes) -> Reading:
    """control/checkers: `shadow`, or the command line of a checkpassword program by its absolute path."""
    numbered = lines(text)
    for at, entry in numbered:
        if entry != b"shadow" and not (entry.startswith(b"/") and is_text(entry)):
            return Reading(None, Fault(at, f"neither 'shadow' nor an absolute command line: {shown(entry)}"))
    return Reading(tuple(entry for _, entry in numbered))


def listeners(text: bytes, services: tuple[str, ...]) -> Reading:
    """control/listen: lines SERVICE ADDRESS:PORT, an IPv6 address in brackets."""
    found: list[Listener] = []
    for at, entry in lines(text):
        listener = _listener(entry, services)
        if isinstance(listener, str):
            return Reading(None, Fault(at, f"{listener}: {shown(entry)}"))
        if listener.port and any((o.address, o.port) == (listener.address, listener.port) for o in found):
            return Reading(None, Fault(at, f"the address is already taken by another line: {shown(entry)}"))
        found.append(listener)
    return Reading(tuple(found))


_LISTEN = re.compile(r"(\S+)[ \t]+(?:\[([0-9A-Fa-f:.]+(?:%\w+)?)\]|([0-9.]+)):([0-9]{1,5})", re.ASCII)


def _listener(entry: bytes, services: tuple[str, ...]) -> Listener | str:
    import ipaddress

    parts = _LISTEN.fullmatch(entry.decode("latin-1"))
    if parts is None:
        return "not SERVICE ADDRESS:PORT"
    service, six, four, port = parts.groups()
    if service not in services:
        return "unknown service"
    try:
        address = ipaddress.IPv6Address(six) if six else ipaddress.IPv4Address(four)
    except ValueError:
        return "not an IP address"
    if int(port) > 65535:
        return "no such port"
    return Listener(service, str(address), int(port))


def _one(faults: list[Fault]) -> Fault | None:
    """The first of many, with the number of the others: a broken file is one line of complaint, not a thousand."""
    return Fault(faults[0].line, faults[0].problem, len(faults) - 1) if faults else None
