"""The remote role between its queue and hosts that do what the test says."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from pillarbox.control.table import Settings
from pillarbox.roles.house import House
from pillarbox.roles.link import Frame, Link, LinkLost
from pillarbox.roles.remote import BUG, Remote
from pillarbox.roles.verbs import DOWN, ROLE_SAYS, Verb
from tests.roles.hosts import OFFER, Script, Talk, envelope, good, hosts

BODY = b"Subject: hello\n\n"


class Peers:
    """The supervisor and the queue of one remote role."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        self.supervisor = Link(ours, ROLE_SAYS)
        house = House(Path("/nonexistent"), Settings(me=b"mx.example.org"), [], role="remote")
        self.role = Remote(house, theirs)
        self.serving = asyncio.ensure_future(self.role.serve())
        self.queue = self.tie()

    def tie(self) -> Link:
        """A new link to the role, from a queue."""
        ours, theirs = socket.socketpair()
        self.supervisor.send(Verb.LINK, 0, b"queue", descriptors=[theirs.detach()])
        self.supervisor.flush()
        return Link.between("queue", "remote", ours)

    def relay(self, *recipients: bytes, body: bytes = BODY, descriptors: tuple[int, ...] = ()) -> None:
        """A RELAY with the tags 1, 2, ..."""
        pairs = [field for tag, one in enumerate(recipients, 1) for field in (b"%d" % tag, one)]
        size = b"%d" % (len(body) or len(BODY))
        facts = (b"7", size, b"me@example.org", b"far.example", b"127.0.0.2", b"%d" % self.port, b"", b"", body)
        self.queue.send(Verb.RELAY, 0, *facts, *pairs, descriptors=descriptors)
        self.queue.flush()

    async def outcomes(self, count: int = 1) -> dict[int, list[bytes]]:
        """So many OUTCOMEs by tag."""
        found: list[Frame] = []
        while len(found) < count:
            found += self.queue.receive()
            await asyncio.sleep(0.01)
        return {frame.tag: list(frame.fields) for frame in found}

    def drain(self) -> None:
        self.supervisor.send(Verb.DRAIN, 0)
        self.supervisor.flush()


@asynccontextmanager
async def role(script: Script | None) -> AsyncIterator[Peers]:
    async with hosts(script) as (port, _names):
        peers = Peers(port)
        try:
            yield peers
        finally:
            peers.drain()
            peers.queue.close()
            await asyncio.wait_for(peers.serving, 10)
            peers.supervisor.close()


def drive(script: Script | None, test: Callable[[Peers], Awaitable[None]]) -> None:
    async def driven() -> None:
        async with asyncio.timeout(30), role(script) as peers:
            await test(peers)

    asyncio.run(driven())


async def stuck(talk: Talk) -> None:
    """Hears everything but the end of the message."""
    await talk.say(b"220 host\r\n")
    await talk.hear()
    await talk.say(OFFER)
    while await talk.hear():
        pass


def test_each_recipient_has_an_outcome_by_his_tag() -> None:
    async def test(peers: Peers) -> None:
        peers.relay(b"joe@far.example", b"gone@far.example")
        said = await peers.outcomes(2)
        assert said[1][:2] == [b"K", b"2.0.0"] and said[2][:2] == [b"D", b"5.1.1"]
        assert len(said[1]) == len(said[2]) == 3

    drive(good([], {b"gone": b"550 5.1.1 no\r\n"}), test)


def test_a_destination_where_nobody_is_counts_as_down() -> None:
    async def test(peers: Peers) -> None:
        peers.relay(b"joe@far.example")
        assert (await peers.outcomes())[1] == [
            b"Z", b"4.4.1", b"Sorry, I wasn't able to establish an SMTP connection. (#4.4.1)\n", DOWN
        ]  # fmt: skip

    drive(None, test)


