"""maildirmake NAME: make a Maildir, mode 0700 (qmail's maildirmake)."""

from __future__ import annotations

import errno
import os

from pillarbox.mailbox import maildir
from pillarbox.programs import diagnosis

NAME = "maildirmake"


def main(arguments: list[str]) -> int:
    """0 made, 100 called wrongly, 111 not made. What is there already is not touched, as in qmail."""
    if len(arguments) != 1:
        return diagnosis.usage(NAME, "name")
    directory = arguments[0]
    try:
        if os.path.lexists(directory):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        maildir.make(directory)
    except OSError as problem:
        return diagnosis.fatal(NAME, f"unable to mkdir {directory}", problem)
    return 0
