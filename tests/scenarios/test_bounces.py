"""What cannot be delivered is told to its sender: once, in qmail's words, and never in a circle."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scenarios.wire import envelope, smtp, submit, token
from tests.server import Server, a_home, a_server, until

ACCOUNTS = ("box@example.org", "joe@example.org", "ann@example.org")


@pytest.fixture(scope="module")
def post() -> Iterator[Server]:
    """A server as `init` makes it; its first account, box, gets the postmaster's mail."""
    with a_server({}, ACCOUNTS) as server:
        yield server


def send(server: Server, sender: bytes, word: bytes, *recipients: bytes, more: bytes = b"") -> None:
    """A message that must be taken."""
    with smtp(server) as wire:
        envelope(wire, sender, *recipients)
        said = submit(wire, b"Subject: %s\r\n\r\n%s" % (word, more))
        assert said.startswith(b"250 2.0.0 ok "), said


def await_empty(server: Server) -> None:
    until(lambda: server.pillarbox("queue", "list") == "", "an empty queue")


def read(file: Path) -> bytes:
    return file.read_bytes()


def numbers(server: Server, pattern: str) -> list[str]:
    return re.findall(pattern, server.log(), re.MULTILINE)


def test_a_bounce_says_who_was_not_reached_and_why_and_returns_the_message(post: Server) -> None:
    word = token()
    send(post, b"joe@example.org", word, b"ann-no@example.org", b"ann@example.org", b"ann-not@example.org")
    bounce = read(post.await_delivered(word))
    head, _, rest = bounce.partition(b"\nDate: ")
    assert head.startswith(b"Return-Path: <>\nDelivered-To: joe@example.org\nReceived: (qmail "), head
    assert head.endswith(b" -0000") and b" invoked for bounce); " in head
    text = (
        b"From: MAILER-DAEMON@mx.example.org\n"
        b"To: joe@example.org\n"
        b"Subject: failure notice\n"
        b"\n"
        b"Hi. This is the qmail-send program at mx.example.org.\n"
        b"I'm afraid I wasn't able to deliver your message to the following addresses.\n"
        b"This is a permanent error; I've given up. Sorry it didn't work out.\n"
        b"\n"
        b"<ann-no@example.org>:\n"
        b"Sorry, no mailbox here by that name. (#5.1.1)\n"
        b"\n"
        b"<ann-not@example.org>:\n"
        b"Sorry, no mailbox here by that name. (#5.1.1)\n"
        b"\n"
        b"--- Below this line is a copy of the message.\n"
        b"\n"
        b"Return-Path: <joe@example.org>\n"
        b"Received: from client.example "
    )
    assert rest.partition(b"\n")[2].startswith(text), rest
    assert bounce.endswith(b"\nSubject: %s\n\n" % word)
    assert word in read(post.await_delivered(word, "ann")), "the others got it"
    await_empty(post)
    post.empty()
    post.empty("ann")


def test_the_log_says_what_qmail_send_says(post: Server) -> None:
    before = len(post.log())
    word = token()
    send(post, b"joe@example.org", word, b"ann-no@example.org")
    post.await_delivered(word)
    news = until(lambda: after_both_ended(post, before), "both ends")
    (line,) = [line for line in news if line.startswith("bounce msg")]
    parent = line.split()[2]
    place = news.index(line)
    assert re.fullmatch(r"delivery \d+: failure: Sorry,_no_mailbox_here_by_that_name\._\(#5\.1\.1\)/", news[place - 1])
    assert re.fullmatch(rf"bounce msg {parent} qp \d+", line)
    assert news[place + 1] == f"end msg {parent}"
    assert re.fullmatch(r"new msg \d+", news[place + 2])
    child = news[place + 2].split()[2]
    assert re.fullmatch(rf"info msg {child}: bytes \d+ from <> qp {line.split()[4]} uid \d+", news[place + 3])
    post.empty()


def after_both_ended(server: Server, place: int) -> list[str]:
    """The lines of the log from a place on, once two messages ended."""
    lines = [line for line in server.log()[place:].splitlines() if "msg" in line or "delivery" in line]
    return lines if sum(line.startswith("end msg") for line in lines) == 2 else []


