"""What a checkpassword program is asked, within a time: whoever holds descriptor 3 open and says nothing ends us."""

from __future__ import annotations

import errno
import os
import signal
import sys
from types import FrameType

from pillarbox.auth import checkpassword
from pillarbox.auth.checkpassword import Asked, NotAsked

PATIENCE = 60  # seconds


def read() -> Asked:
    """All of descriptor 3, which is closed then. Raises NotAsked."""
    signal.signal(signal.SIGALRM, _late)
    signal.alarm(PATIENCE)
    try:
        return checkpassword.read()
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)


def misused(program: str, text: str) -> int:
    """Called or asked wrongly: checkpassword's 2."""
    print(f"{program}: {text}", file=sys.stderr)
    return checkpassword.MISUSED


def not_asked(program: str, problem: NotAsked) -> int:
    """There was nothing to answer: the exit status that says why."""
    print(f"{program}: fatal: {problem.text}", file=sys.stderr)
    return problem.exit_status


def _late(_number: int, _frame: FrameType | None) -> None:
    raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
