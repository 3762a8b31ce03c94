from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pillarbox.header import Watcher, date, protocol_word, received

WHEN = 1795352635  # 22 Nov 2026 13:03:55


def watched(pieces: list[bytes]) -> tuple[int, bool, bool, bool]:
    watcher = Watcher()
    for piece in pieces:
        watcher.feed(piece)
    return watcher.hops, watcher.has_date, watcher.has_message_id, watcher.ended


@pytest.mark.parametrize(
    ("content", "hops"),
    [
        (b"Received: x\n\n", 1),
        (b"rEcEiVeD anything\n\n", 1),
        (b"Delivered-To: x\nReceived: y\n\n", 2),
        (b"dElIvErEd\n\n", 1),
        (b"Receive: x\nDeliver: x\n\n", 0),
        (b" Received: folded\n\n", 0),
        (b"X-Received: x\n\n", 0),
        (b"A: b\n\nReceived: in the body\n", 0),
        (b"\nReceived: in the body\n", 0),
        (b"Received: " + b"x" * 9000 + b"\nReceived: y\n\n", 2),
        (b"X: " + b"y" * 9000 + b"Received: z\n\n", 0),
        (b"Received: without a body\n", 1),
        (b"Received: x\nReceived", 1),
        (b"", 0),
    ],
)
def test_hops_are_lines_of_the_header_that_begin_received_or_delivered(content: bytes, hops: int) -> None:
    assert watched([content])[0] == hops
    assert watched([content[at : at + 1] for at in range(len(content))])[0] == hops


def test_a_field_cut_in_two_is_one_field() -> None:
    for at in range(len(b"Received: x\n\n")):
        assert watched([b"Received: x\n\n"[:at], b"Received: x\n\n"[at:]])[0] == 1
        assert watched([b"Received: x\n\n"[:at], b"Received: x\n\n"[at:], b"Received: y\n"])[0] == 1


def test_date_and_message_id_are_noticed_in_the_header_only() -> None:
    assert watched([b"DATE: x\nMessage-Id : y\n\n"])[1:3] == (True, True)
    assert watched([b"Dates: x\nX-Message-ID: y\n\nDate: z\nMessage-ID: z\n"])[1:3] == (False, False)
    assert watched([b" Date: folded\n\tMessage-ID: folded\n\n"])[1:3] == (False, False)


FRAGMENTS = st.sampled_from([b"Received: x", b"Date: y", b"Message-ID:", b"\n", b"\n", b"\n\n", b" ", b"z" * 70])


@given(st.lists(FRAGMENTS, max_size=12).map(b"".join), st.lists(st.integers(0, 500), max_size=6))
def test_where_the_blocks_are_cut_does_not_matter(content: bytes, cuts: list[int]) -> None:
    edges = sorted({0, len(content), *(cut % (len(content) + 1) for cut in cuts)})
    assert watched([content[a:b] for a, b in pairwise(edges)]) == watched([content])


def test_a_line_without_end_is_not_kept() -> None:
    watcher = Watcher()
    for _ in range(1000):
        watcher.feed(b"x" * 1000)
    assert len(watcher._partial) < 1100


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, b"1 Jan 1970 00:00:00 -0000"),
        (WHEN, b"22 Nov 2026 13:03:55 -0000"),
        (1767236645, b"1 Jan 2026 03:04:05 -0000"),
        (951782400, b"29 Feb 2000 00:00:00 -0000"),
    ],
)
def test_dates_are_written_as_qmail_writes_them(seconds: int, text: bytes) -> None:
    assert date(seconds) == text


def test_a_received_field_names_client_server_protocol_and_time() -> None:
    field = received(helo=b"client.example", ip=b"192.0.2.1", me=b"mx.example.org", protocol=b"ESMTP", seconds=WHEN)
    assert field == (
        b"Received: from client.example ([192.0.2.1])\n  by mx.example.org with ESMTP;\n  22 Nov 2026 13:03:55 -0000\n"
    )


# row: known-ipv6
def test_a_received_field_shows_ipv6_and_tls() -> None:
    tls = b"TLSv1.3 TLS_AES_256_GCM_SHA384"
    field = received(helo=b"c", ip=b"2001:db8::1", me=b"mx", protocol=b"ESMTPS", seconds=0, tls=tls)
    assert field == (
        b"Received: from c ([IPv6:2001:db8::1])\n"
        b"  by mx with ESMTPS (TLSv1.3 TLS_AES_256_GCM_SHA384);\n"
        b"  1 Jan 1970 00:00:00 -0000\n"
    )


def test_nothing_that_a_client_says_can_break_a_received_field() -> None:
    evil = b"a\nBcc: x\r (h;x)\0\xff\\" + b"y" * 5000
    field = received(helo=evil, ip=evil, me=b"mx", protocol=b"SMTP", seconds=0, tls=b"T)\nX: y")
    assert field.count(b"\n") == 3
    assert b"\r" not in field and b"\0" not in field and b"\\" not in field and b"\xff" not in field
    assert field.startswith(b"Received: from a?Bcc:?x???h?x????yyy")
    assert max(map(len, field.split(b"\n"))) < 998


def test_without_helo_a_client_is_unknown() -> None:
    assert received(helo=b"", ip=b"::1", me=b"mx", protocol=b"SMTP", seconds=0).startswith(
        b"Received: from unknown ([IPv6:::1])\n"
    )


# row: known-protocol-word
@pytest.mark.parametrize(
    ("extended", "secured", "authenticated", "utf8", "word"),
    [
        (False, False, False, False, b"SMTP"),
        (False, True, False, False, b"SMTP"),
        (True, False, False, False, b"ESMTP"),
        (True, True, False, False, b"ESMTPS"),
        (True, False, True, False, b"ESMTPA"),
        (True, True, True, False, b"ESMTPSA"),
        (True, False, False, True, b"UTF8SMTP"),
        (True, True, True, True, b"UTF8SMTPSA"),
    ],
)
def test_the_protocol_word_is_a_registered_one(
    extended: bool, secured: bool, authenticated: bool, utf8: bool, word: bytes
) -> None:
    assert protocol_word(extended=extended, secured=secured, authenticated=authenticated, utf8=utf8) == word
