"""Fields with addresses, token by token, and the lines they make: RFC 822 section 3.3, qmail-header(5)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pillarbox.compose.tokens import LINE, Kind, NotTokens, Token, address, parse, write


def texts(field: bytes) -> list[tuple[str, bytes]]:
    return [(token.kind.name, token.text) for token in parse(field)]


def test_every_kind_of_token_is_found() -> None:
    assert texts(b'To: "Q \\"q" <a.b@[1.2.3.4]>, (hi (there)) x;\n') == [
        ("ATOM", b"To"), ("COLON", b""), ("QUOTE", b'Q "q'), ("LEFT", b""), ("ATOM", b"a"), ("DOT", b""),
        ("ATOM", b"b"), ("AT", b""), ("LITERAL", b"1.2.3.4"), ("RIGHT", b""), ("COMMA", b""),
        ("COMMENT", b"hi (there)"), ("ATOM", b"x"), ("SEMI", b""),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "field", [b'To: "x', b"To: (x", b"To: [x", b"To: x)y )", b"To: ]", b"To: )", b'To: "x\\"', b"To: ((x)"]
)
def test_what_has_no_end_or_no_beginning_is_not_tokens(field: bytes) -> None:
    with pytest.raises(NotTokens):
        parse(field)


@pytest.mark.parametrize(
    ("field", "written"),
    [
        (b"To:a@b\n", b"To: a@b\n"),
        (b"To  : a  @ b ,c\n", b"To: a@b, c\n"),
        (b"To: Ann<a@b>(home)\n", b"To: Ann <a@b>(home)\n"),
        (b"To:\n a,\n\tb\n", b"To: a, b\n"),
        (b"To: \xc3\xa9@b\n", b'To: "\xc3\xa9"@b\n'),
        (b"To: x\\,y@b\n", b'To: "x,y"@b\n'),
        (b'To: "a\\"b"@c\n', b'To: "a\\"b"@c\n'),
        (b"To: (a \\( b) c@d\n", b"To: (a \\( b) c@d\n"),
        (b"To: friends:a,b;\n", b"To: friends: a, b;\n"),
    ],
)
def test_a_field_is_written_with_one_space_where_one_is_needed(field: bytes, written: bytes) -> None:
    assert write(parse(field)) == written
    assert write(parse(written)) == written


# row: vectors-inject
def test_a_line_is_folded_behind_a_comma_before_it_gets_too_long() -> None:
    addresses = b", ".join(b"recipient%d@example.org" % number for number in range(5))
    assert write(parse(b"To: " + addresses + b"\n")) == (
        b"To: recipient0@example.org, recipient1@example.org, recipient2@example.org,\n"
        b"  recipient3@example.org, recipient4@example.org\n"
    )


def test_an_address_is_raw_as_in_an_envelope() -> None:
    assert address(parse(b'"a b"(c)@[1.2.3.4]')) == b"a b@[1.2.3.4]"


@given(st.lists(st.sampled_from([b"a", b"b.c", b'"q r"', b"@", b",", b"<", b">", b"(c)", b"[1.2]", b";", b":", b"\\"])))
def test_what_is_written_reads_the_same(parts: list[bytes]) -> None:
    try:
        tokens = parse(b" ".join(parts))
    except NotTokens:
        return
    assert parse(write(tokens)) == tokens


@given(st.binary(max_size=60))
def test_any_octets_are_tokens_or_are_not(octets: bytes) -> None:
    try:
        tokens = parse(octets)
    except NotTokens:
        return
    assert parse(write(tokens)) == tokens


@given(st.lists(st.integers(1, 30), min_size=1, max_size=12))
def test_no_line_with_a_comma_in_the_middle_is_long(lengths: list[int]) -> None:
    tokens = [Token(Kind.ATOM, b"To"), Token(Kind.COLON)]
    for length in lengths:
        tokens += [Token(Kind.ATOM, b"x" * length), Token(Kind.COMMA)]
    for line in write(tokens).split(b"\n"):
        assert len(line) <= LINE
