"""users/passwords: lines ADDRESS:HASH or ADDRESS:HASH:SECRET, one for each account.

SECRET is the password in base64; it stands there only where control/crammd5 asks for it, because CRAM-MD5 and APOP
cannot be checked against a hash. The file is 0640, its group the auth role's.
"""

from __future__ import annotations

import binascii
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pillarbox.status import Failure
from pillarbox.users import replace

MODE = 0o640
LARGEST_FILE = 64 << 20


@dataclass(frozen=True, slots=True)
class Record:
    """One account's proof. `address` in lower case; `secret` in clear, None when none is kept."""

    address: bytes
    hash: bytes = field(repr=False)
    secret: bytes | None = field(default=None, repr=False)

    def line(self) -> bytes:
        """The line of users/passwords, with LF."""
        secret = b"" if self.secret is None else b":" + binascii.b2a_base64(self.secret, newline=False)
        return self.address + b":" + self.hash + secret + b"\n"


def parse(text: bytes) -> Iterator[Record | int]:
    """The records of a file in order; a line's number (from 1) where the line is none. Empty lines and comments with #
    are skipped."""
    for number, line in enumerate(text.split(b"\n"), 1):
        if line and not line.startswith(b"#"):
            yield _record(line) or number


def _record(line: bytes) -> Record | None:
    address, *rest = line.split(b":")
    if b"@" not in address or len(rest) not in (1, 2) or not rest[0]:
        return None
    try:
        secret = binascii.a2b_base64(rest[1], strict_mode=True) if len(rest) == 2 else None
    except binascii.Error:
        return None
    return Record(address.lower(), rest[0], secret)


def read(file: Path) -> bytes:
    """The whole file, b"" when there is none. Raises Failure (4.3.0)."""
    try:
        with open(file, "rb") as stream:
            text = stream.read(LARGEST_FILE + 1)
    except FileNotFoundError:
        return b""
    except OSError as problem:
        raise Failure(f"cannot read users/passwords: {problem.strerror}") from None
    if len(text) > LARGEST_FILE:
        raise Failure("cannot read users/passwords: it is absurdly large")
    return text


def find(text: bytes, address: bytes) -> Record | None:
    """The first record of an address (lower case) in a file's text."""
    return next((r for r in parse(text) if isinstance(r, Record) and r.address == address), None)


def with_record(text: bytes, record: Record) -> bytes:
    """The text with this record in place of the address's old one, or at the end; the rest as it is."""
    kept, line, placed = [], record.line(), False
    for old in text.splitlines(keepends=True):
        if _names(old, record.address):
            old, placed = b"" if placed else line, True
        kept.append(old)
    whole = b"".join(kept)
    if placed:
        return whole
    return whole + (b"\n" if whole and not whole.endswith(b"\n") else b"") + line


def without(text: bytes, address: bytes) -> bytes:
    """The text without the records of an address (lower case)."""
    return b"".join(line for line in text.splitlines(keepends=True) if not _names(line, address))


def _names(line: bytes, address: bytes) -> bool:
    return line.partition(b":")[0].lower() == address


def write(file: Path, text: bytes, gid: int | None = None) -> None:
    """Replace the file; a new one belongs to the group `gid`. Raises OSError; then the old one stands."""
    replace.file(file, text, mode=MODE, gid=gid)


class Passwords:
    """The records of one file, read again when it is another one."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._stamp: tuple[int, int, int, int] | None = None
        self._records: dict[bytes, Record] = {}
        self._namesakes: dict[bytes, tuple[bytes, ...]] = {}

    def get(self, address: bytes) -> Record | None:
        """The record of an account by its address in lower case. Raises Failure (4.3.0)."""
        self._refresh()
        return self._records.get(address)

    def namesakes(self, local: bytes) -> tuple[bytes, ...]:
        """The addresses of all accounts with this local part (lower case). Raises Failure (4.3.0)."""
        self._refresh()
        return self._namesakes.get(local, ())

    def _refresh(self) -> None:
        stamp = self._look()
        if stamp == self._stamp:
            return
        records: dict[bytes, Record] = {}
        namesakes: dict[bytes, tuple[bytes, ...]] = {}
        for record in parse(read(self._file)):
            if isinstance(record, Record) and record.address not in records:
                records[record.address] = record
                local = record.address.rpartition(b"@")[0]
                namesakes[local] = (*namesakes.get(local, ()), record.address)
        self._records, self._namesakes, self._stamp = records, namesakes, stamp

    def _look(self) -> tuple[int, int, int, int] | None:
        try:
            facts = os.stat(self._file)
        except FileNotFoundError:
            return (0, 0, 0, 0)
        except OSError as problem:
            raise Failure(f"cannot read users/passwords: {problem.strerror}") from None
        return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns
