"""qmail-newmrh: compile control/morercpthosts into control/morercpthosts.cdb, which qmail-smtpd and `serve` look into
after control/rcpthosts (qmail-newmrh(8))."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from pillarbox.control import reading
from pillarbox.programs import diagnosis, whereabouts
from pillarbox.users import cdb

NAME = "qmail-newmrh"
SOURCE = "control/morercpthosts"


def main(arguments: list[str]) -> int:
    """0 compiled, 111 not; then the old table stands. Arguments are ignored, as in qmail."""
    home = whereabouts.find(os.environ)
    try:
        os.chdir(home)
    except OSError as problem:
        return diagnosis.fatal(NAME, f"unable to chdir to {home}", problem)
    try:
        text = reading.content(SOURCE)
        if text is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    except OSError as problem:
        return diagnosis.fatal(NAME, f"unable to read {SOURCE}", problem)
    hosts = [line.lower() for _, line in reading.lines(text)]
    try:
        cdb.write(Path(SOURCE + ".cdb"), ((host, b"") for host in hosts))
    except OSError as problem:
        return diagnosis.fatal(NAME, f"unable to write {SOURCE}.cdb", problem)
    return 0
