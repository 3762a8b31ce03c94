"""Is it another program that queues mail here? $QMAILQUEUE says so; or the home is one of a C qmail, in which single
programs of ours have taken the places of its own, and mail has to reach the qmail-send that runs there.

The rule that must stay true: mail goes to a queue that somebody works on. Where both could, the one who runs decides.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

LAUNCHER: Final = b"Put here by pillarbox install"  # stands in each launcher of ours, and in no other program
_HEAD: Final = 4096  # octets of a launcher in which that stands


def program(home: str, environ: Mapping[bytes, bytes]) -> bytes | None:
    """The program that takes the message, by its path; None: the server of `home`. It is $QMAILQUEUE, else HOME's own
    bin/qmail-queue if that is not ours and qmail-send runs there, or if `home` was never a home of Pillarbox."""
    named = environ.get(b"QMAILQUEUE")
    if named:
        return named
    own = f"{home}/bin/qmail-queue"
    if not os.access(own, os.X_OK) or _is_ours(own):
        return None
    return os.fsencode(own) if _qmail_send_runs(home) or not os.path.isdir(f"{home}/run") else None


def _is_ours(file: str) -> bool:
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False  # ours can be read by everybody; qmail's, mode 4711, can not
    try:
        return LAUNCHER in os.read(descriptor, _HEAD)
    finally:
        os.close(descriptor)


def _qmail_send_runs(home: str) -> bool:
    """As qmail-queue finds it to wake it up: it has the reading end of lock/trigger open."""
    try:
        os.close(os.open(f"{home}/queue/lock/trigger", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError:
        return False
    return True
