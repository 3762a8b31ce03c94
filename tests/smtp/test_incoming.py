from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pillarbox.smtp.incoming import Incoming

LIMIT = 8


def lines(pieces: list[bytes]) -> list[tuple[bytes, bool, bool]]:
    """Each with whether it is bare, and overlong."""
    incoming = Incoming()
    found = []
    for piece in pieces:
        incoming.receive(piece)
        while (line := incoming.line(LIMIT)) is not None:
            flawed = incoming.flawed
            found.append((line, flawed and incoming.bare, flawed and incoming.overlong))
    return found


def test_lines_come_without_their_ends() -> None:
    assert lines([b"ab\r\n\r\n\ncd\ne\r\r\nrest"]) == [
        (b"ab", False, False),
        (b"", False, False),
        (b"", True, False),
        (b"cd", True, False),
        (b"e\r", False, False),
    ]


def test_nothing_is_given_of_a_line_over_the_limit() -> None:
    assert lines([b"1234567\n12345678\n123456\r\n1234567\r\n"]) == [
        (b"1234567", True, False),
        (b"", True, True),
        (b"123456", False, False),
        (b"", False, True),
    ]


def test_who_is_deaf_keeps_nothing() -> None:
    incoming = Incoming()
    incoming.deaf = True
    incoming.receive(b"NOOP\r\n")
    assert (incoming.line(LIMIT), incoming.buffered, incoming.drained) == (None, 0, True)


@given(st.lists(st.sampled_from([b"a", b"\r", b"\n", b"bcdefg"]), max_size=20).map(b"".join), st.integers(1, 20))
def test_lines_are_the_same_however_the_octets_come(octets: bytes, size: int) -> None:
    assert lines([octets[at : at + size] for at in range(0, len(octets), size)]) == lines([octets])


def test_nothing_is_kept_of_a_line_that_never_ends() -> None:
    incoming = Incoming()
    for _ in range(100):
        incoming.receive(b"x" * 1000)
        assert incoming.line(LIMIT) is None
        assert incoming.buffered == 1
    incoming.receive(b"\r\nnext\r\n")
    assert (incoming.line(LIMIT), incoming.overlong) == (b"", True)
    assert (incoming.line(LIMIT), incoming.flawed) == (b"next", False)


def test_blocks_are_at_most_as_long_as_asked_for() -> None:
    incoming = Incoming()
    incoming.receive(b"abc")
    incoming.receive(b"defg")
    assert incoming.buffered == 7
    assert [incoming.take(2), incoming.take(9), incoming.take(9), incoming.take(9)] == [b"ab", b"c", b"defg", b""]
    assert incoming.buffered == 0


def test_what_is_given_back_comes_again_first() -> None:
    incoming = Incoming()
    incoming.receive(b"line\r\ncontent\r\n.\r\nQUIT\r\n")
    incoming.receive(b"more\r\n")
    assert incoming.line(99) == b"line"
    block = incoming.take(99)
    assert block == b"content\r\n.\r\nQUIT\r\n"
    incoming.give_back(block[12:])
    assert [incoming.line(99), incoming.line(99), incoming.line(99)] == [b"QUIT", b"more", None]


def test_a_block_that_was_cut_off_can_be_given_back_too() -> None:
    incoming = Incoming()
    incoming.receive(b"abcdefgh")
    assert incoming.take(4) == b"abcd"
    incoming.give_back(b"cd")
    assert incoming.take(99) == b"cdefgh"


def test_what_has_been_given_out_is_not_kept() -> None:
    incoming = Incoming()
    incoming.receive(b"NOOP\r\n" * 100)
    while incoming.line(99) is not None:
        pass
    assert incoming._data == b""
    incoming.receive(b"x" * 100)
    incoming.take(100)
    assert incoming._data == b""
