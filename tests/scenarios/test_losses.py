"""What is under way when somebody goes, client or role, ends as it should: nothing half is kept, nothing stays locked,
and whoever is still there hears of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.scenarios.wire import Wire, deliver, envelope, login, pop3, smtp, token
from tests.server import SECRET, Server, a_server, until

JOE = b"joe@example.org"
PASSWORD = SECRET.encode()
LINES = (b"x" * 70 + b"\r\n") * 10_000  # more than a message may have to stay out of queue/spool


@pytest.fixture(scope="module")
def shaken() -> Iterator[Server]:
    """A server whose roles are killed."""
    with a_server() as server:
        yield server


def begin(server: Server, word: bytes) -> Wire:
    """A client that has sent half of a large message, of which the queue has a spool file."""
    wire = smtp(server)
    envelope(wire, b"ann@example.net", JOE)
    assert wire.tell(b"DATA").startswith(b"354 ")
    wire.send(b"Subject: %s\r\n\r\n%s" % (word, LINES))
    until(lambda: spooled(server), "a spool file")
    return wire


def spooled(server: Server) -> list[str]:
    return [file.name for file in (server.home / "queue" / "spool").iterdir()]


def check_forgotten(server: Server, word: bytes) -> None:
    """No trace is left of a message that was never whole."""
    until(lambda: not spooled(server), "an empty spool")
    again = token()
    until(lambda: taken(server, again), "mail taken")
    server.await_delivered(again)
    assert server.pillarbox("queue", "list") == ""
    assert server.holding(word) == []


def taken(server: Server, word: bytes) -> bool:
    """One try to deliver; a role that is just starting may refuse for now."""
    try:
        deliver(server, b"Subject: %s\r\n\r\n" % word)
    except (OSError, AssertionError):
        return False
    return True


def test_half_a_large_message_is_forgotten_when_its_client_goes(shaken: Server) -> None:
    word = token()
    begin(shaken, word).close()
    check_forgotten(shaken, word)


def test_half_a_large_message_is_forgotten_when_smtpd_goes(shaken: Server) -> None:
    word = token()
    with begin(shaken, word):
        shaken.kill_role("smtpd")
        check_forgotten(shaken, word)


def test_a_large_message_is_refused_for_now_when_the_queue_goes_and_comes_back_under_it(shaken: Server) -> None:
    word = token()
    with begin(shaken, word) as wire:
        old = shaken.processes("queue")
        shaken.kill_role("queue")
        until(lambda: set(shaken.processes("queue")) - set(old), "a new queue")
        again = token()
        until(lambda: taken(shaken, again), "mail taken by the new queue")
        wire.send(LINES + b".\r\n")
        assert wire.reply().startswith(b"451 ")
        envelope(wire, b"ann@example.net", JOE)
        assert wire.tell(b"DATA").startswith(b"354 ")
        wire.send(b"Subject: the same client\r\n\r\n.\r\n")
        assert wire.reply().startswith(b"250 ")
    shaken.await_delivered(b"Subject: the same client")
    check_forgotten(shaken, word)


def filled(server: Server) -> None:
    """joe has one message."""
    server.empty()
    deliver(server, b"Subject: kept\r\n\r\n")
    server.await_delivered(b"Subject: kept")


def test_a_maildrop_is_free_again_when_its_client_goes_without_a_word_and_keeps_what_was_marked(
    shaken: Server,
) -> None:
    filled(shaken)
    with login(shaken, JOE, PASSWORD) as wire:
        assert wire.tell(b"DELE 1").startswith(b"+OK")
        with pop3(shaken) as second:
            second.tell(b"USER " + JOE)
            assert second.tell(b"PASS " + PASSWORD).startswith(b"-ERR [IN-USE]")
    until(lambda: entered(shaken), "the maildrop again")
    assert len(shaken.delivered()) == 1


def entered(server: Server) -> bool:
    """One try to log in."""
    try:
        login(server, JOE, PASSWORD).close()
    except (OSError, AssertionError):
        return False
    return True


def test_a_maildrop_is_free_again_when_pop3d_goes(shaken: Server) -> None:
    filled(shaken)
    with login(shaken, JOE, PASSWORD) as wire:
        assert wire.tell(b"DELE 1").startswith(b"+OK")
        shaken.kill_role("pop3d")
        assert wire.closed()
    until(lambda: entered(shaken), "the maildrop again")
    assert len(shaken.delivered()) == 1


def test_a_pop3_client_is_told_when_the_owner_goes_and_nothing_is_deleted(shaken: Server) -> None:
    filled(shaken)
    with login(shaken, JOE, PASSWORD) as wire:
        assert wire.tell(b"DELE 1").startswith(b"+OK")
        assert wire.tell(b"RSET").startswith(b"+OK")
        shaken.kill_role("owner")
        assert wire.tell(b"RETR 1").startswith(b"-ERR [SYS/TEMP]")
        assert wire.tell(b"DELE 1").startswith(b"+OK")
        assert wire.tell(b"QUIT").startswith(b"-ERR [SYS/TEMP]")
        assert wire.closed()
    assert len(shaken.delivered()) == 1
    until(lambda: entered(shaken), "the maildrop again")


def test_what_other_programs_do_to_a_mailbox_under_a_session_is_met(shaken: Server) -> None:
    shaken.empty()
    for number in range(3):
        shaken.put(shaken.mailbox() / "Maildir" / "new" / f"170000000{number}.x", b"Subject: %d\n\n" % number)
    first, second, _third = sorted(shaken.delivered())
    with login(shaken, JOE, PASSWORD) as wire:
        first.unlink()
        second.rename(second.parent.parent / "cur" / f"{second.name}:2,S")
        assert wire.tell(b"RETR 1").startswith(b"-ERR ")
        assert wire.tell(b"RETR 2").startswith(b"+OK ")
        assert wire.listing() == [b"Subject: 1", b""]
        deliver(shaken, b"Subject: new\r\n\r\n")
        shaken.await_delivered(b"Subject: new")
        assert wire.tell(b"STAT").startswith(b"+OK 3 ")
        assert wire.tell(b"DELE 2").startswith(b"+OK")
        assert wire.tell(b"QUIT").startswith(b"+OK")
    assert sorted(b"Subject: new" in file.read_bytes() for file in shaken.delivered()) == [False, True]
