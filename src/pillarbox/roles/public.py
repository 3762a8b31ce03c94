"""The queue role's public socket: what `pillarbox queue` asks of a running server, a JSON object a line.

Only root, the home's owner and the server's own user are heard; the kernel says who calls.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from pillarbox.roles.rounds import Rounds

REQUEST_LIMIT = 64 << 10  # octets
CALLERS = 8  # at once
SEND_TIME = 1.0  # seconds that a caller may hold up the queue by not reading

Answer = Callable[[dict[str, Any]], Iterable[dict[str, Any]]]


class Public:
    """`answer` carries out one request."""

    def __init__(self, rounds: Rounds, listening: socket.socket, home: Path, answer: Answer) -> None:
        self._rounds, self._listening, self._answer = rounds, listening, answer
        self._may = {0, os.getuid(), home.stat().st_uid}
        self._callers: dict[socket.socket, bytes] = {}
        rounds.watch(listening, self._arrived)

    def close(self) -> None:
        """No further requests."""
        self._rounds.unwatch(self._listening)
        for caller in list(self._callers):
            self._drop(caller)

    def _arrived(self) -> None:
        try:
            caller, _ = self._listening.accept()
        except OSError:
            return  # it hung up, or we are out of descriptors: nobody waits for an answer
        if _uid(caller) not in self._may or len(self._callers) >= CALLERS:
            caller.close()
            return
        caller.setblocking(False)
        self._callers[caller] = b""
        self._rounds.watch(caller, lambda: self._readable(caller))

    def _readable(self, caller: socket.socket) -> None:
        try:
            octets = caller.recv(REQUEST_LIMIT)
        except BlockingIOError:
            return
        except OSError:
            octets = b""
        *requests, rest = (self._callers[caller] + octets).split(b"\n")
        if not octets or len(rest) > REQUEST_LIMIT:
            self._drop(caller)
            return
        self._callers[caller] = rest
        for request in requests:
            if not self._reply(caller, request):
                self._drop(caller)
                return

    def _reply(self, caller: socket.socket, request: bytes) -> bool:
        try:
            asked = json.loads(request)
        except (ValueError, RecursionError):
            asked = None
        answers = self._answer(asked) if isinstance(asked, dict) else [{"error": "not a JSON object"}]
        octets = b"".join(json.dumps(answer).encode() + b"\n" for answer in answers)
        caller.settimeout(SEND_TIME)
        try:
            caller.sendall(octets)
        except OSError:
            return False
        caller.setblocking(False)
        return True

    def _drop(self, caller: socket.socket) -> None:
        self._rounds.unwatch(caller)
        del self._callers[caller]
        caller.close()


def _uid(caller: socket.socket) -> int:
    """SO_PEERCRED, unix(7)."""
    credentials = caller.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[1])
