"""Links on a loop of asyncio's kind, on every one that the roles may run on."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from pillarbox.roles.link import Frame, Link
from pillarbox.roles.looplink import LoopLink, Questions
from pillarbox.roles.verbs import ROLE_SAYS, SUPERVISOR_SAYS, Verb

uvloop = pytest.importorskip("uvloop")

Loops = Callable[[], asyncio.AbstractEventLoop] | None


@pytest.fixture(params=[None, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def loops(request: pytest.FixtureRequest) -> Loops:
    return request.param  # type: ignore[no-any-return]  # pytest types no params


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


def test_all_that_such_a_peer_said_is_heard_first(loops: Loops) -> None:
    """The kernel gives out no more than one frame's descriptors at a time."""

    async def scene() -> None:
        one, other = socket.socketpair()
        heard: list[Frame] = []
        lost: list[bool] = []
        supervisor, smtpd = Link(other, ROLE_SAYS), Link(one, SUPERVISOR_SAYS)
        smtpd.send(Verb.READY, 0)
        smtpd.flush()
        LoopLink(asyncio.get_running_loop(), smtpd, heard.append, lambda: lost.append(True))
        for _ in range(3):
            supervisor.send(Verb.LINK, 0, b"queue", descriptors=[os.open(os.devnull, os.O_RDONLY)])
        supervisor.flush()
        supervisor.close()
        await asyncio.sleep(0.05)
        for frame in heard:
            os.close(frame.descriptors[0])
        assert (len(heard), lost) == (3, [True])

    run(loops, scene())


def test_what_is_sent_to_nobody_leaves_no_descriptor_open(loops: Loops) -> None:
    """auth's answer to a pop3d that died meanwhile: the maildrop's other end would be held open by it for ever."""

    async def scene() -> None:
        one, other = socket.socketpair()
        link = LoopLink(asyncio.get_running_loop(), Link.between("auth", "pop3d", one), print, print)
        link.close()
        other.close()
        ours, theirs = socket.socketpair()
        ours.settimeout(1)
        link.send(Verb.IDENTITY, 1, descriptors=[os.dup(theirs.fileno())])
        Questions().say(2, Verb.IDENTITY, descriptors=[theirs.detach()])
        assert ours.recv(1) == b""
        ours.close()

    run(loops, scene())
