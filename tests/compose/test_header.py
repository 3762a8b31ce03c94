"""Where a header ends, and what its fields are, as qmail-inject sees it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pillarbox.compose import header as module
from pillarbox.compose.header import HeaderReader, HeaderTooLong, name


def read(message: bytes, cut: int = 0) -> tuple[list[bytes], bytes]:
    reader = HeaderReader()
    blocks = [message[at : at + cut] for at in range(0, len(message), cut)] if cut else [message]
    rest = b""
    for block in blocks:
        if reader.body is None:
            reader.feed(block)
        else:
            rest += block
    reader.finish()
    return reader.fields, (reader.body or b"") + rest


@pytest.mark.parametrize(
    ("message", "fields", "body"),
    [
        (b"To: a\nSubject: x\n\nbody\n", [b"To: a\n", b"Subject: x\n"], b"\nbody\n"),
        (b"To: a,\n b,\n\tc\n\n", [b"To: a,\n b,\n\tc\n"], b"\n"),
        (b"To: a\n", [b"To: a\n"], b""),
        (b"To: a", [b"To: a\n"], b""),
        (b"", [], b""),
        (b"\nbody", [], b"\nbody"),
        (b"body\n", [], b"\nbody\n"),
        (b"To: a\nno field\nTo: b\n", [b"To: a\n"], b"\nno field\nTo: b\n"),
        (b" not continued\n", [], b"\n not continued\n"),
        (b"From joe Mon Jan  1\nTo: a\n\n", [b"MBOX-Line: From joe Mon Jan  1\n", b"To: a\n"], b"\n"),
        (b"To : a\n\n", [b"To : a\n"], b"\n"),
        (b": a\n\n", [], b"\n: a\n\n"),
        (b"X\xc3\xa9: a\n\n", [], b"\nX\xc3\xa9: a\n\n"),
        (b"two words: a\n\n", [], b"\ntwo words: a\n\n"),
        (b"To: a\n \nSubject: b\n\n", [b"To: a\n \n", b"Subject: b\n"], b"\n"),
    ],
)
def test_a_header_ends_at_the_first_line_that_is_no_field(message: bytes, fields: list[bytes], body: bytes) -> None:
    assert read(message) == (fields, body)
    assert read(message, 1) == (fields, body)


@given(
    st.lists(st.sampled_from([b"To: a", b" b", b"\n", b"no field", b"\t", b":", b"From x", b"\r\n"])), st.integers(1, 7)
)
def test_how_the_message_is_cut_changes_nothing(parts: list[bytes], cut: int) -> None:
    message = b"".join(parts)
    assert read(message, cut) == read(message)


@pytest.mark.parametrize("octets", [b"x", b"To: a\n", b"To: a\n b\n"])
def test_a_header_without_end_is_given_up(octets: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONGEST", 1000)
    reader = HeaderReader()
    with pytest.raises(HeaderTooLong):
        for _ in range(1001):
            reader.feed(octets)


def test_a_fields_name_is_known_in_any_case() -> None:
    assert name(b"Reply-TO \t: x\n") == b"reply-to"
    assert name(b"no field\n") == b""
