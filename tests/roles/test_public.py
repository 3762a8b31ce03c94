"""The queue's public socket: who may ask, and how much."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pillarbox.net import listening
from pillarbox.roles import public as module
from pillarbox.roles.public import REQUEST_LIMIT, Public
from pillarbox.roles.rounds import Rounds


class Asked:
    """A role of which only the public socket is there."""

    def __init__(self, home: Path) -> None:
        self.path = home / "queue"
        self.requests: list[dict[str, Any]] = []
        self.supervisor, control = socket.socketpair()
        self.rounds = Rounds("queue", control)
        self.listening = listening.unix(self.path, 0o600)
        self.public = Public(self.rounds, self.listening, home, self.answer)

    def answer(self, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
        self.requests.append(request)
        yield {"end": True}

    def ask(self, octets: bytes) -> bytes:
        with socket.socket(socket.AF_UNIX) as caller:
            caller.settimeout(5)
            caller.connect(str(self.path))
            caller.sendall(octets)
            for _ in range(6):
                self.rounds.wait(0.01)
            caller.setblocking(False)
            try:
                return caller.recv(1000)
            except BlockingIOError:
                return b"nothing"
            except ConnectionResetError:
                return b""

    def close(self) -> None:
        self.public.close()
        for sock in (self.listening, self.supervisor):
            sock.close()
        self.rounds.supervisor.close()


@pytest.fixture
def asked(tmp_path: Path) -> Iterator[Asked]:
    asked = Asked(tmp_path)
    yield asked
    asked.close()


def test_requests_are_answered_line_by_line(asked: Asked) -> None:
    assert asked.ask(b'{"verb": "list"}\n{"verb": "show", "ids": [1]}\n') == b'{"end": true}\n' * 2
    assert asked.requests == [{"verb": "list"}, {"verb": "show", "ids": [1]}]


@pytest.mark.parametrize("nonsense", [b"list\n", b"[1]\n", b"\xff\n", b"[" * 60_000 + b"\n"])
def test_nonsense_gets_one_error(asked: Asked, nonsense: bytes) -> None:
    assert "error" in json.loads(asked.ask(nonsense))


def test_a_request_without_end_is_dropped(asked: Asked) -> None:
    for _ in range(3):
        assert asked.ask(b"x" * 1000) == b"nothing"
    big = b"x" * (REQUEST_LIMIT + 1)
    assert asked.ask(big) == b""


def test_somebody_else_is_not_heard(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_uid", lambda _caller: 12345)
    assert asked.ask(b'{"verb": "list"}\n') == b""
    assert asked.requests == []


def test_the_kernel_says_who_calls(asked: Asked) -> None:
    one, other = socket.socketpair()
    assert module._uid(one) == os.getuid()
    one.close()
    other.close()


def test_the_socket_is_private_and_can_lie_deep(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    before = os.getcwd()
    listening.unix(deep / "queue", 0o600).close()
    assert (deep / "queue").stat().st_mode & 0o777 == 0o600 and os.getcwd() == before
