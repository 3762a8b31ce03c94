"""queue/lock/tcpto: which addresses let connections time out, as all qmail-remotes of a qmail tell each other.

64 records of 16 octets: an IPv4 address, how many timeouts (at most 10), three octets unused, the time of the last
(seconds, 4 octets, little-endian), four unused. qmail-tcpto prints it and qmail-tcpok clears it. Where the file is not
there, or is no such file, nothing is remembered; so it is for IPv6. The rule that must stay true: it can spare a
connection and never cost a message, so whatever is wrong with it is no error.
"""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

RECORD: Final = 16  # octets
SIZE: Final = 64 * RECORD
ENOUGH: Final = 2  # timeouts
MOST: Final = 10  # timeouts that are counted
APART: Final = 120  # seconds: connections that fail together are one failure
PATIENCE: Final = 1.0  # seconds that somebody else may hold the lock
_PAUSE: Final = 0.02


class _Known(NamedTuple):
    address: bytes
    times: int
    last: int


class Tcpto:
    """The file of one queue. `pid` spreads the moments at which programs try an address again; `now` is Unix time."""

    def __init__(self, file: str, pid: int, now: Callable[[], float] = time.time) -> None:
        self._file, self._now = file, now
        self._pause = (60 + (pid & 31)) << 6

    def skips(self, address: str) -> bool:
        """Should this address not even be tried now? After two timeouts, for one to one and a half hours."""
        wanted = _octets(address)
        with self._opened() as descriptor:
            for known in _records(descriptor) if wanted and descriptor is not None else ():
                if known.address == wanted:
                    return known.times >= ENOUGH and 0 <= int(self._now()) - known.last < self._pause
        return False

    def timed_out(self, address: str) -> None:
        """A connection was not made in time."""
        wanted, now = _octets(address), int(self._now())
        with self._opened() as descriptor:
            if not wanted or descriptor is None:
                return
            records = _records(descriptor)
            number = next((at for at, known in enumerate(records) if known.address == wanted), None)
            if number is None:
                _write(descriptor, _place(records), _Known(wanted, 1, now))
                return
            known = records[number]
            if not known.times or now >= known.last + APART:
                _write(descriptor, number, _Known(wanted, min(known.times + 1, MOST), now))

    def answered(self, address: str) -> None:
        """It answered, if only to refuse."""
        wanted = _octets(address)
        with self._opened() as descriptor:
            for number, known in enumerate(_records(descriptor) if wanted and descriptor is not None else ()):
                if known.address == wanted and known.times:
                    assert descriptor is not None
                    _write(descriptor, number, known._replace(times=0))
                    return

    @contextmanager
    def _opened(self) -> Iterator[int | None]:
        """The file, locked; None: it is of no use."""
        try:
            descriptor = os.open(self._file, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            yield None
            return
        try:
            facts = os.fstat(descriptor)
            yield descriptor if stat.S_ISREG(facts.st_mode) and facts.st_size == SIZE and _locked(descriptor) else None
        finally:
            os.close(descriptor)


def _locked(descriptor: int) -> bool:
    end = time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() > end:
                return False
            time.sleep(_PAUSE)
        else:
            return True


def _records(descriptor: int) -> list[_Known]:
    """All 64; none when the file cannot be read."""
    try:
        octets = os.pread(descriptor, SIZE, 0)
    except OSError:
        return []
    return [
        _Known(octets[at : at + 4], octets[at + 4], int.from_bytes(octets[at + 8 : at + 12], "little"))
        for at in range(0, len(octets) - RECORD + 1, RECORD)
    ]


def _place(records: list[_Known]) -> int:
    """Where a new address goes: the first record that counts nothing, else the oldest, each timeout worth 1024 s."""
    free = next((at for at, known in enumerate(records) if not known.times), None)
    if free is not None or not records:
        return free or 0
    return min(range(len(records)), key=lambda at: records[at].last + (records[at].times << 10))


def _write(descriptor: int, number: int, known: _Known) -> None:
    last = (known.last & 0xFFFFFFFF).to_bytes(4, "little")
    octets = known.address + bytes([known.times]) + bytes(3) + last + bytes(4)
    try:
        os.pwrite(descriptor, octets, number * RECORD)
    except OSError:
        return  # then it is not remembered


def _octets(address: str) -> bytes:
    """The four octets of an IPv4 address; b"" for any other."""
    try:
        return socket.inet_aton(address) if address.count(".") == 3 and ":" not in address else b""
    except OSError:
        return b""
