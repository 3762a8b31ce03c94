"""The rows: what must hold for programs that take the place of qmail's, and which test holds each.

tests/rows/*.txt state them, one paragraph a row:

    smtpd-hops  binds  F 23
      A message with 100 hops is refused with `554 too many hops, this message is looping (#5.4.6)`; 99 pass.

The first line has the row's name, `binds` or `free` (worth knowing, promised to nobody), and for a known bug or limit
of qmail K, F or O (kept, fixed, behind an option) with its number in the project's list. Lines that begin with # are
for the reader.

A test says which rows it holds in a comment, in its body, in its decorators or straight above it, with one name or
several: `row: smtpd-hops, smtpd-databytes` behind a #. In a table of cases the comment stands at the case. In a
dialogue file (tests/dialogues) it is a comment as well.

    python -m tests.rows [WORD]     every row, or those with WORD in them, beside the tests that hold it
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).parent
ROWS = TESTS / "rows"

_HEAD = re.compile(r"([a-z][a-z0-9-]*)  (binds|free)(?:  ([KFO]) ([0-9]+))?")
_MARK = re.compile(r"#\s*row:\s*(.*)")
_NAME = re.compile(r"[a-z][a-z0-9-]*")


class BadRow(Exception):
    """A file of rows, or a mark, says something that is not in the format; the text has file and line."""


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that must hold; `action` is K, F or O and `number` its place in the list of known bugs, if in it."""

    name: str
    binds: bool
    action: str
    number: int
    text: str
    place: str


@dataclass(frozen=True, slots=True)
class Mark:
    """A test says that it holds a row."""

    row: str
    test: str
    place: str


def parse(file: Path) -> Iterator[Row]:
    """The rows of one file; raises BadRow."""
    for match in re.finditer(r"(?:^(?![#\n]).*\n)+", file.read_text("utf-8"), re.MULTILINE):
        head, *text = match[0].splitlines()
        place = f"{file.name}: line {match.string.count(chr(10), 0, match.start()) + 1}"
        said = _HEAD.fullmatch(head)
        if said is None or not text or not all(line.startswith("  ") for line in text):
            raise BadRow(f"{place}: {head!r}")
        yield Row(said[1], said[2] == "binds", said[3] or "", int(said[4] or 0), " ".join(map(str.strip, text)), place)


def rows(directory: Path = ROWS) -> dict[str, Row]:
    """All rows by name; raises BadRow for a name that two have."""
    found: dict[str, Row] = {}
    for file in sorted(directory.glob("*.txt")):
        for row in parse(file):
            if row.name in found:
                raise BadRow(f"{row.place}: {row.name} is at {found[row.name].place} already")
            found[row.name] = row
    return found


def marks(directory: Path = TESTS) -> Iterator[Mark]:
    """What all tests under a directory say that they hold; raises BadRow for a mark that belongs to no test."""
    for file in sorted(directory.rglob("test_*.py")):
        yield from marks_of(file.read_text("utf-8"), str(file.relative_to(directory)))
    for file in sorted((directory / "dialogues").rglob("*.txt")):
        name = str(file.relative_to(directory))
        for number, line in enumerate(file.read_text("utf-8").splitlines(), 1):
            yield from _marks(line, "", f"{name}:{number}") if line.startswith("#") else ()


def marks_of(source: str, file: str) -> Iterator[Mark]:
    """The marks in the text of one test file."""
    if not _MARK.search(source):
        return
    statements = [(node.end_lineno or 0, _name(node)) for node in ast.parse(source).body]
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and _MARK.match(token.string):
            line = token.start[0]
            name = next((name for end, name in statements if end >= line), "")
            if not name:
                raise BadRow(f"{file}:{line}: {token.string} belongs to no test")
            yield from _marks(token.string, f"::{name}", f"{file}:{line}")


def without_a_test(known: dict[str, Row], marked: set[str]) -> list[str]:
    """The rows that bind and that no test holds."""
    return [name for name, row in known.items() if row.binds and name not in marked]


def _name(node: ast.stmt) -> str:
    """The name of a test, of a class of tests, or of a table of cases; "" for anything that cannot hold a row."""
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) if name.startswith("test_"):
            return name
        case ast.ClassDef(name=name) if name.startswith("Test"):
            return name
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)) if name.isupper():
            return name
    return ""


def _marks(comment: str, test: str, place: str) -> Iterator[Mark]:
    match = _MARK.match(comment)
    for name in match[1].split(",") if match else ():
        if not _NAME.fullmatch(name.strip()):
            raise BadRow(f"{place}: {comment}: names of rows, with commas between them")
        yield Mark(name.strip(), place.rpartition(":")[0] + test, place)


def main() -> int:
    """Print every row beside the tests that hold it; 1 when one that binds has none."""
    known = rows()
    tests: dict[str, list[str]] = defaultdict(list)
    for mark in marks():
        if mark.test not in tests[mark.row]:
            tests[mark.row].append(mark.test)
    for name, row in known.items():
        if not sys.argv[1:] or any(word in f"{name} {row.text}" for word in sys.argv[1:]):
            kind = f"{'binds' if row.binds else 'free'} {row.action}{row.number or ''}".strip()
            print(f"{name} ({kind}): {row.text}")
            print("".join(f"    {test}\n" for test in tests.get(name, ["no test"])), end="")
    missing = without_a_test(known, set(tests))
    print(f"{len(known)} rows, {sum(row.binds for row in known.values())} bind, {len(missing)} of these without a test")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
