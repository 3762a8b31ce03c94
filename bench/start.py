"""How long a program that tcpserver or its like starts takes until its first words: what every client waits for.

Programs that greet have one end of a socketpair as descriptors 0 and 1; checkers read the wrong password of nobody on
descriptor 3 and end, the shell that opens it included; qmail-remote calls a host that listens here. Debian has a C
program of the same kind for some: each is run in turn with ours.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Timer
from typing import Any

from bench.inject import Started
from bench.machine import free_port
from pillarbox.programs.catalogue import PROGRAMS

RUNS = 20
PATIENCE = 10.0  # seconds for one start
NOBODY = 65534
# What checkers are told. maildirpop3d hands names without an extension on to another one, which is not to be counted.
WRONG = {"wrong": b"nosuchuser\0wrong\0\0", "wrong-extension": b"daemon-x\0wrong\0\0"}


@dataclass(frozen=True, slots=True)
class _Case:
    """One program: its command line, how one start of it is timed, and in what environment and as whom."""

    name: str
    command: tuple[str, ...]
    once: Callable[[_Case], float]
    environment: dict[str, str]
    user: int | None = None


def _greeted(case: _Case) -> float:
    """Seconds until the first octets of a greeting."""
    ours, its = socket.socketpair()
    with ours, its:
        ours.settimeout(PATIENCE)
        start = time.monotonic()
        child = _started(case, its)
        its.close()
        said = ours.recv(4096)
        seconds = time.monotonic() - start
    child.wait(PATIENCE)
    if not said.startswith((b"220 ", b"+OK")):
        raise SystemExit(f"bench: {case.name} does not greet: {said!r}")
    return seconds


def _refused(case: _Case) -> float:
    """Seconds until a checker has refused a login."""
    command = ("/bin/sh", "-c", 'exec "$@" 3<"$0"', case.environment["SAID"], *case.command)
    start = time.monotonic()
    child = subprocess.Popen(command, env=case.environment, stderr=subprocess.DEVNULL)
    late = Timer(PATIENCE, child.kill)
    late.start()
    status = child.wait()  # with a time limit it would look now and then, and be late itself
    seconds = time.monotonic() - start
    late.cancel()
    if status != 1:
        raise SystemExit(f"bench: {case.name} ends with {status} instead of 1")
    return seconds


def _called(case: _Case) -> float:
    """Seconds until a program that calls a host has reached it; control/smtproutes says where that is."""
    home = Path(case.environment["PILLARBOX_HOME"])
    with socket.create_server(("127.0.0.1", free_port())) as host:
        host.settimeout(PATIENCE)
        (home / "control/smtproutes").write_text(f":127.0.0.1:{host.getsockname()[1]}\n")
        start = time.monotonic()
        child = _started(case, subprocess.DEVNULL)
        host.accept()[0].close()
        seconds = time.monotonic() - start
    child.wait(PATIENCE)
    return seconds


def _started(case: _Case, both: socket.socket | int) -> subprocess.Popen[bytes]:
    quiet = subprocess.DEVNULL
    output = both if isinstance(both, socket.socket) else quiet
    ids: dict[str, Any] = {} if case.user is None else {"user": case.user, "group": case.user, "extra_groups": ()}
    started: subprocess.Popen[bytes]
    started = subprocess.Popen(case.command, stdin=both, stdout=output, stderr=quiet, env=case.environment, **ids)
    return started


def _cases(home: Path, others: Path | None) -> list[_Case]:
    """Ours, each with Debian's beside it, of those that are there. `others`: where tools/peers puts what it unpacks."""
    environment = {**os.environ, "PILLARBOX_HOME": str(home), "SAID": str(home / "wrong")}
    told = {"maildirpop3d": {"SAID": str(home / "wrong-extension")}}
    checker = (str(home / "checkpassword"), str(home / "qmail-pop3d"), "Maildir")
    wanted: list[tuple[str, tuple[str, ...], Callable[[_Case], float], int | None]] = [
        ("qmail-smtpd", ("mail.example.test", *checker[:1], "/bin/true"), _greeted, None),
        ("qmail-popup", ("mail.example.test", *checker), _greeted, None),
        ("qmail-pop3d", ("Maildir",), _greeted, NOBODY if os.getuid() == 0 else None),
        ("checkpassword", ("/bin/true",), _refused, None),
        ("cmd5checkpw", ("/bin/true",), _refused, None),
        ("maildirpop3d", (*checker[1:], *checker[:1]), _refused, None),
        ("qmail-remote", ("mail.example.test", "a@example.test", "b@example.test"), _called, None),
    ]
    cases = [
        _Case(name, (str(home / name), *words), once, environment | told.get(name, {}), user)
        for name, words, once, user in wanted
        if name in PROGRAMS
    ]
    cases.append(_Case("rblsmtpd (C)", ("rblsmtpd", "true"), _greeted, environment | {"RBLSMTPD": "-no"}))
    if others is not None and (others / "bin/checkpw").exists():
        cases.append(_Case("checkpw (C)", (str(others / "bin/checkpw"), "/bin/true"), _refused, environment))
    return cases


def _prepared(home: Path) -> Path:
    """A home for the programs, with links to them."""
    (home / "control").mkdir(parents=True)
    (home / "control/me").write_text("mail.example.test\n")
    (home / "control/rcpthosts").write_text("example.test\n")
    for file, said in WRONG.items():
        (home / file).write_bytes(said)
    passwords = home / "smtp.passwd"
    passwords.write_text("joe:secret\n")
    (home / "control/smtppasswd").write_text(f"{passwords}\n")
    for directory in ("Maildir", "Maildir/tmp", "Maildir/new", "Maildir/cur"):
        (home / directory).mkdir()
        os.chown(home / directory, NOBODY, NOBODY) if os.getuid() == 0 else None
    for name in PROGRAMS:
        (home / name).symlink_to(Path(sys.executable).parent / "pillarbox")
    return home


def measure(directory: Path, others: Path | None, runs: int = RUNS) -> list[Started]:
    """Each program `runs` times, in turn, after one that fills the caches."""
    home = _prepared(directory / "start")
    here = os.getcwd()
    os.chdir(home)
    try:
        cases = _cases(home, others)
        for case in cases:
            case.once(case)
        results: dict[str, list[float]] = {case.name: [] for case in cases}
        for _ in range(runs):
            for case in cases:
                results[case.name].append(case.once(case))
    finally:
        os.chdir(here)
    return [Started(name, tuple(found)) for name, found in results.items()]
