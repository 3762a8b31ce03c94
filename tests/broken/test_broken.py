"""Broken set-ups: each directory here breaks a good home in one way and holds what is said of it, to the letter.

`break.sh` runs in the home, with $taken (a port that somebody has) and $other (another home's tls/). `expected` has
lines: `run:` the command; `status:` its exit status; `says:` each line on standard error, in order and no others;
`ready`: the server serves all the same, until it is told to stop; `as: root` or `as: nobody`: who runs the command;
`locked`: somebody holds the home's lock. {home}, {parent}, {taken}, {user} and {pid} stand for what they say.
"""

from __future__ import annotations

import atexit
import os
import pwd
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

import pillarbox
from pillarbox.cli.home import Lock

HERE = Path(__file__).parent
NOBODY = 65534
PATIENCE = 30.0

# Imports everything first, as `serve` does: the other user may not be able to read where our modules are.
AS_USER = """
import encodings.ascii, os, sys
import pillarbox.cli.account, pillarbox.cli.certificate, pillarbox.cli.main, pillarbox.cli.serve
uid = int(sys.argv.pop(1))
if uid and os.getuid() == 0:
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
pillarbox.cli.main.main()
"""


@dataclass(frozen=True, slots=True)
class Expected:
    """What a file `expected` says."""

    run: tuple[str, ...]
    status: int
    says: tuple[str, ...]
    user: str
    ready: bool
    locked: bool


def parse(file: Path) -> Expected:
    found: dict[str, list[str]] = {}
    for line in file.read_text().splitlines():
        word, _, text = line.partition(": ")
        assert word in ("run", "status", "says", "as", "ready", "locked"), f"{file}: {line}"
        found.setdefault(word, []).append(text)
    (run,), (status,), (user,) = found["run"], found["status"], found.get("as", [""])
    says = tuple(found.get("says", ()))
    return Expected(tuple(run.split()), int(status), says, user, "ready" in found, "locked" in found)


CASES = sorted(directory.name for directory in HERE.iterdir() if (directory / "expected").exists())


def pillarbox_process(uid: int, *arguments: str) -> subprocess.Popen[bytes]:
    source = str(Path(pillarbox.__file__).parent.parent)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PILLARBOX")}
    command = ["-m", "pillarbox"] if uid == os.getuid() else ["-c", AS_USER, str(uid)]
    return subprocess.Popen(
        [sys.executable, *command, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment | {"PYTHONPATH": source, "LC_ALL": "C.UTF-8"},
        cwd="/",
    )


@cache
def template(uid: int) -> Path:
    """A home in which nothing is wrong, made by that user; each case breaks a copy of its own."""
    place = Path(tempfile.mkdtemp(prefix="pillarbox-test-"))
    atexit.register(shutil.rmtree, place)
    place.chmod(0o755)
    os.chown(place, uid, -1)
    made = pillarbox_process(uid, "init", "--me", "mx.example.org", "--home", str(place / "home"))
    assert made.communicate()[1] == b""
    (place / "home" / "control" / "listen").write_text("smtp 127.0.0.1:0\npop3s 127.0.0.1:0\n")
    return place / "home"


@pytest.fixture
def directory() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="pillarbox-test-"))
    made.chmod(0o755)
    yield made
    made.chmod(0o755)
    shutil.rmtree(made)


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as somebody:
        yield somebody.getsockname()[1]


@pytest.mark.parametrize("name", CASES)
def test_a_broken_set_up_says_what_is_wrong_in_one_line(name: str, directory: Path, taken: int) -> None:
    expected = parse(HERE / name / "expected")
    if expected.user == "root" and os.getuid() != 0:
        pytest.skip("needs root")
    uid = NOBODY if expected.user == "nobody" and os.getuid() == 0 else os.getuid()
    os.chown(directory, uid, -1)
    home = directory / "home"
    subprocess.run(["cp", "-a", template(uid), home], check=True)
    break_it(HERE / name / "break.sh", home, directory, taken)
    with holding(home, expected.locked):
        status, ready, said = run(uid, [*expected.run, "--home", str(home)])
    facts = {"home": home, "parent": directory, "taken": taken, "user": user_name(uid), "pid": os.getpid()}
    assert said == [line.format(**facts) for line in expected.says]
    assert (status, ready) == (expected.status, expected.ready)


def test_there_are_enough_of_them_and_every_one_is_complete() -> None:
    assert len(CASES) >= 16
    assert all((HERE / name / "break.sh").exists() for name in CASES)
    assert {path.name for path in HERE.iterdir() if path.is_dir() and path.name[0].isdigit()} == set(CASES)


def user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def break_it(script: Path, home: Path, directory: Path, taken: int) -> None:
    other = directory / "other"
    other.mkdir()
    environment: Mapping[str, str] = {**os.environ, "taken": str(taken), "other": str(other)}
    if "$other" in script.read_text():
        made = pillarbox_process(os.getuid(), "init", "--me", "other.example.org", "--home", str(other / "home"))
        made.communicate()
        (other / "home" / "tls" / "cert.pem").rename(other / "cert.pem")
    subprocess.run(["sh", "-eu", str(script)], cwd=home, env=environment, check=True)


class holding:
    """Holds the home's lock meanwhile, or does not."""

    def __init__(self, home: Path, wanted: bool) -> None:
        self._lock = Lock(home) if wanted else None

    def __enter__(self) -> None:
        if self._lock is not None:
            self._lock.take()

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            self._lock.release()


def run(uid: int, arguments: list[str]) -> tuple[int, bool, list[str]]:
    """(exit status, whether it got as far as to serve, the lines of `pillarbox` on standard error). Every line of
    a command that fails is meant for people; a server also logs."""
    process = pillarbox_process(uid, *arguments)
    ready = serves(process) if arguments[0] == "serve" else False
    if ready:
        process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(b"secret\n", timeout=PATIENCE)
    lines = errors.decode().splitlines()
    assert "Traceback" not in errors.decode()
    return process.returncode, ready, [line for line in lines if not ready or line.startswith("pillarbox: ")]


def serves(process: subprocess.Popen[bytes]) -> bool:
    """Whether it says `ready`, before it ends."""
    assert process.stdout is not None
    said = b""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if select.select([process.stdout], [], [], 0.1)[0]:
            piece = os.read(process.stdout.fileno(), 4096)
            said += piece
            if b"\nready\n" in said:
                return True
            if not piece:
                return False
    raise AssertionError(f"neither ready nor over: {said!r}")
