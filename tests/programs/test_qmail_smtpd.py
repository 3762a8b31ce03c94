"""qmail-smtpd under Debian's tcpserver: what clients hear, what is queued, whom it lets in, how it ends."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import qmail_dialogue as spoken
from tests.dialogue import Expect, Happening, Send, parse, pieces
from tests.programs.smtpd import Client, Home, connect

TRACE = re.compile(rb"Received: ([^\n]*\n  [^\n]*)\n")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


# row: smtpd-tcpserver, smtpd-streams
@pytest.mark.parametrize("file", spoken.FILES, ids=lambda file: file.stem)
def test_the_dialogue_goes_as_written_under_tcpserver(home: Home, file: Path) -> None:
    said = spoken.stated(file)
    for name in spoken.CONTROL:
        home.control(
            name, "\n".join(said[name].split() if name == "badmailfrom" else [said[name]]) if name in said else None
        )
    hosts = spoken.rcpthosts(said)
    home.control("rcpthosts", None if hosts is None else "".join(host + "\n" for host in hosts))
    variables = {"TCPREMOTEIP": "192.0.2.1"}
    variables |= {variable: said[fact] for fact, variable in spoken.ENVIRONMENT.items() if fact in said}
    if (relayclient := spoken.relayclient(said)) is not None:
        variables["RELAYCLIENT"] = relayclient
    arguments = (said["host"], home.checker, "/bin/true") if "host" in said else ()
    with home.serving(*arguments, environ=variables) as server, connect(server) as client:
        for step in pieces(parse(file)):
            match step:
                case Send(octets):
                    client.send(octets)
                case Expect():
                    line = client.line()
                    assert step.matches(line), f"expected {step.line!r}, heard {line!r}; {server.log()}"
                case Happening(word, argument):
                    happen(home, client, word, argument)


def happen(home: Home, client: Client, word: str, argument: str) -> None:
    match word:
        case "closed":
            assert client.rest() == b""
        case "nothing":
            assert home.nothing_queued()
        case "queued":
            assert home.messages()[-1][1] == spoken.envelope(argument)
        case "content" | "trace":
            octets = home.messages()[-1][0]
            trace = TRACE.match(octets)
            assert trace is not None
            if word == "content":
                assert octets[trace.end() :] == argument.encode().decode("unicode_escape").encode()
            else:
                assert Expect(argument.replace("\\n", "\n")).matches(trace[1]), trace[1]
        case _:
            raise AssertionError(word)
