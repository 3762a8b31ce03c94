"""Programs bring messages to the queue; the queue is played by the test over a real socket, as it can go wrong."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from pillarbox.envelope import Envelope
from pillarbox.net import listening
from pillarbox.programs import injector
from pillarbox.programs.content import Content
from pillarbox.programs.injector import Result, inject
from pillarbox.roles.link import Frame, Link, LinkLost
from pillarbox.roles.verbs import MAY_SAY, Verb
from pillarbox.status import Refusal, Status

ENVELOPE = Envelope(b"joe@example.org", (b"ann@example.org",))


class Queue:
    """Accepts one connection after the other, each with the next of `acts`; `heard` is all that came."""

    def __init__(self, home: Path, *acts: Callable[[Queue, Link], None]) -> None:
        (home / "run").mkdir(exist_ok=True)
        self.heard: list[Frame] = []
        self._listening = listening.unix(home / "run" / "inject", 0o666)
        self._listening.settimeout(10)
        self._thread = threading.Thread(target=self._serve, args=(acts,))
        self._thread.start()

    def _serve(self, acts: tuple[Callable[[Queue, Link], None], ...]) -> None:
        for act in acts:
            sock, _ = self._listening.accept()
            link = Link(sock, MAY_SAY["injector", "queue"])
            with suppress(LinkLost):  # the program may have heard enough
                act(self, link)
                link.flush()
            link.close()
        self._listening.close()

    def hear(self, link: Link, last: Verb) -> Frame:
        """All frames up to one with this verb; blocks get their credit."""
        end = time.monotonic() + 10
        while time.monotonic() < end:
            for frame in link.receive():
                self.heard.append(frame)
                if frame.verb is Verb.BLOCK:
                    link.send(Verb.TAKEN, frame.tag, b"%d" % len(frame.fields[0]))
                if frame.verb is last:
                    return frame
            link.flush()
            time.sleep(0.002)
        raise TimeoutError(last)

    def join(self) -> list[Verb]:
        """The verbs that came, once all is over."""
        self._thread.join()
        return [frame.verb for frame in self.heard]


def commits(queue: Queue, link: Link) -> None:
    frame = queue.hear(link, Verb.MESSAGE)
    link.send(Verb.COMMITTED, frame.tag, b"457")


def dies_having_heard_it(queue: Queue, link: Link) -> None:
    queue.hear(link, Verb.MESSAGE)


def dies_at_once(queue: Queue, link: Link) -> None:
    pass


def knows_it(queue: Queue, link: Link) -> None:
    frame = queue.hear(link, Verb.ASK)
    link.send(Verb.COMMITTED, frame.tag, b"458")


def knows_nothing_and_commits(queue: Queue, link: Link) -> None:
    link.refuse(queue.hear(link, Verb.ASK).tag, Refusal(Status(4, 3, 0), "no"))
    commits(queue, link)


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(injector, "AWAY_PATIENCE", 2.0)


@pytest.fixture
def content() -> Iterator[Content]:
    with Content() as content:
        content.write(b"Subject: x\n\nbody\n")
        yield content


@pytest.fixture
def large() -> Iterator[Content]:
    with Content() as content:
        content.write(b"x" * 2_000_000)
        yield content


def test_a_small_message_goes_in_one_frame(tmp_path: Path, content: Content) -> None:
    queue = Queue(tmp_path, commits)
    assert inject(str(tmp_path), ENVELOPE, content) == Result(0, "", 457)
    assert queue.join() == [Verb.MESSAGE]
    assert list(queue.heard[0].fields[1:]) == [b"joe@example.org", b"Subject: x\n\nbody\n", b"ann@example.org"]


def test_a_large_one_goes_in_blocks_with_all_its_recipients(tmp_path: Path, large: Content) -> None:
    recipients = tuple(b"joe-%d@example.org" % number for number in range(350))

    def act(queue: Queue, link: Link) -> None:
        frame = queue.hear(link, Verb.COMMIT)
        link.send(Verb.COMMITTED, frame.tag, b"3")

    queue = Queue(tmp_path, act)
    assert inject(str(tmp_path), Envelope(b"", recipients), large).number == 3
    verbs = queue.join()
    assert (verbs[0], verbs[-1]) == (Verb.START, Verb.COMMIT)
    assert b"".join(frame.fields[0] for frame in queue.heard if frame.verb is Verb.BLOCK) == b"x" * 2_000_000
    named = [field for frame in queue.heard if frame.verb is Verb.RECIPIENTS for field in frame.fields]
    assert tuple([*named, *queue.heard[-1].fields[1:]]) == recipients


def test_a_commit_of_unknown_outcome_is_asked_for_and_not_sent_twice(tmp_path: Path, content: Content) -> None:
    queue = Queue(tmp_path, dies_having_heard_it, knows_it)
    assert inject(str(tmp_path), ENVELOPE, content) == Result(0, "", 458)
    assert queue.join() == [Verb.MESSAGE, Verb.ASK]
    assert queue.heard[1].fields[0] == queue.heard[0].fields[0]


def test_a_commit_that_did_not_happen_is_done_again_under_another_key(tmp_path: Path, content: Content) -> None:
    queue = Queue(tmp_path, dies_having_heard_it, dies_at_once, knows_nothing_and_commits)
    assert inject(str(tmp_path), ENVELOPE, content).number == 457
    assert queue.join() == [Verb.MESSAGE, Verb.ASK, Verb.MESSAGE]
    assert queue.heard[2].fields[0] != queue.heard[0].fields[0]


def test_a_server_that_comes_back_in_time_is_waited_for(tmp_path: Path, content: Content) -> None:
    made: list[Queue] = []
    timer = threading.Timer(0.3, lambda: made.append(Queue(tmp_path, commits)))
    timer.start()
    assert inject(str(tmp_path), ENVELOPE, content).status == 0
    timer.join()
    made[0].join()


def test_a_server_that_stays_away_is_a_temporary_failure(
    tmp_path: Path, content: Content, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(injector, "AWAY_PATIENCE", 0.2)
    result = inject(str(tmp_path), ENVELOPE, content)
    assert (result.status, result.permanent) == (73, False)
    assert result.text == f"{tmp_path}/run/inject: the mail server is not running (#4.4.1)"


def test_a_server_that_does_not_answer_is_given_up(
    tmp_path: Path, content: Content, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(injector, "AWAY_PATIENCE", 0.1)
    monkeypatch.setattr(injector, "ANSWER_PATIENCE", 0.2)

    def sleeps(queue: Queue, link: Link) -> None:
        time.sleep(0.5)

    queue = Queue(tmp_path, sleeps)
    assert inject(str(tmp_path), ENVELOPE, content).status == 72
    queue.join()


def test_a_server_that_is_lost_and_stays_away_has_a_status_of_its_own(
    tmp_path: Path, content: Content, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(injector, "AWAY_PATIENCE", 0.0)
    queue = Queue(tmp_path, dies_having_heard_it)
    assert inject(str(tmp_path), ENVELOPE, content).status == 74
    queue.join()


# row: vectors-queue
@pytest.mark.parametrize(
    ("status", "code"), [((5, 1, 3), 11), ((5, 3, 4), 31), ((4, 3, 1), 53), ((4, 3, 0), 71), ((4, 3, 2), 71)]
)
def test_a_refusal_has_qmail_queues_status(
    tmp_path: Path, content: Content, status: tuple[int, int, int], code: int
) -> None:
    def refuses(queue: Queue, link: Link) -> None:
        link.refuse(queue.hear(link, Verb.MESSAGE).tag, Refusal(Status(*status), "because"))

    queue = Queue(tmp_path, refuses)
    result = inject(str(tmp_path), ENVELOPE, content)
    assert result.status == code
    assert result.text == "because (#{}.{}.{})".format(*status)
    queue.join()


def test_a_refusal_in_the_middle_of_a_large_message_ends_it(tmp_path: Path, large: Content) -> None:
    def refuses(queue: Queue, link: Link) -> None:
        tag = queue.hear(link, Verb.BLOCK).tag
        link.refuse(tag, Refusal(Status(4, 3, 1), "full"))
        link.flush()
        queue.hear(link, Verb.COMMIT)

    queue = Queue(tmp_path, refuses)
    assert inject(str(tmp_path), ENVELOPE, large).status == 53
    assert Verb.COMMIT not in queue.join()


def test_no_more_is_sent_than_the_queue_gave_credit_for(tmp_path: Path, large: Content) -> None:
    got: list[int] = []

    def slow(queue: Queue, link: Link) -> None:
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            got.extend(len(frame.fields[0]) for frame in link.receive() if frame.verb is Verb.BLOCK)
            time.sleep(0.002)
        link.refuse(1, Refusal(Status(4, 3, 1), "full"))

    queue = Queue(tmp_path, slow)
    assert inject(str(tmp_path), ENVELOPE, large).status == 53
    queue.join()
    assert 0 < sum(got) <= injector.CREDIT


def test_a_long_path_is_no_obstacle(tmp_path: Path, content: Content) -> None:
    home = tmp_path / ("x" * 60) / ("y" * 60)
    home.mkdir(parents=True)
    queue = Queue(home, commits)
    assert inject(str(home), ENVELOPE, content).status == 0
    queue.join()


def test_an_address_that_is_too_long_is_not_even_brought(tmp_path: Path, content: Content) -> None:
    assert inject(str(tmp_path), Envelope(b"", (b"x" * 1003,)), content).status == 11


def test_the_frames_of_a_message_are_not_larger_than_the_queue_takes_from_a_program() -> None:
    from pillarbox.programs.content import BLOCK
    from pillarbox.roles.link import STRANGERS_LIMIT

    assert BLOCK + (injector.RECIPIENTS_AT_ONCE + 1) * (1002 + 4) + 1000 < STRANGERS_LIMIT
