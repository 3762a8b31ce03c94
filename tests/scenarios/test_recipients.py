"""Who gets mail and who may send it, asked of a whole server."""

from __future__ import annotations

import base64

import pytest

from tests.scenarios.wire import LOCALHOST, Wire, deliver, envelope, smtp, submit, token
from tests.server import SECRET, Server

PLAIN = base64.b64encode(b"\0joe@example.org\0" + SECRET.encode())


def submission(server: Server, service: str = "submissions", source: str = LOCALHOST) -> Wire:
    """A connection after EHLO, and STARTTLS where that is needed."""
    wire = smtp(server, service, source)
    if service == "submission":
        assert wire.tell(b"STARTTLS").startswith(b"220 ")
        wire.secure()
        wire.tell(b"EHLO client.example")
    return wire


def as_joe(server: Server, service: str = "submissions") -> Wire:
    wire = submission(server, service)
    assert wire.tell(b"AUTH PLAIN " + PLAIN).startswith(b"235 2.7.0")
    return wire


# row: known-backscatter
def test_an_unknown_recipient_is_refused_at_rcpt(house: Server) -> None:
    with smtp(house) as wire:
        wire.tell(b"MAIL FROM:<ann@example.net>")
        assert wire.tell(b"RCPT TO:<nobody@example.org>").startswith(b"550 5.1.1 ")
        assert wire.tell(b"RCPT TO:<joe@example.org>").startswith(b"250 ")


@pytest.mark.parametrize("recipient", [b"postmaster", b"PostMaster@example.org", b"postmaster@localhost"])
def test_postmaster_is_always_taken(house: Server, recipient: bytes) -> None:
    with smtp(house) as wire:
        wire.tell(b"MAIL FROM:<>")
        assert wire.tell(b"RCPT TO:<%s>" % recipient).startswith(b"250 ")


def test_mail_to_postmaster_reaches_the_first_account(house: Server) -> None:
    for recipient in (b"postmaster", b"postmaster@example.org", b"abuse@example.org"):
        word = token()
        deliver(house, b"Subject: %s\r\n\r\n" % word, recipient)
        house.await_delivered(word)


def test_no_stranger_relays_through_us(house: Server) -> None:
    with smtp(house) as wire:
        wire.tell(b"MAIL FROM:<joe@example.org>")
        assert wire.tell(b"RCPT TO:<victim@elsewhere.example>")[:9] in (b"550 5.7.1", b"553 5.7.1")
        assert wire.tell(b"RCPT TO:<@example.org:victim@elsewhere.example>")[:9] in (b"550 5.7.1", b"553 5.7.1")
        assert wire.tell(b"DATA").startswith(b"5")


@pytest.mark.parametrize("service", ["submission", "submissions"])
def test_who_logged_in_may_send_anywhere(house: Server, service: str) -> None:
    with as_joe(house, service) as wire:
        wire.tell(b"MAIL FROM:<joe@example.org>")
        assert wire.tell(b"RCPT TO:<friend@elsewhere.example>").startswith(b"250 ")


def test_submission_wants_tls_then_a_login(house: Server) -> None:
    with Wire(house, "submission") as wire:
        wire.reply()
        assert b"AUTH" not in wire.tell(b"EHLO client.example")
        assert wire.tell(b"AUTH PLAIN " + PLAIN).startswith(b"5")
        assert wire.tell(b"MAIL FROM:<joe@example.org>").startswith(b"530 5.7.0")
    with submission(house) as wire:
        assert wire.tell(b"MAIL FROM:<joe@example.org>").startswith(b"530 5.7.0")


def test_a_login_sends_as_itself_and_its_extensions_only(house: Server) -> None:
    with as_joe(house) as wire:
        for sender in (b"ann@example.org", b"joe@elsewhere.example", b"joeanna@example.org", b"postmaster@example.org"):
            assert wire.tell(b"MAIL FROM:<%s>" % sender)[:9] in (b"550 5.7.1", b"553 5.7.1"), sender
        for sender in (b"joe@example.org", b"JOE@Example.Org", b"joe-lists@example.org", b""):
            assert wire.tell(b"MAIL FROM:<%s>" % sender).startswith(b"250 "), sender
            wire.tell(b"RSET")


def test_what_a_client_left_out_is_added_to_a_submission(house: Server) -> None:
    word = token()
    with as_joe(house) as wire:
        envelope(wire, b"joe@example.org", b"ann@example.org")
        assert submit(wire, b"Subject: %s\r\n\r\nbody\r\n" % word).startswith(b"250 ")
    header = house.await_delivered(word, "ann").read_bytes().partition(b"\n\n")[0].split(b"\n")
    names = [line.partition(b":")[0].lower() for line in header if not line.startswith((b" ", b"\t"))]
    assert names[:3] == [b"return-path", b"delivered-to", b"received"]
    assert sorted(names[3:]) == [b"date", b"message-id", b"subject"]


def test_an_extension_with_a_file_is_delivered_where_that_says(house: Server) -> None:
    word = token()
    house.put(house.mailbox() / ".qmail-lists", b"# lists\n./Maildir-lists/\n")
    make_maildir(house, "Maildir-lists")
    deliver(house, b"Subject: %s\r\n\r\n" % word, b"joe-lists@example.org")
    content = house.await_delivered(word, maildir="Maildir-lists").read_bytes()
    assert content.startswith(b"Return-Path: <sender@example.net>\nDelivered-To: joe-lists@example.org\n")


def test_an_extension_without_a_file_of_its_own_falls_to_default(house: Server) -> None:
    word = token()
    house.put(house.mailbox("ann") / ".qmail-default", b"./Maildir-rest/\n")
    make_maildir(house, "Maildir-rest", "ann")
    deliver(house, b"Subject: %s\r\n\r\n" % word, b"ann-whatever-it-is@example.org")
    house.await_delivered(word, "ann", "Maildir-rest")


def test_one_message_for_several_recipients_arrives_once_for_each(house: Server) -> None:
    word = token()
    with smtp(house) as wire:
        envelope(wire, b"sender@example.net", b"joe@example.org", b"ann@example.org")
        submit(wire, b"Subject: %s\r\n\r\n" % word)
    house.await_delivered(word)
    house.await_delivered(word, "ann")


def make_maildir(server: Server, name: str, local: str = "joe") -> None:
    for directory in (name, f"{name}/tmp", f"{name}/new", f"{name}/cur"):
        made = server.mailbox(local) / directory
        made.mkdir(mode=0o700, exist_ok=True)
        server.give(made)
