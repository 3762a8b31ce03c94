"""Mail that cannot be delivered waits, says why, and does what its postmaster tells it."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator

import pytest

from tests.scenarios.test_recipients import make_maildir
from tests.scenarios.wire import Wire, deliver, login, token
from tests.server import SECRET, Server, a_home, a_server, until

NOT_YET = b"|echo not yet; exit 111\n"


@pytest.fixture(scope="module")
def jammed() -> Iterator[Server]:
    """A server whose joe can take no mail for now, so that it stays in the queue."""
    with a_server({"smtproutes": "example.com:[127.0.0.1]:1\n"}) as server:
        yield server


@pytest.fixture
def waiting(jammed: Server) -> Iterator[tuple[Server, str, bytes]]:
    """A message that waits: the server, its id, and a word that is in it."""
    jam = jammed.mailbox() / ".qmail"
    jammed.put(jam, NOT_YET)
    word = token()
    deliver(jammed, b"Subject: %s\r\n\r\n" % word)
    row = until(lambda: waiting_row(jammed), "a message that was tried")
    yield jammed, row[0], word
    jam.unlink(missing_ok=True)
    if listed(jammed):
        jammed.pillarbox("queue", "remove", *[row[0] for row in listed(jammed)])


def listed(server: Server) -> list[list[str]]:
    """The rows of `queue list`."""
    return [line.split("\t") for line in server.pillarbox("queue", "list").splitlines()]


def waiting_row(server: Server) -> list[str]:
    """The one row there is, once it says why the message waits."""
    rows = [row for row in listed(server) if row[-1]]
    assert len(rows) <= 1, rows
    return rows[0] if rows else []


def test_a_deferred_message_is_listed_and_shown_with_its_reason(waiting: tuple[Server, str, bytes]) -> None:
    server, number, _word = waiting
    (row,) = listed(server)
    assert row[0] == number and "<sender@example.net>" in row and "1 waiting" in row
    shown = server.pillarbox("queue", "show", number)
    assert f"message {number} from <sender@example.net>" in shown
    assert "joe@example.org" in shown and "not yet" in shown, shown
    server.await_log(r"^delivery \d+: deferral: not_yet/")
    assert server.delivered() == []


# row: known-queue-tool
def test_retry_tries_at_once(waiting: tuple[Server, str, bytes]) -> None:
    server, number, word = waiting
    tries = len(server.await_log("deferral"))
    server.pillarbox("queue", "retry", number)
    server.await_log("deferral", tries + 1)
    (server.mailbox() / ".qmail").unlink()
    server.pillarbox("queue", "retry", number)
    server.await_delivered(word)
    until(lambda: listed(server) == [], "an empty queue")
    server.empty()


# row: known-queue-tool
def test_remove_forgets_a_message(waiting: tuple[Server, str, bytes]) -> None:
    server, number, word = waiting
    server.pillarbox("queue", "remove", number)
    assert listed(server) == []
    assert server.holding(word) == []
    said = server.pillarbox("queue", "show", number, status=100)
    assert said == f"pillarbox: there is no message {number} in the queue\n"


def test_a_waiting_message_survives_a_restart_and_is_listed_when_nobody_serves(
    waiting: tuple[Server, str, bytes],
) -> None:
    server, number, word = waiting
    assert server.stop() == 0
    assert [row[0] for row in listed(server)] == [number]
    (server.mailbox() / ".qmail").unlink()
    server.pillarbox("queue", "retry", number)
    server.start()
    server.await_delivered(word)
    server.empty()


def test_a_mailbox_that_others_could_write_gets_nothing_until_it_is_put_right(jammed: Server) -> None:
    word = token()
    jammed.mailbox().chmod(0o777)
    deliver(jammed, b"Subject: %s\r\n\r\n" % word)
    row = until(lambda: waiting_row(jammed), "the message")
    assert "1 waiting" in row and "4.7.0" in row[-1], row
    jammed.mailbox().chmod(0o700)
    jammed.pillarbox("queue", "retry", row[0])
    jammed.await_delivered(word)
    jammed.empty()


def test_a_line_that_fails_keeps_the_lines_before_it_from_delivering_again(jammed: Server) -> None:
    word = token()
    jammed.put(jammed.mailbox() / ".qmail", b"./Maildir/\n./Maildir-later/\n")
    deliver(jammed, b"Subject: %s\r\n\r\n" % word)
    row = until(lambda: waiting_row(jammed), "the message")
    for _ in range(2):
        tries = len(jammed.await_log("deferral"))
        jammed.pillarbox("queue", "retry", row[0])
        jammed.await_log("deferral", tries + 1)
    make_maildir(jammed, "Maildir-later")
    jammed.pillarbox("queue", "retry", row[0])
    jammed.await_delivered(word, maildir="Maildir-later")
    until(lambda: listed(jammed) == [], "an empty queue")
    assert len(jammed.holding(word)) == 1
    (jammed.mailbox() / ".qmail").unlink()
    jammed.empty()


# the log


def test_every_line_of_a_json_log_is_one_fact() -> None:
    with a_home({"logformat": "json\n", "databytes": "ten\n"}) as server:
        server.start()
        word = token()
        deliver(server, b"Subject: %s\r\n\r\n" % word)
        server.await_delivered(word)
        login(server, b"joe@example.org", SECRET.encode()).close()
        server.kill_role("users")
        server.await_log("role-ended")
        server.await_log('"event": "end"')
        assert server.stop() == 0
        facts = [json.loads(line) for line in server.log().splitlines()]
    assert all({"time", "role", "event"} <= fact.keys() for fact in facts)
    assert {"queue", "pop3d", "supervisor"} <= {fact["role"] for fact in facts}
    assert "databytes" in facts[0]["why"]


# row: known-log-lines
def test_the_text_log_has_qmail_send_s_lines(jammed: Server) -> None:
    jammed.news()
    word = token()
    deliver(jammed, b"Subject: %s\r\n\r\n" % word)
    jammed.await_delivered(word)
    begun = re.findall(r"^new msg (\d+)$", jammed.log(), re.MULTILINE)
    number = begun[-1]
    jammed.await_log(rf"^end msg {number}$")
    lines = [line for line in jammed.news().splitlines() if "msg" in line or "delivery" in line]
    patterns = [
        rf"new msg {number}",
        rf"info msg {number}: bytes \d+ from <sender@example\.net> qp \d+ uid \d+",
        rf"starting delivery (\d+): msg {number} to local example\.org-joe@example\.org",
        r"delivery \d+: success: did_1\+0\+0/",
        rf"end msg {number}",
    ]
    assert len(lines) == len(patterns), lines
    for line, pattern in zip(lines, patterns, strict=True):
        assert re.fullmatch(pattern, line), line
    jammed.empty()


def test_a_client_cannot_forge_a_line_of_the_log(jammed: Server) -> None:
    with login_attempt(jammed) as wire:
        wire.send(b"USER evil\xc3\xa9%0Aend msg 1\rnew msg 1\r\nPASS x\r\n")
        wire.line()
        wire.line()
    line = jammed.await_log("login failed for evil")[-1]
    assert line.isascii() and "%" not in line and "\r" not in line


def login_attempt(server: Server) -> Wire:
    wire = Wire(server, "pop3s", "127.0.7.1")
    wire.line()
    return wire


def test_mail_for_a_domain_that_went_away_waits_and_arrives_when_the_domain_is_back(jammed: Server) -> None:
    word = token()
    jammed.pillarbox("account", "add", "eve@example.com", "--password-stdin", say=SECRET)
    mailbox = jammed.mailbox("eve", "example.com")
    jammed.put(mailbox / ".qmail", NOT_YET)
    until(lambda: taken(jammed, word, b"eve@example.com"), "mail for the new domain")
    until(lambda: waiting_row(jammed), "the message")
    queue = jammed.processes("queue")
    virtual = (jammed.home / "control" / "virtualdomains").read_text()
    jammed.control("virtualdomains", virtual.replace("example.com:example.com\n", ""))
    jammed.signal(signal.SIGHUP)
    until(lambda: "4.4.1" in retried(jammed)[-1], "another reason")
    jammed.control("virtualdomains", virtual)
    (mailbox / ".qmail").unlink()
    jammed.signal(signal.SIGHUP)
    until(lambda: retried(jammed) == [], "an empty queue")
    assert [word in file.read_bytes() for file in (mailbox / "Maildir" / "new").iterdir()] == [True]
    assert jammed.processes("queue") == queue


def retried(server: Server) -> list[str]:
    """The one row there was, with the message tried again; none when it is over."""
    row = waiting_row(server)
    if row:
        server.pillarbox("queue", "retry", row[0])
    return row


def taken(server: Server, word: bytes, recipient: bytes) -> bool:
    """One try to deliver."""
    try:
        deliver(server, b"Subject: %s\r\n\r\n" % word, recipient)
    except AssertionError:
        return False
    return True
