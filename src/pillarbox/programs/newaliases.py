"""newaliases: make the alias table of /etc/aliases (control/aliases), which deliveries read; fastforward's newaliases.

Whoever may write the table's directory may call it: root, for /etc.
"""

from __future__ import annotations

import os
import sys

from pillarbox.cli.home import existing, require
from pillarbox.compose.rewriting import Hosts
from pillarbox.control import table
from pillarbox.delivery import aliases
from pillarbox.programs import diagnosis

NAME = "newaliases"


def main(arguments: list[str]) -> int:
    """0 made; 100 where the file breaks its rules, 111 not made; then the old table stands. Arguments are ignored."""
    home = existing(os.environ)
    require(home)
    settings, _complaints = table.read(home / "control")
    file = home / settings.aliases
    try:
        text = file.read_bytes()
    except OSError as problem:
        return diagnosis.fatal(NAME, f"unable to read {file}", problem)
    hosts = Hosts(settings.defaulthost, settings.defaultdomain, settings.plusdomain)
    try:
        warnings = aliases.write(file, text, hosts)
    except aliases.BadAliases as bad:
        print(f"{NAME}: fatal: {file}: {bad.text}", file=sys.stderr)
        return diagnosis.PERMANENT
    except OSError as problem:
        return diagnosis.fatal(NAME, f"unable to write {file}.cdb", problem)
    for warning in warnings:
        print(f"{NAME}: warning: {file}: {warning}", file=sys.stderr)
    return 0
