"""A copy of /etc for tests that make users: they mount it over /etc where only they see it, and nothing stays."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path

# What useradd has only while it works, perhaps for somebody else just now.
PASSING = shutil.ignore_patterns("*.lock", "*+", "*.[0-9]*")
ACCOUNTS = ("passwd", "group", "shadow", "gshadow")


def copy_etc(to: Path, *, without: Collection[str] = ()) -> None:
    """Make `to`, with everything but the users and groups of these names."""
    shutil.copytree("/etc", to, symlinks=True, ignore=PASSING)
    for name in ACCOUNTS:
        lines = (to / name).read_text().splitlines(keepends=True)
        (to / name).write_text("".join(line for line in lines if line.split(":")[0] not in without))
