"""Links on a loop of asyncio's kind, on every one that the roles may run on."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from pillarbox.roles.link import Frame, Link
from pillarbox.roles.looplink import LoopLink
from pillarbox.roles.verbs import Verb

uvloop = pytest.importorskip("uvloop")

Loops = Callable[[], asyncio.AbstractEventLoop] | None


@pytest.fixture(params=[None, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def loops(request: pytest.FixtureRequest) -> Loops:
    return request.param  # type: ignore[no-any-return]


def run(loops: Loops, scene: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=loops) as runner:
        runner.run(scene)


def test_a_peer_that_dies_with_words_unread_on_both_sides_is_missed(loops: Loops) -> None:
    """uvloop tells of that once and never again."""

    async def scene() -> None:
        one, other = socket.socketpair()
        heard: list[Frame] = []
        lost: list[bool] = []
        queue = Link.between("queue", "smtpd", other)
        smtpd = Link.between("smtpd", "queue", one)
        smtpd.send(Verb.ABORT, 1)
        smtpd.flush()
        link = LoopLink(asyncio.get_running_loop(), smtpd, heard.append, lambda: lost.append(True))
        queue.send(Verb.TAKEN, 1, b"5")
        queue.flush()
        queue.close()
        await asyncio.sleep(0.05)
        assert [frame.verb for frame in heard] == [Verb.TAKEN]
        assert lost == [True] and not link.open

    run(loops, scene())
