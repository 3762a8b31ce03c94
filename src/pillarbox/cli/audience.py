"""Who reads what `serve` prints: a person at a terminal (or with a file), or nobody but the log."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping


def nobody(environ: Mapping[str, str], output: int = 1) -> bool:
    """Whether the descriptor `output` is systemd's journal ($JOURNAL_STREAM, systemd.exec(5)) or a device such as
    /dev/null that is no terminal. A password printed there would be kept in a log, or lost."""
    try:
        facts = os.fstat(output)
    except OSError:
        return True
    if stat.S_ISCHR(facts.st_mode):
        return not os.isatty(output)
    return environ.get("JOURNAL_STREAM") == f"{facts.st_dev}:{facts.st_ino}"
