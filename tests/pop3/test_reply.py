from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pillarbox.pop3 import reply as r
from pillarbox.pop3.reply import Dialect, Reply
from pillarbox.status import Refusal, Status


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (Status(5, 7, 8), b"[AUTH]"),
        (Status(4, 2, 0), b"[IN-USE]"),
        (Status(4, 3, 0), b"[SYS/TEMP]"),
        (Status(4, 3, 1), b"[SYS/TEMP]"),
        (Status(4, 7, 0), b"[SYS/TEMP]"),
        (Status(5, 2, 1), b"[SYS/PERM]"),
        (Status(5, 3, 0), b"[SYS/PERM]"),
    ],
)
def test_a_status_becomes_its_response_code(status: Status, code: bytes) -> None:
    reply = Reply.of(Refusal(status, "why"), login=True)
    assert reply.encode(Dialect.MODERN) == b"-ERR " + code + b" why\r\n"


def test_in_use_and_auth_are_said_of_a_login_only() -> None:
    assert Reply.of(Refusal(Status(4, 2, 0), "why")).encode(Dialect.MODERN) == b"-ERR [SYS/TEMP] why\r\n"
    assert Reply.of(Refusal(Status(5, 7, 8), "why")).encode(Dialect.MODERN) == b"-ERR [SYS/PERM] why\r\n"


def test_a_reply_has_one_first_line_and_a_dot_after_its_others() -> None:
    assert r.ok(b"text").encode(Dialect.MODERN) == b"+OK text\r\n"
    assert r.ok(b"text", []).encode(Dialect.MODERN) == b"+OK text\r\n.\r\n"
    assert r.ok(b"text", [b"one", b"two"]).encode(Dialect.MODERN) == b"+OK text\r\none\r\ntwo\r\n.\r\n"
    assert r.err(b"text").encode(Dialect.MODERN) == b"-ERR text\r\n"
    assert r.challenge(b"YQ==").encode(Dialect.MODERN) == b"+ YQ==\r\n"
    assert r.challenge(b"").encode(Dialect.MODERN) == b"+ \r\n"


@given(text=st.text())
def test_a_refusal_can_say_nothing_but_its_own_line(text: str) -> None:
    wire = Reply.of(Refusal(Status(4, 3, 0), text)).encode(Dialect.MODERN)
    assert wire.endswith(b"\r\n")
    assert all(0x20 <= octet <= 0x7E for octet in wire[:-2])
    assert len(wire) <= 512


def test_a_long_reason_is_cut_to_the_length_of_a_reply_line() -> None:
    wire = Reply.of(Refusal(Status(4, 3, 0), "why" * 1000)).encode(Dialect.MODERN)
    assert wire.startswith(b"-ERR [SYS/TEMP] whywhy") and wire.endswith(b"\r\n") and len(wire) <= 512


def test_every_reply_of_the_catalogue_is_a_line_within_rfc_2449() -> None:
    replies = [value for value in vars(r).values() if isinstance(value, Reply) and value.text is not None]
    assert len(replies) > 20
    for reply, dialect in product(replies, Dialect):
        wire = reply.encode(dialect)
        assert wire.startswith(reply.kind.value) and wire.endswith(b"\r\n")
        assert wire.count(b"\n") == 1 and len(wire) <= 512


def test_qmail_has_no_words_for_people_and_no_codes() -> None:
    assert r.ok(b"words").encode(Dialect.QMAIL) == b"+OK \r\n"
    assert r.ok(b"words", [b"1 2"]).encode(Dialect.QMAIL) == b"+OK \r\n1 2\r\n.\r\n"
    assert r.fact(b"3 294").encode(Dialect.QMAIL) == b"+OK 3 294\r\n"
    assert r.err(b"why", b"AUTH").encode(Dialect.QMAIL) == b"-ERR why\r\n"
    assert Reply.of(Refusal(Status(5, 7, 8), "why"), login=True).encode(Dialect.QMAIL) == b"-ERR why\r\n"


@pytest.mark.parametrize("dialect", Dialect)
def test_what_an_effect_has_sent_is_not_said_again(dialect: Dialect) -> None:
    assert r.SENT.encode(dialect) == b"" == r.SENT_ALL.encode(dialect)
