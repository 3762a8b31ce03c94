from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pillarbox.content import ChunkDecoder, Head, Octets, Stuffer, Unstuffer, octets

EVERY_BYTE = bytes(range(256))
# Content that is mostly line ends and dots meets every corner of the decoders.
TRICKY = st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b".", b"a", b"bc"]), max_size=24).map(b"".join)
STORED = st.one_of(st.binary(max_size=80), TRICKY)


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in pairwise(edges)]


CUTS = st.lists(st.integers(0, 10_000), max_size=8)


def unstuffed(pieces: list[bytes]) -> tuple[str, bytes, bytes]:
    """How decoding ends, the content, and what lies behind the end marker."""
    decoder, content = Unstuffer(), b""
    for number, piece in enumerate(pieces):
        content += decoder.feed(piece)
        if decoder.bare_newline:
            return "bare newline", b"", b""
        if decoder.finished:
            behind = piece[len(piece) - decoder.rest :] + b"".join(pieces[number + 1 :])
            return "finished", content, behind
    return "unfinished", b"", b""


def stuffed(pieces: list[bytes], *, dots: bool = True) -> bytes:
    stuffer = Stuffer(dots=dots)
    return b"".join([stuffer.feed(piece) for piece in pieces]) + stuffer.finish()


def lines_ended(content: bytes) -> bytes:
    """What a receiver stores of content that we send: LF line ends only, the last line ended."""
    normal = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return normal if not normal or normal.endswith(b"\n") else normal + b"\n"


@pytest.mark.parametrize(
    ("wire", "content"),
    [
        (b".\r\n", b""),
        (b"\r\n.\r\n", b"\n"),
        (b"a\r\n.\r\n", b"a\n"),
        (b"..\r\n.\r\n", b".\n"),
        (b".a\r\n..b\r\n...\r\n.\r\n", b"a\n.b\n..\n"),
        (b"a\rb\r\n.\r\n", b"a\rb\n"),
        (b"a\r\r\n.\r\n", b"a\r\n"),
        (b"\r.\r\r\n.\r\n", b"\r.\r\n"),
        (b".\rx\r\n.\r\n", b".\rx\n"),
        (b"\r\n.\r\r\n.\r\n", b"\n.\r\n"),
        (b"\r\n.\rtext\r\n.\r\n", b"\n.\rtext\n"),
        (b".x\r\n.\ry\r\n.z\r\n.\r\n", b"x\n.\ry\nz\n"),
        (b"a\r\n. \r\n.\r\n", b"a\n \n"),
        (b"\0\xff\r\n.\r\n", b"\0\xff\n"),
    ],
)
def test_what_stands_behind_data_is_decoded(wire: bytes, content: bytes) -> None:
    assert unstuffed([wire]) == ("finished", content, b"")
    assert unstuffed([wire[at : at + 1] for at in range(len(wire))]) == ("finished", content, b"")


@pytest.mark.parametrize(
    "wire",
    [
        b"\n.\n",
        b"a\n.\r\n",
        b"\n.\r\n",
        b"a\r\n.\n",
        b"\r\n.\nRCPT",
        b".\n",
        b"\n",
        b"a\nb\r\n.\r\n",
        b"a\r\n\nb\r\n.\r\n",
        b"a\n\r\n.\r\n",
    ],
)
def test_a_line_feed_alone_is_found_and_ends_nothing(wire: bytes) -> None:
    assert unstuffed([wire])[0] == "bare newline"
    assert unstuffed([wire[at : at + 1] for at in range(len(wire))])[0] == "bare newline"


@pytest.mark.parametrize(
    "wire", [b"", b".", b".\r", b"\r.\r", b"\r.\r\r", b"a\r.\r\n", b"\r\n.\rx", b"\r\r.\r\r", b"a\r\n.\r"]
)
def test_nothing_but_the_whole_marker_ends_a_message(wire: bytes) -> None:
    assert unstuffed([wire])[0] == "unfinished"
    assert unstuffed([wire[at : at + 1] for at in range(len(wire))])[0] == "unfinished"


def test_what_follows_the_end_is_left_alone() -> None:
    assert unstuffed([b"a\r\n.\r\nMAIL FROM:<>\r\n"]) == ("finished", b"a\n", b"MAIL FROM:<>\r\n")
    assert unstuffed([b"a\r\n.\r", b"\nMAIL", b" FROM:<>\n"]) == ("finished", b"a\n", b"MAIL FROM:<>\n")


@given(TRICKY, CUTS)
@example(b"a\r\n.\r\n", [3])
def test_where_the_blocks_of_data_are_cut_does_not_matter(wire: bytes, cuts: list[int]) -> None:
    assert unstuffed(split(wire, cuts)) == unstuffed([wire])


def decoded_by_the_book(wire: bytes) -> tuple[str, bytes, bytes]:
    """qmail-smtpd's rules one octet at a time, as slow and plain as they read."""
    content, state, at = b"", "line start", 0
    while at < len(wire):
        rest = wire[at:]
        if rest.startswith(b"\n"):
            return "bare newline", b"", b""
        if state == "line start" and rest.startswith(b".\r\n"):
            return "finished", content, rest[3:]
        if state == "line start" and rest.startswith(b".") and not (rest.startswith(b".\r") and len(rest) > 2):
            state, at = "in line", at + 1
        elif rest.startswith(b"\r\n"):
            content, state, at = content + b"\n", "line start", at + 2
        else:
            content, state, at = content + rest[:1], "in line", at + 1
    return "unfinished", b"", b""


