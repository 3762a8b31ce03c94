"""Ask a checker (roles/checker.py) over its socket: what would stand on descriptor 3, to the end; then one octet comes
back, the exit status of cmd5checkpw."""

from __future__ import annotations

import socket

from pillarbox.net import unix
from pillarbox.status import Failure

SOCKET = "run/checker"
PATIENCE = 30.0  # seconds


class NoChecker(Failure):
    """Nobody listens there: no checker runs for this home."""


class NoAnswer(Failure):
    """There is a checker, and it does not answer, or not us."""


def ask(home: str, octets: bytes) -> int:
    """What the checker of a home says: 0, 1, 2 or 111. Raises NoChecker, NoAnswer."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(PATIENCE)
        try:
            unix.connect(sock, f"{home}/{SOCKET}")
        except TimeoutError:
            raise NoAnswer(f"the checker at {home}/{SOCKET} has no time for us") from None
        except OSError as problem:
            raise NoChecker(f"{home}/{SOCKET}: {problem.strerror or problem}") from None
        try:
            sock.sendall(octets)
            sock.shutdown(socket.SHUT_WR)
            answer = sock.recv(1)
        except (ConnectionResetError, BrokenPipeError):  # it did not even read what we said
            answer = b""
        except OSError as problem:
            raise NoAnswer(f"the checker at {home}/{SOCKET} does not answer: {problem.strerror or problem}") from None
    if not answer:
        raise NoAnswer(f"the checker at {home}/{SOCKET} does not answer this user: see control/checkerusers")
    return answer[0]
