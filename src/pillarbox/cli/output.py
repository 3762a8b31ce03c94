"""How commands show things: tables where a person watches, plain lines with tabs where a program reads.

The rule that must stay true: what comes from the network can neither move the cursor nor forge a line.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence


def printable(text: str | bytes) -> str:
    """On one line, harmless to a terminal: control characters, and bytes that are no UTF-8, as escapes."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "surrogateescape")
    return "".join(character if character.isprintable() else _escape(character) for character in text)


def _escape(character: str) -> str:
    number = ord(character)
    if 0xDC80 <= number <= 0xDCFF:  # a byte that was no UTF-8, PEP 383
        return f"\\x{number - 0xDC00:02x}"
    return character.encode("ascii", "backslashreplace").decode() if number > 0x7F else f"\\x{number:02x}"


def table(headings: Sequence[str], rows: Iterable[Sequence[str | bytes]]) -> None:
    """Print rows; with headings and aligned by rich when standard output is a terminal."""
    shown = [[printable(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        for row in shown:
            print("\t".join(row))
        return
    if not shown:
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(*headings, box=box.SIMPLE_HEAD, pad_edge=False)
    for row in shown:
        # Text, because rich would read [brackets] in a str as markup.
        drawn.add_row(*map(Text, row))
    Console(highlight=False).print(drawn)


def complain(line: str) -> None:
    """One line to standard error."""
    print(f"pillarbox: {printable(line)}", file=sys.stderr)
