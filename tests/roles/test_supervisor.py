"""The supervisor with roles of the test's own. Those that fork run in a process of their own, forked too: a supervisor
takes over the signals of the process it runs in."""

from __future__ import annotations

import errno
import os
import signal
import socket
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from pillarbox.control.table import Listener, Settings
from pillarbox.net import listening
from pillarbox.roles.house import House
from pillarbox.roles.link import Link
from pillarbox.roles.log import Log
from pillarbox.roles.supervisor import Run, Supervisor
from pillarbox.roles.verbs import ROLE_SAYS, SUPERVISOR_SAYS, Verb

PATIENCE = 10.0  # seconds


@pytest.fixture
def house(tmp_path: Path) -> House:
    (tmp_path / "control").mkdir()
    return House(tmp_path, Settings(me=b"mx.example.org", draintime=2), [])


def supervisor(house: House, run: Run) -> Supervisor:
    return Supervisor(house, [("users", run, 1)], Log("supervisor", as_json=False), lambda moment: None)


def in_a_child(run: Callable[[], int]) -> int:
    """The pid of a forked process that does this and ends with that status."""
    if pid := os.fork():
        return pid
    status = 99
    try:
        status = run()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def ended(pid: int) -> int:
    """The status it ended with; it is killed when it does not."""
    end = time.monotonic() + PATIENCE
    while not (found := os.waitpid(pid, os.WNOHANG))[0]:
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise TimeoutError
        time.sleep(0.01)
    return os.waitstatus_to_exitcode(found[1])


def until_drained(_house: House, control: socket.socket) -> None:
    """A role that does nothing."""
    link = Link(control, SUPERVISOR_SAYS)
    link.send(Verb.READY, 0)
    link.flush()
    while not any(frame.verb is Verb.DRAIN for frame in link.receive()):
        time.sleep(0.01)


def test_a_role_that_cannot_be_started_now_is_started_later(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    started, said = os.pipe()

    def run(house: House, control: socket.socket) -> None:
        os.kill(os.getppid(), signal.SIGTERM)
        until_drained(house, control)

    def serve() -> int:
        fork, times = os.fork, iter(range(3))

        def hindered() -> int:
            if next(times, None) is None:
                return fork()
            os.write(said, b"x")
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

        monkeypatch.setattr(os, "fork", hindered)
        return supervisor(house, run).run()

    assert ended(in_a_child(serve)) == 0
    assert os.read(started, 10) == b"xxx"
    os.close(started)
    os.close(said)


def test_when_it_stops_no_client_is_let_in_any_more(house: House) -> None:
    sock = listening.tcp("127.0.0.1", 0)
    house.listening.append((Listener("pop3", "127.0.0.1", 0), sock))
    address = sock.getsockname()

    def run(house: House, control: socket.socket) -> None:
        os.kill(os.getppid(), signal.SIGTERM)
        until_drained(house, control)
        try:
            socket.create_connection(address, 1).close()
        except ConnectionRefusedError:
            return
        os.kill(os.getppid(), signal.SIGKILL)

    pid = in_a_child(supervisor(house, run).run)
    sock.close()
    assert ended(pid) == 0


def test_what_a_busy_role_was_told_last_arrives(house: House) -> None:
    """As nobody reads, the socket is full; what is left goes out in a later round."""

    def never(_house: House, _control: socket.socket) -> NoReturn:
        raise AssertionError

    boss = supervisor(house, never)
    ours, theirs = socket.socketpair()
    process, role = boss._processes[0], Link(theirs, SUPERVISOR_SAYS)
    process.link, process.start_at = Link(ours, ROLE_SAYS), time.monotonic() + 60
    while not process.link.backlog:
        process.link.send(Verb.RELOAD, 0)
        process.link.flush()
    process.link.send(Verb.DRAIN, 0)
    heard = None
    for _ in range(10):
        boss._round(0)
        heard = next((frame for frame in role.receive() if frame.verb is Verb.DRAIN), heard)
    assert heard is not None
    role.close()
    process.link.close()
