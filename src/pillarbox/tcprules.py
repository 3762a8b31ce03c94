"""A tcprules cdb (tcprules(1), tcpserver -x of ucspi-tcp 0.88): which clients may come, and what is said of each.

The rule that must stay true: a table that is there and cannot be read lets nobody in, as under tcpserver; it may hold
who is to be kept out.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pillarbox.status import Failure
from pillarbox.users import cdb

UNDERSTOOD = (b"RELAYCLIENT", b"RBLSMTPD", b"DATABYTES")
"""The variables that mean something to `serve`."""
_DIGITS = b"0123456789"
_LONGEST_NUMBER = 18  # digits: no message has more octets


class Unreadable(Failure):
    """The table is missing, closed to us or damaged."""


class Rule(NamedTuple):
    """What is said of one client: may it come, and the variables that tcpserver would set, the last of equal names."""

    denied: bool = False
    variables: tuple[tuple[bytes, bytes], ...] = ()

    def value(self, name: bytes) -> bytes | None:
        """The variable, or None when it is not set; b"" is set."""
        return dict(self.variables).get(name)

    @property
    def databytes(self) -> int | None:
        """DATABYTES, read as qmail-smtpd does: its leading digits, none of them is 0. None when it is not set."""
        value = self.value(b"DATABYTES")
        if value is None:
            return None
        digits = value[: len(value) - len(value.lstrip(_DIGITS))]
        return int(digits[:_LONGEST_NUMBER] or b"0")


ALLOWED = Rule()
"""Of whom no rule speaks. tcpserver lets him in."""


class Rules:
    """The table under one file name, whichever file that is just now."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._reader = cdb.Reader(file)
        self._table: cdb.Lookup | None = None
        self._by_name = False

    @property
    def by_name(self) -> bool:
        """Is there a rule about host names, so that the client's must be known? Raises Unreadable."""
        self._current()
        return self._by_name

    def about(self, address: str, host: bytes | None = None) -> Rule:
        """The rule for a client with this IP address and this host name in lower case, None where it is unknown.
        Raises Unreadable."""
        table = self._current()
        try:
            for key in keys(address, host):
                record = table.get(key)
                if record is not None:
                    return parse(record)
        except OSError as problem:
            raise self._unreadable(problem) from None
        return ALLOWED

    def items(self) -> Iterator[tuple[bytes, Rule]]:
        """Every key with its rule. Raises Unreadable."""
        table = self._current()
        try:
            for key, record in table.items():
                yield key, parse(record)
        except OSError as problem:
            raise self._unreadable(problem) from None

    def _current(self) -> cdb.Lookup:
        try:
            table = self._reader.current()
            if table is None:
                raise Unreadable(f"{self.file}: missing")
            if table is not self._table:
                self._by_name = any(key.startswith(b"=") for key in table.keys())  # noqa: SIM118  # a cdb is no dict
                self._table = table
        except OSError as problem:
            raise self._unreadable(problem) from None
        return table

    def _unreadable(self, problem: OSError) -> Unreadable:
        return Unreadable(f"{self.file}: cannot read it: {problem.strerror or problem}")


def parse(record: bytes) -> Rule:
    """The data of a record: `D` for deny, `+NAME=VALUE` for each variable, a NUL behind each."""
    denied = False
    variables: dict[bytes, bytes] = {}
    for part in record.split(b"\0")[:-1]:  # what has no NUL behind it is nothing
        name, equals, value = part[1:].partition(b"=")
        if part.startswith(b"D"):
            denied = True
        elif part.startswith(b"+") and equals:
            variables[name] = value
    return Rule(denied, tuple(variables.items()))


def keys(address: str, host: bytes | None) -> Iterator[bytes]:
    """The keys in tcpserver's order, for a client whose user nobody asked for (tcpserver -R). The first there counts.

    Keys with an IPv6 address are ucspi-tcp6's: eight groups of four digits. Its first groups with their colons are a
    prefix, as those of an IPv4 address with their dots."""
    spelled = spelling(address)
    yield spelled
    if host:
        yield b"=" + host
    mark = b":" if b":" in spelled else b"."
    end = spelled.rfind(mark)
    while end >= 0:
        yield spelled[: end + 1]
        end = spelled.rfind(mark, 0, end)
    if host:
        yield from (b"=" + host[at:] for at, byte in enumerate(host) if byte == ord("."))
        yield b"="
    yield b""


def spelling(address: str) -> bytes:
    """An IP address as it stands in keys; what is none stays as it is."""
    if ":" not in address:
        return address.encode("ascii", "replace")
    try:
        return ipaddress.IPv6Address(address.partition("%")[0]).exploded.encode("ascii")
    except ValueError:
        return address.encode("ascii", "replace")
