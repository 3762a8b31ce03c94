"""A header and an envelope out of what a program says: qmail-inject(8). The bytes are those that notqmail's program
was seen to write, but for where the docs say otherwise."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from pillarbox.compose import letter
from pillarbox.compose.letter import BadAddress, BadField, Letter, Occasion, Person, Wishes, recipient, recipients
from pillarbox.compose.rewriting import Hosts

HOSTS = Hosts(b"ref.example.test", b"example.test", b"example.test")
OCCASION = Occasion(1767236645, 42, b"id.test")
ME = Person(b"me", None, None, b"me", None)
DATE = b"Date: 1 Jan 2026 03:04:05 -0000\n"
MESSAGE_ID = b"Message-ID: <20260101030405.42.qmail@id.test>\n"
FROM = b"From: me@ref.example.test\n"
HEADER = Wishes(from_header=True)


@dataclass(frozen=True)
class Case:
    fields: list[bytes]
    header: bytes
    recipients: set[bytes]
    sender: bytes = b"me@ref.example.test"
    wishes: Wishes = HEADER
    person: Person = ME


def composed(fields: list[bytes], wishes: Wishes = HEADER, person: Person = ME) -> Letter:
    return letter.compose(fields, person, wishes, HOSTS, OCCASION)


CASES = {
    "everything is added": Case([], DATE + MESSAGE_ID + FROM + b"Cc: recipient list not shown: ;\n", set()),
    "nothing is added that is there": Case(
        [b"date: x\n", b"MESSAGE-ID: y\n", b"From: a@b.c\n", b"To: d@e.f\n", b"Subject: z\n"],
        b"date: x\nMESSAGE-ID: y\nFrom: a@b.c\nTo: d@e.f\nSubject: z\n",
        {b"d@e.f"},
    ),
    "recipients of all fields": Case(
        [b"To: a\n", b"Cc: b\n", b"Bcc: c\n", b"Apparently-To: d\n"],
        DATE + MESSAGE_ID + FROM + b"To: a@ref.example.test\nCc: b@ref.example.test\n"
        b"Apparently-To: d@ref.example.test\n",
        {b"a@ref.example.test", b"b@ref.example.test", b"c@ref.example.test", b"d@ref.example.test"},
    ),
    "resent": Case(
        [b"To: a\n", b"Resent-To: b\n", b"Resent-Bcc: c\n"],
        b"Resent-" + DATE + b"Resent-" + MESSAGE_ID + b"Resent-" + FROM
        + b"To: a@ref.example.test\nResent-To: b@ref.example.test\n",
        {b"b@ref.example.test", b"c@ref.example.test"},
    ),
    "resent to nobody shown": Case(
        [b"Resent-Date: x\n", b"To: a\n"],
        b"Resent-" + MESSAGE_ID + b"Resent-" + FROM + b"Resent-Cc: recipient list not shown: ;\n"
        b"Resent-Date: x\nTo: a@ref.example.test\n",
        set(),
    ),
    "Return-Path says the sender and goes": Case(
        [b"Return-Path: <s@host>\n", b"To: a\n", b"Content-Length: 5\n"],
        DATE + MESSAGE_ID + FROM + b"To: a@ref.example.test\n",
        {b"a@ref.example.test"},
        b"s@host.example.test",
    ),
    "-f is before Return-Path": Case(
        [b"Return-Path: <s@host>\n", b"To: a@b.c\n"], DATE + MESSAGE_ID + FROM + b"To: a@b.c\n", {b"a@b.c"},
        b"f@g.h", Wishes(True, b"f@g.h"),
    ),
    "fields are dropped": Case(
        [b"From: x@y.z\n", b"Message-ID: q\n", b"Return-Path: <s@t.u>\n", b"To: a@b.c\n"],
        DATE + MESSAGE_ID + FROM + b"To: a@b.c\n",
        {b"a@b.c"},
        wishes=Wishes(True, drop_from=True, drop_message_id=True, drop_return_path=True),
    ),
    "each recipient gets a sender of his own": Case(
        [b"To: a@b.c\n"], DATE + MESSAGE_ID + FROM + b"To: a@b.c\n", {b"a@b.c"},
        b"me-@ref.example.test-@[]", Wishes(True, per_recipient=True),
    ),
    "each message gets a sender of its own": Case(
        [b"To: a@b.c\n"], DATE + MESSAGE_ID + FROM + b"To: a@b.c\n", {b"a@b.c"},
        b"me-1767236645.42@ref.example.test", Wishes(True, per_message=True),
    ),
    "both": Case(
        [b"To: a@b.c\n"], DATE + MESSAGE_ID + FROM + b"To: a@b.c\n", {b"a@b.c"},
        b"me-1767236645.42-@ref.example.test-@[]", Wishes(True, per_recipient=True, per_message=True),
    ),
    "a name": Case(
        [b"To: a@b.c\n"], DATE + MESSAGE_ID + b'From: "My \\"Name" <a.b@host.example.test>\nTo: a@b.c\n', {b"a@b.c"},
        b"s u@t.example.test", person=Person(b"a.b", b"host", b'My "Name', b"s u", b"t"),
    ),
    "a name as a comment": Case(
        [b"To: a@b.c\n"], DATE + MESSAGE_ID + b'From: "a b"@x.y (My Name)\nTo: a@b.c\n', {b"a@b.c"},
        b"a b@x.y", Wishes(True, name_as_comment=True), Person(b"a b", b"x.y", b"My Name", b"a b", b"x.y"),
    ),
    "to a list": Case(
        [b"To: list@l.l, a@b.c\n", b"Cc: d@e.f\n"],
        DATE + MESSAGE_ID + FROM + b"Mail-Followup-To: d@e.f,\n  list@l.l,\n  a@b.c\nTo: list@l.l, a@b.c\nCc: d@e.f\n",
        {b"list@l.l", b"a@b.c", b"d@e.f"},
        wishes=Wishes(True, lists=frozenset({b"list@l.l"})),
    ),
    "to a list, with an answer's address given": Case(
        [b"To: LIST@l.l\n", b"Mail-Followup-To: x\n"],
        DATE + MESSAGE_ID + FROM + b"To: LIST@l.l\nMail-Followup-To: x\n",
        {b"LIST@l.l"},
        wishes=Wishes(True, lists=frozenset({b"list@l.l"})),
    ),
}  # fmt: skip


# row: vectors-inject
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_letter_is(case: Case) -> None:
    made = composed(case.fields, case.wishes, case.person)
    assert made.header == case.header
    assert set(made.recipients) == case.recipients and len(made.recipients) == len(case.recipients)
    assert made.sender == case.sender


def test_a_recipient_named_twice_is_there_twice() -> None:
    assert composed([b"To: a@b.c\n", b"Cc: a@b.c\n"]).recipients == (b"a@b.c", b"a@b.c")


@pytest.mark.parametrize("field", [b'To: "x\n', b"From: (x\n", b"Return-Path: x>\n", b"Resent-Cc: a;b;\n"])
def test_a_field_that_cannot_be_read_is_named(field: bytes) -> None:
    with pytest.raises(BadField) as raised:
        composed([field])
    assert raised.value.field == field


def test_where_the_header_names_no_recipients_they_need_not_be_readable() -> None:
    made = composed([b'To: "x\n', b"Cc: a, b>\n"], Wishes(from_header=False))
    assert made.header == DATE + MESSAGE_ID + FROM + b'To: "x\nCc: a, b>\n'
    assert made.recipients == ()


def test_a_recipient_in_an_argument_is_raw_and_completed() -> None:
    assert recipient(b"joe", HOSTS) == b"joe@ref.example.test"
    assert recipient(b"a b@host", HOSTS) == b"a b@host.example.test"
    assert recipient(b"", HOSTS) == b""
    with pytest.raises(BadAddress):
        recipient(b"joe@)", HOSTS)


def test_several_recipients_in_an_argument_are_as_in_a_field() -> None:
    assert set(recipients(b"joe, Ann Other <ann@host>", HOSTS)) == {b"joe@ref.example.test", b"ann@host.example.test"}
    assert recipients(b"<joe@a.b>", HOSTS) == [b"joe@a.b"]
    with pytest.raises(BadAddress):
        recipients(b'"joe', HOSTS)
