"""What `serve` does before the roles start, where only a real process can show it."""

from __future__ import annotations

import os
import subprocess

import pytest

import tests.server
from tests.scenarios.wire import Wire, login
from tests.server import _COMMAND, SECRET, Server, _environment, a_home, until


def test_no_file_takes_the_place_of_a_closed_standard_descriptor() -> None:
    """The log would be written into it."""
    with a_home() as server:
        serve = [*_COMMAND, "serve", "--home", str(server.home)]
        closed = ["/bin/sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *serve]
        server._serving = subprocess.Popen(closed, env=_environment(), cwd=server.home.parent)
        (queue,) = until(lambda: server.processes("queue"), "a queue role")
        for pid in (server.pid, queue):
            assert {os.readlink(f"/proc/{pid}/fd/{number}") for number in range(3)} == {"/dev/null"}
        until(lambda: server.processes("pop3d"), "the last role")
        assert server.stop() == 0
        assert (server.home / "run" / "lock").read_text() == f"{server.pid}\n"


def test_a_crowd_that_takes_all_descriptors_does_not_cost_a_role_its_links(monkeypatch: pytest.MonkeyPatch) -> None:
    limited = ("/bin/sh", "-c", 'ulimit -n 160; exec "$@"', "sh", *_COMMAND)
    with a_home({"authcleartext": "1\n"}) as server:
        with monkeypatch.context() as patched:
            patched.setattr(tests.server, "_COMMAND", limited)
            server.start()
        with Wire(server, "pop3") as first:
            first.line()
            crowd = [Wire(server, "pop3") for _ in range(200)]
            first.tell(b"USER joe@example.org")
            assert first.tell(b"PASS " + SECRET.encode()).startswith(b"+OK ")
        for one in crowd:
            one.close()
        until(
            lambda: not server.processes("pop3d") or len(os.listdir(f"/proc/{server.processes('pop3d')[0]}/fd")) < 40,
            "the crowd's end",
        )
        until(lambda: logged_in(server), "a login after the crowd")
        assert server.stop() == 0


def logged_in(server: Server) -> bool:
    """The maildrop may still be the first client's for a moment."""
    try:
        login(server, b"joe@example.org", SECRET.encode()).close()
    except AssertionError:
        return False
    return True
