"""A program on a terminal of its own, as a person at a keyboard has it."""

from __future__ import annotations

import os
import pty
import select
import signal
import termios
import time
from collections.abc import Mapping
from contextlib import suppress

from tests.server import PATIENCE, NotInTime, until


class Terminal:
    """`command` runs with the terminal as its standard input, output and errors; `screen` is all that it showed."""

    def __init__(self, command: list[str], environ: Mapping[str, str]) -> None:
        self.screen = b""
        self.pid, self._keyboard = pty.fork()
        if self.pid == 0:
            try:
                os.execvpe(command[0], command, dict(environ))
            finally:
                os._exit(127)

    def await_text(self, text: bytes) -> None:
        """Until `text` is on the screen."""
        end = time.monotonic() + PATIENCE
        while text not in self.screen:
            if not self._look(end):
                raise NotInTime(f"{text!r} is not in {self.screen!r}")

    def _look(self, end: float) -> bytes:
        octets = b""
        if select.select([self._keyboard], [], [], max(0.0, end - time.monotonic()))[0]:
            with suppress(OSError):  # EIO: nobody has the terminal any more
                octets = os.read(self._keyboard, 4096)
        self.screen += octets
        return octets

    @property
    def echoes(self) -> bool:
        """Whether what is typed now is shown."""
        return bool(termios.tcgetattr(self._keyboard)[3] & termios.ECHO)

    def type(self, octets: bytes) -> None:
        """What a person types, once it is not echoed any more."""
        until(lambda: not self.echoes, "a terminal without echo")
        os.write(self._keyboard, octets)

    def wait(self) -> int:
        """The exit status, or the negative number of a signal, once it has ended; all is on the screen then."""
        end = time.monotonic() + PATIENCE
        while self._look(end):
            pass
        if time.monotonic() > end:
            os.kill(self.pid, signal.SIGKILL)
        _pid, status = os.waitpid(self.pid, 0)
        os.close(self._keyboard)
        return os.waitstatus_to_exitcode(status)
