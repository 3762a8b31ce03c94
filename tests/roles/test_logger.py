"""The program that keeps the log, driven by a process of the test's own: a logger takes over standard error."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.server import _environment, until

DRIVER = """
import os, signal, sys, time
from pillarbox.roles import logger
signal.signal(signal.SIGTERM, lambda *_: None)
logger.PIPE, logger.PAUSE = int(os.environ.get("PIPE", 1 << 20)), 0.02
logger.PAUSE_LIMIT = 0.05
os.dup2(os.open("/dev/null", os.O_RDONLY), 30, inheritable=True)
log = logger.Logger(sys.argv[1:], None)
log.start()
for line in sys.stdin:
    os.write(2, line.encode())
log.end()
print("ended")
"""


class Driver:
    """A process whose standard error goes to a logger: what `say` gets, it writes there."""

    def __init__(self, *command: str, **variables: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", DRIVER, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_environment() | variables,
            start_new_session=True,
        )

    def say(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text.encode())
        self.process.stdin.flush()

    def end(self, text: str = "") -> tuple[bytes, bytes]:
        """Say this and no more; what it printed, and what its own standard error has: complaints."""
        try:
            return self.process.communicate(text.encode(), timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.communicate()
            raise


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return tmp_path / "log"


def keeping(kept: Path) -> tuple[str, ...]:
    return ("/bin/sh", "-c", 'echo "begun $$" >>"$0"; exec cat >>"$0"', str(kept))


def test_the_logger_has_every_line_when_we_have_ended(kept: Path) -> None:
    driver = Driver(*keeping(kept))
    assert driver.end("".join(f"line {number}\n" for number in range(5000))) == (b"ended\n", b"")
    begun, *lines = kept.read_text().splitlines()
    assert begun.startswith("begun ")
    assert lines == [f"line {number}" for number in range(5000)]


def test_a_logger_that_was_killed_is_started_again_and_no_line_is_lost(kept: Path) -> None:
    driver = Driver(*keeping(kept))
    driver.say("one\n")
    until(lambda: kept.exists() and "one\n" in kept.read_text(), "the first line")
    os.kill(int(kept.read_text().split()[1]), signal.SIGKILL)
    until(lambda: kept.read_text().count("begun") == 2, "its next life")  # dying, it may still take a line with it
    driver.say("two\n")
    until(lambda: "two\n" in kept.read_text(), "the second line")
    output, complaints = driver.end()
    assert output == b"ended\n"
    assert complaints == b"qmail-start: warning: logger: /bin/sh has ended, starting it again\n"


def test_a_logger_that_cannot_live_does_not_stop_us(kept: Path) -> None:
    driver = Driver("/bin/false", PIPE="4096")
    output, complaints = driver.end(("x" * 1000 + "\n") * 100)
    assert output == b"ended\n"
    assert b"/bin/false does not live: dropping" in complaints


def test_signals_for_everybody_do_not_end_the_log_before_its_last_line(kept: Path) -> None:
    """As a terminal's Ctrl-C, or a system that goes down: the server's last words are still to come."""
    driver = Driver(*keeping(kept))
    until(lambda: kept.exists() and kept.read_text(), "the logger")
    os.killpg(driver.process.pid, signal.SIGTERM)
    until(lambda: kept.read_text().count("begun") == 2, "the logger's next life")
    driver.say("status: exiting\n")
    driver.end()
    assert "status: exiting\n" in kept.read_text()


def test_the_logger_inherits_no_descriptor_and_no_ignored_signal(kept: Path) -> None:
    driver = Driver(*keeping(kept))
    driver.say("one\n")
    until(lambda: kept.exists() and "one\n" in kept.read_text(), "the first line")
    logger = Path("/proc", kept.read_text().split()[1])
    descriptors = set(os.listdir(logger / "fd"))
    (ignored,) = [line for line in (logger / "status").read_text().splitlines() if line.startswith("SigIgn:")]
    driver.end()
    assert descriptors == {"0", "1", "2"}
    assert int(ignored.split()[1], 16) & 0xFFFF == 0
