"""`pillarbox install` as root calls it, into a qmail where everybody can go; the programs as users then run them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from pillarbox.cli import runtime
from pillarbox.cli.launchers import CannotInstall
from tests import qmail

ROOT = Path(__file__).resolve().parents[1]
NOBODY = 65534
ENVIRONMENT = {"PATH": os.defpath, "PYTHONPATH": str(ROOT / "src"), "LC_ALL": "C.UTF-8"}


class Ended(NamedTuple):
    status: int
    output: str
    errors: str


def pillarbox_command(*words: str | Path) -> Ended:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "pillarbox", *words], capture_output=True, text=True, env=ENVIRONMENT,
        timeout=120,
    )  # fmt: skip
    return Ended(done.returncode, done.stdout, done.stderr)


def run(program: Path, *words: str, environ: Mapping[str, str] | None = None, cwd: Path = Path("/")) -> Ended:
    """A program as a user without rights runs it."""
    done = subprocess.run(
        [program, *words], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60, cwd=cwd,
        env=dict(environ or {}), user=NOBODY, group=NOBODY, extra_groups=[],
    )  # fmt: skip
    return Ended(done.returncode, done.stdout, done.stderr)


@contextmanager
def a_qmail() -> Iterator[Path]:
    """Where everybody can go, as /var/qmail is; what is installed there must be able to run."""
    try:
        runtime.refuse_unsafe()
        runtime._files()
    except CannotInstall as reason:
        pytest.skip(f"needs a Python and a checkout that are root's and that everybody can run: {reason.text}")
    top = Path(tempfile.mkdtemp(prefix="pillarbox-qmail-"))
    top.chmod(0o755)
    try:
        yield qmail.make(top / "qmail")
    finally:
        shutil.rmtree(top)
