"""tests/dialogues/qmail-pop3/*.txt against machine and session, in the manners of qmail-popup and qmail-pop3d."""

from __future__ import annotations

from pathlib import Path

import pytest

from pillarbox.pop3.manners import POP3D, POPUP
from tests.dialogue import Expect, Happening, Send, parse, pieces
from tests.pop3.connection import Connection, World, access, octets
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
    steps = parse(file)
    connection = connect(stated(file))
    heard = b""
    for step in pieces(steps):
        heard += connection.hear()
        match step:
            case Send(sent):
                assert not heard, f"the client speaks while the server has more to say: {heard!r}"
                connection.say_pieces(octets([sent]))  # as qmail-popup reads
            case Expect():
                line, end, heard = heard.partition(b"\r\n")
                assert end, f"expected {step.line!r}, heard no more than {line!r}"
                assert step.matches(line), f"expected {step.line!r}, heard {line!r}"
            case Happening("hangup"):
                connection.end()
            case Happening("closed"):
                assert not heard and connection.machine.closing
            case Happening("silence"):
                assert not heard
            case _:
                raise AssertionError(step)
    assert not heard + connection.hear()


def test_in_qmails_manners_a_word_for_people_is_never_said() -> None:
    """Whatever the machine and the session have words for."""
    connection = Connection(access(), manners=POP3D, authorized=True)
    said = connection.lines("STAT", "LIST", "UIDL", "NOOP", "DELE 1", "RSET", "LAST", "QUIT")
    assert said.count(b"+OK \r\n") == 7  # with the greeting, without STAT and LAST
    assert b"messages" not in said and b"octets" not in said and b"[" not in said
