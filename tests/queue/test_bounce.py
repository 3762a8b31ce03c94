"""The text of bounces, octet for octet, and whom they go to."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pillarbox.control.table import Settings
from pillarbox.envelope import Envelope
from pillarbox.queue.bounce import Bounce, Discarded, bounce, paragraph, sender_for

SETTINGS = Settings(me=b"mx.example.org", rcpthosts=frozenset())
NOW = 1_767_236_645


def made(sender: bytes, settings: Settings = SETTINGS) -> Bounce:
    answer = bounce(sender, settings)
    assert isinstance(answer, Bounce)
    return answer


# row: known-bounce-form
def test_a_bounce_is_qmail_send_s_octet_for_octet() -> None:
    answer = made(b"joe@example.net")
    assert answer.envelope == Envelope(b"", (b"joe@example.net",))
    text = answer.opening(123, NOW)
    text += paragraph(b"ann@example.org", b"Sorry, no mailbox here by that name. (#5.1.1)\n")
    text += paragraph(b"bob@example.com", b"192.0.2.1 does not like recipient.\nRemote host said: 550 no\nGiving up.")
    text += answer.closing()
    assert text == (
        b"Received: (qmail 123 invoked for bounce); 1 Jan 2026 03:04:05 -0000\n"
        b"Date: 1 Jan 2026 03:04:05 -0000\n"
        b"From: MAILER-DAEMON@mx.example.org\n"
        b"To: joe@example.net\n"
        b"Subject: failure notice\n"
        b"\n"
        b"Hi. This is the qmail-send program at mx.example.org.\n"
        b"I'm afraid I wasn't able to deliver your message to the following addresses.\n"
        b"This is a permanent error; I've given up. Sorry it didn't work out.\n"
        b"\n"
        b"<ann@example.org>:\n"
        b"Sorry, no mailbox here by that name. (#5.1.1)\n"
        b"\n"
        b"<bob@example.com>:\n"
        b"192.0.2.1 does not like recipient.\n"
        b"Remote host said: 550 no\n"
        b"Giving up.\n"
        b"\n"
        b"--- Below this line is a copy of the message.\n"
        b"\n"
        b"Return-Path: <joe@example.net>\n"
    )


# row: vectors-bounces
def test_a_double_bounce_is_qmail_send_s_octet_for_octet() -> None:
    answer = made(b"")
    assert answer.envelope == Envelope(b"#@[]", (b"postmaster@mx.example.org",))
    assert answer.opening(7, NOW) + paragraph(b"a@b", b"No.\n") + answer.closing() == (
        b"Received: (qmail 7 invoked for bounce); 1 Jan 2026 03:04:05 -0000\n"
        b"Date: 1 Jan 2026 03:04:05 -0000\n"
        b"From: MAILER-DAEMON@mx.example.org\n"
        b"To: postmaster@mx.example.org\n"
        b"Subject: failure notice\n"
        b"\n"
        b"Hi. This is the qmail-send program at mx.example.org.\n"
        b"I tried to deliver a bounce message to this address, but the bounce bounced!\n"
        b"\n"
        b"<a@b>:\n"
        b"No.\n"
        b"\n"
        b"--- Below this line is the original bounce.\n"
        b"\n"
        b"Return-Path: <>\n"
    )


# row: vectors-bounces
def test_a_double_bounce_that_fails_is_answered_by_nothing() -> None:
    assert bounce(b"#@[]", SETTINGS) is Discarded.TRIPLE
    assert bounce(made(b"").envelope.sender, SETTINGS) is Discarded.TRIPLE


def test_double_bounces_are_discarded_where_doublebounceto_is_empty() -> None:
    assert bounce(b"", replace(SETTINGS, doublebounceto=b"")) is Discarded.DOUBLE
    assert made(b"joe@example.net", replace(SETTINGS, doublebounceto=b"")).envelope.sender == b""


def test_control_files_say_who_writes_and_who_gets_double_bounces() -> None:
    settings = replace(
        SETTINGS,
        bouncefrom=b"the daemon",
        bouncehost=b"b.example",
        doublebounceto=b"x y",
        doublebouncehost=b"d.example",
    )
    opening = made(b"", settings).opening(1, NOW)
    assert b'From: "the daemon"@b.example\nTo: "x y"@d.example\n' in opening
    assert b"program at b.example.\n" in opening
    assert made(b"", settings).envelope.recipients == (b"x y@d.example",)


def test_a_sender_that_varies_by_recipient_is_told_at_its_base() -> None:
    answer = made(b"list-owner-@example.org-@[]")
    assert answer.envelope.recipients == (b"list-owner-@example.org",)
    assert b"\nReturn-Path: <list-owner-@example.org>\n" in answer.closing()
    assert bounce(b"#@[]-@[]", SETTINGS) is Discarded.TRIPLE
    assert made(b"-@[]").envelope.sender == b"#@[]"


def test_addresses_are_quoted_in_fields_and_raw_in_the_envelope() -> None:
    answer = made(b"a b@example.net")
    assert answer.envelope.recipients == (b"a b@example.net",)
    assert b'\nTo: "a b"@example.net\n' in answer.opening(1, NOW)
    assert answer.closing().endswith(b'Return-Path: <"a b"@example.net>\n')


# row: vectors-bounces
@pytest.mark.parametrize(
    ("report", "shown"),
    [
        (b"one\ntwo\n", b"one\ntwo\n"),
        (b"no end", b"no end\n"),
        (b"", b""),
        (b"a\n\nb\n", b"a\n/b\n"),
        (b"a\n\n\nb\n", b"a\n//b\n"),
        (b"\na\n", b"/a\n"),
        (b"a\n\n<forged@example.org>:\nno\n", b"a\n/<forged@example.org>:\nno\n"),
        (b"cut\0off", b"cut\n"),
        (b"8 bit \xff\n", b"8 bit \xff\n"),
    ],
)
def test_a_report_cannot_end_its_paragraph(report: bytes, shown: bytes) -> None:
    assert paragraph(b"a@b", report) == b"<a@b>:\n" + shown + b"\n"


def test_a_line_end_in_an_address_is_shown_as_underscore() -> None:
    assert paragraph(b"a\n\nb@c", b"no\n") == b"<a__b@c>:\nno\n\n"


def addbounce(address: bytes, report: bytes) -> bytes:
    """What qmail-send's addbounce does, step by step."""
    text = bytearray(b"<" + address)
    for place, octet in enumerate(text):
        if octet == 10:
            text[place] = ord("_")
    text += b">:\n" + report
    if report and not report.endswith(b"\n"):
        text += b"\n"
    for place in range(len(text) - 2, 0, -1):
        if text[place] == 10 and text[place - 1] == 10:
            text[place] = ord("/")
    return bytes(text + b"\n")


@given(st.binary(max_size=6), st.lists(st.sampled_from([b"\n", b"/", b"a", b"<", b"\r"])).map(b"".join))
def test_every_paragraph_is_what_qmail_send_makes(address: bytes, report: bytes) -> None:
    assert paragraph(address, report) == addbounce(address, report)


@pytest.mark.parametrize(
    ("sender", "recipient", "told"),
    [
        (b"list-owner-@host-@[]", b"joe@example.org", b"list-owner-joe=example.org@host"),
        (b"list-owner-@host-@[]", b"a@b@example.org", b"list-owner-a@b=example.org@host"),
        (b"a@b-@host-@[]", b"joe@x", b"a@b-joe=x@host"),
        (b"list-owner-@host-@[]", b"joe", b"list-owner-@host-@[]"),
        (b"nohost-@[]", b"joe@x", b"nohost-@[]"),
        (b"joe@host", b"joe@x", b"joe@host"),
        (b"", b"joe@x", b""),
        (b"#@[]", b"joe@x", b"#@[]"),
    ],
)
def test_a_sender_that_varies_names_the_recipient(sender: bytes, recipient: bytes, told: bytes) -> None:
    assert sender_for(sender, recipient) == told
