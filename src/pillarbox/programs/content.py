"""A message that a program has read, before it is sent on: in memory while it is small, else in a file without a name.

Programs read everything before they talk to the queue: a caller that takes an hour to say its message (a cron job)
then holds up nobody but itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import BinaryIO

IN_MEMORY = 256 << 10  # octets
BLOCK = 64 << 10  # octets


class Content:
    """Octets, appended and then read from the start as often as needed. Close it with `with`."""

    def __init__(self) -> None:
        self.size = 0
        self._memory: list[bytes] = []
        self._file: BinaryIO | None = None

    def __enter__(self) -> Content:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Nothing more will be asked of it."""
        if self._file is not None:
            self._file.close()

    def write(self, octets: bytes) -> None:
        """Append. Raises OSError when there is no room in the directory for temporary files."""
        self.size += len(octets)
        if self._file is not None:
            self._file.write(octets)
            return
        self._memory.append(octets)
        if self.size > IN_MEMORY:
            self._to_file()

    def take(self, descriptor: int) -> None:
        """Append all that comes from a descriptor, to its end. Raises OSError."""
        while octets := os.read(descriptor, BLOCK):
            self.write(octets)

    def blocks(self) -> Iterator[bytes]:
        """All of it, in blocks of at most BLOCK octets. Raises OSError."""
        if self._file is None:
            octets = b"".join(self._memory)
            for start in range(0, len(octets), BLOCK):
                yield octets[start : start + BLOCK]
            return
        self._file.seek(0)
        while block := self._file.read(BLOCK):
            yield block

    def _to_file(self) -> None:
        import tempfile  # costs as much as all other imports of a small message together

        self._file = tempfile.TemporaryFile()  # noqa: SIM115  # __exit__ closes it
        for octets in self._memory:
            self._file.write(octets)
        self._memory = []
