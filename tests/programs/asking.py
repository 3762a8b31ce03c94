"""checkpassword programs as qmail-popup and qmail-smtpd start them: with something to read on descriptor 3."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pillarbox
from tests.programs.calling import Ended

SOURCE = str(Path(pillarbox.__file__).parent.parent)
OURS = (sys.executable, "-W", "error", "-m", "pillarbox", "run")
# What a program finds of what it should not have: descriptor 3, secrets.
LOOK = "echo in; id -u; id -G; (true <&3) 2>/dev/null && echo descriptor 3; pwd; echo $USER $HOME $SHELL"


def ask(
    octets: bytes | None,
    *words: str,
    command: Sequence[str] = OURS,
    environ: Mapping[str, str] | None = None,
    user: int | None = None,
) -> Ended:
    """Run a program with `octets` on descriptor 3, from a pipe as it comes; None: it has no descriptor 3."""
    given = {"PATH": os.environ["PATH"], "PYTHONPATH": SOURCE, "PILLARBOX_HOME": "/nonexistent", "LC_ALL": "C.UTF-8"}
    text = 'exec "$@" 3<&-' if octets is None else 'exec "$@" 3<&0 </dev/null'
    done = subprocess.run(
        ["/bin/sh", "-c", text, "sh", *command, *words],
        input=octets or b"", capture_output=True, env=given | dict(environ or {}), timeout=60, cwd="/", user=user,
        group=user, extra_groups=None if user is None else [],
    )  # fmt: skip
    return Ended(done.returncode, done.stdout, done.stderr.decode())
