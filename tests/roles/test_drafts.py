"""smtpd's side of the queue, against a queue role that the test plays by hand over a real socketpair."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from pillarbox.envelope import Envelope
from pillarbox.roles.conversation import PENDING
from pillarbox.roles.drafts import AWAY, BLOCK, CREDIT, Draft, QueueLink
from pillarbox.roles.link import LARGEST_TAG, Frame, Link
from pillarbox.roles.verbs import Verb
from pillarbox.sessions.effects import Committed
from pillarbox.status import Refusal, Status

ENVELOPE = Envelope(b"a@b.example", (b"joe@example.org", b"jim@example.org"))


class Played:
    """The queue's end of the link, and what the draft's session was told."""

    def __init__(self) -> None:
        self.results: list[Any] = []
        self.smtpd = QueueLink(asyncio.get_running_loop())
        self.start()

    def draft(self) -> Draft:
        """A new one."""
        return Draft(self.smtpd, lambda: self.results.append)

    def start(self) -> None:
        """A queue role starts."""
        ours, theirs = socket.socketpair()
        self.queue = Link.between("queue", "smtpd", theirs)
        self.smtpd.attach(Link.between("smtpd", "queue", ours))

    async def heard(self) -> list[Frame]:
        frames: list[Frame] = []
        for _ in range(20):
            await asyncio.sleep(0.001)
            frames += self.queue.receive()
        return frames

    async def say(self, verb: Verb, tag: int, *fields: bytes) -> None:
        self.queue.send(verb, tag, *fields)
        assert self.queue.flush()
        await asyncio.sleep(0.01)

    async def die(self) -> None:
        self.queue.close()
        await asyncio.sleep(0.01)


def play(scene: Callable[[Played], Awaitable[None]]) -> None:
    async def run() -> None:
        played = Played()
        await scene(played)
        played.queue.close()
        await asyncio.sleep(0.01)

    asyncio.run(run())


def test_a_small_message_goes_in_one_frame_and_is_committed_by_the_queues_word() -> None:
    async def scene(played: Played) -> None:
        assert played.smtpd.refuses is None
        assert played.draft().commit(ENVELOPE, b"Subject: x\n\nbody\n") is PENDING
        (frame,) = await played.heard()
        key, sender, body, *recipients = frame.fields
        assert frame.verb is Verb.MESSAGE and len(key) == 16
        assert (sender, body, tuple(recipients)) == (ENVELOPE.sender, b"Subject: x\n\nbody\n", ENVELOPE.recipients)
        assert played.results == []
        await played.say(Verb.COMMITTED, frame.tag, b"457")
        assert played.results == [Committed(b"457")]

    play(scene)


def test_a_large_message_waits_for_credit_and_never_has_more_on_its_way() -> None:
    async def scene(played: Played) -> None:
        draft = played.draft()
        block, sent, result = b"x" * BLOCK, 0, None
        while result is None:
            result = draft.write(block)
            sent += len(block)
        assert result is PENDING and sent <= CREDIT + BLOCK
        start, *blocks = await played.heard()
        assert start.verb is Verb.START and sum(len(frame.fields[0]) for frame in blocks) == sent
        await played.say(Verb.TAKEN, start.tag, b"%d" % BLOCK)
        assert played.results == [None]
        draft.commit(ENVELOPE, b"end\n")
        rest, commit = await played.heard()
        assert (rest.verb, list(rest.fields)) == (Verb.BLOCK, [b"end\n"])
        assert commit.verb is Verb.COMMIT
        await played.say(Verb.TAKEN, start.tag, b"4")
        await played.say(Verb.COMMITTED, start.tag, b"458")
        assert played.results == [None, Committed(b"458")]

    play(scene)


def test_a_commit_whose_outcome_got_lost_is_asked_for_by_its_key() -> None:
    async def scene(played: Played) -> None:
        played.draft().commit(ENVELOPE, b"body\n")
        (message,) = await played.heard()
        await played.die()
        assert played.results == []
        played.start()
        (asked,) = await played.heard()
        assert (asked.verb, asked.fields) == (Verb.ASK, [message.fields[0]])
        await played.say(Verb.COMMITTED, asked.tag, b"459")
        assert played.results == [Committed(b"459")]

    play(scene)


def test_a_commit_that_did_not_happen_is_refused_for_now() -> None:
    async def scene(played: Played) -> None:
        played.draft().commit(ENVELOPE, b"")
        await played.heard()
        await played.die()
        played.start()
        (asked,) = await played.heard()
        await played.say(Verb.REFUSED, asked.tag, b"4.3.0", b"not committed")
        assert played.results == [AWAY]

    play(scene)


def test_a_queue_that_dies_twice_is_asked_again() -> None:
    async def scene(played: Played) -> None:
        played.draft().commit(ENVELOPE, b"")
        await played.heard()
        for _ in range(2):
            await played.die()
            played.start()
            (asked,) = await played.heard()
        await played.say(Verb.COMMITTED, asked.tag, b"460")
        assert played.results == [Committed(b"460")]

    play(scene)


def test_a_large_draft_whose_queue_died_is_gone() -> None:
    async def scene(played: Played) -> None:
        draft = played.draft()
        draft.write(b"x" * (BLOCK + 1))
        await played.heard()
        await played.die()
        played.start()
        assert isinstance(draft.write(b"more"), Refusal)
        assert isinstance(draft.commit(ENVELOPE, b""), Refusal)
        assert await played.heard() == []

    play(scene)


def test_without_a_queue_no_draft_is_opened_and_a_closed_queue_says_why() -> None:
    async def scene(played: Played) -> None:
        await played.say(Verb.ACCEPTING, 0, b"4.3.0", b"queue not available")
        assert played.smtpd.refuses == Refusal(Status(4, 3, 0), "queue not available")
        await played.say(Verb.ACCEPTING, 0)
        assert played.smtpd.refuses is None
        await played.die()
        assert played.smtpd.refuses == AWAY

    play(scene)


def test_a_client_that_leaves_ends_an_open_draft_but_no_commit() -> None:
    async def scene(played: Played) -> None:
        draft = played.draft()
        draft.write(b"x" * (BLOCK + 1))
        draft.abort()
        assert (await played.heard())[-1].verb is Verb.ABORT
        small, large = played.draft(), played.draft()
        small.commit(ENVELOPE, b"body\n")
        small.abort()
        assert [frame.verb for frame in await played.heard()] == [Verb.MESSAGE]
        large.write(b"x")
        large.commit(ENVELOPE, b"")
        large.abort()
        assert [frame.verb for frame in await played.heard()] == [Verb.START, Verb.BLOCK, Verb.COMMIT]

    play(scene)


def test_recipients_that_one_frame_does_not_hold_go_in_several() -> None:
    async def scene(played: Played) -> None:
        recipients = tuple(b"joe-%05d%s@example.org" % (number, b"x" * 878) for number in range(2500))
        assert played.draft().commit(Envelope(b"a@b.example", recipients), b"body\n") is PENDING
        start, block, first, second, commit = await played.heard()
        assert (start.verb, block.verb, list(block.fields)) == (Verb.START, Verb.BLOCK, [b"body\n"])
        assert (first.verb, second.verb, commit.verb) == (Verb.RECIPIENTS, Verb.RECIPIENTS, Verb.COMMIT)
        assert (*first.fields, *second.fields, *commit.fields[1:]) == recipients
        await played.say(Verb.TAKEN, start.tag, b"5")
        await played.say(Verb.COMMITTED, start.tag, b"461")
        assert played.results == [Committed(b"461")]

    play(scene)


def test_a_large_draft_is_one_also_when_tags_begin_anew() -> None:
    async def scene(played: Played) -> None:
        played.smtpd.questions._next = LARGEST_TAG
        draft = played.draft()
        for _ in range(2):
            draft.write(b"x" * (BLOCK + 1))
        draft.commit(ENVELOPE, b"")
        said = await played.heard()
        assert [frame.verb for frame in said].count(Verb.START) == 1
        assert {frame.tag for frame in said} == {1}

    play(scene)


def test_the_end_of_a_forgotten_draft_is_not_that_of_the_next_one() -> None:
    async def scene(played: Played) -> None:
        await played.die()
        forgotten = played.draft()
        forgotten.write(b"x" * (BLOCK + 1))  # the queue is away: its answer, that there is none, comes a turn later
        forgotten.abort()
        played.start()
        draft = played.draft()
        await asyncio.sleep(0.01)
        assert draft.write(b"body\n") is None
        assert played.results == []

    play(scene)
