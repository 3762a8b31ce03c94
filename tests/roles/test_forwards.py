"""Forwards over a link whose other end, the queue, is played by the test."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from pillarbox.delivery import forward
from pillarbox.delivery.job import Forwarding, Job
from pillarbox.outcome import Outcome
from pillarbox.roles import forwards as module
from pillarbox.roles.forwards import Forwards
from pillarbox.roles.link import Frame, Link, LinkLost
from pillarbox.roles.verbs import Verb
from pillarbox.status import Refusal, Status
from pillarbox.users.owner import Owner

MESSAGE = b"Subject: x\n\nbody\n"
MOMENT = 1_795_352_635  # 22 Nov 2026 13:03:55 UTC
JOE = Owner(b"joe", 1000, 1000, b"/nowhere", b"", b"")
DELIVERY = 77
SENT = b"did 0+1+0\nqp 12\n"


def step(
    content: bytes | int = MESSAGE, *, again: bool = False, recipients: tuple[bytes, ...] = (b"bob@example.net",)
) -> Forwarding:
    size = len(content) if isinstance(content, bytes) else os.fstat(content).st_size
    job = Job(5, b"0123abcd", 0, 1_700_000_000, again, b"", b"joe", b"example.org", b"joe@example.org", content, size)
    return forward.forwarding(job, JOE, recipients, b"did 0+%d+0\n" % len(recipients))


HEAD = b"Received: (qmail %d invoked by uid 1000); 22 Nov 2026 13:03:55 -0000\nDelivered-To: joe@example.org\n"


class Played:
    """Both ends."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self.link, self.queue = Link.between("owner", "queue", ours), Link.between("queue", "owner", theirs)
        self.forwards = Forwards()

    def begin(self, one: Forwarding) -> Outcome | None:
        return self.forwards.begin(self.link, DELIVERY, one, MOMENT)

    def heard(self) -> list[Frame]:
        """What the queue has been told."""
        frames: list[Frame] = []
        while not self.link.flush():
            frames += self.queue.receive()
        while some := self.queue.receive():
            frames += some
        return frames

    def say(self, verb: Verb, tag: int, *fields: bytes) -> tuple[int, Outcome] | None:
        return self.forwards.heard(self.link, Frame(verb, tag, fields, ()))

    @property
    def head(self) -> bytes:
        return HEAD % os.getpid()


def opened(file: Path) -> int:
    """How many descriptors of ours are for this file."""
    found = 0
    for descriptor in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            found += os.readlink(f"/proc/self/fd/{descriptor}") == str(file)
    return found


@pytest.fixture
def played() -> Iterator[Played]:
    played = Played()
    yield played
    played.link.close()
    played.queue.close()


def test_a_forward_is_one_draft_with_the_trace_lines_ahead(played: Played) -> None:
    one = step()
    assert played.begin(one) is None
    (frame,) = played.heard()
    assert frame.verb is Verb.MESSAGE
    assert list(frame.fields) == [one.key, b"", played.head + MESSAGE, b"bob@example.net"]
    assert played.forwards.busy
    assert played.say(Verb.COMMITTED, frame.tag, b"12") == (DELIVERY, Outcome.done(SENT))
    assert not played.forwards.busy


def test_a_repeated_forward_asks_first_and_is_not_sent_twice(played: Played) -> None:
    one = step(again=True)
    played.begin(one)
    (frame,) = played.heard()
    assert (frame.verb, list(frame.fields)) == (Verb.ASK, [one.key])
    assert played.say(Verb.COMMITTED, frame.tag, b"12") == (DELIVERY, Outcome.done(SENT))
    assert played.heard() == []


def test_a_repeated_forward_that_is_not_there_is_sent(played: Played) -> None:
    played.begin(step(again=True))
    (asked,) = played.heard()
    assert played.say(Verb.REFUSED, asked.tag, b"4.3.0", b"no such") is None
    (frame,) = played.heard()
    assert frame.verb is Verb.MESSAGE
    assert played.say(Verb.COMMITTED, frame.tag, b"12") == (DELIVERY, Outcome.done(SENT))


