"""What `serve` does before the roles start, where only a real process can show it."""

from __future__ import annotations

import os
import subprocess

from tests.server import _COMMAND, _environment, a_home, until


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
