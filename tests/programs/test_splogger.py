"""splogger, and what a syslog socket gets from it: the C library's own /dev/log, in a /dev of the test's own."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pillarbox.programs import splogger
from tests.server import _COMMAND, _environment

Logged = Callable[[bytes], list[tuple[int, bytes]]]


@pytest.fixture
def logged(tmp_path: Path) -> Iterator[Logged]:
    """What syslog is told of an input: (priority, text) of each line."""
    inside = ["unshare", "-m", "sh", "-euc", 'mount --bind "$1" /dev; shift; exec "$@"', "sh", str(tmp_path)]
    if os.getuid() != 0 or subprocess.run([*inside, "true"], capture_output=True).returncode:
        pytest.skip("needs root, and leave to unshare mounts")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.bind(str(tmp_path / "log"))
        log.settimeout(10)

        def told(octets: bytes) -> list[tuple[int, bytes]]:
            command = [*inside, *_COMMAND, "run", "splogger", "qmail"]
            subprocess.run(command, input=octets + b"\nthe end", env=_environment(), check=True)
            found = []
            while not (datagram := log.recv(4096)).endswith(b"the end"):
                matched = re.fullmatch(rb"<([0-9]+)>.{15} qmail: ([0-9]{10}\.[0-9]{6}\+?) (.*)", datagram, re.DOTALL)
                assert matched is not None, datagram
                found.append((int(matched[1]), matched[2][17:] + matched[3]))
            return found

        yield told


def test_lines_go_to_the_mail_facility_by_how_grave_they_are(logged: Logged) -> None:
    text = b"new msg 1\nwarning: a file\n\nalert: oh no\nstatus: alert: no\n"
    assert logged(text) == [
        (22, b"new msg 1"),
        (20, b"warning: a file"),
        (17, b"alert: oh no"),
        (22, b"status: alert: no"),
    ]


def test_what_is_not_printable_cannot_forge_anything(logged: Logged) -> None:
    assert logged(b"a\r\x1b[2J\0\xff%n%s\tb") == [(22, b"a??[2J??%n%s?b")]


def test_a_long_line_continues_with_a_plus(logged: Logged) -> None:
    found = logged(b"x" * 2000 + b"\nshort\n")
    assert found == [(22, b"x" * 799), (22, b"+" + b"x" * 799), (22, b"+" + b"x" * 402), (22, b"short")]


def test_parts_do_not_depend_on_how_the_input_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    text = b"one\n" + b"y" * 1700 + b"\n\nthree\n" + b"z" * 800

    def parts(size: int) -> list[tuple[bytes, bool]]:
        chunks = [text[start : start + size] for start in range(0, len(text), size)]
        monkeypatch.setattr(os, "read", lambda _descriptor, _size: chunks.pop(0) if chunks else b"")
        return list(splogger._parts())

    whole = parts(len(text))
    assert [len(part) for part, _continued in whole] == [3, 799, 799, 102, 5, 799, 1]
    for size in (1, 7, 798, 799, 800):
        assert parts(size) == whole


@pytest.mark.parametrize(
    "arguments", [["qmail", "x"], ["qmail", "24"], ["qmail", "2", "3"], ["qmail", ""], ["qmail", "-1"]]
)
def test_called_wrongly_it_says_how(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert splogger.main(arguments) == 100
    assert capsys.readouterr().err == "splogger: usage: splogger [tag [facility]]\n"
