"""tests/dialogues/pop3/*.txt against the machine and the session.

Facts that the files may state: service (pop3, pop3s), authcleartext (0, 1), tls (no: no certificate), stamp
(control/crammd5 is on and this is the greeting's), maildrop (empty, in use; else tests/dialogues/pop3/maildrop). The
client is joe@example.org, or joe, with the password secret; spacy's password is " two  spaces ".
"""

from __future__ import annotations

from pathlib import Path

import pytest

from pillarbox.sessions.effects import OpenMaildrop
from tests.dialogue import facts, parse, walk
from tests.pop3.connection import IN_USE, Connection, World, access

FILES = sorted((Path(__file__).parent.parent / "dialogues" / "pop3").glob("*.txt"))


def connect(stated: dict[str, str]) -> Connection:
    assert stated.keys() <= {"service", "authcleartext", "tls", "stamp", "maildrop"}
    world = World()
    if stated.get("maildrop") == "empty":
        world.maildrop = {}
    if stated.get("maildrop") == "in use":
        world.refuse = {OpenMaildrop: IN_USE}
    secure = stated.get("service", "pop3") == "pop3s"
    stamp = stated["stamp"].encode() if "stamp" in stated else None
    tls = stated.get("tls") != "no"
    cleartext = stated.get("authcleartext") == "1"
    return Connection(access(secure=secure, cleartext=cleartext, tls_available=tls, stamp=stamp), world)


def run(file: Path, *, one_by_one: bool) -> None:
    connection = connect(facts(parse(file)))
    walk(file, connection.hear, connection.say, connection.happen, one_by_one=one_by_one)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_dialogue_goes_as_written(file: Path) -> None:
    run(file, one_by_one=False)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_dialogue_goes_the_same_way_octet_by_octet(file: Path) -> None:
    run(file, one_by_one=True)
