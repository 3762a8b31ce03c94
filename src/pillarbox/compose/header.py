"""The header of a message that a program says: its fields, as qmail-inject finds them, and where it ends.

It ends at the first empty line, or ahead of the first line that is no field; then an empty line is put in. Nothing of
the body is looked at. The rule that must stay true: memory is bounded, whatever is fed.
"""

from __future__ import annotations

import re
from typing import Final

LONGEST: Final = 4 << 20  # octets of a header, or of the line that may end it
MBOX_LINE: Final = b"MBOX-Line: "
_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:")


class HeaderTooLong(ValueError):
    """Over LONGEST octets."""


def name(field: bytes) -> bytes:
    """The name of a field in lower case, b"" when the line is no field."""
    match = _FIELD.match(field)
    return match[1].lower() if match else b""


class HeaderReader:
    """Feed it the message; once `body` is not None the header has ended, `body` is what was fed of the body, and the
    rest need not be fed."""

    def __init__(self) -> None:
        self.fields: list[bytes] = []  # whole ones, with their continuation lines, each line with LF
        self.body: bytes | None = None
        self._partial = b""
        self._size = 0

    def feed(self, block: bytes) -> None:
        """The next octets. Raises HeaderTooLong."""
        assert self.body is None
        self._size += len(block)
        text = self._partial + block
        at = 0
        while (end := text.find(b"\n", at)) >= 0:
            self._line(text[at : end + 1])
            if self.body is not None:
                self.body += text[end + 1 :]
                return
            at = end + 1
        self._partial = text[at:]
        if self._size > LONGEST:
            raise HeaderTooLong("the header is too long")

    def finish(self) -> None:
        """The message is over: a last line without LF gets one. A header without body has `body` b""."""
        if self.body is None and self._partial:
            self._line(self._partial + b"\n")
        if self.body is None:
            self.body = b""

    def _line(self, line: bytes) -> None:
        if line[:1] in (b" ", b"\t") and self.fields:
            self.fields[-1] += line
        elif line == b"\n":
            self.body = line
        elif line.startswith(b"From "):
            self.fields.append(MBOX_LINE + line)
        elif _FIELD.match(line):
            self.fields.append(line)
        else:
            self.body = b"\n" + line
