"""The queue role with its real engine; supervisor, smtpd and owner are played by the test over real sockets."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest

from pillarbox.control.table import Settings
from pillarbox.envelope import Envelope
from pillarbox.net import listening
from pillarbox.queue import spool
from pillarbox.queue.engine import KEY_OCTETS, Draft, Ending, Mark, QueueFull, Receipt, State
from pillarbox.queue.schedule import LOST_PAUSES
from pillarbox.queue.sqlite import SqliteEngine
from pillarbox.roles import owners
from pillarbox.roles.bounces import Bounces
from pillarbox.roles.drafts import BLOCK
from pillarbox.roles.handout import BATCH, ON_THE_WAY
from pillarbox.roles.house import House
from pillarbox.roles.inject import PEER
from pillarbox.roles.link import Frame, Link, LinkLost
from pillarbox.roles.queue import Queue, run
from pillarbox.roles.verbs import MAY_SAY, ROLE_SAYS, Verb

SETTINGS = Settings(me=b"mx.example.org", locals=frozenset({b"example.org"}), rcpthosts=frozenset({b"example.org"}))
PATIENCE = 10.0  # seconds


class Played:
    """A queue role in a process of its own, and the other ends of its links."""

    def __init__(self, home: Path, settings: Settings = SETTINGS) -> None:
        for name in ("queue", "run", "control"):
            (home / name).mkdir(exist_ok=True)
        public = listening.unix(home / "run" / "queue", 0o600)
        injection = listening.unix(home / "run" / "inject", 0o666)
        ours, control = socket.socketpair()
        self._pid = os.fork()
        if self._pid == 0:
            ours.close()
            _run(House(home, settings, [], public=public, injection=injection), control)
        public.close()
        injection.close()
        control.close()
        self.supervisor = Link(ours, ROLE_SAYS)
        self.links = [self.supervisor]
        self._keys = 0
        self._spawn: Link | None = None

    def link(self, name: str) -> Link:
        """A fresh link to the role, as the supervisor brings it when `name` starts."""
        ours, theirs = socket.socketpair()
        self.supervisor.send(Verb.LINK, 0, name.encode(), descriptors=[theirs.detach()])
        assert self.supervisor.flush()
        self.links.append(Link.between(name, "queue", ours))
        return self.links[-1]

    def owner(self, asked: int = 1) -> Link:
        """Play spawn: the next so many local parts that are asked about belong to this link's other end."""
        if self._spawn is None:
            self._spawn = self.link("spawn")
        ours, theirs = socket.socketpair()
        for frame in frames(self._spawn, Verb.OWNER, asked):
            self._spawn.send(Verb.OWNED, frame.tag, b"1000:1000", descriptors=[os.dup(theirs.fileno())])
        assert self._spawn.flush()
        theirs.close()
        self.links.append(Link.between("owner", "queue", ours))
        return self.links[-1]

    def send(self, smtpd: Link, *recipients: bytes, tag: int = 1, body: bytes = b"Subject: x\n\n") -> bytes:
        """A small message, all in one frame; its key."""
        self._keys += 1
        key = b"%016d" % self._keys
        smtpd.send(Verb.MESSAGE, tag, key, b"ann@example.net", body, *recipients)
        while not smtpd.flush():
            time.sleep(0.001)
        return key

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """What is said meanwhile comes to the role all at once."""
        os.kill(self._pid, signal.SIGSTOP)
        yield
        os.kill(self._pid, signal.SIGCONT)

    def processor_time(self) -> float:
        """Seconds that the role has worked."""
        facts = Path(f"/proc/{self._pid}/stat").read_text().rpartition(")")[2].split()
        return (int(facts[11]) + int(facts[12])) / os.sysconf("SC_CLK_TCK")

    def __enter__(self) -> Played:
        return self

    def __exit__(self, *_: object) -> None:
        """Everybody else is gone, and the supervisor says so; the role ends well."""
        for link in self.links[1:]:
            link.close()
        self.supervisor.send(Verb.DRAIN, 0)
        self.supervisor.flush()
        end = time.monotonic() + PATIENCE
        while not (ended := os.waitpid(self._pid, os.WNOHANG))[0] and time.monotonic() < end:
            time.sleep(0.005)
        self.supervisor.close()
        assert ended == (self._pid, 0)