def test_a_body_comes_by_descriptor_which_is_closed_afterwards() -> None:
    said: list[bytes] = []

    async def test(peers: Peers) -> None:
        descriptor = os.memfd_create("body")
        os.write(descriptor, BODY + b"somebody else's\n")
        peers.relay(b"joe@far.example", body=b"", descriptors=(descriptor,))
        assert (await peers.outcomes())[1][0] == b"K"
        await asyncio.sleep(0.05)
        names = [os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd") if _open(name)]
        assert not any("memfd:body" in name for name in names)

    drive(good(said), test)
    assert said[1] == b"Subject: hello\r\n\r\n.\r\n"


def _open(name: str) -> bool:
    return os.path.islink(f"/proc/self/fd/{name}")


def test_at_a_stop_only_who_waits_for_the_answer_to_the_final_dot_is_waited_for() -> None:
    async def test(peers: Peers) -> None:
        peers.relay(b"joe@far.example")
        while not said:
            await asyncio.sleep(0.01)
        peers.drain()
        await asyncio.sleep(0.2)
        assert not peers.serving.done()
        go.append(True)
        assert (await peers.outcomes())[1][0] == b"K"
        await asyncio.wait_for(peers.serving, 5)

    said: list[bytes] = []
    go: list[bool] = []

    async def slow(talk: Talk) -> None:
        await talk.say(b"220 host\r\n")
        await talk.hear()
        await talk.say(OFFER)
        await envelope(talk)
        await talk.say(b"354 go\r\n")
        said.append(await talk.content())
        while not go:
            await asyncio.sleep(0.01)
        await talk.say(b"250 queued\r\n")

    drive(slow, test)


def test_at_a_stop_everybody_else_is_left_at_once_and_nothing_is_said_of_them() -> None:
    async def test(peers: Peers) -> None:
        peers.relay(b"joe@far.example")
        while not peers.role._carriers:
            await asyncio.sleep(0.01)
        peers.drain()
        await asyncio.wait_for(peers.serving, 5)
        assert peers.queue.receive() == []

    drive(stuck, test)


def test_errands_of_a_queue_that_is_gone_are_broken_off_and_a_new_queue_is_served() -> None:
    ends: list[bytes] = []

    async def script(talk: Talk) -> None:
        await talk.say(b"220 host\r\n")
        await talk.hear()
        ends.append(await talk.hear())

    async def test(peers: Peers) -> None:
        for _ in range(2):
            before = len(ends)
            peers.relay(b"joe@far.example")
            while not peers.role._carriers:
                await asyncio.sleep(0.01)
            peers.queue.close()
            while len(ends) == before:
                await asyncio.sleep(0.01)
            assert not peers.role._carriers and ends[-1] == b""
            peers.queue = peers.tie()

    drive(script, test)


@pytest.mark.parametrize(
    "pairs", [(b"not a tag", b"joe@far.example"), (b"1", b"joe@far.example", b"2")], ids=["no tag", "no address"]
)
def test_a_frame_that_is_no_errand_cuts_the_link(pairs: tuple[bytes, ...]) -> None:
    async def test(peers: Peers) -> None:
        facts = (b"7", b"1", b"", b"far.example", b"127.0.0.2", b"25", b"", b"", b"x")
        peers.queue.send(Verb.RELAY, 0, *facts, *pairs)
        peers.queue.flush()
        with pytest.raises(LinkLost):
            while True:
                peers.queue.receive()
                await asyncio.sleep(0.01)
        peers.queue.close()
        peers.queue = peers.tie()
        peers.relay(b"joe@far.example")
        assert (await peers.outcomes())[1][0] == b"K"

    drive(good([]), test)


# row: known-program-missing
def test_a_bug_of_ours_defers_the_mail_and_is_one_line_in_the_log(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("nobody foresaw this")

    monkeypatch.setattr("pillarbox.roles.relay.run", broken)

    async def test(peers: Peers) -> None:
        peers.relay(b"joe@far.example", b"amy@far.example")
        said = await peers.outcomes(2)
        assert said[1] == said[2] == [b"Z", str(BUG.status).encode(), BUG.report]

    drive(good([]), test)
    assert capfd.readouterr().err.count("\n") == 1
