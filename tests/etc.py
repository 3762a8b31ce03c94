"""A copy of /etc for tests that make users: they mount it over /etc where only they see it, and nothing stays."""

from __future__ import annotations

import shutil
import stat
import subprocess
import sys
from collections.abc import Collection
from functools import cache
from pathlib import Path

import pytest

import pillarbox

# What useradd has only while it works, perhaps for somebody else just now.
PASSING = shutil.ignore_patterns("*.lock", "*+", "*.[0-9]*")
ACCOUNTS = ("passwd", "group", "shadow", "gshadow")


def copy_etc(to: Path, *, without: Collection[str] = ()) -> None:
    """Make `to`, with everything but the users and groups of these names."""
    shutil.copytree("/etc", to, symlinks=True, ignore=PASSING)
    for name in ACCOUNTS:
        lines = (to / name).read_text().splitlines(keepends=True)
        (to / name).write_text("".join(line for line in lines if line.split(":")[0] not in without))


def open_to_all(file: Path) -> bool:
    """Whether every user can run a program that stands there."""
    real = file.resolve()
    return real.exists() and all(place.stat().st_mode & stat.S_IXOTH for place in (real, *real.parents))


def everybody() -> str:
    """A Python that every user can run, ours if it is one, with our source for every user to read: for programs that
    other users run, with the standard library alone. Without one the test ends here."""
    ours = Path(pillarbox.__file__)
    for python in (sys.executable, "/usr/bin/python3"):
        new = python == sys.executable or _new(python)
        if new and open_to_all(Path(python)) and open_to_all(ours.parent):
            return python
    pytest.skip("needs a Python 3.11 and a source tree that every user can read: python3 in /usr/bin")


@cache
def _new(python: str) -> bool:
    look = "import sys; sys.exit(sys.version_info < (3, 11))"
    return Path(python).exists() and subprocess.run([python, "-I", "-c", look]).returncode == 0
