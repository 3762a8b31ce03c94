"""smtpd's side of the queue, against a queue role that the test plays by hand over a real socketpair."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from pillarbox.envelope import Envelope
from pillarbox.roles.conversation import PENDING
from pillarbox.roles.drafts import AWAY, CREDIT, SMALL, Draft, QueueLink
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
        self.draft = Draft(self.smtpd, lambda: self.results.append)
        self.start()

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
        draft = played.draft
        assert draft.open() is None
        assert draft.write(b"Subject: x\n") is None and draft.write(b"\nbody\n") is None
        assert draft.commit(ENVELOPE) is PENDING
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
        draft = played.draft
        draft.open()
        block, sent, result = b"x" * SMALL, 0, None
        while result is None:
            result = draft.write(block)
            sent += len(block)
        assert result is PENDING and sent <= CREDIT + SMALL
        start, *blocks = await played.heard()
        assert start.verb is Verb.START and sum(len(frame.fields[0]) for frame in blocks) == sent
        await played.say(Verb.TAKEN, start.tag, b"%d" % SMALL)
        assert played.results == [None]
        draft.write(b"end\n")
        draft.commit(ENVELOPE)
        *_taken, commit = await played.heard()
        assert commit.verb is Verb.COMMIT
        await played.say(Verb.TAKEN, start.tag, b"4")
        await played.say(Verb.COMMITTED, start.tag, b"458")
        assert played.results == [None, Committed(b"458")]

    play(scene)


def test_a_commit_whose_outcome_got_lost_is_asked_for_by_its_key() -> None:
    async def scene(played: Played) -> None:
        played.draft.open()
        played.draft.write(b"body\n")
        played.draft.commit(ENVELOPE)
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
        played.draft.open()
        played.draft.commit(ENVELOPE)
        await played.heard()
        await played.die()
        played.start()
        (asked,) = await played.heard()
        await played.say(Verb.REFUSED, asked.tag, b"4.3.0", b"not committed")
        assert played.results == [AWAY]

    play(scene)


def test_a_queue_that_dies_twice_is_asked_again() -> None:
    async def scene(played: Played) -> None:
        played.draft.open()
        played.draft.commit(ENVELOPE)
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
        played.draft.open()
        played.draft.write(b"x" * (SMALL + 1))
        await played.heard()
        await played.die()
        played.start()
        assert isinstance(played.draft.write(b"more"), Refusal)
        assert isinstance(played.draft.commit(ENVELOPE), Refusal)
        assert await played.heard() == []

    play(scene)


def test_without_a_queue_no_draft_is_opened_and_a_closed_queue_says_why() -> None:
    async def scene(played: Played) -> None:
        await played.say(Verb.ACCEPTING, 0, b"4.3.0", b"queue not available")
        assert played.draft.open() == Refusal(Status(4, 3, 0), "queue not available")
        await played.say(Verb.ACCEPTING, 0)
        assert played.draft.open() is None
        await played.die()
        assert played.draft.open() == AWAY

    play(scene)


def test_a_client_that_leaves_ends_an_open_draft_but_no_commit() -> None:
    async def scene(played: Played) -> None:
        played.draft.open()
        played.draft.write(b"x" * (SMALL + 1))
        played.draft.abort()
        assert (await played.heard())[-1].verb is Verb.ABORT
        played.draft.open()
        played.draft.commit(ENVELOPE)
        played.draft.abort()
        assert [frame.verb for frame in await played.heard()] == [Verb.MESSAGE]

    play(scene)


def test_recipients_that_one_frame_does_not_hold_go_in_several() -> None:
    async def scene(played: Played) -> None:
        recipients = tuple(b"joe-%05d%s@example.org" % (number, b"x" * 878) for number in range(2500))
        played.draft.open()
        played.draft.write(b"body\n")
        assert played.draft.commit(Envelope(b"a@b.example", recipients)) is PENDING
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
        played.draft.open()
        for _ in range(2):
            played.draft.write(b"x" * (SMALL + 1))
        played.draft.commit(ENVELOPE)
        said = await played.heard()
        assert [frame.verb for frame in said].count(Verb.START) == 1
        assert {frame.tag for frame in said} == {1}

    play(scene)


def test_the_end_of_a_forgotten_draft_is_not_that_of_the_next_one() -> None:
    async def scene(played: Played) -> None:
        played.draft.open()
        await played.die()
        played.draft.write(b"x" * (SMALL + 1))  # the queue is away: its answer, that there is none, comes a turn later
        played.draft.abort()
        played.start()
        assert played.draft.open() is None
        await asyncio.sleep(0.01)
        assert played.draft.write(b"body\n") is None

    play(scene)
