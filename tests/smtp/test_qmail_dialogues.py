"""tests/dialogues/qmail-smtpd/*.txt against the machine and the session."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import pytest

from pillarbox.admission import QmailAdmission
from pillarbox.sessions.reception import Exchange, Qmail
from pillarbox.smtp.reply import Dialect
from tests import qmail_dialogue as spoken
from tests.dialogue import Expect, walk
from tests.smtp.connection import ME, WHEN, Connection

TRACE = re.compile(rb"Received: ([^\n]*\n  [^\n]*)\n")


def connect(said: dict[str, str]) -> Connection:
    hosts = spoken.rcpthosts(said)
    relayclient = spoken.relayclient(said)
    greeting = said.get("smtpgreeting", "mx.example.org").encode()
    info = said.get("info")
    exchange = Exchange(
        service="smtp",
        me=said.get("host", "").encode(),
        client=b"192.0.2.1",
        admission=QmailAdmission(
            frozenset(said.get("badmailfrom", "").encode().split()),
            None if hosts is None else frozenset(host.encode() for host in hosts),
            databytes=int(said.get("databytes", "0")),
        ),
        clock=lambda: WHEN + 0.75,
        token=lambda: b"77.%d" % WHEN,
        mechanisms=(b"LOGIN", b"CRAM-MD5", b"PLAIN") if "host" in said else (),
        cleartext=True,
        penalty=5.0,
        relayclient=None if relayclient is None else relayclient.encode(),
        qmail=Qmail(greeting, said.get("remotehost", "unknown").encode(), info.encode() if info else None, ME),
    )
    return Connection(exchange, dialect=Dialect.QMAIL)


def happen(connection: Connection, word: str, argument: str) -> None:
    world = connection.world
    if word == "closed":
        assert connection.machine.closing
        return
    if word == "nothing":
        connection.hang_up()
        assert not world.queued and world.draft is None
        return
    envelope, octets = world.queued[-1]
    trace = TRACE.match(octets)
    assert trace is not None, octets
    match word:
        case "queued":
            assert [envelope.sender, *envelope.recipients] == spoken.envelope(argument)
        case "content":
            assert octets[trace.end() :] == argument.encode().decode("unicode_escape").encode()
        case "trace":
            assert Expect(argument.replace("\\n", "\n")).matches(trace[1]), trace[1]
            assert trace[1].endswith(b"; 22 Nov 2026 13:03:55 -0000")
        case _:
            raise AssertionError(word)


@pytest.mark.parametrize("octet_by_octet", [False, True])
@pytest.mark.parametrize("file", spoken.FILES, ids=lambda file: file.stem)
def test_the_dialogue_goes_as_written(file: Path, octet_by_octet: bool) -> None:
    connection = connect(spoken.stated(file))
    walk(file, connection.hear, connection.send, partial(happen, connection), one_by_one=octet_by_octet)
