"""How fast mail is accepted durably, with delivery running: Pillarbox, Postfix, and a sink that stores nothing.

The servers run all the time and take turns, so that noise of the machine meets them alike. Every pass has a mailbox of
its own: removing files makes later creations on ext4 several times slower for minutes.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench import machine, postfix, server
from bench.machine import free_port, wait_for_greeting

CLIENTS, MESSAGES, OCTETS = 10, 3000, 4096
ARRIVAL = 120.0  # seconds that the last message may need into its Maildir


@dataclass(frozen=True, slots=True)
class Target:
    """A server to measure: its first process, and where the mail of one mailbox arrives, None if nothing is stored."""

    name: str
    port: int
    pid: int
    new: Callable[[str], Path] | None


@dataclass(frozen=True, slots=True)
class Pass:
    """Seconds from the start of one pass: until the last 250 (and QUIT), and until the last message is in new/; and
    seconds of processor time that the server used."""

    accepted: float
    delivered: float | None
    worked: float


@dataclass(frozen=True, slots=True)
class Rates:
    """Messages in a second of all passes of one target, in order."""

    name: str
    accepted: tuple[float, ...]
    delivered: tuple[float, ...]
    lag: float  # seconds from the last 250 to the last message in the Maildir, median
    work: float  # seconds of processor time for one message, median

    @property
    def rate(self) -> float:
        """The median pass."""
        return median(self.accepted)


def command(port: int, name: str) -> list[str]:
    """What makes the load."""
    sizes = ["-s", str(CLIENTS), "-l", str(OCTETS), "-m", str(MESSAGES)]
    return ["smtp-source", *sizes, "-f", "a@sender.test", "-t", f"{name}@example.test", f"127.0.0.1:{port}"]


@contextmanager
def _sink() -> Iterator[tuple[int, int]]:
    port = free_port()
    user = ["-u", "nobody"] if os.getuid() == 0 else []
    sinking = subprocess.Popen(["smtp-sink", *user, f"127.0.0.1:{port}", "1000"])
    try:
        wait_for_greeting(port)
        yield port, sinking.pid
    finally:
        sinking.terminate()
        sinking.wait()


@contextmanager
def _targets(home: Path, names: list[str], prefix: Path | None) -> Iterator[list[Target]]:
    with ExitStack() as stack:
        targets = []
        if prefix is not None:
            stack.enter_context(postfix.users())
            port, pid = stack.enter_context(postfix.running(prefix, home / "postfix", names))
            targets.append(Target("Postfix", port, pid, lambda name: home / "postfix/mail" / name / "Maildir/new"))
        ours = stack.enter_context(server.running(home / "pillarbox", names))
        targets.append(Target("Pillarbox", ours.ports["smtp"], ours.pid, ours.new))
        targets.append(Target("smtp-sink", *stack.enter_context(_sink()), None))
        yield targets


def _pass(target: Target, name: str) -> Pass:
    worked = machine.processor_time(target.pid)
    start = time.monotonic()
    subprocess.run(command(target.port, name), check=True)
    accepted = time.monotonic() - start
    delivered = None if target.new is None else _arrival(target.name, target.new(name)) - start
    return Pass(accepted, delivered, machine.processor_time(target.pid) - worked)


def _arrival(server: str, new: Path) -> float:
    """When all messages were there."""
    end = time.monotonic() + ARRIVAL
    while not new.exists() or len(os.listdir(new)) < MESSAGES:
        if time.monotonic() > end:
            raise SystemExit(f"bench: {server} has lost mail: {len(os.listdir(new))} of {MESSAGES} are in {new}")
        time.sleep(0.01)
    return time.monotonic()


def _rates(target: Target, passes: list[Pass]) -> Rates:
    delivered = [(each.accepted, each.delivered) for each in passes if each.delivered is not None]
    return Rates(
        target.name,
        tuple(MESSAGES / each.accepted for each in passes),
        tuple(MESSAGES / end for _start, end in delivered),
        median(end - start for start, end in delivered) if delivered else 0.0,
        median(each.worked for each in passes) / MESSAGES,
    )


def measure(home: Path, passes: int, prefix: Path | None) -> list[Rates]:
    """All targets, `passes` times in turn. `prefix`: where Postfix is unpacked, None to leave it out."""
    names = [f"pass{number}" for number in range(passes)]
    with _targets(home, names, prefix) as targets:
        results: dict[str, list[Pass]] = {target.name: [] for target in targets}
        for name in names:
            for target in targets:
                results[target.name].append(_pass(target, name))
        return [_rates(target, results[target.name]) for target in targets]
