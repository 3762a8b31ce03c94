"""DATA and BDAT: what becomes content, where it ends, and that none of it is ever read as commands."""

from __future__ import annotations

import pytest

from pillarbox.smtp import replies as r
from pillarbox.smtp.events import Chunk, Content, Data, EndOfChunk, EndOfData, Event, Reset
from pillarbox.smtp.reply import Dialect, Reply
from pillarbox.status import Status
from tests.smtp.test_receiver import NO, TRANSACTION, Client, begun

TOO_BIG = Reply(552, Status(5, 3, 4), ("too big",))


def in_data() -> Client:
    client = begun(*TRANSACTION, b"DATA")
    assert client.events == []
    return client


def content(events: list[Event]) -> bytes:
    return b"".join([event.block for event in events if isinstance(event, Content)])


# DATA


@pytest.mark.parametrize(
    ("wire", "stored"),
    [
        (b".\r\n", b""),
        (b"a\r\n.\r\n", b"a\n"),
        (b"..\r\n.\r\n", b".\n"),
        (b".a\r\n.\r\n", b"a\n"),
        (b"\r.\r\r\n.\r\n", b"\r.\r\n"),
        (b"\r\n.\rtext\r\n.\r\n", b"\n.\rtext\n"),
        (b"a\rb\r\n.\r\n", b"a\rb\n"),
        (b"QUIT\r\nMAIL FROM:<>\r\n.\r\n", b"QUIT\nMAIL FROM:<>\n"),
        (b"GET / HTTP/1.1\r\n.\r\n", b"GET / HTTP/1.1\n"),
        (b"x" * 9_000 + b"\r\n.\r\n", b"x" * 9_000 + b"\n"),
    ],
)
def test_content_ends_at_the_lone_dot_and_nowhere_else(wire: bytes, stored: bytes) -> None:
    for size in (len(wire), 1, 2, 3, 5):
        client = in_data()
        heard = b"".join([client.send(wire[at : at + size]) for at in range(0, len(wire), size)])
        assert heard == b"250 2.0.0 ok 1\r\n"
        assert content(client.events) == stored
        assert client.events[-1] == EndOfData()
        assert client.last(b"NOOP") == b"250 2.0.0 ok"


@pytest.mark.parametrize("wire", [b"\n.\n", b"\n.\r\n", b"a\r\n.\n", b"a\nb", b"x" * 9_000 + b"\n", b"a\r\n\n.\r\n"])
def test_a_line_feed_alone_in_content_ends_the_conversation(wire: bytes) -> None:
    smuggled = b"MAIL FROM:<evil@b.example>\r\nRCPT TO:<x@b>\r\nDATA\r\nevil\r\n.\r\n"
    for size in (len(wire + smuggled), 1):
        client = in_data()
        octets = wire + smuggled
        heard = b"".join([client.send(octets[at : at + size]) for at in range(0, len(octets), size)])
        assert heard == b"550 5.5.2 lines end with CR LF, both, always\r\n"
        assert client.machine.closing
        assert all(isinstance(event, Content) for event in client.events)


def test_in_qmails_dialect_it_is_qmails_451() -> None:
    client = Client(dialect=Dialect.QMAIL)
    client.say(*TRANSACTION, b"DATA")
    assert client.send(b"a\n") == b"451 See http://pobox.com/~djb/docs/smtplf.html.\r\n"
    assert client.machine.closing


def test_what_follows_the_message_in_the_same_piece_is_commands_again() -> None:
    client = in_data()
    assert client.send(b"a\r\n.\r\nNOOP\r\nRSE") == b"250 2.0.0 ok 1\r\n250 2.0.0 ok\r\n"
    assert client.send(b"T\r\n") == b"250 2.0.0 flushed\r\n"
    assert client.events == [Content(b"a\n"), EndOfData(), Reset()]


def test_a_message_that_is_refused_at_its_end_was_read_to_its_end() -> None:
    client = in_data()
    client.answers[EndOfData] = TOO_BIG
    assert client.say(b"QUIT", b"x" * 200_000, b"MAIL FROM:<>", b".", b"NOOP") == (
        b"552 5.3.4 too big\r\n250 2.0.0 ok\r\n"
    )


def test_an_open_message_buffers_nothing() -> None:
    client = in_data()
    for _ in range(50):
        client.send(b"x" * 10_000)
        assert client.machine.buffered == 0
        client.events.clear()


def test_content_comes_in_blocks_of_bounded_size() -> None:
    client = in_data()
    client.send(b"x" * 1_000_000 + b"\r\n.\r\n")
    assert max(len(event.block) for event in client.events if isinstance(event, Content)) <= 65_536 + 4
    assert len(content(client.events)) == 1_000_001


def test_no_answer_to_data_means_no_content() -> None:
    client = begun(*TRANSACTION)
    client.answers[Data] = NO
    assert client.say(b"DATA", b"RSET") == b"451 4.3.0 not now\r\n250 2.0.0 flushed\r\n"


# BDAT


