"""The dialogue files of both protocols once more, over sockets with a whole server behind them: what the machines say
in a test they say on the network too, and what was answered 250 is in the mailbox."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.dialogue import Expect, Happening, Send, facts, parse, pieces
from tests.scenarios.wire import Wire, login
from tests.server import SERVICES, Server, a_home, listen, until

DIALOGUES = Path(__file__).parent.parent / "dialogues"
MAILDROP = DIALOGUES / "pop3" / "maildrop"
CONTROL = ("authcleartext", "databytes", "maxrecipients", "badmailfrom")  # facts that are control files
QUIET = 0.1  # seconds

Stated = dict[str, str]


def stated(file: Path) -> Stated:
    return facts(parse(file))


def control(said: Stated) -> list[tuple[str, str | None]]:
    """The control files that a dialogue's facts stand for; None where the file is absent."""
    files = [(name, said[name].replace(" ", "\n") + "\n" if name in said else None) for name in CONTROL]
    bare = said.get("tls") == "no"
    files += [(name, "tls/none.pem\n" if bare else None) for name in ("tlscert", "tlskey")]
    return [*files, ("listen", listen("smtp", "submission", "pop3") if bare else listen(*SERVICES))]


# Ordered so that the server is started anew as seldom as possible. A timestamp cannot be known beforehand on a network.
FILES = sorted(
    (file for file in (*DIALOGUES.glob("smtp/*.txt"), *DIALOGUES.glob("pop3/*.txt")) if "stamp" not in stated(file)),
    key=lambda file: (str(control(stated(file))), file),
)


class Changing:
    """One home whose server is started anew when other settings are wanted."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._settings: list[tuple[str, str | None]] = []

    def set(self, settings: list[tuple[str, str | None]]) -> None:
        """Serve with these control files."""
        if settings == self._settings:
            return
        if self._settings:
            assert self.server.stop() == 0
        for name, text in settings:
            self.server.control(name, text)
        self.server.start()
        self._settings = settings


@pytest.fixture(scope="module")
def changing() -> Iterator[Changing]:
    with a_home({}, ()) as server:
        for name, password in (("joe", "secret"), ("amy", "secret"), ("spacy", " two  spaces ")):
            server.pillarbox("account", "add", f"{name}@example.org", "--password-stdin", say=password)
        yield Changing(server)


@pytest.fixture(params=FILES, ids=lambda file: f"{file.parent.name}-{file.stem}")
def dialogue(request: pytest.FixtureRequest) -> Path:
    file = request.param
    assert isinstance(file, Path)
    return file


@pytest.fixture
def server(changing: Changing, dialogue: Path) -> Server:
    """A server with the settings of the dialogue, and empty mailboxes or the dialogue's."""
    said = stated(dialogue)
    assert said.keys() <= {"service", "tls", "maildrop", *CONTROL}
    changing.set(control(said))
    for name in ("joe", "amy"):
        changing.server.empty(name)
    if dialogue.parent.name == "pop3" and said.get("maildrop") != "empty":
        fill(changing.server)
    return changing.server


def fill(server: Server) -> None:
    """Put the messages of the POP3 dialogues into everybody's mailbox."""
    for local in ("joe", "spacy"):
        server.empty(local)
        for number, file in enumerate(sorted(MAILDROP.iterdir())):
            copy = server.mailbox(local) / "Maildir" / "new" / file.name
            server.put(copy, file.read_bytes())
            os.utime(copy, (1_700_000_000 + number,) * 2)


def test_the_dialogue_goes_as_written_over_a_socket(server: Server, dialogue: Path) -> None:
    said = stated(dialogue)
    service = said.get("service", "smtp" if dialogue.parent.name == "smtp" else "pop3")
    source = (
        f"127.9.{FILES.index(dialogue) // 200}.{FILES.index(dialogue) % 200 + 1}"  # failures of others do not slow us
    )
    with ExitStack() as stack:
        if said.get("maildrop") == "in use":
            stack.enter_context(login(server, b"joe", b"secret"))
        wire = stack.enter_context(Wire(server, service, source))
        for step in pieces(parse(dialogue)):
            match step:
                case Send(octets):
                    wire.send(octets)
                case Expect():
                    line = wire.line()
                    assert step.matches(line), f"expected {step.line!r}, heard {line!r}"
                case Happening(word, argument):
                    happen(server, wire, word, argument)


def happen(server: Server, wire: Wire, word: str, argument: str) -> None:
    match word:
        case "tls":
            wire.secure()
        case "hangup":
            wire.close()
        case "closed":
            assert wire.socket.fileno() < 0 or wire.closed()
        case "silence":
            assert wire.silent(QUIET)
        case "queued":
            check_delivered(server, *argument.split())
        case "content":
            content = argument.encode().decode("unicode_escape").encode()
            until(lambda: any(untraced(file) == content for file in server.delivered()), f"content {content!r}")
        case "nothing" if argument == "queued":
            assert server.pillarbox("queue", "list") == ""
            assert server.delivered() == []
        case _:
            raise AssertionError(word)


def check_delivered(server: Server, sender: str, *recipients: str) -> None:
    path = f"Return-Path: <{'' if sender == '<>' else sender}>\n".encode()
    for recipient in recipients:
        local = recipient.partition("@")[0]
        mailbox = "joe" if local == "postmaster" else local  # the first account reads what postmaster gets
        until(
            lambda at=mailbox: any(quoted_less(file.read_bytes()).startswith(path) for file in server.delivered(at)),
            f"a message from {sender} for {recipient}",
        )


def quoted_less(content: bytes) -> bytes:
    """Without the quotes that a Return-Path may have."""
    first, end, rest = content.partition(b"\n")
    return first.replace(b'"', b"") + end + rest


def untraced(file: Path) -> bytes:
    """What the client sent: without Return-Path, Delivered-To and the Received field."""
    lines = file.read_bytes().splitlines(keepends=True)
    assert [line.partition(b":")[0] for line in lines[:3]] == [b"Return-Path", b"Delivered-To", b"Received"]
    own = 3
    while own < len(lines) and not lines[own - 1].endswith(b" -0000\n"):  # its date is its end
        own += 1
    return b"".join(lines[own:])