def _run(house: House, control: socket.socket) -> NoReturn:
    status = 1
    try:
        run(house, control)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def frames(link: Link, verb: Verb, count: int) -> list[Frame]:
    """The next so many frames with this verb; others are passed over. Raises LinkLost, TimeoutError."""
    found: list[Frame] = []
    end = time.monotonic() + PATIENCE
    while len(found) < count:
        if time.monotonic() > end:
            raise TimeoutError(verb)
        found += [frame for frame in link.receive() if frame.verb is verb]
        time.sleep(0.002)
    return found


def next_frame(link: Link, verb: Verb) -> Frame:
    """The only frame with this verb that has come."""
    (frame,) = frames(link, verb, 1)
    return frame


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Played]:
    with Played(tmp_path) as played:
        yield played


def test_what_an_owner_that_died_had_goes_to_the_next_one(queue: Played) -> None:
    smtpd = queue.link("smtpd")
    queue.send(smtpd, b"joe@example.org")
    owner = queue.owner()
    first = next_frame(owner, Verb.DELIVER)
    owner.close()
    again = next_frame(queue.owner(), Verb.DELIVER)
    assert (again.fields[0], again.fields[3]) == (first.fields[0], b"1")


def test_what_was_asked_of_a_spawn_that_died_is_asked_of_the_next_one(queue: Played) -> None:
    smtpd, spawn = queue.link("smtpd"), queue.link("spawn")
    queue.send(smtpd, b"Joe@example.org")
    assert next_frame(spawn, Verb.OWNER).fields == [b"joe"]
    spawn.close()
    assert next_frame(queue.owner(), Verb.DELIVER).fields[9] == b"Joe"


def test_the_last_words_of_a_remote_role_that_died_are_heard_when_the_next_one_is_there(queue: Played) -> None:
    """What it has sent is not sent again."""
    smtpd, first = queue.link("smtpd"), queue.link("remote")
    queue.send(smtpd, b"joe@elsewhere.example")
    delivery = int(next_frame(first, Verb.RELAY).fields[9])
    with queue.stopped():
        second = queue.link("remote")
        first.send(Verb.OUTCOME, delivery, b"K", b"2.0.0", b"taken\n")
        first.flush()
        first.close()
    time.sleep(LOST_PAUSES[0] + 0.5)
    queue.send(smtpd, b"ann@elsewhere.example")
    assert next_frame(second, Verb.RELAY).fields[-1] == b"ann@elsewhere.example"


def test_what_comes_behind_nonsense_of_an_owner_is_not_taken_for_ours(queue: Played) -> None:
    """Its key would be as it says, and could be that of another owner's forward."""
    smtpd, key = queue.link("smtpd"), b"f" * KEY_OCTETS
    queue.send(smtpd, b"joe@example.org")
    owner = queue.owner()
    frames(owner, Verb.DELIVER, 1)
    owner.send(Verb.OUTCOME, 4711, b"K", b"2.0.0", b"done\n")
    owner.send(Verb.MESSAGE, 5, key, b"joe@example.org", b"body\n", b"ann@example.org")
    owner.flush()
    with pytest.raises(LinkLost):
        frames(owner, Verb.COMMITTED, 1)
    smtpd.send(Verb.ASK, 9, key)
    smtpd.flush()
    assert next_frame(smtpd, Verb.REFUSED).tag == 9


def test_what_a_program_says_behind_its_end_is_not_taken_for_ours(queue: Played, tmp_path: Path) -> None:
    """Who asks twice is cut off, and who he was is forgotten."""
    smtpd, key = queue.link("smtpd"), b"f" * KEY_OCTETS
    with queue.stopped(), socket.socket(socket.AF_UNIX) as sock:
        sock.connect(os.fspath(tmp_path / "run" / "inject"))
        program = Link(sock, MAY_SAY["queue", PEER])
        program.send(Verb.ASK, 1, key)
        program.send(Verb.ASK, 2, key)
        program.send(Verb.MESSAGE, 3, b"h" * KEY_OCTETS, b"", b"Subject: honest\n\n", b"joe@example.org")
        for tag in range(20_000):
            program.send(Verb.ABORT, tag)
        program.send(Verb.MESSAGE, 4, key, b"", b"Subject: forged\n\n", b"joe@example.org")
        sock.shutdown(socket.SHUT_RD)
        talking = threading.Thread(target=_say_all, args=(program,))
        talking.start()
        os.kill(queue._pid, signal.SIGCONT)
        talking.join()
    smtpd.send(Verb.ASK, 9, key)
    smtpd.flush()
    assert next_frame(smtpd, Verb.REFUSED).tag == 9


