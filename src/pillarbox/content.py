r"""A message's content on its way between the wire and its stored form.

The stored form has LF line ends; CR is an ordinary byte in it. On the wire lines end with CR LF, both, always. Each
class here is fed blocks of any size, cut anywhere, and keeps at most a few bytes between two calls, so no line is ever
too long for it. The rule that must stay true: nothing here sends a bare CR or LF, and a bare LF never comes in.
"""

from __future__ import annotations

from collections.abc import Iterable

_END = b"\r\n.\r\n"


class Unstuffer:
    r"""Decoder of what follows DATA's 354: CR LF becomes LF, the dot in front is taken off (RFC 5321 section 4.5.2).

    As in qmail-smtpd the end is exactly CR LF . CR LF (also at the very start), a bare CR is data, and a line of a dot
    followed by a bare CR keeps both. A bare LF ends the decoding: it is how messages are smuggled inside messages.
    """

    __slots__ = ("_begun", "_held", "bare_newline", "finished", "rest")

    def __init__(self) -> None:
        self._held = b"\r\n"  # the start counts as the start of a line; these two are never given out
        self._begun = False
        self.finished = False
        """The end marker has come."""
        self.bare_newline = False
        """A LF without CR has come; nothing more is decoded."""
        self.rest = 0
        """Once finished: how many octets of the last block lie behind the end marker."""

    def feed(self, data: bytes) -> bytes:
        """Take wire bytes, give stored-form bytes (possibly b"")."""
        block = self._held + data
        dot = block.find(b"\n.")  # most messages have none but the last, so this search finds both
        end = block.find(_END, dot - 1) if dot > 0 else -1
        if end >= 0:
            self.finished = True
            self.rest = len(block) - end - len(_END)
            body = block[: end + 2]
        else:
            self._held = held = _beginning_of_end(block)
            body = block[: len(block) - len(held)] if held else block
        if not body:
            return b""
        text = _with_lf(body)
        if text is None:
            self.bare_newline = True
            return b""
        if 0 < dot != end + 1:
            text = _take_off_dots(text)
        if not self._begun:
            self._begun = True
            return text[1:]
        return text


def _beginning_of_end(block: bytes) -> bytes:
    """The longest end of `block` that may grow into the end marker: it waits for the next block."""
    for length in (4, 3, 2, 1):
        if block.endswith(_END[:length]):
            return _END[:length]
    return b""


def _with_lf(body: bytes) -> bytes | None:
    """CR LF becomes LF and a bare CR stays; None when there is a bare LF."""
    # Searches for single bytes are several times faster, so first try whether there is no bare CR.
    text = body.replace(b"\r", b"")
    if text.replace(b"\n", b"\r\n") == body:
        return text
    text = body.replace(b"\r\n", b"\n")
    return text if text.count(b"\n") == len(body) - len(text) else None


def _take_off_dots(text: bytes) -> bytes:
    # Behind LF . CR no LF can follow here (that was the end marker): qmail keeps such a dot.
    if b"\n.\r" not in text:
        return text.replace(b"\n.", b"\n")
    return b"\n.\r".join(part.replace(b"\n.", b"\n") for part in text.split(b"\n.\r"))


class ChunkDecoder:
    """Decoder of BDAT octets (RFC 3030) over all chunks of one message: CR LF becomes LF, a bare CR is data, a bare
    LF ends the decoding."""

    __slots__ = ("_held", "_last", "bare_newline")

    def __init__(self) -> None:
        self._held = b""
        self._last = b"\n"
        self.bare_newline = False
        """A LF without CR has come; nothing more is decoded."""

    def feed(self, data: bytes) -> bytes:
        """Take chunk octets, give stored-form bytes. A CR at the end waits for what follows."""
        block = self._held + data
        self._held = b"\r" if block.endswith(b"\r") else b""
        if self._held:
            block = block[:-1]
        text = _with_lf(block)
        if text is None:
            self.bare_newline = True
            return b""
        if text:
            self._last = text[-1:]
        return text

    def finish(self) -> bytes:
        """The last chunk is over: what was held back, and the LF that its last line may lack. Asked again: nothing."""
        rest, self._held = self._held, b""
        lacks, self._last = rest or self._last != b"\n", b"\n"
        return rest + b"\n" if lacks else b""


