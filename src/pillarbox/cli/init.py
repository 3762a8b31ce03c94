"""`pillarbox init`: make a home, or finish one."""

from __future__ import annotations

from pathlib import Path

from pillarbox.cli.create import create
from pillarbox.cli.output import printable
from pillarbox.cli.shell import command, quoted


def init(home: Path, me: str | None, *, standard_ports: bool) -> int:
    """Prints a line for each thing made, and what comes next. Raises Failure."""
    made = create(home, me, standard_ports=standard_ports)
    for line in made or [f"{home}: complete, nothing to do"]:
        print(printable(line))
    if made:
        at = f"--home {quoted(home)}"
        print(f"next: {command()} account add NAME@DOMAIN {at}, then: {command()} serve {at}")
    return 0
