"""maildirmake NAME: make a Maildir, mode 0700 (qmail's maildirmake)."""

from __future__ import annotations

import errno
import os

from pillarbox.mailbox import maildir
from pillarbox.programs import diagnosis

NAME = "maildirmake"
# qmail's words where the system's are others (its error_str).
_WORDS = {
    errno.EEXIST: "file already exists",
    errno.ENOENT: "file does not exist",
    errno.EACCES: "access denied",
    errno.EPERM: "permission denied",
    errno.ENOSPC: "out of disk space",
}


def main(arguments: list[str]) -> int:
    """0 made, 100 called wrongly, 111 not made. As in qmail what is there already is not touched, and further arguments
    are ignored."""
    if not arguments:
        return diagnosis.usage(NAME, "name")
    directory = arguments[0]
    try:
        if os.path.lexists(directory):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), directory)
        maildir.make(directory)
    except OSError as problem:
        said = f"unable to mkdir {os.fsdecode(problem.filename or directory)}"
        words = _WORDS.get(problem.errno or 0)
        return diagnosis.fatal(NAME, f"{said}: {words}") if words else diagnosis.fatal(NAME, said, problem)
    return 0
