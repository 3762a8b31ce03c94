"""What a run needs of the machine, and gives back to it."""

from __future__ import annotations

import grp
import os
import pwd
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from pillarbox.users.roles import POSTS

TRIES = 20  # of a quarter of a second: while a process of his ends
BEFORE = pytest.StashKey[set[str]]()  # users and groups


@pytest.fixture(scope="session", autouse=True)
def signals_as_usual() -> None:
    """Under nohup, or in the background of a script, some are ignored, and every program would inherit that."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


@pytest.fixture
def open_path(tmp_path: Path) -> Path:
    """tmp_path, open to every user: pytest keeps what it makes below the system's directory closed, one more with
    workers, and whoever starts it again closes the topmost again."""
    system = Path(tempfile.gettempdir()).resolve()
    for directory in (tmp_path, *tmp_path.parents):
        if system in directory.parents:
            directory.chmod(0o755)
    return tmp_path


def pytest_sessionstart(session: pytest.Session) -> None:
    session.config.stash[BEFORE] = _users() | _groups()


@pytest.hookimpl(wrapper=True)
def pytest_sessionfinish(session: pytest.Session) -> Iterator[None]:
    """As root `init` makes the users of the roles. Those that were not there before a run are gone after it; a worker
    leaves that to the session that it is part of, since others may still need them."""
    yield
    if os.getuid() == 0 and not hasattr(session.config, "workerinput"):
        before = session.config.stash[BEFORE]
        _reap()
        for name in sorted(_users() - before):
            _run("userdel", name)
        for name in sorted(_groups() - before):
            _run("groupdel", name)


def _users() -> set[str]:
    return {"user " + post.name for post in POSTS} & {"user " + one.pw_name for one in pwd.getpwall()}


def _groups() -> set[str]:
    return {"group " + post.group for post in POSTS} & {"group " + one.gr_name for one in grp.getgrall()}


def _reap() -> None:
    """What has ended and nobody waited for still counts as a process of its user."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _run(program: str, name: str) -> None:
    """A machine that does not let go of a user fails no test."""
    for _ in range(TRIES):
        if subprocess.run([program, name.partition(" ")[2]], capture_output=True, timeout=60).returncode == 0:
            return
        time.sleep(0.25)