def test_a_bounce_that_cannot_be_delivered_goes_to_the_postmaster_and_no_further(post: Server) -> None:
    word = token()
    send(post, b"joe-no@example.org", word, b"ann-no@example.org")
    double = read(post.await_delivered(word, "box"))
    assert b"Return-Path: <#@[]>\n" in double.partition(b"\n\n")[0] + b"\n"
    assert b"\nI tried to deliver a bounce message to this address, but the bounce bounced!\n\n<joe-no@" in double
    assert b"\n--- Below this line is the original bounce.\n\nReturn-Path: <>\nReceived: (qmail " in double
    assert double.count(b"Hi. This is the qmail-send program") == 2
    await_empty(post)
    post.empty("box")


def test_a_double_bounce_of_another_qmail_host_is_taken(post: Server) -> None:
    word = token()
    send(post, b"#@[]", word, b"joe@example.org")
    assert read(post.await_delivered(word)).startswith(b"Return-Path: <#@[]>\n")
    post.empty()


def test_a_double_bounce_that_cannot_be_delivered_is_discarded_with_a_line_in_the_log() -> None:
    control = {"doublebounceto": "joe-no\n", "doublebouncehost": "example.org\n"}
    with a_server(control) as server:
        send(server, b"joe-none@example.org", token(), b"joe-not@example.org")
        (line,) = server.await_log("^triple bounce: discarding bounce/")
        number = line.rpartition("/")[2]
        server.await_log(f"^end msg {number}$")
        await_empty(server)
        assert len(numbers(server, r"^bounce msg \d+")) == 2
        assert len(numbers(server, r"^end msg \d+")) == 3
        server.control("doublebounceto", "\n")
        assert server.stop() == 0
        server.start()
        send(server, b"", token(), b"joe-not@example.org")
        (line,) = server.await_log("^double bounce: discarding bounce/")
        await_empty(server)
        assert len(numbers(server, r"^bounce msg \d+")) == 2


def test_mail_that_waited_too_long_bounces_with_its_last_reason() -> None:
    with a_server({"queuelifetime": "0\n"}) as server:
        file = server.mailbox() / ".qmail-slow"
        server.put(file, b"./Missing/\n")
        word = token()
        send(server, b"joe@example.org", word, b"joe-slow@example.org")
        bounce = read(server.await_delivered(word))
        assert b"\n<joe-slow@example.org>:\n" in bounce
        assert b"\nI'm not going to try again; this message has been in the queue too long.\n\n---" in bounce
        server.await_log(r"^delivery \d+: failure: .*I'm_not_going_to_try_again;")
        await_empty(server)


# row: known-bounce-form
def test_a_large_message_comes_back_whole_or_as_much_of_it_as_bouncesize_says() -> None:
    body = b"".join(b"%070d\r\n" % line for line in range(14_000))  # a megabyte: in a spool file
    with a_server({}) as server:
        word = token()
        send(server, b"joe@example.org", word, b"joe-no@example.org", more=body)
        bounce = read(server.await_delivered(word))
        assert bounce.endswith(b"\nSubject: %s\n\n" % word + body.replace(b"\r\n", b"\n"))
        await_empty(server)
        until(lambda: not list((server.home / "queue" / "spool").iterdir()), "an empty spool")
        server.control("bouncesize", "2000\n")
        assert server.stop() == 0
        server.start()
        word = token()
        send(server, b"joe@example.org", word, b"joe-no@example.org", more=body)
        bounce = read(server.await_delivered(word))
        copy = bounce.partition(b"Return-Path: <joe@example.org>\n")[2]
        assert copy.endswith(b"\n\n--- End of message stripped.\n")
        assert len(copy) == 2000 + len(b"\n\n--- End of message stripped.\n")


