"""tests/dialogues/smtp/*.txt against the machine and the session.

Facts that the files may state: service (smtp, submission, submissions), tls (no: no certificate), authcleartext (0, 1),
databytes, maxrecipients, badmailfrom (words). The host is mx.example.org, example.org is local, with joe and amy;
joe's password is secret. Happenings: `queued SENDER RECIPIENT…` (<> for the null sender), `content …` and `nothing
queued` are about the last message, without the Received field.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from tests.dialogue import facts, parse, walk
from tests.smtp.connection import Connection, World, body, settings
from tests.smtp.connection import facts as exchange

FILES = sorted((Path(__file__).parent.parent / "dialogues" / "smtp").glob("*.txt"))
NUMBERS = ("databytes", "maxrecipients")


def connect(stated: dict[str, str]) -> Connection:
    assert stated.keys() <= {"service", "tls", "authcleartext", "badmailfrom", *NUMBERS}
    given: dict[str, object] = {name: int(stated[name]) for name in NUMBERS if name in stated}
    given["badmailfrom"] = frozenset(stated.get("badmailfrom", "").encode().split())
    return Connection(
        exchange(
            stated.get("service", "smtp"),
            policy=settings(**given),
            starttls=stated.get("tls") != "no",
            cleartext=stated.get("authcleartext") == "1",
        )
    )


def check_queued(world: World, argument: str) -> None:
    envelope, _ = world.queued[-1]
    sender, *recipients = [b"" if word == "<>" else word.encode() for word in argument.split()]
    assert (envelope.sender, list(envelope.recipients)) == (sender, recipients)


def happen(connection: Connection, word: str, argument: str) -> None:
    match word:
        case "tls":
            assert connection.machine.wants_tls
            connection.tls()
        case "hangup":
            connection.hang_up()
        case "closed":
            assert connection.machine.closing
        case "silence":
            pass
        case "nothing" if argument == "queued":
            assert not connection.world.queued and connection.world.draft is None
        case "queued":
            check_queued(connection.world, argument)
        case "content":
            assert body(connection.world.queued[-1][1]) == argument.encode().decode("unicode_escape").encode()
        case _:
            raise AssertionError(word)


def run(file: Path, *, one_by_one: bool) -> None:
    connection = connect(facts(parse(file)))
    walk(file, connection.hear, connection.send, partial(happen, connection), one_by_one=one_by_one)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_dialogue_goes_as_written(file: Path) -> None:
    run(file, one_by_one=False)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_dialogue_goes_the_same_way_octet_by_octet(file: Path) -> None:
    run(file, one_by_one=True)
