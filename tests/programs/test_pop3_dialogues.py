"""tests/dialogues/qmail-pop3/*.txt with the programs, behind Debian's tcpserver. The checker between the two is a
stand-in for checkpassword, written from its interface; nobody becomes anybody else by it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.dialogue import Expect, Happening, Send, parse, pieces
from tests.pop3.qmail_dialogue import DIALOGUES, FILES, stated
from tests.tcpserver import ME, NOBODY, Tcpserver, a_place, put_program, tcpserver

PATIENCE = 30.0  # seconds
QUIET = 0.1
CHECKER = """
import os, sys
said = os.read(3, 513)
os.close(3)
login, password, stamp, rest = said.split(b"\\0")
secrets = {b"joe": b"secret", b"spacy": b" two  spaces ", b"trailing": b"two  spaces "}
if len(said) > 512 or secrets.get(login) != password or not stamp.startswith(b"<") or rest:
    sys.exit(1)
os.execvp(sys.argv[1], sys.argv[1:])
"""
AS_NOBODY = () if os.getuid() else ("-u", str(NOBODY), "-g", str(NOBODY))


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with a_place() as place:
        put_program(place / "bin" / "checker", CHECKER)
        yield place


@pytest.fixture(scope="module")
def servers(place: Path) -> Iterator[dict[str, Tcpserver]]:
    with ExitStack() as stack:
        (place / "pop3d").mkdir()
        yield {
            "qmail-popup": stack.enter_context(
                tcpserver(place, "qmail-popup", ME, "checker", "qmail-pop3d", "Maildir", options=AS_NOBODY)
            ),
            "qmail-pop3d": stack.enter_context(tcpserver(place, "qmail-pop3d", "Maildir", options=AS_NOBODY)),
        }


def fill(box: Path, *, empty: bool) -> None:
    for name in ("new", "cur", "tmp"):
        (box / name).mkdir(parents=True, exist_ok=True)
        for file in (box / name).iterdir():
            file.unlink()
    for number, file in enumerate([] if empty else sorted((DIALOGUES / "pop3" / "maildrop").iterdir())):
        copy = box / "new" / file.name
        copy.write_bytes(file.read_bytes())
        os.utime(copy, (1_700_000_000 + number,) * 2)
    if os.getuid() == 0:
        for file in (box, *box.rglob("*")):
            os.chown(file, NOBODY, NOBODY)


# row: pop3d-tcpserver
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_dialogue_goes_as_written_behind_tcpserver(place: Path, servers: dict[str, Tcpserver], file: Path) -> None:
    said = stated(file)
    fill(place / "Maildir", empty=said.get("maildrop") == "empty")
    with socket.create_connection(("127.0.0.1", servers[said["program"]].port), PATIENCE) as client:
        stream = client.makefile("rb")
        for step in pieces(parse(file)):
            match step:
                case Send(octets):
                    client.sendall(octets)
                case Expect():
                    line = stream.readline()
                    assert line.endswith(b"\r\n"), line
                    assert step.matches(line[:-2]), f"expected {step.line!r}, heard {line!r}"
                case Happening("hangup"):
                    client.shutdown(socket.SHUT_WR)
                case Happening("closed"):
                    assert stream.read() == b""
                case Happening("silence"):
                    client.settimeout(QUIET)
                    with pytest.raises(TimeoutError):
                        client.recv(1)
                    client.settimeout(PATIENCE)
                case _:
                    raise AssertionError(step)
    log = servers[said["program"]].log()
    assert "Traceback" not in log and "fatal" not in log
    if file.stem == "hangup":
        assert len(list((place / "Maildir" / "new").iterdir())) == 3
