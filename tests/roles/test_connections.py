"""The network side of smtpd and pop3d: clients that are being looked up."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from pillarbox.blocklists import Kind, Source
from pillarbox.control.table import Listener, Settings
from pillarbox.roles.clients import Verdict
from pillarbox.roles.connections import Connections
from pillarbox.roles.conversation import Conversation
from pillarbox.roles.house import House
from pillarbox.roles.link import Link
from pillarbox.roles.log import Log
from pillarbox.roles.verbs import ROLE_SAYS

FULL = b"no room\r\n"


BLOCK = b"NOOP\r\n" * 10_000


def welcome(_listener: Listener, client: str, verdict: Verdict, _gone: Callable[[Conversation], None]) -> Conversation:
    raise AssertionError(f"{client} {verdict}: DNS has not answered")


def test_clients_that_are_looked_up_count_among_those_who_are_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Else whoever keeps our questions to DNS from being answered has us open as many connections as he likes."""
    monkeypatch.setattr("pillarbox.roles.connections.CONNECTIONS", 2)

    async def knock(stack: ExitStack) -> bytes:
        silent = stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))
        silent.bind(("127.0.0.1", 0))
        rbl = (Source(Kind.BLOCKS, b"bl.test"),)
        settings = Settings(me=b"mx.example.org", rbl=rbl, resolvers=(silent.getsockname(),))
        listening = socket.create_server(("127.0.0.1", 0))
        house = House(tmp_path, settings, [])
        ours, theirs = socket.socketpair()
        role = Connections(
            "smtpd", house, ours, welcome=welcome, attach=lambda peer, link: None, full=FULL, descriptors=1,
            log=Log("smtpd", as_json=False),
        )  # fmt: skip
        supervisor = Link(theirs, ROLE_SAYS)
        factory = role._factory(Listener("smtp", "127.0.0.1", 0))
        server = await asyncio.get_running_loop().create_server(factory, sock=listening)
        waiting = [await asyncio.open_connection(*listening.getsockname()) for _ in range(2)]
        for _ in range(50):
            waiting[0][1].write(BLOCK)
        reader, writer = await asyncio.open_connection(*listening.getsockname())
        heard = await asyncio.wait_for(reader.read(), 10)
        await asyncio.sleep(0.3)
        assert max(len(door._said) for door in role._waiting) < 1 << 20  # of the three million octets
        role._drain()
        for left, its_writer in waiting:
            with suppress(ConnectionResetError):  # what it said was not all read
                assert await asyncio.wait_for(left.read(), 10) == b""
            its_writer.close()
        await asyncio.wait_for(role._drained, 10)
        writer.close()
        server.close()
        role._control.close()
        supervisor.close()
        return heard

    with ExitStack() as stack:
        assert asyncio.run(knock(stack)) == FULL
    assert capfd.readouterr().err == "smtpd: turned away 127.0.0.1: too many connections\n"