@given(TRICKY)
def test_the_fast_decoder_agrees_with_a_slow_one(wire: bytes) -> None:
    assert unstuffed([wire]) == decoded_by_the_book(wire)


@given(STORED, CUTS, CUTS)
@example(EVERY_BYTE * 2, [], [])
@example(b"".join(bytes([byte, byte]) for byte in range(256)), [7], [9])
def test_what_is_sent_arrives_byte_for_byte(content: bytes, cuts: list[int], more_cuts: list[int]) -> None:
    wire = stuffed(split(content, cuts))
    assert unstuffed(split(wire, more_cuts)) == ("finished", lines_ended(content), b"")


# row: remote-line-ends
@given(STORED, CUTS, st.booleans())
def test_nothing_sent_holds_a_bare_cr_or_lf(content: bytes, cuts: list[int], dots: bool) -> None:
    wire = stuffed(split(content, cuts), dots=dots)
    assert wire.count(b"\r") == wire.count(b"\n") == wire.count(b"\r\n")
    assert wire == stuffed([content], dots=dots)


@pytest.mark.parametrize(
    ("content", "wire"),
    [
        (b"", b".\r\n"),
        (b"a", b"a\r\n.\r\n"),
        (b"a\n", b"a\r\n.\r\n"),
        (b".", b"..\r\n.\r\n"),
        (b".\n", b"..\r\n.\r\n"),
        (b"a\n.b\n", b"a\r\n..b\r\n.\r\n"),
        (b"a\r.b", b"a\r\n..b\r\n.\r\n"),
        (b"a\r\nb\r", b"a\r\nb\r\n.\r\n"),
        (b"\r\r\n\n", b"\r\n\r\n\r\n.\r\n"),
    ],
)
def test_stored_form_becomes_wire_form(content: bytes, wire: bytes) -> None:
    assert stuffed([content]) == wire


@given(STORED, CUTS)
def test_octets_are_exactly_what_is_sent_without_dots(content: bytes, cuts: list[int]) -> None:
    assert octets(split(content, cuts)) == len(stuffed([content], dots=False))


def test_octets_may_be_asked_for_at_any_time() -> None:
    counter = Octets()
    seen = []
    for block in (b"ab", b"", b"\n", b"c\r", b"\n", b"\r", b"d"):
        counter.feed(block)
        seen.append(counter.total)
    assert seen == [4, 4, 4, 7, 7, 9, 12]


@pytest.mark.parametrize(
    ("lines", "content", "head"),
    [
        (0, b"A: b\n\nbody\n", b"A: b\n\n"),
        (1, b"A: b\n\nbody\nmore\n", b"A: b\n\nbody\n"),
        (2, b"A: b\n\nbody\nmore\n", b"A: b\n\nbody\nmore\n"),
        (9, b"A: b\n\nbody\nmore\n", b"A: b\n\nbody\nmore\n"),
        (1, b"A: b\n\n\n\n", b"A: b\n\n\n"),
        (1, b"\nbody\nmore\n", b"\nbody\n"),
        (0, b"\nbody\n", b"\n"),
        (1, b"A: b\n", b"A: b\n"),
        (1, b"A: b", b"A: b"),
        (1, b"A: b\r\n\r\nbody\rmore\r", b"A: b\n\nbody\n"),
        (2, b"A: b\n\nbody\r", b"A: b\n\nbody\n"),
        (1, b"", b""),
    ],
)
def test_top_gives_the_header_and_so_many_lines(lines: int, content: bytes, head: bytes) -> None:
    assert headed(lines, [content]) == head


def headed(lines: int, pieces: list[bytes]) -> bytes:
    limit = Head(lines)
    return b"".join([limit.feed(piece) for piece in pieces]) + limit.finish()


@given(STORED, CUTS, st.integers(0, 4))
def test_where_the_blocks_for_top_are_cut_does_not_matter(content: bytes, cuts: list[int], lines: int) -> None:
    assert headed(lines, split(content, cuts)) == headed(lines, [content])


def test_top_says_when_it_needs_no_more() -> None:
    head = Head(1)
    assert (head.feed(b"A: b\n\n"), head.full) == (b"A: b\n\n", False)
    assert (head.feed(b"body\nmo"), head.full) == (b"body\n", True)
    assert head.feed(b"re\n") == b""


def chunked(pieces: list[bytes]) -> bytes | None:
    decoder = ChunkDecoder()
    content = b""
    for piece in pieces:
        content += decoder.feed(piece)
        if decoder.bare_newline:
            return None
    return content + decoder.finish()


@pytest.mark.parametrize(
    ("wire", "content"),
    [
        (b"", b""),
        (b"a\r\n", b"a\n"),
        (b"a", b"a\n"),
        (b".\r\n", b".\n"),
        (b"a\r", b"a\r\n"),
        (b"\r\r\n", b"\r\n"),
        (b"a\r\n.\r\nb\r\n", b"a\n.\nb\n"),
        (b"a\n", None),
        (b"\n", None),
        (b"a\r\n\n", None),
    ],
)
def test_chunks_are_decoded_without_dots(wire: bytes, content: bytes | None) -> None:
    assert chunked([wire]) == content
    assert chunked([wire[at : at + 1] for at in range(len(wire))]) == content


@given(TRICKY, CUTS)
def test_where_chunks_are_cut_does_not_matter(wire: bytes, cuts: list[int]) -> None:
    assert chunked(split(wire, cuts)) == chunked([wire])


@given(STORED)
def test_chunks_bring_every_byte(content: bytes) -> None:
    assert chunked([stuffed([content], dots=False)]) == lines_ended(content)
