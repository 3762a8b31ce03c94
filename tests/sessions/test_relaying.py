from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from pillarbox.attempt import Advice
from pillarbox.envelope import Envelope
from pillarbox.outcome import Verdict
from pillarbox.sessions.effects import Commit
from pillarbox.sessions.relaying import sender
from pillarbox.smtp.sender import Phase
from pillarbox.status import Refusal, Status
from tests.sessions.client import brought, order, script
from tests.smtp.connection import Connection, World, body
from tests.test_content import CUTS, EVERY_BYTE, STORED, lines_ended, split

ONE = Envelope(b"", (b"x@y",))


@pytest.mark.parametrize("octet_by_octet", [False, True])
def test_receiver_takes_what_sender_brings(octet_by_octet: bool) -> None:
    connection = Connection()
    content = [b"Subject: x\n", b"", b"\n.body\r\n", b"no end"]
    attempt = brought(order(), connection, content, octet_by_octet=octet_by_octet)
    assert [outcome.verdict for outcome in attempt.outcomes] == [Verdict.DONE, Verdict.NEVER, Verdict.DONE]
    [(envelope, content_there)] = connection.world.queued
    assert envelope == Envelope(b"a@b.example", (b"joe@example.org", b"amy@example.org"))
    assert body(content_there) == b"Subject: x\n\n.body\nno end\n"
    assert connection.machine.closing
    assert (attempt.advice, attempt.destination_failed) == (Advice.NOTHING, False)


@given(STORED, CUTS)
@example(EVERY_BYTE, [])
@example(b"".join(bytes([a, b]) for a in (10, 13, 46) for b in range(256)), [])
@hypothesis_settings(deadline=None)
def test_every_byte_makes_the_way_from_sender_to_receiver(content: bytes, cuts: list[int]) -> None:
    connection = Connection()
    brought(order(Envelope(b"", (b"joe@example.org",))), connection, split(content, cuts))
    assert body(connection.world.queued[0][1]) == lines_ended(content)


# What a header or an address of ours may hold and a path may not show is quoted.
@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=60))
@hypothesis_settings(deadline=None)
def test_every_printable_local_part_makes_the_way(local: str) -> None:
    address = local.encode() + b"@example.org"
    connection = Connection(world=World(known=frozenset((address.lower(),))))
    brought(order(Envelope(address, (address,))), connection, [])
    assert connection.world.queued[0][0] == Envelope(address, (address,))


@pytest.mark.parametrize("address", [b"a\r\nDATA@b", b"a\n@b", b"a\0@b", b"a@b\r\nRSET"])
def test_an_address_cannot_break_out_of_its_line(address: bytes) -> None:
    for envelope in (Envelope(address, (b"joe@example.org",)), Envelope(b"", (address,))):
        connection = Connection()
        attempt = brought(order(envelope), connection, [])
        assert [outcome.verdict for outcome in attempt.outcomes] == [Verdict.NEVER]
        assert connection.world.done == []


def test_a_refused_message_is_refused_for_those_who_were_taken() -> None:
    connection = Connection(world=World(refusing={Commit: Refusal(Status(4, 3, 1), "the disk is full")}))
    attempt = brought(order(), connection, [b"x\n"])
    assert [(outcome.verdict, outcome.status) for outcome in attempt.outcomes] == [
        (Verdict.LATER, Status(4, 3, 1)),
        (Verdict.NEVER, Status(5, 1, 1)),
        (Verdict.LATER, Status(4, 3, 1)),
    ]


def test_without_ehlo_helo_will_do() -> None:
    machine = sender(order(ONE))
    said = script(machine, b"220 x\r\n", b"502 what\r\n", b"250 x\n", b"250\r\n", b"550-no\r\n550 way\r\n")
    assert said == [b"EHLO client.example\r\n", b"HELO client.example\r\n", b"MAIL FROM:<>\r\n",
                    b"RCPT TO:<x@y>\r\n", b"QUIT\r\n"]  # fmt: skip
    assert machine.phase is Phase.QUIT
    assert machine.attempt is not None
    assert machine.attempt.outcomes[0].report == (
        b"192.0.2.1 does not like recipient.\nRemote host said: 550-no\n550 way\nGiving up on 192.0.2.1.\n"
    )
