"""Constant databases (cdb) over the cdbx library: users/cdb, morercpthosts.cdb. Damage shows as OSError.

A reader follows the name: when the file behind it is another one (by device, inode, size and time), it is opened again.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

import cdbx  # type: ignore[import-untyped]  # the library has no types

from pillarbox.users import replace


class Lookup(Protocol):
    """An open table. `get` returns the first record of a key, or None; all raise OSError for a damaged table."""

    def get(self, key: bytes) -> bytes | None: ...
    def keys(self) -> Iterator[bytes]: ...
    def items(self) -> Iterator[tuple[bytes, bytes]]: ...


class Reader:
    """The table under one file name, whichever file that is just now."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._stamp: tuple[int, int, int, int] | None = None
        self._lookup: Lookup | None = None

    def current(self) -> Lookup | None:
        """The table, or None when there is no file. The same object as before means: nothing has changed. Raises
        OSError."""
        try:
            facts = os.stat(self._file)
        except FileNotFoundError:
            self._lookup, self._stamp = None, None
            return None
        if (facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns) != self._stamp:
            self._open()
        return self._lookup

    def _open(self) -> None:
        self._lookup, self._stamp = None, None
        descriptor = os.open(self._file, os.O_RDONLY | os.O_CLOEXEC)
        try:
            facts = os.fstat(descriptor)
            # It keeps and closes a descriptor of its own: this one is closed here whatever happens.
            self._lookup = cdbx.CDB(os.dup(descriptor), close=True)
        finally:
            os.close(descriptor)
        self._stamp = (facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns)


def write(target: Path, records: Iterable[tuple[bytes, bytes]]) -> None:
    """Replace a table by one with these records, in this order. Raises OSError; then the old table stands."""
    with replace.writing(target, mode=0o644) as descriptor:
        maker = cdbx.CDB.make(os.dup(descriptor), close=True)
        for key, value in records:
            maker.add(key, value)
        maker.commit().close()
