"""qmail-newu: compile users/assign into users/cdb, which deliveries and logins read (qmail-newu(8))."""

from __future__ import annotations

import os

from pillarbox.cli.home import existing
from pillarbox.programs import diagnosis
from pillarbox.users import assign

NAME = "qmail-newu"


def main(arguments: list[str]) -> int:
    """0 compiled, 111 not; then the old users/cdb stands. Arguments are ignored, as in qmail."""
    users = existing(os.environ) / "users"
    try:
        users.stat()
    except OSError as problem:
        return diagnosis.fatal(NAME, f"unable to chdir to {users.parent}", problem)
    try:
        assign.compile_cdb(users)
    except assign.BadAssign as failure:
        return diagnosis.fatal(NAME, failure.text)
    except FileNotFoundError as problem:
        return diagnosis.fatal(NAME, "unable to open users/assign", problem)
    except OSError as problem:
        return diagnosis.fatal(NAME, "unable to make users/cdb", problem)
    return 0
