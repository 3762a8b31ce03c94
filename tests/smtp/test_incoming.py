from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pillarbox.smtp.incoming import Incoming

LIMIT = 8


def lines(pieces: list[bytes]) -> list[tuple[bytes, bool]]:
    incoming = Incoming()
    found = []
    for piece in pieces:
        incoming.add(piece)
        while (line := incoming.line(LIMIT)) is not None:
            found.append((line, incoming.overlong))
    return found


def test_lines_come_without_their_line_feed() -> None:
    assert lines([b"ab\r\n\ncd\r\nrest"]) == [(b"ab\r", False), (b"", False), (b"cd\r", False)]


def test_a_line_over_the_limit_is_only_its_last_octet() -> None:
    assert lines([b"1234567\n12345678\n123456\r\n1234567\r\n"]) == [
        (b"1234567", False),
        (b"8", True),
        (b"123456\r", False),
        (b"\r", True),
    ]


@given(st.lists(st.sampled_from([b"a", b"\r", b"\n", b"bcdefg"]), max_size=20).map(b"".join), st.integers(1, 20))
def test_lines_are_the_same_however_the_octets_come(octets: bytes, size: int) -> None:
    assert lines([octets[at : at + size] for at in range(0, len(octets), size)]) == lines([octets])


def test_nothing_is_kept_of_a_line_that_never_ends() -> None:
    incoming = Incoming()
    for _ in range(100):
        incoming.add(b"x" * 1000)
        assert incoming.line(LIMIT) is None
        assert incoming.size == 1
    incoming.add(b"\r\nnext\r\n")
    assert (incoming.line(LIMIT), incoming.overlong) == (b"\r", True)
    assert (incoming.line(LIMIT), incoming.overlong) == (b"next\r", False)


def test_blocks_are_at_most_as_long_as_asked_for() -> None:
    incoming = Incoming()
    incoming.add(b"abc")
    incoming.add(b"defg")
    assert incoming.size == 7
    assert [incoming.take(2), incoming.take(9), incoming.take(9), incoming.take(9)] == [b"ab", b"c", b"defg", b""]
    assert incoming.size == 0


def test_what_is_given_back_comes_again_first() -> None:
    incoming = Incoming()
    incoming.add(b"line\r\ncontent\r\n.\r\nQUIT\r\n")
    incoming.add(b"more\r\n")
    assert incoming.line(99) == b"line\r"
    block = incoming.take(99)
    assert block == b"content\r\n.\r\nQUIT\r\n"
    incoming.give_back(block[12:])
    assert [incoming.line(99), incoming.line(99), incoming.line(99)] == [b"QUIT\r", b"more\r", None]


def test_a_block_that_was_cut_off_can_be_given_back_too() -> None:
    incoming = Incoming()
    incoming.add(b"abcdefgh")
    assert incoming.take(4) == b"abcd"
    incoming.give_back(b"cd")
    assert incoming.take(99) == b"cdefgh"


def test_what_has_been_given_out_is_not_kept() -> None:
    incoming = Incoming()
    incoming.add(b"NOOP\r\n" * 100)
    while incoming.line(99) is not None:
        pass
    assert incoming._data == b""
    incoming.add(b"x" * 100)
    incoming.take(100)
    assert incoming._data == b""