def test_a_list_s_mail_carries_each_recipient_s_name_and_bounces_to_its_owner_once(post: Server) -> None:
    list_owner = post.mailbox("joe")
    post.put(
        list_owner / ".qmail-list", b"&ann@example.org\n&box@example.org\n&ann-no@example.org\n&ann-not@example.org\n"
    )
    post.put(list_owner / ".qmail-list-owner", b"./Maildir/\n")
    post.put(list_owner / ".qmail-list-owner-default", b"./Maildir/\n")
    word = token()
    send(post, b"sender@example.net", word, b"joe-list@example.org")
    for local in ("ann", "box"):
        line = b"Return-Path: <joe-list-owner-%s=example.org@example.org>\n" % local.encode()
        assert read(post.await_delivered(word, local)).startswith(line)
        post.empty(local)
    bounce = read(post.await_delivered(word))
    assert b"\nTo: joe-list-owner-@example.org\n" in bounce
    assert b"\n<ann-no@example.org>:\n" in bounce and b"\n<ann-not@example.org>:\n" in bounce
    await_empty(post)
    post.empty()


def test_removed_mail_is_forgotten_without_a_bounce(post: Server) -> None:
    file = post.mailbox("ann") / ".qmail-slow"
    post.put(file, b"./Missing/\n")
    word = token()
    before = len(numbers(post, r"^bounce msg"))
    send(post, b"joe@example.org", word, b"ann-slow@example.org", b"ann-no@example.org")
    row = until(lambda: waits_and_failed(post), "one that waits and one that failed")
    assert "1 waiting 1 failed" in row
    shown = post.pillarbox("queue", "show", row.split()[0])
    assert "failed" in shown and "5.1.1" in shown
    post.pillarbox("queue", "remove", row.split()[0])
    assert post.pillarbox("queue", "list") == ""
    file.unlink()
    assert len(numbers(post, r"^bounce msg")) == before and not post.holding(word)


# row: known-bounce-late
def test_removing_the_last_recipient_that_waits_sends_the_bounce_for_the_others(post: Server) -> None:
    file = post.mailbox("ann") / ".qmail-slow"
    post.put(file, b"./Missing/\n")
    word = token()
    send(post, b"joe@example.org", word, b"ann-slow@example.org", b"ann-no@example.org")
    row = until(lambda: waits_and_failed(post), "one that waits and one that failed")
    post.pillarbox("queue", "remove", row.split()[0], "--to", "ann-slow@example.org")
    bounce = read(post.await_delivered(word))
    assert b"<ann-no@" in bounce and b"<ann-slow@" not in bounce
    await_empty(post)
    file.unlink()
    post.empty()


def test_what_the_postmaster_gives_up_bounces_and_says_so(post: Server) -> None:
    file = post.mailbox("ann") / ".qmail-slow"
    post.put(file, b"./Missing/\n")
    word = token()
    send(post, b"joe@example.org", word, b"ann-slow@example.org")
    row = until(
        lambda: [line for line in post.pillarbox("queue", "list").splitlines() if "4.2.1" in line], "its reason"
    )
    said = post.pillarbox("queue", "bounce", row[0].split()[0])
    assert said == f"message {row[0].split()[0]}: recipients given up: 1\n"
    bounce = read(post.await_delivered(word))
    assert b"(#4.2.1)\nThe postmaster of this host has given this message up. (#5.0.0)\n\n---" in bounce
    await_empty(post)
    file.unlink()
    post.empty()


def waits_and_failed(server: Server) -> str:
    listed = server.pillarbox("queue", "list")
    return listed if "1 waiting 1 failed" in listed else ""


def test_killed_while_mail_bounces_every_message_bounces_and_none_twice() -> None:
    """The queue role dies again and again; a bounce that was read is a bounce of a message that is no more."""
    with a_home({}) as server:
        server.start()
        words = []
        for _ in range(6):
            words += [until(lambda: taken(server), "a queue role") for _ in range(20)]
            server.kill_role("queue")
        for word in words:
            server.await_delivered(word)
        await_empty(server)
        assert len(server.delivered()) == len(words)


def taken(server: Server) -> bytes:
    """One try to send a message that must bounce: its word, or nothing when it is refused because the queue is away."""
    word = token()
    try:
        send(server, b"joe@example.org", word, b"joe-no@example.org")
    except AssertionError:
        return b""
    return word
