"""The program that keeps our log, as qmail-start starts it: multilog, splogger, or what somebody likes better.

A process of its own, the keeper, starts it again whenever it dies; the pipe stays open meanwhile, so that no line is
lost but what the logger had read. The rule that must stay true: a logger that cannot live does not stop the mail. What
it does not take is dropped before the pipe is full.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import termios
import time
from collections.abc import Sequence

from pillarbox.roles.log import STANDARD_ERROR
from pillarbox.roles.process import keep_only
from pillarbox.users.become import Ids, become

PAUSE = 0.1  # seconds before a logger that died is started again; doubles up to
PAUSE_LIMIT = 5.0
STEADY = 10.0  # seconds that it must live to be started again without a longer pause
PIPE = 1 << 20  # octets that wait for a logger
PATIENCE = 10.0  # seconds that it may need for the last lines when we have ended
CANNOT = 111
_CAUGHT = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGCHLD)


class Logger:
    """`command`: the program and its arguments; `user`: whom it runs as, None for whoever we are."""

    def __init__(self, command: Sequence[str], user: Ids | None) -> None:
        self._command, self._user = list(command), user
        self._keeper = 0

    def start(self) -> None:
        """From here on what is written to standard error goes to the logger. Raises OSError."""
        taken, given = os.pipe()
        fcntl.fcntl(given, fcntl.F_SETPIPE_SZ, PIPE)
        self._keeper = os.fork()
        if self._keeper == 0:
            os.close(given)
            _be_keeper(self._command, taken, self._user)
        os.close(taken)
        os.dup2(given, STANDARD_ERROR)
        os.close(given)

    def end(self) -> None:
        """Let it write the last lines and end, for at most PATIENCE seconds."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, STANDARD_ERROR)
        os.close(nowhere)
        deadline = time.monotonic() + PATIENCE
        while os.waitpid(self._keeper, os.WNOHANG)[0] == 0:
            if time.monotonic() > deadline:
                return  # it has its own life now, and ends when it has read to the end
            time.sleep(0.01)


def _be_keeper(command: list[str], taken: int, user: Ids | None) -> None:
    """In the forked child, never returns. Signals that a terminal or svc sends to everybody are for the server: the
    log is kept to its end."""
    status = CANNOT
    try:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        os.dup2(taken, 0)
        keep_only({0, 1, 2})
        if user is not None:
            become(user)
        _keep(command)
        status = 0
    except OSError as problem:
        _complain(f"cannot keep {command[0]} running: {problem.strerror}")
    finally:
        os._exit(status)


def _keep(command: list[str]) -> None:
    pause = PAUSE
    while True:
        started = time.monotonic()
        _run(command)
        if _finished():
            return
        pause = PAUSE if time.monotonic() - started > STEADY else min(pause * 2, PAUSE_LIMIT)
        _complain(f"{command[0]} has ended, starting it again")
        time.sleep(pause)
        _make_room(command[0])


def _run(command: list[str]) -> None:
    """One life of the logger, from exec to its end. Raises OSError when there is no process to be had."""
    pid = os.fork()
    if pid == 0:
        try:
            for number in _CAUGHT:
                signal.signal(number, signal.SIG_DFL)
            os.execvp(command[0], command)
        except OSError as problem:
            _complain(f"cannot run {command[0]}: {problem.strerror}")
        finally:
            os._exit(CANNOT)
    os.waitpid(pid, 0)


def _finished() -> bool:
    """Nobody can write to the pipe any more, and nothing is left in it."""
    poll = select.poll()
    poll.register(0, select.POLLIN)
    events = dict(poll.poll(0)).get(0, 0)
    return bool(events & select.POLLHUP) and not events & select.POLLIN


def _make_room(name: str) -> None:
    """Whoever writes into a full pipe waits, and these are all our roles."""
    waiting = bytearray(4)
    fcntl.ioctl(0, termios.FIONREAD, waiting)
    octets = int.from_bytes(waiting, "little")
    if octets > PIPE // 2:
        _complain(f"{name} does not live: dropping {len(os.read(0, octets))} octets of the log")


def _complain(text: str) -> None:
    os.write(STANDARD_ERROR, f"qmail-start: warning: logger: {text}\n".encode("utf-8", "backslashreplace"))