class _Newlines:
    """Stored form in, LF as the only line end out: CR LF and lone CR become LF as well."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = b""

    def feed(self, block: bytes) -> bytes:
        if self._held:
            block = self._held + block
            self._held = b""
        if b"\r" not in block:
            return block
        if block.endswith(b"\r"):
            self._held = b"\r"
            block = block[:-1]
        return block.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def finish(self) -> bytes:
        held, self._held = self._held, b""
        return b"\n" if held else b""


class Stuffer:
    """Stored form to wire: LF, CR LF and lone CR become CR LF; with `dots` a dot goes in front of each line that
    begins with one, and `finish` gives the final dot (RFC 5321 section 4.5.2, RFC 1939 section 3)."""

    __slots__ = ("_dots", "_in_line", "_newlines")

    def __init__(self, *, dots: bool = True) -> None:
        self._newlines = _Newlines()
        self._dots = dots
        self._in_line = False

    def feed(self, block: bytes) -> bytes:
        """Wire bytes for this block of stored-form bytes."""
        return self._encode(self._newlines.feed(block))

    def finish(self) -> bytes:
        """What is left: a last line's missing end, and the lone dot when dots are on."""
        rest = self._encode(self._newlines.finish())
        if self._in_line:
            self._in_line = False
            rest += b"\r\n"
        return rest + b".\r\n" if self._dots else rest

    def _encode(self, text: bytes) -> bytes:
        if not text:
            return b""
        begins_line, self._in_line = not self._in_line, not text.endswith(b"\n")
        if self._dots and b"." in text:
            if b"\n." in text:
                text = text.replace(b"\n.", b"\n..")
            if begins_line and text.startswith(b"."):
                text = b"." + text
        return text.replace(b"\n", b"\r\n")


class Head:
    """Lets through the header, the blank line and `lines` lines of the body (POP3's TOP), with LF line ends."""

    __slots__ = ("_at_line_start", "_in_header", "_left", "_newlines", "full")

    def __init__(self, lines: int) -> None:
        self._newlines = _Newlines()
        self._left = lines
        self._in_header = True
        self._at_line_start = True
        self.full = False
        """Nothing more will be let through: no need to read on."""

    def feed(self, block: bytes) -> bytes:
        """The part of this block of stored-form bytes that is let through."""
        return self._limit(self._newlines.feed(block))

    def finish(self) -> bytes:
        """What was held back."""
        return self._limit(self._newlines.finish())

    def _limit(self, text: bytes) -> bytes:
        if self.full or not text:
            return b""
        start = 0
        if self._in_header:
            start = self._end_of_header(text)
            if self._in_header:
                return text
        return text[:start] + self._body(text, start)

    def _end_of_header(self, text: bytes) -> int:
        """Position behind the blank line, or anything while it has not come."""
        if self._at_line_start and text.startswith(b"\n"):
            blank = 0
        else:
            blank = text.find(b"\n\n") + 1
            self._at_line_start = text.endswith(b"\n")
            if not blank:
                return 0
        self._in_header = False
        self.full = not self._left
        return blank + 1

    def _body(self, text: bytes, start: int) -> bytes:
        if self._left > text.count(b"\n", start):
            self._left -= text.count(b"\n", start)
            return text[start:]
        end = start
        while self._left:
            end = text.index(b"\n", end) + 1
            self._left -= 1
        self.full = True
        return text[start:end]


class Octets:
    """Counts the octets that Stuffer without dots would give, without making them."""

    __slots__ = ("_count", "_last")

    def __init__(self) -> None:
        self._count = 0
        self._last = b""

    def feed(self, block: bytes) -> None:
        """Count this block of stored-form bytes."""
        if not block:
            return
        ends = block.count(b"\n")
        if b"\r" in block:
            ends += block.count(b"\r") - 2 * block.count(b"\r\n")
        if self._last == b"\r" and block.startswith(b"\n"):
            ends -= 2  # that CR and this LF were one line end
        self._count += len(block) + ends
        self._last = block[-1:]

    @property
    def total(self) -> int:
        """Octets so far, were the content to end here."""
        return self._count + (2 if self._last not in (b"", b"\n", b"\r") else 0)


def octets(blocks: Iterable[bytes]) -> int:
    """Size on the wire of content in stored form: CR LF line ends, last line ended, no dots added."""
    counter = Octets()
    for block in blocks:
        counter.feed(block)
    return counter.total
