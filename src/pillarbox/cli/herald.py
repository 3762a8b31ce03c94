"""Makes the first account, and when all is ready tells people what runs and how to log in, in a process of its own.

The roles are forked from the process that serves. What it never knew, a role that is broken into cannot tell: the new
password is in the herald's memory alone, and he ends when he has said it.
"""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pillarbox.cli.first import first_account
from pillarbox.cli.welcome import welcome
from pillarbox.control.table import SECRET, Listener, Settings, read
from pillarbox.roles.process import keep_only
from pillarbox.status import Failure, Status

PATIENCE = 30.0  # seconds to make an account, or to print a few lines
LONGEST = 1 << 20  # octets of lines


class Herald:
    """`begin` one, and let him `proclaim` when all serve."""

    def __init__(self, pid: int, link: socket.socket) -> None:
        self._pid, self._link = pid, link

    @classmethod
    def begin(cls, home: Path, settings: Settings, bound: Sequence[Listener]) -> Herald:
        """Make the first account unless there are accounts. `bound`: the listeners with their real ports. Raises what
        `first_account` raises."""
        ours, his = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            _be(home, settings, bound, his)
        his.close()
        ours.settimeout(PATIENCE)
        herald = cls(pid, ours)
        try:
            answer = ours.recv(65536)
        except TimeoutError:
            answer = b""
        if answer != b"{}":
            herald.dismiss()
            _raise(json.loads(answer or '{"status": [4, 3, 0], "text": "cannot make the first account"}'))
        return herald

    def proclaim(self, lines: Sequence[str]) -> None:
        """Print these lines and the welcome behind them; returns when that is done, or takes too long."""
        with suppress(OSError):
            self._link.sendall("\n".join(lines).encode())
            self._link.shutdown(socket.SHUT_WR)
            self._link.recv(1)  # he ends
        self.dismiss()

    def dismiss(self) -> None:
        """He has nothing more to say."""
        self._link.close()
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)


def _raise(trouble: dict[str, Any]) -> None:
    if "errno" in trouble:
        raise OSError(trouble["errno"], os.strerror(trouble["errno"]), trouble["file"])
    raise Failure(trouble["text"], Status(*trouble["status"]))


def _be(home: Path, settings: Settings, bound: Sequence[Listener], link: socket.socket) -> None:
    """In the child. A terminal sends its signals to him too; he ends when nobody is left who could let him speak."""
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        keep_only({0, 1, 2, link.fileno()})
        try:
            login, password = first_account(home, settings)
        except Failure as failure:
            link.sendall(json.dumps({"status": list(failure.status), "text": failure.text}).encode())
        except OSError as problem:
            file = None if problem.filename is None else os.fsdecode(problem.filename)
            link.sendall(json.dumps({"errno": problem.errno, "file": file}).encode())
        else:
            link.sendall(b"{}")
            said = b""
            while (block := link.recv(65536)) and len(said) < LONGEST:
                said += block
            if said:
                now = read(home / "control", closed=SECRET)[0]
                text = "\n".join([said.decode(), *welcome(home, now, bound, login, password)]) + "\n"
                _print(text.encode("utf-8", "replace"))
    finally:
        os._exit(0)


def _print(octets: bytes) -> None:
    while octets:
        octets = octets[os.write(1, octets) :]
