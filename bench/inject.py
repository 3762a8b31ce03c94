"""How long `sendmail -t` takes, from its start to its end: what every program that sends mail waits for."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench import postfix, server
from bench.machine import until

RUNS = 20
PATIENCE = 60.0  # seconds until the last of a pass has arrived
MESSAGE = b"From: joe@example.test\nTo: joe@example.test\nSubject: bench\n\nhello\n"


@dataclass(frozen=True, slots=True)
class Started:
    """Seconds from start to return of every run of one server's sendmail, in order."""

    name: str
    seconds: tuple[float, ...]

    @property
    def typical(self) -> float:
        """The median run."""
        return median(self.seconds)


@dataclass(frozen=True, slots=True)
class _Program:
    name: str
    command: list[str]
    environment: dict[str, str]
    new: Path


@contextmanager
def _programs(home: Path, prefix: Path | None) -> Iterator[list[_Program]]:
    with ExitStack() as stack:
        programs = []
        if prefix is not None:
            stack.enter_context(postfix.users())
            there = home / "inject-postfix"
            found = postfix.libraries(prefix)  # postdrop, which sendmail starts, must find them too
            settings = {"export_environment": f"TZ MAIL_CONFIG LANG PATH=/usr/bin:/bin LD_LIBRARY_PATH={found}"}
            stack.enter_context(postfix.running(prefix, there, ["joe"], settings))
            command = [str(prefix / "usr/sbin/sendmail"), "-C", str(there / "etc"), "-t"]
            environment = {**os.environ, "LD_LIBRARY_PATH": found}
            programs.append(_Program("Postfix", command, environment, there / "mail/joe/Maildir/new"))
        serving = stack.enter_context(server.running(home / "inject-pillarbox", ["joe"]))
        link = home / "sendmail"
        link.symlink_to(Path(sys.executable).parent / "pillarbox")
        environment = {**os.environ, "PILLARBOX_HOME": str(serving.home)}
        programs.append(_Program("Pillarbox", [str(link), "-t"], environment, serving.new("joe")))
        yield programs


def _run(program: _Program) -> float:
    start = time.monotonic()
    subprocess.run(program.command, input=MESSAGE, env=program.environment, check=True)
    return time.monotonic() - start


def measure(home: Path, prefix: Path | None, runs: int = RUNS) -> list[Started]:
    """Each sendmail `runs` times, in turn, after one that fills the caches. Every message must arrive."""
    with _programs(home, prefix) as programs:
        for program in programs:
            _run(program)
        results: dict[str, list[float]] = {program.name: [] for program in programs}
        for _ in range(runs):
            for program in programs:
                results[program.name].append(_run(program))
        for program in programs:
            mailbox = program.new
            until(
                lambda: mailbox.exists() and len(os.listdir(mailbox)) > runs,  # noqa: B023  # asked within the round
                PATIENCE,
                f"the messages of {program.name}",
            )
    return [Started(name, tuple(found)) for name, found in results.items()]
