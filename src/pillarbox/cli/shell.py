"""Text that people paste into a POSIX shell."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path


def command() -> str:
    """How to call this very command in a shell."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py":
        return f"{quoted(sys.executable)} -m pillarbox"
    if shutil.which(called.name) == str(called):
        return called.name
    return quoted(called.absolute()) if called.exists() else "pillarbox"


def quoted(text: object) -> str:
    """For a POSIX shell."""
    return shlex.quote(str(text))
