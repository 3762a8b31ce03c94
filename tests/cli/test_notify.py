"""What systemd is told, and that nobody else is."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest

from pillarbox.cli.notify import Notifier
from pillarbox.roles.supervisor import Moment


def told(address: str, bind: str, moment: Moment) -> str:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(bind)
        sock.settimeout(5)
        Notifier.taken({"NOTIFY_SOCKET": address}).tell(moment)
        return sock.recv(512).decode()


def test_each_moment_has_its_words(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    words = {}
    for moment in Moment:
        words[moment] = told(path, path, moment)
        Path(path).unlink()
    assert re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=[0-9]+", words.pop(Moment.RELOADING))
    assert words == {Moment.SERVING: "READY=1", Moment.RELOADED: "READY=1", Moment.STOPPING: "STOPPING=1"}


def test_an_abstract_address_begins_with_an_at_sign() -> None:
    assert told("@pillarbox-test", "\0pillarbox-test", Moment.STOPPING) == "STOPPING=1"


def test_the_programs_we_run_do_not_inherit_the_address() -> None:
    environ = {"NOTIFY_SOCKET": "/run/systemd/notify", "PATH": "/bin"}
    assert Notifier.taken(environ).address == "/run/systemd/notify"
    assert environ == {"PATH": "/bin"}


@pytest.mark.parametrize("address", ["", "vsock:2:1234", "/nonexistent/notify"])
def test_nobody_listening_is_no_trouble(address: str) -> None:
    Notifier.taken({"NOTIFY_SOCKET": address}).tell(Moment.SERVING)
