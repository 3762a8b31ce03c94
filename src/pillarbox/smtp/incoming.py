"""The octets that a client has sent and nobody has looked at yet: the only input buffer of the receiver.

Time is linear in what comes, however it is cut; nothing is kept of a line that is too long but its last octet.
"""

from __future__ import annotations


class Incoming:
    """Give out lines and blocks in the order in which the octets came."""

    __slots__ = ("_at", "_data", "_later", "_skipping", "bare", "deaf", "drained", "flawed", "overlong")

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """All that has come, and how."""
        self._data = b""
        self._at = 0  # what is before it in _data has been given out
        self._later = bytearray()  # behind _data: growing it copies nothing
        self._skipping = False
        self.drained = True
        """Nothing is here that has not been looked at in vain."""
        self.deaf = False
        """What comes now is dropped."""
        self.flawed = False
        """The line just given was not as it should be; which way, these two say."""
        self.overlong = False
        """It was longer than its limit."""
        self.bare = False
        """It ended with LF alone."""

    @property
    def buffered(self) -> int:
        """Octets received and not yet looked at."""
        return len(self._data) - self._at + len(self._later)

    def receive(self, data: bytes) -> None:
        """Octets from the client, in pieces of any size. Look at `buffered` and stop reading when it grows."""
        if self.deaf:
            return
        self.drained = False
        if self._data:
            self._later += data
        else:
            self._data = data

    def line(self, limit: int) -> bytes | None:
        """The next line without its CR LF or LF, or None when its end has not come. One of more than `limit` octets,
        both counted, comes as b"" and with `overlong`."""
        data, at = self._data, self._at
        end = data.find(b"\n", at)
        if end < 0:
            if not self._join() or (end := self._data.find(b"\n")) < 0:
                self._keep_little(limit)
                self.drained = True
                return None
            data, at = self._data, 0
        line = data[at:end]
        if end + 1 < len(data):
            self._at = end + 1
        elif self._later:
            self._at = end + 1
            self._join()
        else:
            self._data, self._at, self.drained = b"", 0, True  # an idle client's last block is not kept
        if line.endswith(b"\r") and end - at < limit and not self._skipping:
            self.flawed = False
            return line[:-1]
        return self._flawed_line(line, limit)

    def _flawed_line(self, line: bytes, limit: int) -> bytes:
        """What is given of it."""
        self.flawed = True
        self.bare = not line.endswith(b"\r")
        self.overlong = self._skipping or len(line) >= limit
        self._skipping = False
        return b"" if self.overlong else line

    def take(self, most: int) -> bytes:
        """Up to `most` octets, b"" when there are none."""
        if self._at or len(self._data) > most:
            block = self._data[self._at : self._at + most]
            self._at += len(block)
        else:
            block, self._data = self._data, b""
        if self._at == len(self._data):
            self._join()
        self.drained = not block
        return block

    def give_back(self, octets: bytes) -> None:
        """Put the end of the block just taken in front again."""
        self._data = octets + self._data[self._at :]
        self._at = 0

    def _join(self) -> bool:
        """Move what came later behind what is left, and keep nothing else; False when nothing came."""
        self._data = self._data[self._at :]
        self._at = 0
        if not self._later:
            return False
        self._data += self._later
        self._later = bytearray()
        return True

    def _keep_little(self, limit: int) -> None:
        """No line end among what is left: keep the line if it may still be short enough, else its last octet."""
        self._data, self._at = self._data[self._at :], 0
        if len(self._data) >= limit:
            self._skipping = True
            self._data = self._data[-1:]
