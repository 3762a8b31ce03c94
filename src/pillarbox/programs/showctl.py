"""qmail-showctl: every control file, what is in force, and what it is for; from the one table of control files.

The rule that must stay true: passwords in smtproutes are never shown.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from pillarbox import __version__
from pillarbox.cli.home import existing
from pillarbox.cli.output import printable
from pillarbox.control import table
from pillarbox.control.table import Settings
from pillarbox.programs import diagnosis
from pillarbox.routes import masked

NAME = "qmail-showctl"
BREAK = "-"
FORBIDDEN_BITS = "002"


def main(arguments: list[str]) -> int:
    """0 shown, 111 when the control directory cannot be read. Arguments are ignored, as in qmail."""
    home = existing(os.environ)
    try:
        for line in lines(home):
            print(line)
    except OSError as problem:
        return diagnosis.fatal(NAME, f"unable to read {home / 'control'}", problem)
    return 0


def lines(home: Path) -> Iterator[str]:
    """The whole report. Raises OSError."""
    control = home / "control"
    given = set(os.listdir(control))
    settings, complaints = table.read(control)
    yield f"qmail home directory: {home}."
    yield f"user-ext delimiter: {BREAK}."
    yield f"paternalism (in decimal): {int(FORBIDDEN_BITS, 8)}."
    yield f"version: Pillarbox {__version__}."
    for name, entry in table.TABLE.items():
        there = name in given or (name == "morercpthosts" and "morercpthosts.cdb" in given)
        yield ""
        yield f"{name}: {'' if there else '(Default.) '}{entry.help} (read by {', '.join(entry.readers)})"
        yield from (f"  {printable(line)}" for line in values(name, settings))
        yield from (f"  {complaint}" for complaint in complaints if complaint.file == name)
    for name in table.unknown(control):
        yield ""
        yield f"{printable(name)}: I have no idea what this file does."


def values(name: str, settings: Settings) -> Iterator[str | bytes]:
    """What is in force for one control file, a line for each entry."""
    value = getattr(settings, name)
    if value is None:
        return
    if isinstance(value, Mapping):
        for key, entry in value.items():
            yield f"{_text(key)}:{_text(masked(entry) if name == 'smtproutes' else entry)}"
    elif isinstance(value, frozenset | tuple):
        yield from (_text(entry) for entry in (sorted(value) if isinstance(value, frozenset) else value))
    elif isinstance(value, bytes):
        yield from value.splitlines()
    elif isinstance(value, bool):
        yield str(int(value))
    else:
        yield str(value)


def _text(entry: object) -> str:
    if isinstance(entry, bytes):
        return entry.decode("utf-8", "surrogateescape")
    return " ".join(map(_text, entry)) if isinstance(entry, tuple) else str(entry)
