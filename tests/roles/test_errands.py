"""Errands with real processes: what bounds them, what ends them, and that each gets an outcome whatever it does."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from pillarbox.delivery.dotqmail import DotQmail, parse
from pillarbox.delivery.job import Errand, Forwarding, Job
from pillarbox.outcome import Outcome
from pillarbox.roles import errands, places, runner
from pillarbox.roles.errands import Errands
from pillarbox.roles.link import Link
from pillarbox.roles.log import Log
from pillarbox.roles.places import Places
from pillarbox.roles.rounds import Rounds
from pillarbox.status import Status
from pillarbox.users.owner import Owner
from tests.roles.test_places import Other

MESSAGE = b"Subject: x\n\nbody\n"
PATIENCE = 20.0  # seconds
DONE = Outcome.done(b"did 0+0+1\n")


class Played:
    """One role's errands, with a clock that the test may put ahead."""

    def __init__(self, top: Path, shared: int | None = None, count: int = 10) -> None:
        self.top = top
        self.ahead = 0.0
        ours, control = socket.socketpair()
        self._supervisor = ours
        self.rounds = Rounds("owner", control)
        self.places = Places(shared, count)
        self.errands = Errands(
            self.rounds, Log("owner", False), b"mx.example.org", {b"PATH": b"/usr/bin:/bin"}, self.places
        )
        self.link, self._other = self.new_link()
        self.told: dict[int, Outcome | Forwarding] = {}

    def new_link(self) -> tuple[Link, socket.socket]:
        one, other = socket.socketpair()
        return Link(one, frozenset()), other

    def close(self) -> None:
        self.link.close()
        self.rounds.supervisor.close()
        self._other.close()
        self._supervisor.close()

    def home(self, name: str) -> Path:
        home = self.top / name
        home.mkdir(exist_ok=True)
        return home

    def now(self) -> float:
        return time.monotonic() + self.ahead

    def take(
        self, delivery: int, text: bytes, home: str = "joe", again: bool = False, content: bytes | int = MESSAGE
    ) -> Job:
        size = len(content) if isinstance(content, bytes) else os.fstat(content).st_size
        job = Job(
            delivery, b"0123abcd", 0, 1_700_000_000, again, b"ann@example.net", b"joe", b"example.org",
            b"joe@example.org", content, size,
        )  # fmt: skip
        owner = Owner(b"joe", 1000, 1000, bytes(self.home(home)), b"", b"")
        self.errands.take(Errand(job, owner, DotQmail(b".qmail", parse(text))), self.link, delivery, self.now())
        return job

    def round(self) -> None:
        patience = self.errands.patience(self.now())
        self.rounds.wait(0.01 if patience is None else min(patience, 0.01))
        for told in self.errands.tend(self.now()):
            assert told.delivery not in self.told
            self.told[told.delivery] = told.step

    def until(self, look: Callable[[], object]) -> None:
        end = time.monotonic() + PATIENCE
        while not look():
            assert time.monotonic() < end, self.told
            self.round()

    def outcome(self, delivery: int) -> Outcome | Forwarding:
        self.until(lambda: delivery in self.told)
        return self.told[delivery]


@pytest.fixture
def played(tmp_path: Path) -> Iterator[Played]:
    played = Played(tmp_path)
    yield played
    while played.errands.busy:
        played.ahead += errands.LONGEST
        played.round()
    played.close()


def opened(name: str) -> list[str]:
    """Our descriptors of what is called so."""
    found = []
    for descriptor in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            if os.readlink(f"/proc/self/fd/{descriptor}").startswith(name):
                found.append(descriptor)
    return found


def alive(file: Path) -> bool:
    """Whether the process lives that wrote its number into this file."""
    try:
        return "Z" not in Path(f"/proc/{int(file.read_text())}/stat").read_text().rpartition(")")[2].split()[:1]
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_program_that_ends_is_told_of_with_all_that_it_said(played: Played) -> None:
    played.take(1, b"|cat; echo problem >&2\n")
    assert played.outcome(1) == Outcome.done(MESSAGE + b"problem\ndid 0+0+1\n")
    assert not played.errands.busy


def test_a_file_is_handed_on_and_closed(played: Played) -> None:
    (played.top / "spool").write_bytes(MESSAGE)
    spool = os.open(played.top / "spool", os.O_RDONLY)
    played.take(1, b"|cat\nbob@example.net\n", content=spool)
    step = played.outcome(1)
    assert isinstance(step, Forwarding)
    assert isinstance(step.job.content, int)
    assert os.pread(step.job.content, 100, 0) == MESSAGE
    assert step.report == MESSAGE + b"did 0+1+1\n"
    played.round()
    assert opened(str(played.top / "spool")) == [str(spool)]
    os.close(spool)