def _say_all(link: Link) -> None:
    with suppress(LinkLost):
        while not link.flush():
            time.sleep(0.001)


def test_a_clock_that_is_set_makes_no_pause_longer_or_shorter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, control = socket.socketpair()
    role = Queue(House(tmp_path, SETTINGS, []), control)
    engine = SqliteEngine.open(tmp_path / "queue", time.monotonic)
    role._bounces = Bounces(engine, SETTINGS, bytes, role._log)
    role._marked = role._full_until = role._bounces.due = before = role._time()
    for step in (-3600.0, 7200.0):
        day = time.time
        monkeypatch.setattr(time, "time", lambda day=day, step=step: day() + step)
        role._time()
        before += step
        for moment in (role._marked, role._full_until, role._bounces.due):
            assert moment == pytest.approx(before, abs=1.0)
    engine.close()
    role._rounds.supervisor.close()
    ours.close()


def test_an_owner_role_that_is_not_used_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owners, "IDLE_TIME", 0.1)
    with Played(tmp_path) as queue:
        queue.send(queue.link("smtpd"), b"joe@example.org")
        owner = queue.owner()
        delivery = next_frame(owner, Verb.DELIVER).fields[7]
        assert next_frame(owner, Verb.PING).tag == 0, "not while it works"
        owner.send(Verb.OUTCOME, int(delivery), b"K", b"2.0.0", b"done\n")
        owner.flush()
        with pytest.raises(LinkLost):
            next_frame(owner, Verb.DELIVER)


def test_an_owner_role_that_hangs_has_its_mail_put_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owners, "IDLE_TIME", 0.05)
    monkeypatch.setattr(owners, "SILENT_TIME", 0.2)
    with Played(tmp_path, replace(SETTINGS, spoolsize=100)) as queue:
        queue.send(queue.link("smtpd"), b"joe@example.org")
        owner = queue.owner()
        next_frame(owner, Verb.DELIVER)
        owner.send(Verb.START, 1, b"k" * 16)
        owner.send(Verb.BLOCK, 1, b"x" * 200)
        for _ in range(5):  # one that answers may take its time
            next_frame(owner, Verb.PING)
            owner.send(Verb.PONG, 0)
            owner.flush()
            time.sleep(0.1)
        with pytest.raises(LinkLost):
            while True:
                next_frame(owner, Verb.DELIVER)
    assert not list((tmp_path / "queue" / "spool").iterdir())  # nor is a forward that it had begun kept open
    engine = SqliteEngine.open(tmp_path / "queue", time.monotonic)
    ((_message, (recipient,)),) = engine.listing()
    engine.close()
    assert (recipient.state, recipient.attempts) == (State.WAITING, 1) and b"do not answer" in recipient.reason


def test_a_program_is_answered_once_and_cut_off_when_it_asks_on(queue: Played, tmp_path: Path) -> None:
    programs = []
    for asks in (1, 1000):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(tmp_path / "run" / "inject"))
        programs.append(Link(sock, MAY_SAY["queue", "injector"]))
        for tag in range(1, asks + 1):
            programs[-1].send(Verb.ASK, tag, b"k" * 16)
        programs[-1].flush()
    queue.links += programs
    next_frame(programs[0], Verb.REFUSED)
    with pytest.raises(LinkLost):
        for _ in range(2):
            next_frame(programs[1], Verb.REFUSED)


def test_on_a_full_disk_old_mail_goes_on_however_much_new_mail_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = tmp_path / "full"
    monkeypatch.setattr(spool, "room", lambda _directory: -(1 << 40) if full.exists() else 1 << 40)
    with Played(tmp_path, replace(SETTINGS, concurrencylocal=1)) as played:
        smtpd = played.link("smtpd")
        played.send(smtpd, *([b"joe@example.org"] * (BATCH + 1)))
        owner = played.owner()
        running = next_frame(owner, Verb.DELIVER).fields[7::4]
        assert len(running) == BATCH
        full.touch()
        for delivery in running:
            owner.send(Verb.OUTCOME, int(delivery), b"K", b"2.0.0", b"done\n")
        last = None
        for tag in range(2, 100):
            played.send(smtpd, b"joe@example.org", tag=tag)
            assert next_frame(smtpd, Verb.REFUSED).fields[0] == b"4.3.1"
            owner.flush()
            last = last or next(iter(owner.receive()), None)
            if last is not None:
                break
            time.sleep(0.05)
        assert last is not None and last.fields[8] == b"%d" % BATCH


