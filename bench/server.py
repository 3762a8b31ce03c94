"""A Pillarbox of its own for one measurement: a home, accounts, `pillarbox serve`, and the end of it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PASSWORD = "correct horse battery staple"
LISTEN = "smtp 127.0.0.1:0\nsubmission 127.0.0.1:0\nsubmissions 127.0.0.1:0\npop3 127.0.0.1:0\npop3s 127.0.0.1:0\n"


@dataclass(frozen=True, slots=True)
class Server:
    """One that runs: its supervisor's pid, and the port of each service on 127.0.0.1."""

    home: Path
    pid: int
    ports: dict[str, int]

    def new(self, name: str) -> Path:
        """The new/ of a mailbox of example.test."""
        return self.home / "mail/example.test" / name / "Maildir/new"


def _pillarbox(*words: str) -> list[str]:
    return [sys.executable, "-m", "pillarbox", *words]


def _make(home: Path, names: list[str], control: Mapping[str, str]) -> None:
    here = ("--home", str(home))
    subprocess.run(_pillarbox("init", *here, "--me", "mx.example.test"), check=True, stdout=subprocess.DEVNULL)
    (home / "control/listen").write_text(LISTEN)
    for name in names:
        command = _pillarbox("account", "add", f"{name}@example.test", "--password-stdin", *here)
        subprocess.run(command, check=True, input=PASSWORD.encode() + b"\n", stdout=subprocess.DEVNULL)
    for name, lines in control.items():
        with (home / "control" / name).open("a") as file:
            file.write(lines)


@contextmanager
def running(home: Path, names: list[str], control: Mapping[str, str] | None = None) -> Iterator[Server]:
    """Pillarbox serving the mailboxes `names`@example.test, each with PASSWORD, from `home`. The lines of `control` are
    added to those control files."""
    _make(home, names, control or {})
    with (home.parent / f"{home.name}.log").open("wb") as log:
        serving = subprocess.Popen(_pillarbox("serve", "--home", str(home)), stdout=subprocess.PIPE, stderr=log)
    assert serving.stdout is not None
    try:
        ports = {}
        for line in map(bytes.decode, serving.stdout):
            match line.split():
                case ["listening", service, address]:
                    ports[service] = int(address.rpartition(":")[2])
                case ["ready"]:
                    break
        else:
            raise SystemExit(f"bench: Pillarbox does not start: {Path(log.name).read_text()}")
        yield Server(home, serving.pid, ports)
    finally:
        serving.terminate()
        serving.communicate(timeout=60)