def test_a_program_left_behind_holds_nobody_up(played: Played) -> None:
    played.take(1, b"|sleep 100 & echo $! > pid; echo started\n")
    assert played.outcome(1) == Outcome.done(b"started\ndid 0+0+1\n")
    left = played.home("joe") / "pid"
    assert alive(left)
    os.kill(int(left.read_text()), 9)


def test_one_homes_endless_programs_hold_up_nobody_else(played: Played) -> None:
    for delivery in range(1, 11):
        played.take(delivery, b"|sleep 1000\n", "endless")
    played.take(20, b"|true\n", "other")
    assert played.outcome(20) == DONE
    assert len(played.told) == 1


def test_so_many_run_for_one_home_and_the_rest_has_its_turn(played: Played) -> None:
    command = b"|mkdir -p running/$$; ls running | wc -l >> seen; sleep 0.2; rmdir running/$$\n"
    for delivery in range(1, 13):
        played.take(delivery, command)
    played.until(lambda: len(played.told) == 12)
    assert set(played.told.values()) == {DONE}
    assert max(map(int, (played.home("joe") / "seen").read_text().split())) <= errands.OF_A_HOME


def test_mail_behind_programs_that_do_not_end_is_deferred_at_last_and_then_at_once(played: Played) -> None:
    for delivery in range(1, errands.OF_A_HOME + 3):
        played.take(delivery, b"|sleep 1000\n")
    played.round()
    assert played.told == {}
    played.ahead += errands.PATIENCE
    waiting = errands.OF_A_HOME + 1
    busy = Outcome.later(b"Too many deliveries to this mailbox are under way. (#4.3.2)\n", Status(4, 3, 2))
    assert played.outcome(waiting) == played.outcome(waiting + 1) == busy
    played.take(50, b"|true\n")
    played.round()
    assert played.told[50] == busy
    played.ahead += errands.LONGEST
    played.outcome(1)
    played.take(51, b"|true\n")
    assert played.outcome(51) == DONE


@pytest.mark.parametrize(
    ("name", "limit", "taken"),
    [("IN_LINE", 3, 3), ("IN_LINE_OCTETS", 3 * len(MESSAGE), 4), ("IN_LINE_OF_A_HOME", 1000, 5)],
)
def test_what_waits_is_bounded_over_all_homes(
    played: Played, monkeypatch: pytest.MonkeyPatch, name: str, limit: int, taken: int
) -> None:
    monkeypatch.setattr(errands, name, limit)
    for delivery in range(1, 6):
        played.take(delivery, b"|true\n", f"home{delivery}")
    played.until(lambda: len(played.told) == 5)
    assert list(played.told.values()).count(DONE) == taken
    played.take(10, b"|true\n")
    assert played.outcome(10) == DONE, "the room is there again"


def test_no_more_than_so_many_run_at_a_time_for_all_homes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errands, "AT_ONCE", 2)
    played = Played(tmp_path)
    command = b"|mkdir -p ../running/$$; ls ../running | wc -l >> ../seen; sleep 0.2; rmdir ../running/$$\n"
    for delivery in range(1, 7):
        played.take(delivery, command, f"home{delivery}")
    played.until(lambda: len(played.told) == 6)
    assert max(map(int, (tmp_path / "seen").read_text().split())) <= 2
    played.close()


@pytest.fixture
def shared() -> Iterator[int]:
    descriptor = places.file()
    yield descriptor
    os.close(descriptor)


def test_who_finds_no_place_waits_for_one(tmp_path: Path, shared: int) -> None:
    other = Other(shared, 1)
    played = Played(tmp_path, shared, 1)
    played.take(1, b"|true\n")
    for _ in range(5):
        played.round()
    assert played.told == {}
    assert played.errands.patience(played.now()) == pytest.approx(errands.PLACE_PAUSE)
    other.die()
    assert played.outcome(1) == DONE
    played.close()


