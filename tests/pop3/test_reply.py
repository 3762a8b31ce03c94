from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pillarbox.pop3 import reply as r
from pillarbox.pop3.reply import Kind, Reply
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
    assert reply == Reply(Kind.ERR, b"-ERR " + code + b" why\r\n")


def test_in_use_and_auth_are_said_of_a_login_only() -> None:
    assert Reply.of(Refusal(Status(4, 2, 0), "why")).wire == b"-ERR [SYS/TEMP] why\r\n"
    assert Reply.of(Refusal(Status(5, 7, 8), "why")).wire == b"-ERR [SYS/PERM] why\r\n"


def test_a_reply_has_one_first_line_and_a_dot_after_its_others() -> None:
    assert r.ok(b"text").wire == b"+OK text\r\n"
    assert r.ok(b"text", []).wire == b"+OK text\r\n.\r\n"
    assert r.ok(b"text", [b"one", b"two"]).wire == b"+OK text\r\none\r\ntwo\r\n.\r\n"
    assert r.err(b"text").wire == b"-ERR text\r\n"
    assert r.challenge(b"YQ==").wire == b"+ YQ==\r\n"
    assert r.challenge(b"").wire == b"+ \r\n"


@given(text=st.text())
def test_a_refusal_can_say_nothing_but_its_own_line(text: str) -> None:
    wire = Reply.of(Refusal(Status(4, 3, 0), text)).wire
    assert wire.endswith(b"\r\n")
    assert all(0x20 <= octet <= 0x7E for octet in wire[:-2])
    assert len(wire) <= 512


def test_a_long_reason_is_cut_to_the_length_of_a_reply_line() -> None:
    wire = Reply.of(Refusal(Status(4, 3, 0), "why" * 1000)).wire
    assert wire.startswith(b"-ERR [SYS/TEMP] whywhy") and wire.endswith(b"\r\n") and len(wire) <= 512


def test_every_reply_of_the_catalogue_is_a_line_within_rfc_2449() -> None:
    replies = [value for value in vars(r).values() if isinstance(value, Reply) and value is not r.SENT]
    assert len(replies) > 20
    for reply in replies:
        assert reply.wire.startswith(reply.kind.value) and reply.wire.endswith(b"\r\n")
        assert reply.wire.count(b"\n") == 1 and len(reply.wire) <= 512
