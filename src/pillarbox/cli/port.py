"""Why a port could not be had, and what to do about it."""

from __future__ import annotations

import errno


def remedy(trouble: OSError) -> str:
    """For an error of bind(2) or listen(2)."""
    if trouble.errno == errno.EADDRINUSE:
        return "stop the program that has it, or choose another port"
    if trouble.errno in (errno.EACCES, errno.EPERM):
        return "start as root, or choose a port above 1023"
    return "choose an address of this machine"
