"""Add a line to the text of a control file, or take it away, leaving everything else as somebody wrote it."""

from __future__ import annotations


def with_line(text: bytes, line: bytes) -> bytes:
    """`text` with `line` at its end, or as it is when the line is there already (in whatever case)."""
    if any(_same(other, line) for other in text.split(b"\n")):
        return text
    return text + (b"\n" if text and not text.endswith(b"\n") else b"") + line + b"\n"


def without_line(text: bytes, line: bytes) -> bytes:
    """`text` without every line that says the same as `line`."""
    return b"".join(other for other in text.splitlines(keepends=True) if not _same(other, line))


def _same(one: bytes, other: bytes) -> bool:
    return one.rstrip(b" \t\n").lower() == other.lower()
