"""control/smtproutes as `check` and `install --dry-run` look at it: lines that send mail nowhere, passwords that all
could read, and what becomes of a line here that was something else to the patched qmail-remote.

The rule that must stay true: no finding shows a password, nor a word that may be one.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

from pillarbox.cli.finding import Finding, note, problem
from pillarbox.cli.layout import holds_passwords
from pillarbox.cli.output import printable
from pillarbox.cli.shell import quoted
from pillarbox.control.table import Settings
from pillarbox.routes import Hop, Routes


def findings(home: Path, settings: Settings, group: str) -> Iterator[Finding]:
    """All there is to say about a home's routes; `group` is who may read them. Raises OSError."""
    for failure in Routes(settings.smtproutes).faults():
        yield Finding("problem", f"{home}/{failure.text}")
    file = home / "control" / "smtproutes"
    if holds_passwords(settings) and file.stat().st_mode & stat.S_IROTH:
        remedy = f"chgrp {group} {quoted(file)} && chmod 640 {quoted(file)}"
        yield problem(str(file), "holds passwords, and everybody can read it", remedy)
    yield from secretive(home, settings)


def secretive(home: Path, settings: Settings) -> Iterator[Finding]:
    """The lines whose password the C program said to whoever was there, and `serve` says only to who proves a name."""
    for line, hop in Routes(settings.smtproutes).logins():
        if not hop.at_home and not hop.among(settings.cleartextroutes):
            relay = printable(_named(hop))
            fact = (
                f"serve says its password to {relay} only over TLS with a certificate for that name; "
                f"in clear once control/cleartextroutes has the line {relay}; the program qmail-remote says it as ever"
            )
            yield note(f"{home}/{line}", fact)


def _named(hop: Hop) -> bytes:
    """As control/cleartextroutes has it."""
    return b"%s:%d" % (hop.relay, hop.port)
