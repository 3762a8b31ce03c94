from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from pillarbox.envelope import Envelope
from pillarbox.sessions.effects import Commit
from pillarbox.smtp.sender import BadPeer, Sender, Verdict
from pillarbox.status import Failure, Refusal, Status
from tests.smtp.connection import Connection, World, body
from tests.test_content import CUTS, EVERY_BYTE, STORED, lines_ended, split

ENVELOPE = Envelope(b"a@b.example", (b"joe@example.org", b"nobody@example.org", b"amy@example.org"))


def converse(sender: Sender, connection: Connection, *, octet_by_octet: bool = False) -> None:
    """Both sides talk until the sender is done."""
    hear(sender, connection.hear(), octet_by_octet)
    while said := sender.data_to_send():
        pieces = [said[at : at + 1] for at in range(len(said))] if octet_by_octet else [said]
        hear(sender, connection.send(*pieces), octet_by_octet)
    sender.eof()


def hear(sender: Sender, heard: bytes, octet_by_octet: bool) -> None:
    for piece in [heard[at : at + 1] for at in range(len(heard))] if octet_by_octet else [heard]:
        sender.receive(piece)


@pytest.mark.parametrize("octet_by_octet", [False, True])
def test_receiver_takes_what_sender_brings(octet_by_octet: bool) -> None:
    connection = Connection()
    sender = Sender(b"client.example", ENVELOPE, [b"Subject: x\n", b"", b"\n.body\r\n", b"no end"])
    converse(sender, connection, octet_by_octet=octet_by_octet)
    assert sender.verdicts is not None
    assert [verdict.code for verdict in sender.verdicts] == [250, 550, 250]
    [(envelope, content)] = connection.world.queued
    assert envelope == Envelope(b"a@b.example", (b"joe@example.org", b"amy@example.org"))
    assert body(content) == b"Subject: x\n\n.body\nno end\n"
    assert connection.machine.closing


@given(STORED, CUTS)
@example(EVERY_BYTE, [])
@example(b"".join(bytes([a, b]) for a in (10, 13, 46) for b in range(256)), [])
@hypothesis_settings(deadline=None)
def test_every_byte_makes_the_way_from_sender_to_receiver(content: bytes, cuts: list[int]) -> None:
    connection = Connection()
    converse(Sender(b"c", Envelope(b"", (b"joe@example.org",)), split(content, cuts)), connection)
    assert body(connection.world.queued[0][1]) == lines_ended(content)


# What a header or an address of ours may hold and a path may not show is quoted.
@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=60))
@hypothesis_settings(deadline=None)
def test_every_printable_local_part_makes_the_way(local: str) -> None:
    address = local.encode() + b"@example.org"
    connection = Connection(world=World(known=frozenset((address.lower(),))))
    converse(Sender(b"c", Envelope(address, (address,)), []), connection)
    assert connection.world.queued[0][0] == Envelope(address, (address,))


@pytest.mark.parametrize("address", [b"a\r\nDATA@b", b"a\n@b", b"a\0@b", b"a@b\r\nRSET"])
def test_an_address_cannot_break_out_of_its_line(address: bytes) -> None:
    for envelope in (Envelope(address, (b"joe@example.org",)), Envelope(b"", (address,))):
        with pytest.raises(Failure):
            Sender(b"c", envelope, [])


def test_a_refused_message_is_refused_for_those_who_were_taken() -> None:
    refused = Refusal(Status(4, 3, 1), "the disk is full")
    connection = Connection(world=World(refusing={Commit: refused}))
    sender = Sender(b"c", ENVELOPE, [b"x\n"])
    converse(sender, connection)
    assert sender.verdicts == [
        Verdict(452, (b"4.3.1 the disk is full",)),
        Verdict(550, (b"5.1.1 sorry, no mailbox here by that name",)),
        Verdict(452, (b"4.3.1 the disk is full",)),
    ]


def script(sender: Sender, *replies: bytes) -> list[bytes]:
    """What the sender says to these replies."""
    said = []
    for reply in replies:
        sender.receive(reply)
        while octets := sender.data_to_send():
            said.append(octets)
    return said


def test_without_ehlo_helo_will_do() -> None:
    sender = Sender(b"c", Envelope(b"", (b"x@y",)), [b"a"])
    said = script(
        sender, b"220 x\r\n", b"502 what\r\n", b"250 x\n", b"250\r\n", b"550-no\r\n550 way\r\n", b"221 bye\r\n"
    )
    assert said == [b"EHLO c\r\n", b"HELO c\r\n", b"MAIL FROM:<>\r\n", b"RCPT TO:<x@y>\r\n", b"QUIT\r\n"]
    assert sender.verdicts == [Verdict(550, (b"no", b"way"))]


@pytest.mark.parametrize(
    "replies",
    [
        (b"554 go away\r\n", b"221 x\r\n"),
        (b"220 x\r\n", b"500 x\r\n", b"554 go away\r\n", b"221 x\r\n"),
        (b"220 x\r\n", b"250 x\r\n", b"554 go away\r\n", b"221 x\r\n"),
        (b"220 x\r\n", b"250 x\r\n", b"250 x\r\n", b"250 x\r\n", b"554 go away\r\n", b"221 x\r\n"),
    ],
)
def test_a_refusal_anywhere_is_the_verdict(replies: tuple[bytes, ...]) -> None:
    sender = Sender(b"c", Envelope(b"", (b"x@y",)), [b"a"])
    assert script(sender, *replies)[-1] == b"QUIT\r\n"
    assert sender.verdicts == [Verdict(554, (b"go away",))]


@pytest.mark.parametrize(
    "reply", [b"hello\r\n", b"\r\n", b"99 x\r\n", b"+OK\r\n", b"220x\r\n", b"x" * 5000, b"220-x\n" * 300]
)
def test_what_is_no_reply_is_trouble(reply: bytes) -> None:
    with pytest.raises(BadPeer):
        Sender(b"c", ENVELOPE, []).receive(reply)


def test_a_server_that_goes_away_is_trouble() -> None:
    sender = Sender(b"c", ENVELOPE, [])
    with pytest.raises(BadPeer) as caught:
        sender.eof()
    assert caught.value.status.kind == 4
