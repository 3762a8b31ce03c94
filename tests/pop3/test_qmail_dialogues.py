"""tests/dialogues/qmail-pop3/*.txt against machine and session, in the manners of qmail-popup and qmail-pop3d."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pillarbox.pop3.manners import POP3D, POPUP
from tests.dialogue import walk
from tests.pop3.connection import Connection, World, access
from tests.pop3.qmail_dialogue import FILES, stated

STAMP = b"<1896.697170952@mx.example.org>"


def connect(said: dict[str, str]) -> Connection:
    world = World()
    if said.get("maildrop") == "empty":
        world.maildrop = {}
    if said["program"] == "qmail-pop3d":
        return Connection(access(), world, authorized=True, manners=POP3D)
    return Connection(access(stamp=STAMP), world, manners=POPUP)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_dialogue_goes_as_written(file: Path) -> None:
    connection = connect(stated(file))
    # As qmail-popup reads.
    walk(file, connection.hear, connection.say, connection.happen, one_by_one=True)


def test_in_qmails_manners_a_word_for_people_is_never_said() -> None:
    """Whatever the machine and the session have words for."""
    connection = Connection(access(), manners=POP3D, authorized=True)
    said = connection.lines("STAT", "LIST", "UIDL", "NOOP", "DELE 1", "RSET", "LAST", "QUIT")
    assert said.count(b"+OK \r\n") == 7  # with the greeting, without STAT and LAST
    assert b"messages" not in said and b"octets" not in said and b"[" not in said


VERBS = [b"STAT", b"LIST", b"uidl", b"RETR", b"Top", b"DELE", b"RSET", b"LAST", b"NOOP", b"CAPA", b"USER", b"QUIT", b""]
ARGUMENTS = [b"", b" ", b" 1", b" 2 0", b" 3x", b"  0", b" 4", b" -1", b" x", b"\0", b" 1\0", b"\r", b" \xff"]


@given(
    text=st.lists(
        st.tuples(st.sampled_from(VERBS), st.sampled_from(ARGUMENTS), st.sampled_from([b"\n", b"\r\n"])).map(b"".join)
        | st.binary(max_size=20),
        max_size=12,
    ).map(b"".join),
    cuts=st.lists(st.integers(0, 100), max_size=5),
)
def test_how_what_a_client_says_is_cut_does_not_matter(text: bytes, cuts: list[int]) -> None:
    at = [0, *sorted(cuts), len(text)]
    whole, cut = (Connection(access(), manners=POP3D, authorized=True) for _ in range(2))
    for piece in (text[start:end] for start, end in pairwise(at)):
        cut.say_pieces([piece])
    assert cut.hear() == whole.say(text)


@given(text=st.binary(max_size=200))
def test_whatever_a_client_says_before_the_login_gets_one_line_for_each_of_its_own(text: bytes) -> None:
    connection = Connection(access(stamp=STAMP), manners=POPUP)
    connection.hear()
    heard = connection.say(text)
    assert heard.count(b"\r\n") == heard.count(b"\n") == heard.count(b"+OK ") + heard.count(b"-ERR ")
    assert heard.count(b"\n") == text.count(b"\n") or connection.machine.closing