def test_who_waits_too_long_for_a_place_goes_ahead_without(tmp_path: Path, shared: int) -> None:
    other = Other(shared, 1)
    played = Played(tmp_path, shared, 1)
    for delivery in (1, 2):
        played.take(delivery, b"|echo x >> begun; sleep 0.3\n")
    played.round()
    played.ahead += errands.PATIENCE
    assert played.outcome(1) == DONE
    played.until(lambda: played.errands.patience(played.now()) != 0)
    assert (played.home("joe") / "begun").read_text() == "x\n", "one at a time"
    played.ahead += errands.PATIENCE
    assert played.outcome(2) == DONE
    other.die()
    played.close()


def test_a_place_is_given_back_at_the_end_and_before_it_where_that_is_far(tmp_path: Path, shared: int) -> None:
    played = Played(tmp_path, shared, 1)
    played.take(1, b"|sleep 0.2\n")
    played.round()
    assert taken_by_another(shared) == 0
    played.outcome(1)
    assert taken_by_another(shared) == 1
    played.take(2, b"|sleep 1000\n")
    played.round()
    assert taken_by_another(shared) == 0
    played.ahead += errands.FAIR_TIME
    assert played.errands.patience(played.now()) == 0
    played.round()
    assert taken_by_another(shared) == 1
    while played.errands.busy:
        played.ahead += errands.LONGEST
        played.round()
    played.close()


def taken_by_another(shared: int) -> int:
    other = Other(shared, 1)
    other.die()
    return other.taken


def test_who_waits_for_the_end_of_our_links_is_not_kept_waiting_by_a_program(played: Played) -> None:
    one, other = socket.socketpair()
    played.take(1, b"|touch begun; sleep 1000\n")
    played.until((played.home("joe") / "begun").exists)
    one.close()
    other.settimeout(PATIENCE)
    assert other.recv(1) == b""
    other.close()


def test_deliveries_into_one_mbox_at_a_time_do_not_mix(played: Played) -> None:
    bodies = [b"Subject: %d\n\n" % number + b"%d\n" % number * 20_000 for number in range(1, 13)]
    for delivery, body in enumerate(bodies, 1):
        played.take(delivery, b"./Mailbox\n", content=body)
    played.until(lambda: len(played.told) == 12)
    found = (played.home("joe") / "Mailbox").read_bytes().split(b"Delivered-To: joe@example.org\n")[1:]
    assert sorted(text.partition(b"\n\nFrom ")[0].rstrip(b"\n") for text in found) == sorted(
        body.rstrip(b"\n") for body in bodies
    )


def test_a_line_has_an_end(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errands, "IN_LINE_OF_A_HOME", 2)
    for delivery in range(1, 5):
        played.take(delivery, b"|true\n")
    played.round()
    assert [played.outcome(delivery) == DONE for delivery in (1, 2, 3, 4)] == [True, True, False, False]


def test_a_program_that_takes_too_long_is_ended_and_its_mail_deferred(played: Played) -> None:
    played.take(1, b"|echo $$ > pid; sleep 1000\n")
    pid = played.home("joe") / "pid"
    played.until(lambda: pid.exists() and pid.read_text())
    played.ahead += errands.LONGEST
    late = Outcome.later(b"The delivery took more than 3600 seconds and was broken off. (#4.3.0)\n")
    assert played.outcome(1) == late
    assert not alive(pid)


def test_a_program_that_ignores_sigterm_is_killed_with_all_that_it_started(played: Played) -> None:
    played.take(1, b"|trap '' TERM; (echo $$ > ready; sleep 1000) & echo $! > pid; while :; do sleep 1; done\n")
    ready, pid = (played.home("joe") / name for name in ("ready", "pid"))
    played.until(lambda: ready.exists() and pid.exists() and pid.read_text())
    played.ahead += errands.LONGEST
    played.round()
    assert 1 not in played.told
    assert alive(pid)
    assert str(played.outcome(1).report, "ascii").startswith("The delivery took more than")
    played.until(lambda: not alive(pid))


def test_a_program_that_writes_without_end_is_ended_and_its_mail_deferred(played: Played) -> None:
    played.take(1, b"|yes\n")
    wordy = Outcome.later(b"The program wrote more than 16777216 octets and was broken off. (#4.3.0)\n")
    assert played.outcome(1) == wordy


def test_a_report_is_cut_as_qmail_lspawn_cuts_it(played: Played) -> None:
    played.take(1, b"|head -c 100000 /dev/zero | tr '\\0' x\n")
    assert played.outcome(1) == Outcome.done(b"x" * 2966 + b"\nError report too long, sorry.\n")
    played.take(2, b"|printf 'one\\0two'\n")
    assert played.outcome(2) == Outcome.done(b"one")


