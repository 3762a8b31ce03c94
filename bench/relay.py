"""How fast mail for other hosts gets through: from the first message in to the last one out at a sink.

Both servers send everything for one domain to an smtp-sink of their own, with the concurrency that is their default.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench import postfix, server
from bench.machine import free_port, until, wait_for_greeting

CLIENTS, MESSAGES, OCTETS = 10, 2000, 4096
PATIENCE = 300.0  # seconds for one pass
DOMAIN = "elsewhere.test"

_COUNTED = re.compile(rb"mesg=([0-9]+)")


@dataclass(frozen=True, slots=True)
class Through:
    """Messages in a second of every pass, from the first in to the last out; and until the last was accepted."""

    name: str
    passed: tuple[float, ...]
    accepted: tuple[float, ...]

    @property
    def rate(self) -> float:
        """The median pass."""
        return median(self.passed)


@dataclass(frozen=True, slots=True)
class _Way:
    name: str
    port: int
    arrived: Callable[[], int]  # messages at its sink until now


@contextmanager
def _sink(counters: Path) -> Iterator[tuple[int, Callable[[], int]]]:
    """A sink's port, and how many messages it has taken. It writes its counters over each other, ended by CR."""
    port = free_port()
    user = ["-u", "nobody"] if os.getuid() == 0 else []
    with counters.open("wb") as output:
        sinking = subprocess.Popen(["smtp-sink", "-c", *user, f"127.0.0.1:{port}", "1000"], stdout=output)

    def arrived() -> int:
        with counters.open("rb") as file:
            file.seek(max(0, counters.stat().st_size - 200))
            counted = _COUNTED.findall(file.read().rpartition(b"\r")[0])
        return int(counted[-1]) if counted else 0

    try:
        wait_for_greeting(port)
        yield port, arrived
    finally:
        sinking.terminate()
        sinking.wait()


@contextmanager
def _ways(home: Path, prefix: Path | None) -> Iterator[list[_Way]]:
    with ExitStack() as stack:
        ways = []
        if prefix is not None:
            port, arrived = stack.enter_context(_sink(home / "postfix-sink"))
            stack.enter_context(postfix.users())
            settings = {"relayhost": f"[127.0.0.1]:{port}"}
            ours, _pid = stack.enter_context(postfix.running(prefix, home / "relay-postfix", [], settings))
            ways.append(_Way("Postfix", ours, arrived))
        port, arrived = stack.enter_context(_sink(home / "pillarbox-sink"))
        control = {"rcpthosts": f"{DOMAIN}\n", "smtproutes": f"{DOMAIN}:127.0.0.1:{port}\n"}
        serving = stack.enter_context(server.running(home / "relay-pillarbox", ["joe"], control))
        ways.append(_Way("Pillarbox", serving.ports["smtp"], arrived))
        yield ways


def _pass(way: _Way, messages: int) -> tuple[float, float]:
    """Seconds until the last message was out, and until the last was in."""
    before = way.arrived()
    load = ["smtp-source", "-s", str(CLIENTS), "-l", str(OCTETS), "-m", str(messages), "-f", "a@sender.test"]
    start = time.monotonic()
    subprocess.run([*load, "-t", f"joe@{DOMAIN}", f"127.0.0.1:{way.port}"], check=True)
    accepted = time.monotonic() - start
    out = until(lambda: way.arrived() >= before + messages, PATIENCE, f"{messages} messages through {way.name}")
    return out - start, accepted


def measure(home: Path, passes: int, prefix: Path | None, messages: int = MESSAGES) -> list[Through]:
    """Both servers, `passes` times in turn. `prefix`: where Postfix is unpacked, None to leave it out."""
    with _ways(home, prefix) as ways:
        results: dict[str, list[tuple[float, float]]] = {way.name: [] for way in ways}
        for _ in range(passes):
            for way in ways:
                results[way.name].append(_pass(way, messages))
    return [
        Through(name, tuple(messages / out for out, _in in found), tuple(messages / into for _out, into in found))
        for name, found in results.items()
    ]
