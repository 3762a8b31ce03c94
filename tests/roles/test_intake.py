"""Drafts on their way into the queue, with the real spool."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pillarbox.queue.engine import QueueFull, SpoolFile
from pillarbox.queue.sqlite import SqliteEngine
from pillarbox.roles import intake as module
from pillarbox.roles.intake import Intake
from pillarbox.roles.link import Frame, Link, refusal
from pillarbox.roles.verbs import Verb
from pillarbox.status import Status

KEY = b"k" * 16


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[SqliteEngine]:
    engine = SqliteEngine.open(tmp_path / "queue", time.monotonic)
    yield engine
    engine.close()


@pytest.fixture
def links() -> Iterator[tuple[Link, Link]]:
    one, other = socket.socketpair()
    pair = Link.between("queue", "smtpd", one), Link.between("smtpd", "queue", other)
    yield pair
    for link in pair:
        link.close()


def said(links: tuple[Link, Link]) -> list[Frame]:
    links[0].flush()
    return links[1].receive()


def spooled(tmp_path: Path) -> list[str]:
    return [file.name for file in (tmp_path / "queue" / "spool").iterdir()]


def test_a_small_message_waits_for_the_next_commit_in_memory(
    engine: SqliteEngine, links: tuple[Link, Link], tmp_path: Path
) -> None:
    intake = Intake(engine.spool, 100)
    intake.hear(links[0], Frame(Verb.MESSAGE, 5, [KEY, b"a@b", b"body\n", b"c@d"], []), 1000)
    (waiting,) = intake.take()
    assert waiting.tag == 5 and waiting.draft.body == b"body\n" and waiting.draft.born == 1000
    assert waiting.draft.envelope.recipients == (b"c@d",)
    assert intake.take() == [] and spooled(tmp_path) == [] and said(links) == []


def test_a_body_over_the_limit_goes_to_a_file_as_it_comes(
    engine: SqliteEngine, links: tuple[Link, Link], tmp_path: Path
) -> None:
    intake = Intake(engine.spool, 100)
    intake.hear(links[0], Frame(Verb.START, 5, [KEY], []), 1000)
    for _ in range(3):
        intake.hear(links[0], Frame(Verb.BLOCK, 5, [b"x" * 60], []), 1000)
    assert [(frame.verb, frame.fields) for frame in said(links)] == [(Verb.TAKEN, [b"60"])] * 3
    intake.hear(links[0], Frame(Verb.COMMIT, 5, [b"", b"c@d"], []), 1000)
    (waiting,) = intake.take()
    assert waiting.draft.body is None and waiting.draft.size == 180
    assert spooled(tmp_path) == [waiting.draft.spool]
    assert (tmp_path / "queue" / "spool" / str(waiting.draft.spool)).read_bytes() == b"x" * 180


# row: known-leftovers
def test_what_was_not_committed_leaves_no_file(engine: SqliteEngine, links: tuple[Link, Link], tmp_path: Path) -> None:
    intake = Intake(engine.spool, 10)
    for tag, end in ((1, Verb.ABORT), (2, None), (3, Verb.COMMIT)):
        intake.hear(links[0], Frame(Verb.START, tag, [KEY], []), 1000)
        intake.hear(links[0], Frame(Verb.BLOCK, tag, [b"x" * 60], []), 1000)
        if end is not None:
            intake.hear(links[0], Frame(end, tag, [b"", b"c@d"], []), 1000)
    assert len(spooled(tmp_path)) == 2
    intake.lost(links[0])
    (waiting,) = intake.take()
    assert spooled(tmp_path) == [waiting.draft.spool]
    waiting.refuse(QueueFull("full").refusal)
    assert spooled(tmp_path) == []
    assert said(links)[-1].verb is Verb.REFUSED


def test_a_full_disk_refuses_the_draft_once_and_drops_the_rest(links: tuple[Link, Link]) -> None:
    class Full:
        name, size = "full", 0

        def write(self, block: bytes | bytearray | memoryview) -> None:
            raise QueueFull("disk full")

        def sync(self) -> None:
            raise AssertionError

        def discard(self) -> None:
            pass

    def spool() -> SpoolFile:
        return Full()

    intake = Intake(spool, 10)
    intake.hear(links[0], Frame(Verb.START, 1, [KEY], []), 1000)
    for _ in range(3):
        intake.hear(links[0], Frame(Verb.BLOCK, 1, [b"x" * 60], []), 1000)
    intake.hear(links[0], Frame(Verb.COMMIT, 1, [b"", b"c@d"], []), 1000)
    first, last = said(links)
    assert refusal(first.fields).status == Status(4, 3, 1) and refusal(last.fields).status.kind == 4
    assert intake.take() == []


def test_recipients_of_several_frames_are_one_envelope(engine: SqliteEngine, links: tuple[Link, Link]) -> None:
    intake = Intake(engine.spool, 100)
    for verb, fields in (
        (Verb.START, [KEY]),
        (Verb.BLOCK, [b"body\n"]),
        (Verb.RECIPIENTS, [b"a@b", b"c@d"]),
        (Verb.RECIPIENTS, [b"e@f"]),
        (Verb.COMMIT, [b"", b"g@h"]),
    ):
        intake.hear(links[0], Frame(verb, 1, fields, []), 1000)
    intake.hear(links[0], Frame(Verb.RECIPIENTS, 1, [b"too@late"], []), 1000)
    (waiting,) = intake.take()
    assert waiting.draft.envelope.recipients == (b"a@b", b"c@d", b"e@f", b"g@h")


def test_many_drafts_under_way_do_not_fill_the_memory(
    engine: SqliteEngine, links: tuple[Link, Link], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "IN_MEMORY", 250)
    intake = Intake(engine.spool, 100)

    def begin(tag: int) -> None:
        intake.hear(links[0], Frame(Verb.START, tag, [KEY], []), 1000)
        intake.hear(links[0], Frame(Verb.BLOCK, tag, [b"x" * 90], []), 1000)

    for tag in range(1, 6):
        begin(tag)
    assert len(spooled(tmp_path)) == 3
    intake.hear(links[0], Frame(Verb.ABORT, 1, [], []), 1000)
    intake.hear(links[0], Frame(Verb.COMMIT, 5, [b"", b"c@d"], []), 1000)
    begin(6)
    begin(7)
    assert len(spooled(tmp_path)) == 4
    (waiting,) = intake.take()
    assert waiting.draft.spool is not None and waiting.draft.size == 90
    intake.lost(links[0])
    assert intake._in_memory == 0


@pytest.mark.parametrize(
    "fields",
    [
        [KEY[1:], b"", b"body\n", b"c@d"],
        [KEY, b"x" * 1003, b"body\n", b"c@d"],
        [KEY, b"", b"body\n", b"c@d", b"x" * 1003],
        [KEY, b"a\rb@c", b"body\n", b"c@d"],
        [KEY, b"", b"body\n", b"c@d", b"a\nX: y@d"],
    ],
    ids=["key", "sender", "recipient", "control in sender", "control in recipient"],
)
def test_what_no_honest_smtpd_sends_is_refused(
    engine: SqliteEngine, links: tuple[Link, Link], tmp_path: Path, fields: list[bytes]
) -> None:
    intake = Intake(engine.spool, 2)
    intake.hear(links[0], Frame(Verb.MESSAGE, 7, fields, []), 1000)
    (refused,) = said(links)
    assert (refused.verb, refused.tag) == (Verb.REFUSED, 7)
    assert intake.take() == [] and spooled(tmp_path) == []