def test_chunks_make_a_message() -> None:
    client = begun(*TRANSACTION)
    heard = client.send(b"BDAT 6\r\na\r\n.\r\nBDAT 3\r\nb\r\nBDAT 1 LAST\r\ncNOOP\r\n")
    assert heard == b"250 2.0.0 ok\r\n" * 4
    assert client.events == [
        Chunk(6, last=False),
        Content(b"a\n.\n"),
        EndOfChunk(last=False),
        Chunk(3, last=False),
        Content(b"b\n"),
        EndOfChunk(last=False),
        Chunk(1, last=True),
        Content(b"c"),
        Content(b"\n"),
        EndOfChunk(last=True),
    ]


@pytest.mark.parametrize(
    ("octets", "stored"),
    [
        (b"BDAT 0 LAST\r\n", b""),
        (b"BDAT 3 LAST\r\na\r\n", b"a\n"),
        (b"BDAT 1\r\naBDAT 0 LAST\r\n", b"a\n"),
        (b"BDAT 2\r\na\rBDAT 1 LAST\r\n\n", b"a\n"),
        (b"BDAT 2 LAST\r\na\r", b"a\r\n"),
        (b"BDAT 2\r\na\rBDAT 1 LAST\r\nb", b"a\rb\n"),
        (b"BDAT 9 LAST\r\nQUIT\r\n.\r\n", b"QUIT\n.\n"),
    ],
)
def test_where_chunks_are_cut_does_not_matter(octets: bytes, stored: bytes) -> None:
    for size in (len(octets), 1, 2, 3):
        client = begun(*TRANSACTION)
        for at in range(0, len(octets), size):
            client.send(octets[at : at + size])
        assert content(client.events) == stored
        assert client.events[-1] == EndOfChunk(last=True)


@pytest.mark.parametrize(
    "octets", [b"BDAT 2 LAST\r\na\n", b"BDAT 1\r\n\nBDAT 0 LAST\r\n", b"BDAT 1\r\naBDAT 1 LAST\r\n\n"]
)
def test_a_line_feed_alone_in_a_chunk_ends_the_conversation(octets: bytes) -> None:
    client = begun(*TRANSACTION)
    assert client.send(octets).endswith(b"550 5.5.2 lines end with CR LF, both, always\r\n")
    assert client.machine.closing
    assert EndOfChunk(last=True) not in client.events


@pytest.mark.parametrize("before", [(), TRANSACTION[:1], TRANSACTION[:2]])
def test_octets_of_a_chunk_out_of_order_are_consumed(before: tuple[bytes, ...]) -> None:
    for size in (100, 1):
        client = begun(*before)
        octets = b"BDAT 16\r\nNOOP\r\nQUIT\r\na\n..NOOP\r\n"
        heard = b"".join([client.send(octets[at : at + size]) for at in range(0, len(octets), size)])
        assert heard[:3] == b"503"
        assert heard.endswith(b"first\r\n250 2.0.0 ok\r\n")
        assert client.events == []


def test_after_a_refused_chunk_the_message_is_refused_and_its_octets_are_consumed() -> None:
    client = begun(*TRANSACTION)
    client.answers[EndOfChunk] = TOO_BIG
    heard = client.send(b"BDAT 3\r\na\r\nBDAT 6 LAST\r\nQUIT\r\nNOOP\r\n")
    assert heard == b"552 5.3.4 too big\r\n503 5.5.1 MAIL first\r\n250 2.0.0 ok\r\n"
    assert client.events == [Chunk(3, last=False), Content(b"a\n"), EndOfChunk(last=False)]


@pytest.mark.parametrize("command", [b"BDAT", b"BDAT x", b"BDAT -1", b"BDAT 1 FIRST", b"BDAT " + b"9" * 21])
def test_a_chunk_of_unknown_size_ends_the_conversation(command: bytes) -> None:
    client = begun(*TRANSACTION)
    assert client.say(command, b"NOOP") == b"501 5.5.4 syntax is BDAT octets [LAST]\r\n"
    assert client.machine.closing


def test_chunks_of_one_message_do_not_meet_those_of_another() -> None:
    client = begun(*TRANSACTION)
    client.send(b"BDAT 2\r\na\rRSET\r\n")
    client.say(*TRANSACTION[1:])
    client.events.clear()
    client.send(b"BDAT 3 LAST\r\nb\r\n")
    assert content(client.events) == b"b\n"


def test_a_chunk_comes_in_blocks_of_bounded_size() -> None:
    client = begun(*TRANSACTION)
    client.send(b"BDAT 1000000 LAST\r\n" + b"x" * 1_000_000)
    assert max(len(event.block) for event in client.events if isinstance(event, Content)) <= 65_536 + 1
    assert client.machine.data_to_send() == b""


def test_an_empty_chunk_is_a_chunk() -> None:
    client = begun(*TRANSACTION)
    assert client.say(b"BDAT 0", b"NOOP") == b"250 2.0.0 ok\r\n250 2.0.0 ok\r\n"
    assert client.events == [Chunk(0, last=False), EndOfChunk(last=False)]
    assert r.OK.positive
