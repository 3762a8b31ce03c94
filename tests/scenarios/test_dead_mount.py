"""A home on a dead mount: its owner's mail waits, everybody else's goes on, and the server stops when it is told to."""

from __future__ import annotations

import time

from pillarbox.users.assign import compile_cdb
from tests.mounts import dead_mount
from tests.scenarios.wire import deliver, token
from tests.server import a_home, listen, until

UID = 4712  # nobody's


def test_a_home_that_never_answers_holds_up_its_owner_alone() -> None:
    with (
        a_home({"listen": listen("smtp"), "draintime": "1\n"}) as server,
        dead_mount(server.home.parent / "dead") as dead,
    ):
        assign = server.home / "users" / "assign"
        line = f"=example.org-dead:dead:{UID}:{UID}:{dead}/home:::\n"
        assign.write_text(line + assign.read_text())
        compile_cdb(assign.parent)
        server.start()
        for _ in range(5):
            deliver(server, b"Subject: waits\r\n\r\n", b"dead@example.org")
        server.await_log("starting delivery 5: .*-dead@example.org")
        for _ in range(5):
            deliver(server, b"Subject: %s\r\n\r\n" % (word := token()))
            server.await_delivered(word)
        until(lambda: server.pillarbox("queue", "list").count("dead@example.org") == 5, "five that wait")
        before = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - before < 30
