"""POP3's executor of effects; auth and owner are played by the test over real sockets."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Any, cast

from pillarbox.credentials import Identity, Password
from pillarbox.roles.conversation import LATE, PENDING, Conversation
from pillarbox.roles.link import Frame, Link, LinkLost
from pillarbox.roles.log import Log
from pillarbox.roles.logins import Logins
from pillarbox.roles.pop3d import RetrievalExecutor
from pillarbox.roles.verbs import MAY_SAY, Verb
from pillarbox.sessions.effects import Authenticate, OpenMaildrop, SendContent, UpdateMaildrop
from pillarbox.status import Refusal

LOGIN = Authenticate(Password(b"joe@example.org", b"secret"))


class Played:
    """One session's executor. `results` are what its effects brought, `said` what the client got."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.results: list[Any] = []
        self.said = b""
        self.aborted = False
        logins = Logins("pop3d", Log("pop3d", as_json=False))
        ours, theirs = socket.socketpair()
        logins.questions.attach(self.loop, Link.between("pop3d", "auth", ours))
        self._logins = logins
        self.auth = Link.between("auth", "pop3d", theirs)
        self.executor = RetrievalExecutor(self.loop, logins, "127.0.0.1")
        self.executor.attach(cast(Conversation, self))

    def resumer(self) -> Callable[[Any], None]:
        return self.results.append

    def write(self, octets: bytes) -> bool:
        self.said += octets
        return True

    def abort(self) -> None:
        self.aborted = True

    async def heard(self, link: Link) -> Frame:
        """The next frame that the executor said to `link`."""
        for _ in range(500):
            await asyncio.sleep(0.002)
            if frames := link.receive():
                return frames[0]
        raise TimeoutError

    async def say(self, link: Link, verb: Verb, tag: int, *fields: bytes, descriptors: tuple[int, ...] = ()) -> None:
        link.send(verb, tag, *fields, descriptors=descriptors)
        link.flush()
        await asyncio.sleep(0.02)

    async def ask_login(self) -> int:
        """A login is under way; its tag."""
        assert self.executor.execute(LOGIN) is PENDING
        return (await self.heard(self.auth)).tag

    async def welcome(self, tag: int) -> Link:
        """auth says yes; the owner's end of the maildrop's socket."""
        ours, theirs = socket.socketpair()
        fields = (b"joe@example.org", b"joe@example.org", b"", b"")
        await self.say(self.auth, Verb.IDENTITY, tag, *fields, descriptors=(theirs.detach(),))
        return Link(ours, MAY_SAY[("pop3d", "maildrop")])

    def end(self) -> None:
        self.executor.lost()
        self.auth.close()
        assert self._logins.questions.link is not None
        self._logins.questions.link.close()


def play(scene: Callable[[Played], Awaitable[None]]) -> None:
    async def run() -> None:
        played = Played()
        await scene(played)
        played.end()

    asyncio.run(run())


def is_let_go(maildrop: Link) -> bool:
    try:
        maildrop.receive()
    except LinkLost:
        return True
    return False


def test_a_maildrop_is_opened_read_and_let_go_with_the_client() -> None:
    async def scene(played: Played) -> None:
        maildrop = await played.welcome(await played.ask_login())
        assert isinstance(played.results.pop(), Identity)
        assert played.executor.execute(OpenMaildrop()) is PENDING
        asked = await played.heard(maildrop)
        await played.say(maildrop, Verb.LISTED, asked.tag)
        assert played.results.pop() == ()
        played.executor.lost()
        assert is_let_go(maildrop)
        maildrop.close()

    play(scene)


def test_a_maildrop_that_comes_when_the_client_has_left_is_let_go() -> None:
    async def scene(played: Played) -> None:
        tag = await played.ask_login()
        played.executor.lost()
        maildrop = await played.welcome(tag)
        assert is_let_go(maildrop)
        maildrop.close()

    play(scene)


def test_a_second_login_lets_the_first_maildrop_go() -> None:
    async def scene(played: Played) -> None:
        first = await played.welcome(await played.ask_login())
        second = await played.welcome(await played.ask_login())
        assert is_let_go(first) and not is_let_go(second)
        first.close()
        second.close()

    play(scene)


def test_content_that_comes_too_late_is_not_sent() -> None:
    async def scene(played: Played) -> None:
        maildrop = await played.welcome(await played.ask_login())
        effect = SendContent(1, None, b"+OK 5 octets\r\n")
        played.executor.execute(effect)
        asked = await played.heard(maildrop)
        assert played.executor.give_up(effect) == LATE
        reading, writing = os.pipe()
        os.write(writing, b"body\n")
        os.close(writing)
        maildrop.send(Verb.CONTENT, asked.tag, descriptors=[reading])
        assert is_let_go(maildrop)
        await asyncio.sleep(0.02)
        assert played.said == b""
        maildrop.close()

    play(scene)


def test_a_message_that_cannot_be_read_is_refused_and_half_of_one_ends_the_connection() -> None:
    async def scene(played: Played) -> None:
        maildrop = await played.welcome(await played.ask_login())
        played.results.clear()
        played.executor.execute(SendContent(1, None, b"+OK 5 octets\r\n"))
        directory = os.open("/", os.O_RDONLY)
        await played.say(maildrop, Verb.CONTENT, (await played.heard(maildrop)).tag, descriptors=(directory,))
        assert isinstance(played.results[0], Refusal) and not played.results[0].permanent
        assert played.said == b"" and not played.aborted
        played.executor.execute(SendContent(1, None, b"+OK 5 octets\r\n"))
        reading, writing = os.pipe2(os.O_NONBLOCK)
        os.write(writing, b"bo")
        await played.say(maildrop, Verb.CONTENT, (await played.heard(maildrop)).tag, descriptors=(reading,))
        assert played.said == b"+OK 5 octets\r\nbo" and played.aborted
        os.close(writing)
        maildrop.close()

    play(scene)


def test_after_a_maildrop_was_given_up_nothing_can_be_deleted_in_it() -> None:
    async def scene(played: Played) -> None:
        maildrop = await played.welcome(await played.ask_login())
        played.executor.execute(OpenMaildrop())
        played.executor.give_up(OpenMaildrop())
        played.results.clear()
        played.executor.execute(UpdateMaildrop((1,)))
        await asyncio.sleep(0.02)
        (refused,) = played.results
        assert not refused.permanent
        maildrop.close()

    play(scene)


def test_more_deletions_than_one_frame_holds_go_in_several() -> None:
    async def scene(played: Played) -> None:
        maildrop = await played.welcome(await played.ask_login())
        played.results.clear()
        numbers = tuple(range(1, 300_001))
        played.executor.execute(UpdateMaildrop(numbers))
        deleted: list[int] = []
        while not played.results:
            asked = await played.heard(maildrop)
            deleted += map(int, asked.fields)
            await played.say(maildrop, Verb.UPDATED, asked.tag)
        assert played.results == [None] and tuple(deleted) == numbers
        maildrop.close()

    play(scene)


def test_a_refused_deletion_ends_the_update() -> None:
    async def scene(played: Played) -> None:
        maildrop = await played.welcome(await played.ask_login())
        played.results.clear()
        played.executor.execute(UpdateMaildrop(tuple(range(1, 100_000))))
        asked = await played.heard(maildrop)
        await played.say(maildrop, Verb.REFUSED, asked.tag, b"4.2.0", b"unable")
        assert [refused.text for refused in played.results] == ["unable"]
        assert maildrop.receive() == []
        maildrop.close()

    play(scene)
