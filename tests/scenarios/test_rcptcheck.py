"""control/rcptcheck in its three values: who says at RCPT whether a recipient exists."""

from __future__ import annotations

import os
import signal

from tests.scenarios.wire import deliver, smtp, token
from tests.server import Server, a_home, listen, until


def answers(server: Server, *recipients: bytes) -> list[bytes]:
    """Code and status of each RCPT."""
    with smtp(server) as wire:
        wire.tell(b"MAIL FROM:<ann@example.net>")
        return [wire.tell(b"RCPT TO:<%s>" % recipient)[:9] for recipient in recipients]


# row: known-backscatter
def test_off_takes_everything_in_our_domains() -> None:
    with a_home({"listen": listen("smtp"), "rcptcheck": "off\n"}) as server:
        server.start()
        assert answers(server, b"joe@example.org", b"joe-nix@example.org", b"nobody@example.org") == [b"250 2.1.5"] * 3
        assert answers(server, b"joe@far.example") == [b"550 5.7.1"]


def test_users_looks_for_the_owner_alone() -> None:
    with a_home({"listen": listen("smtp"), "rcptcheck": "users\n"}) as server:
        server.start()
        taken, extension, nobody = answers(server, b"joe@example.org", b"joe-nix@example.org", b"nobody@example.org")
        assert (taken, extension, nobody) == (b"250 2.1.5", b"250 2.1.5", b"550 5.1.1")


def test_owner_asks_the_owner_s_role_whether_there_is_a_mailbox() -> None:
    with a_home({"listen": listen("smtp"), "rcptcheck": "owner\n"}) as server:
        server.put(server.mailbox() / ".qmail-lists", b"./Maildir/\n")
        server.start()
        assert answers(server, b"joe@example.org", b"joe-lists@example.org") == [b"250 2.1.5"] * 2
        assert answers(server, b"joe-nix@example.org", b"nobody@example.org") == [b"550 5.1.1"] * 2
        deliver(server, b"Subject: %s\r\n\r\n" % (word := token()), b"joe-lists@example.org")
        server.await_delivered(word)
        server.kill_role("spawn")
        until(lambda: answers(server, b"joe-Lists@example.org") == [b"250 2.1.5"], "an answer of the next owner role")


def test_an_owner_that_does_not_answer_in_time_is_a_temporary_no() -> None:
    with a_home({"listen": listen("smtp"), "rcptcheck": "owner\n"}) as server:
        server.start()
        assert answers(server, b"joe@example.org") == [b"250 2.1.5"]
        (owner,) = server.processes("owner")
        os.kill(owner, signal.SIGSTOP)
        assert answers(server, b"joe-nix@example.org", b"nobody@example.org") == [b"451 4.3.0", b"550 5.1.1"]
        os.kill(owner, signal.SIGCONT)
        until(lambda: answers(server, b"joe-nix@example.org") == [b"550 5.1.1"], "the owner's word")