def test_bounces_that_have_no_room_wait_and_new_mail_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = tmp_path / "full"
    commit = SqliteEngine.commit

    def small(
        engine: SqliteEngine, drafts: Sequence[Draft], marks: Sequence[Mark], endings: Sequence[Ending] = ()
    ) -> Receipt:
        if endings and full.exists():
            raise QueueFull("no room")
        return commit(engine, drafts, marks, endings)

    monkeypatch.setattr(SqliteEngine, "commit", small)
    full.touch()
    with Played(tmp_path) as played:
        smtpd, remote = played.link("smtpd"), played.link("remote")
        played.send(smtpd, b"joe@example.org")
        owner = played.owner()
        owner.send(Verb.OUTCOME, int(next_frame(owner, Verb.DELIVER).fields[7]), b"D", b"5.0.0", b"never\n")
        assert owner.flush()
        before = played.processor_time()
        for tag in range(2, 22):
            played.send(smtpd, b"joe@example.org", tag=tag)
            next_frame(smtpd, Verb.COMMITTED)
            time.sleep(0.05)
        assert remote.receive() == [] and played.processor_time() - before < 0.5
        full.unlink()
        relayed = next_frame(remote, Verb.RELAY)
        assert relayed.fields[2:4] == [b"", b"example.net"] and relayed.fields[10] == b"ann@example.net"
        assert b"\n<joe@example.org>:\nnever\n\n---" in bytes(relayed.fields[8])


def test_a_message_that_failed_before_a_crash_bounces_at_the_next_start(tmp_path: Path) -> None:
    engine = SqliteEngine.open(tmp_path / "queue", time.monotonic)
    engine.commit([Draft(b"k" * 16, Envelope(b"ann@example.net", (b"joe@example.org",)), 1, 0, 0, 5, b"body\n")], [])
    engine.commit((), [Mark.failed(1, 0, b"never\n")])
    engine.close()
    with Played(tmp_path) as played:
        assert next_frame(played.link("remote"), Verb.RELAY).fields[10] == b"ann@example.net"
    engine = SqliteEngine.open(tmp_path / "queue", time.monotonic)
    assert [(message.id, message.sender) for message, _ in engine.listing()] == [(2, b"")]
    engine.close()


def test_an_owner_that_does_not_read_does_not_keep_the_queue_busy(queue: Played) -> None:
    smtpd = queue.link("smtpd")
    count = 2 * ON_THE_WAY // BLOCK
    for number in range(count):
        queue.send(smtpd, b"joe@example.org", tag=number, body=b"x" * BLOCK)
    owner = queue.owner()
    frames(smtpd, Verb.COMMITTED, count)
    before = queue.processor_time()
    time.sleep(1.0)
    assert queue.processor_time() - before < 0.3
    assert len(frames(owner, Verb.DELIVER, count)) == count


def test_who_asks_while_the_queue_cannot_be_opened_hears_the_truth_when_it_can(tmp_path: Path) -> None:
    """Told no, a client would send a message again that is here."""
    directory = tmp_path / "queue"
    engine = SqliteEngine.open(directory, time.monotonic)
    key = b"k" * 16
    envelope = Envelope(b"ann@example.net", (b"joe@example.org",))
    (number,) = engine.commit([Draft(key, envelope, 1, 0, 0, 5, b"body\n")], []).accepted
    engine.close()
    (directory / "queue.db").rename(tmp_path / "kept")
    (directory / "queue.db").write_bytes(b"not a database\n" * 1000)
    with Played(tmp_path) as played:
        smtpd = played.link("smtpd")
        smtpd.send(Verb.ASK, 1, key)
        smtpd.send(Verb.ASK, 2, b"n" * 16)
        played.send(smtpd, b"joe@example.org", tag=3)
        assert next_frame(smtpd, Verb.REFUSED).tag == 3
        (tmp_path / "kept").rename(directory / "queue.db")
        answers: list[Frame] = []
        end = time.monotonic() + PATIENCE
        while len(answers) < 2 and time.monotonic() < end:
            answers += [frame for frame in smtpd.receive() if frame.verb is not Verb.ACCEPTING]
            time.sleep(0.01)
        assert [(frame.tag, frame.verb) for frame in answers] == [(1, Verb.COMMITTED), (2, Verb.REFUSED)]
        assert answers[0].fields == [b"%d" % number]
