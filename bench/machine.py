"""The machine under the measurement: a scratch directory on a real disk, free ports, memory of processes."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SYNCED_NOWHERE = ("tmpfs", "ramfs")


@contextmanager
def scratch(parent: Path, *, keep: bool) -> Iterator[Path]:
    """A directory for all servers of one run, which other users can enter. It must lie on a disk: where a sync costs
    nothing there is nothing to measure."""
    kind = subprocess.run(["stat", "-f", "-c", "%T", parent], capture_output=True, text=True, check=True).stdout.strip()
    if kind in SYNCED_NOWHERE:
        raise SystemExit(f"bench: {parent} is {kind}, not a disk: --scratch names a directory on one")
    directory = Path(tempfile.mkdtemp(prefix="pillarbox-bench-", dir=parent))
    directory.chmod(0o711)
    try:
        yield directory
    finally:
        if keep:
            print(f"kept: {directory}")
        else:
            shutil.rmtree(directory)


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def wait_for_greeting(port: int, patience: float = 10.0) -> None:
    """Wait until somebody greets on this port of 127.0.0.1. Raises OSError after `patience` seconds."""
    end = time.monotonic() + patience
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), 1.0) as sock:
                sock.recv(512)
                return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def until(done: Callable[[], bool], patience: float, what: str) -> float:
    """The clock when `done` said so. Ends the run when it does not in `patience` seconds."""
    end = time.monotonic() + patience
    while not done():
        if time.monotonic() > end:
            raise SystemExit(f"bench: not in {patience:g} s: {what}")
        time.sleep(0.005)
    return time.monotonic()


def family(pid: int) -> dict[int, str]:
    """This process and everything below it: pid -> the name it gave itself."""
    parents: dict[int, int] = {}
    names: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                name, _, rest = (entry / "stat").read_text().partition(" (")[2].rpartition(") ")
            except OSError:  # it ended meanwhile
                continue
            parents[int(entry.name)] = int(rest.split()[1])
            names[int(entry.name)] = name.removeprefix("pillarbox-")
    found = {pid: "supervisor"}
    while fresh := {child: names[child] for child, parent in parents.items() if parent in found and child not in found}:
        found |= fresh
    return found


def processor_time(pid: int) -> float:
    """Seconds of processor time that this process and everything below it have used, ended children included."""
    ticks = 0
    for member in family(pid):
        try:
            fields = Path(f"/proc/{member}/stat").read_text().rpartition(") ")[2].split()
        except OSError:  # it ended meanwhile: its parent has its time
            continue
        ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def proportional(pid: int) -> int:
    """The proportional set size of this process and everything below it, octets: memory that n processes share counts
    one n-th in each."""
    total = 0
    for member in family(pid):
        with suppress(FileNotFoundError, ProcessLookupError):  # it ended meanwhile
            total += _kilobytes(Path(f"/proc/{member}/smaps_rollup"), "Pss:") << 10
    return total


def resident(pid: int) -> int:
    """What a process has in memory now, octets; the peak is counted from here on."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return _kilobytes(Path(f"/proc/{pid}/status"), "VmRSS:") << 10


def peak(pid: int) -> int:
    """The most it had in memory since `resident` was asked, octets."""
    return _kilobytes(Path(f"/proc/{pid}/status"), "VmHWM:") << 10


def _kilobytes(file: Path, field: str) -> int:
    return next(int(line.split()[1]) for line in file.read_text().splitlines() if line.startswith(field))


def description() -> str:
    """Processor, cores, kernel."""
    model = next(
        (line.partition(": ")[2] for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        os.uname().machine,
    )
    return f"{model}, {len(os.sched_getaffinity(0))} cores, Linux {os.uname().release}"


def filesystem(directory: Path) -> str:
    """The kind of file system that a directory lies on."""
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    holding = [(point, kind) for point, kind in mounts if directory.is_relative_to(point)]
    return max(holding, key=lambda mount: len(mount[0]))[1]
