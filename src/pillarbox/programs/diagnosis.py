"""How qmail's programs say that they cannot: `NAME: fatal: TEXT` on standard error, and 100 or 111."""

from __future__ import annotations

import sys

PERMANENT = 100
TEMPORARY = 111


def usage(program: str, text: str) -> int:
    """Called wrongly: 100."""
    print(f"{program}: usage: {program} {text}".rstrip(), file=sys.stderr)
    return PERMANENT


def refused(program: str, text: str) -> int:
    """It cannot be done as asked: 100."""
    print(f"{program}: fatal: {text}", file=sys.stderr)
    return PERMANENT


def fatal(program: str, text: str, problem: OSError | None = None) -> int:
    """It did not work, this time: 111. The system's reason goes behind the text."""
    reason = f": {problem.strerror.lower()}" if problem is not None and problem.strerror else ""
    print(f"{program}: fatal: {text}{reason}", file=sys.stderr)
    return TEMPORARY
