"""Programs as others call them: `pillarbox run NAME` in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pillarbox


class Ended(NamedTuple):
    """How a program ended, and what it said."""

    status: int
    output: bytes
    errors: str


def call(home: Path, *words: str, say: bytes = b"", environ: Mapping[str, str] | None = None) -> Ended:
    """Run a program; nothing of our own environment that it would look at is there."""
    source = str(Path(pillarbox.__file__).parent.parent)
    given = {"PATH": os.defpath, "PYTHONPATH": source, "PILLARBOX_HOME": str(home), "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "pillarbox", "run", *words],
        input=say, capture_output=True, env=given | dict(environ or {}), timeout=60,
    )  # fmt: skip
    return Ended(done.returncode, done.stdout, done.stderr.decode())


def a_home(directory: Path, **control: str) -> Path:
    """Enough of a home for programs: control/me and these."""
    (directory / "control").mkdir(parents=True)
    for name, text in ({"me": "mx.example.org"} | control).items():
        (directory / "control" / name).write_text(text + "\n")
    return directory