def test_what_the_queue_refuses_is_tried_later_or_never_as_it_says(played: Played) -> None:
    for refusal, expected in (
        (Refusal(Status(4, 3, 1), "no room"), b"Z"),
        (Refusal(Status(5, 3, 4), "too large"), b"D"),
    ):
        played.begin(step())
        (frame,) = played.heard()
        decided = played.say(Verb.REFUSED, frame.tag, str(refusal.status).encode(), refusal.text.encode())
        assert decided is not None
        assert decided[1].verdict.value == expected
        assert decided[1].status == refusal.status
        assert decided[1].report == b"Unable to forward message: %s.\n" % refusal.text.encode()
        assert not played.forwards.busy


@pytest.mark.parametrize("kind", ["file", "memory"])
def test_a_large_forward_goes_in_blocks_as_the_queue_takes_them(played: Played, tmp_path: Path, kind: str) -> None:
    content = b"Subject: x\n\n" + b"line\n" * 400_000
    (tmp_path / "spool").write_bytes(content)
    spool = os.open(tmp_path / "spool", os.O_RDONLY)
    many = tuple(b"r%d@example.net" % number for number in range(2500))
    assert played.begin(step(spool if kind == "file" else content, recipients=many)) is None
    frames: list[Frame] = []
    while not frames or frames[-1].verb is not Verb.COMMIT:
        new = played.heard()
        octets = sum(len(frame.fields[0]) for frame in new if frame.verb is Verb.BLOCK)
        assert octets <= module.CREDIT + module.BLOCK
        frames += new
        if octets:
            assert played.say(Verb.TAKEN, frames[0].tag, b"%d" % octets) is None
    assert frames[0].verb is Verb.START
    assert b"".join(frame.fields[0] for frame in frames if frame.verb is Verb.BLOCK) == played.head + content
    envelopes = [frame.fields for frame in frames if frame.verb is Verb.RECIPIENTS]
    named = [*(one for fields in envelopes for one in fields), *frames[-1].fields[1:]]
    assert tuple(named) == many
    assert len(frames[-1].fields) <= 1001
    assert played.say(Verb.TAKEN, frames[0].tag, b"5") is None
    assert played.say(Verb.COMMITTED, frames[0].tag, b"12") is not None
    assert opened(tmp_path / "spool") == 1
    os.close(spool)


def test_a_file_that_is_too_short_is_not_forwarded(played: Played, tmp_path: Path) -> None:
    (tmp_path / "spool").write_bytes(MESSAGE)
    spool = os.open(tmp_path / "spool", os.O_RDONLY)
    one = step(spool)
    unreadable = Outcome.later(b"Unable to read message. (#4.3.0)\n")
    assert played.begin(one._replace(job=one.job._replace(size=one.job.size + 1))) == unreadable
    assert [frame.verb for frame in played.heard()] == [Verb.START, Verb.BLOCK, Verb.BLOCK, Verb.ABORT]
    assert not played.forwards.busy
    os.close(spool)


def test_nothing_is_kept_of_a_link_that_is_lost(played: Played, tmp_path: Path) -> None:
    (tmp_path / "spool").write_bytes(MESSAGE)
    spool = os.open(tmp_path / "spool", os.O_RDONLY)
    played.begin(step(spool))
    played.begin(step())
    played.forwards.lost(played.link)
    assert not played.forwards.busy
    assert opened(tmp_path / "spool") == 1
    assert played.say(Verb.COMMITTED, 1, b"12") is None
    os.close(spool)


@pytest.mark.parametrize("number", [b"", b"-1", b"x", b"1" * 5000])
def test_a_credit_that_is_no_number_cuts_the_link(played: Played, number: bytes) -> None:
    played.begin(step(b"x" * 100, recipients=(b"r@example.net",) * 1001))
    with pytest.raises(LinkLost):
        played.say(Verb.TAKEN, 1, number)