def test_a_runner_that_is_killed_is_a_crash_and_temporary(played: Played) -> None:
    played.take(1, b"|echo words; kill -9 $PPID\n")
    assert played.outcome(1) == Outcome.later(b"words\nAack, child crashed. (#4.3.0)\n")


def test_signals_that_a_role_ignores_end_a_program(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    ignored = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = [signal.signal(number, signal.SIG_IGN) for number in ignored]
    try:
        end_by_signals(played)
    finally:
        for number, how in zip(ignored, before, strict=True):
            signal.signal(number, how)


def end_by_signals(played: Played) -> None:
    for delivery, name in enumerate((b"TERM", b"INT", b"HUP", b"PIPE"), 1):
        played.take(delivery, b"|kill -%s $$\n" % name, home=name.decode())
        assert played.outcome(delivery) == Outcome.later(b"Aack, child crashed. (#4.3.0)\n")


def test_who_drains_gives_programs_their_time_and_no_more(played: Played) -> None:
    for delivery in range(1, errands.OF_A_HOME + 2):
        played.take(delivery, b"|sleep 1000\n")
    played.take(20, b"|sleep 0.3\n", "other")
    played.round()
    played.errands.drain(played.now(), 20)
    assert played.outcome(20) == DONE
    assert len(played.told) == 1
    played.ahead += 20
    stopping = Outcome.later(b"The delivery was broken off: the server is stopping. (#4.3.2)\n", Status(4, 3, 2))
    played.until(lambda: len(played.told) == errands.OF_A_HOME + 2)
    del played.told[20]
    assert set(played.told.values()) == {stopping}
    assert not played.errands.busy


def test_programs_that_nobody_will_watch_end(played: Played) -> None:
    played.take(1, b"|echo $$ > pid; sleep 1000\n")
    pid = played.home("joe") / "pid"
    played.until(lambda: pid.exists() and pid.read_text())
    played.errands.forsake()
    played.until(lambda: not alive(pid))


def test_a_delivery_asked_for_again_while_it_runs_is_not_run_twice(played: Played) -> None:
    played.take(1, b"|echo run >> runs; sleep 0.5\n")
    played.take(2, b"|echo never > never; sleep 1000\n")
    played.round()
    played.errands.lost(played.link)
    played.take(1, b"|echo run >> runs; sleep 0.5\n", again=True)
    assert played.outcome(1) == DONE
    assert (played.home("joe") / "runs").read_text() == "run\n"


def test_a_delivery_that_ended_while_nobody_asked_is_told_to_who_asks_again(played: Played) -> None:
    played.take(1, b"|echo run >> runs\nbob@example.net\n")
    played.round()
    played.errands.lost(played.link)
    played.until(lambda: not played.errands.busy)
    assert played.told == {}
    job = played.take(1, b"|echo run >> runs\nbob@example.net\n", again=True)
    step = played.outcome(1)
    assert isinstance(step, Forwarding)
    assert step.job is job
    assert (played.home("joe") / "runs").read_text() == "run\n"


def test_who_waits_in_line_is_forgotten_with_the_queue_that_asked(played: Played) -> None:
    for delivery in range(1, errands.OF_A_HOME + 3):
        played.take(delivery, b"|echo run >> runs; sleep 0.3\n")
    played.round()
    played.errands.lost(played.link)
    played.until(lambda: not played.errands.busy)
    assert (played.home("joe") / "runs").read_text() == "run\n" * errands.OF_A_HOME


def test_a_bug_in_a_runner_is_logged_and_temporary(
    played: Played, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(runner, "carry_out", broken)
    played.take(1, b"|true\n")
    assert played.outcome(1) == Outcome.later(b"Aack, child crashed. (#4.3.0)\n")
    played.errands._log.flush()
    assert "has a bug: " in capfd.readouterr().err


def test_no_process_left_is_a_deferral(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses() -> int:
        raise OSError(11, "Resource temporarily unavailable")

    before = opened("pipe:")
    monkeypatch.setattr(os, "fork", refuses)
    played.take(1, b"|true\n")
    assert played.outcome(1) == Outcome.later(b"system trouble: Resource temporarily unavailable\n")
    assert opened("pipe:") == before


@pytest.mark.parametrize("octets", [b"", b"K", b"K 2 0 0 1 2 ", b"X 2 0 0 1 2 3 ", b"K 2 0 0 x 2 3 ", b"bug it broke"])
def test_what_no_runner_says_is_no_result(octets: bytes) -> None:
    assert runner.read(octets) is None
