"""The queue when its process is killed: what was accepted is there, whole, and nothing is half there."""

from __future__ import annotations

import os
import random
import select
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from pillarbox.queue.engine import Ending, Engine, Entry, Mark
from pillarbox.queue.sqlite import SqliteEngine
from tests.queue.drafts import Clock, content, draft, key, spooled
from tests.queue.kills import READS_CALLS, calls_of, fork, kill_self, run_until

Opener = Callable[[Path, Clock], Engine]


@pytest.fixture(params=[SqliteEngine.open])
def opener(request: pytest.FixtureRequest) -> Opener:
    chosen: Opener = request.param
    return chosen


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """In memory where that is possible: a killed process loses nothing that it wrote, wherever it wrote it."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with TemporaryDirectory(prefix="pillarbox-", dir="/dev/shm") as name:
        yield Path(name)


class Told:
    """What a child that dies told before: lines through a pipe, each written after the step it tells of."""

    def __init__(self) -> None:
        self.reader, self._write = os.pipe()

    def tell(self, line: str) -> None:
        os.write(self._write, line.encode("ascii") + b"\n")

    def lines(self) -> list[list[str]]:
        """Everything told so far, as lists of words."""
        told = b""
        while select.select([self.reader], [], [], 0)[0]:
            told += os.read(self.reader, 65536)
        return [line.split() for line in told.decode("ascii").split("\n")[:-1]]

    def close(self) -> None:
        os.close(self.reader)
        os.close(self._write)


def read_body(engine: Engine, message: int) -> bytes:
    entry = engine.show(message)
    assert entry is not None
    if entry[0].spool is None:
        return engine.body(entry[0])
    with open(engine.open_body(entry[0]), "rb") as file:
        return file.read()


def assert_whole(engine: Engine, message: int, number: int) -> None:
    """Message is draft `number`, with nothing missing."""
    entry = engine.show(message)
    assert entry is not None
    assert entry[0].sender == b"sender%d@example.org" % number
    assert read_body(engine, message) == content(number)


# Between any two system calls.


def work(opener: Opener, home: Path, told: Told) -> None:
    """Every step of the contract that writes. Message ids are told by the number of their draft."""
    engine = opener(home, Clock())
    (one, two) = engine.commit([spooled(engine, 1), draft(2, recipients=2)], ()).accepted
    told.tell(f"accepted 1 {one} 2 {two}")
    (three,) = engine.commit([draft(3)], [Mark.done(one, 0), Mark.done(two, 0)]).accepted
    told.tell(f"accepted 3 {three}")
    told.tell(f"ended 1 {one}")
    engine.commit((), [Mark.later(three, 0, 99, b"later")])
    told.tell("later")
    engine.remove([three])
    told.tell(f"ended 3 {three}")
    spooled(engine, 4)  # and never committed
    engine.close()
    told.tell("closed")


def assert_kept(engine: Engine, told: list[list[str]], files: set[str]) -> None:
    accepted = {
        int(n): int(m) for line in told if line[0] == "accepted" for n, m in zip(line[1::2], line[2::2], strict=True)
    }
    ended = {int(line[1]) for line in told if line[0] == "ended"}
    known = {number: engine.known(key(number)) for number in (1, 2, 3)}
    for number, message in accepted.items():
        assert known[number] == message, "what was accepted is known by its key"
    living = {message.id for message, _ in engine.listing()}
    # One step may have happened without being told: 3 accepted and 1 ended together, or 3 removed.
    untold = {1} if known.get(3) else set()
    untold |= {3} if ["later"] in told else set()
    for number, found in known.items():
        if found is None:
            continue
        if number in ended:
            assert found not in living, "what ended stays ended"
        elif number not in untold:
            assert found in living, "what was accepted is there"
        if found in living:
            assert_whole(engine, found, number)
    assert living <= {message for message in known.values() if message}, "there is nothing else"
    named = {message.spool for message, _ in engine.listing() if message.spool}
    assert files == named, "leftovers are swept, and nothing that is named"
    if known[2] in living:
        entry = engine.show(known[2] or 0)
        assert entry is not None and len(entry[1]) == 2


# row: vectors-queue-kills
def test_killed_between_any_two_system_calls_nothing_is_lost_or_half_there(opener: Opener, directory: Path) -> None:
    progress: set[int] = set()
    for calls in count(1):
        home = directory / str(calls)
        told = Told()
        killed = run_until(partial(work, opener, home, told), calls)
        engine = opener(home, Clock())
        lines = told.lines()
        assert_kept(engine, lines, set(os.listdir(home / "spool")))
        engine.close()
        told.close()
        progress.add(len(lines))
        if not killed:
            break
    assert progress == set(range(7)), "it was killed before and after every step"


def test_killed_between_any_two_system_calls_of_an_opening_everything_is_kept(opener: Opener, directory: Path) -> None:
    """What a crash left is recovered, also when the recovery is killed."""

    def crash(home: Path) -> None:
        engine = opener(home, Clock())
        two = engine.commit([spooled(engine, 1), draft(2)], ()).accepted[1]
        engine.commit([draft(3)], [Mark.done(two, 0)])
        os.kill(os.getpid(), signal.SIGKILL)

    def recover(home: Path) -> None:
        opener(home, Clock()).close()

    for calls in count(1):
        home = directory / str(calls)
        kill_self(partial(crash, home))
        killed = run_until(partial(recover, home), calls)
        engine = opener(home, Clock())
        assert [message.id for message, _ in engine.listing()] == [1, 3]
        assert_whole(engine, 1, 1)
        assert_whole(engine, 3, 3)
        assert engine.known(key(2)) == 2
        engine.close()
        if not killed:
            break
    assert calls > 5


def test_killed_between_any_two_system_calls_there_is_the_failed_message_or_its_bounce_and_never_both(
    opener: Opener, directory: Path
) -> None:
    """A spooled message and a plain one, each with its bounce in a spool file, ended together with new mail."""

    def end(home: Path, told: Told) -> None:
        engine = opener(home, Clock())
        one, two = engine.commit([spooled(engine, 1), draft(2)], ()).accepted
        engine.commit((), [Mark.failed(one, 0, b"no"), Mark.failed(two, 0, b"no")])
        told.tell("failed")
        bounces = [Ending(one, spooled(engine, 11)), Ending(two, spooled(engine, 12))]
        engine.commit([draft(3)], (), bounces)
        told.tell("bounced")
        engine.close()

    seen: set[tuple[int, ...]] = set()
    for calls in count(1):
        home = directory / str(calls)
        told = Told()
        killed = run_until(partial(end, home, told), calls)
        engine = opener(home, Clock())
        lines = told.lines()
        told.close()
        living = {int(message.sender.partition(b"@")[0][6:]): message for message, _ in engine.listing()}
        numbers = tuple(sorted(living))
        if ["bounced"] in lines:
            assert numbers == (3, 11, 12)
        elif ["failed"] in lines:
            assert numbers in {(1, 2), (3, 11, 12)}
            assert [message.id for message in engine.failed()] == ([1, 2] if numbers == (1, 2) else [])
        else:
            assert numbers in {(), (1, 2)}
        for number, message in living.items():
            assert_whole(engine, message.id, number)
        assert set(os.listdir(home / "spool")) == {message.spool for message in living.values() if message.spool}
        engine.close()
        seen.add(numbers)
        if not killed:
            break
    assert seen == {(), (1, 2), (3, 11, 12)}


# At random moments.


def accept_and_finish(opener: Opener, home: Path, first: int, told: Told) -> None:
    """Commit numbered drafts in batches, some spooled, and finish every second of them, until killed."""
    engine = opener(home, Clock())
    rest: list[int] = []
    for number in count(first, 4):
        drafts = [draft(number), draft(number + 1), draft(number + 2), draft(number + 3)]
        if number % 3 == 0:
            drafts[0] = spooled(engine, number)
        receipt = engine.commit(drafts, [Mark.done(message, 0) for message in rest])
        told.tell(" ".join(["accepted", *[f"{number + n} {m}" for n, m in enumerate(receipt.accepted)]]))
        for message in rest:
            told.tell(f"ended {message}")
        rest = receipt.accepted[::2]


def test_killed_at_random_moments_what_was_accepted_is_there_and_no_id_comes_twice(
    opener: Opener, tmp_path: Path
) -> None:
    accepted: dict[int, int] = {}
    ended: set[int] = set()
    told = Told()
    for generation in range(15):
        first = generation * 10_000
        process = fork(partial(accept_and_finish, opener, tmp_path, first, told))
        select.select([told.reader], [], [], 10)  # it runs
        time.sleep(random.uniform(0, 0.01))
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        for words in told.lines():
            if words[0] == "ended":
                ended.add(int(words[1]))
                continue
            for number, message in zip(map(int, words[1::2]), map(int, words[2::2]), strict=True):
                assert message not in accepted.values(), "ids never repeat"
                accepted[number] = message
        engine = opener(tmp_path, Clock())
        living = {message.id for page in pages(engine) for message, _ in page}
        for number, message in accepted.items():
            assert engine.known(key(number)) == message
            if message in ended:
                assert message not in living
            elif message in living:
                assert_whole(engine, message, number)
            else:
                assert number % 2 == 0, "only those that were being finished may have ended untold"
                ended.add(message)
        assert len(living) <= len(accepted) - len(ended) + 4, "one batch may be there untold"
        for message in living - set(accepted.values()):
            entry = engine.show(message)
            assert entry is not None
            number = int(entry[0].sender.removeprefix(b"sender").removesuffix(b"@example.org"))
            assert engine.known(key(number)) == message
            assert_whole(engine, message, number)
            accepted[number] = message
        engine.close()
    told.close()
    assert len(accepted) > 100


def pages(engine: Engine) -> Iterator[list[Entry]]:
    after = 0
    while page := engine.listing(after):
        yield page
        after = page[-1][0].id


# When the power fails: what is not synced may be lost.


# row: known-durable
@pytest.mark.skipif(not READS_CALLS, reason="knows the system calls of x86-64 only")
def test_a_commit_is_synced_before_it_is_told(tmp_path: Path) -> None:
    told = Told()

    def commit() -> None:
        engine = SqliteEngine.open(tmp_path, Clock())
        told.tell("open")
        engine.commit([draft(1)], ())
        told.tell("accepted")
        engine.commit([draft(2)], [Mark.done(1, 0)])
        told.tell("ended")
        os._exit(0)

    calls = [(name, Path(file).name) for name, file in calls_of(commit)]
    tells = [place for place, (name, file) in enumerate(calls) if name == "write" and file.startswith("pipe:")]
    assert len(tells) == 3
    for start, end in pairwise(tells):
        during = calls[start:end]
        written = max(place for place, call in enumerate(during) if call == ("pwrite64", "queue.db-wal"))
        assert any(name in ("fsync", "fdatasync") and file == "queue.db-wal" for name, file in during[written:])
    told.close()


# row: known-durable
@pytest.mark.skipif(not READS_CALLS, reason="knows the system calls of x86-64 only")
def test_a_spool_file_and_its_name_are_synced_before_the_commit(tmp_path: Path) -> None:
    def commit() -> None:
        engine = SqliteEngine.open(tmp_path, Clock())
        engine.commit([spooled(engine, 1)], ())
        os._exit(0)

    calls = [(name, Path(file).name) for name, file in calls_of(commit)]
    written = max(place for place, (name, file) in enumerate(calls) if name == "write" and len(file) == 32)
    file = calls.index(("fsync", calls[written][1]), written)
    directory = calls.index(("fsync", "spool"), file)
    assert ("fdatasync", "queue.db-wal") in calls[directory:] or ("fsync", "queue.db-wal") in calls[directory:]


@pytest.mark.skipif(not READS_CALLS, reason="knows the system calls of x86-64 only")
def test_the_names_of_a_new_queue_are_synced_before_it_takes_anything(tmp_path: Path) -> None:
    told = Told()

    def begin() -> None:
        engine = SqliteEngine.open(tmp_path / "queue", Clock())
        told.tell("open")
        engine.commit([draft(1)], ())
        told.tell("accepted")
        os._exit(0)

    calls = [(name, Path(file).name) for name, file in calls_of(begin)]
    told.close()
    opened, accepted = [place for place, (name, file) in enumerate(calls) if name == "write" and file[:5] == "pipe:"]
    assert ("fsync", tmp_path.name) in calls[:opened], "the name of queue/"
    created = [name for name, _ in calls].index("openat")
    assert ("fsync", "queue") in calls[:created], "the name of spool/"
    assert ("fsync", "queue") in calls[created:opened], "the name of queue.db"
    log = calls.index(("pwrite64", "queue.db-wal"))
    synced = [place for place, call in enumerate(calls) if call[0].endswith("sync") and call[1] == "queue"]
    assert any(log < place < accepted for place in synced), "the name of the log"


@pytest.mark.skipif(not READS_CALLS, reason="knows the system calls of x86-64 only")
def test_what_a_crash_left_is_synced_before_it_is_called_known(tmp_path: Path) -> None:
    """The log of a process killed between writing a commit and syncing it: recovery takes it for committed."""
    told = Told()

    def crash() -> None:
        engine = SqliteEngine.open(tmp_path, Clock())
        engine.commit([draft(1)], ())
        os.kill(os.getpid(), signal.SIGKILL)

    def ask() -> None:
        engine = SqliteEngine.open(tmp_path, Clock())
        assert engine.known(key(1)) == 1
        told.tell("known")
        os._exit(0)

    kill_self(crash)
    calls = [(name, Path(file).name) for name, file in calls_of(ask)]
    told.close()
    synced = [place for place, call in enumerate(calls) if call == ("fsync", "queue.db-wal")]
    assert synced and synced[0] < calls.index(("pwrite64", "queue.db")), "first the log is made safe"
    assert calls.index(("fdatasync", "queue.db")) > 0, "then all of it goes into the database"
