"""What failed logins cost an address: time, and never anybody else's."""

from __future__ import annotations

import pytest

from pillarbox.auth import throttle
from pillarbox.auth.throttle import TOO_MANY, Throttle
from pillarbox.status import Refusal

HERE = "192.0.2.1"


def fail(machine: Throttle, times: int, address: str = HERE, now: float = 0.0) -> None:
    for _ in range(times):
        machine.failed(address, now)


def test_the_first_three_failures_are_free_then_each_costs_twice_as_much() -> None:
    machine = Throttle()
    delays = []
    for _ in range(10):
        delays.append(machine.delay(HERE, 0.0))
        machine.failed(HERE, 0.0)
    assert delays == [0, 0, 0, 1, 2, 4, 8, 15, 15, 15]


def test_nobody_elsewhere_waits() -> None:
    machine = Throttle()
    fail(machine, 1000)
    assert machine.delay("192.0.2.2", 0.0) == 0
    assert machine.started("192.0.2.2", 0.0) == 0


def test_failures_are_forgotten_a_quarter_of_an_hour_after_the_last() -> None:
    machine = Throttle()
    fail(machine, 5, now=0.0)
    machine.failed(HERE, 800.0)
    assert machine.delay(HERE, 1699.0) == 8
    assert machine.delay(HERE, 1700.0) == 0
    machine.failed(HERE, 1700.0)
    assert machine.delay(HERE, 1700.0) == 0


def test_a_success_wipes_nothing_out() -> None:
    machine = Throttle()
    fail(machine, 4)
    machine.started(HERE, 0.0)
    machine.ended(HERE, 0.0)
    assert machine.delay(HERE, 0.0) == 2


def test_guessing_on_many_connections_is_no_faster_than_on_one() -> None:
    machine = Throttle()
    fail(machine, 20)
    turns = [machine.started(HERE, 100.0) for _ in range(500)]
    assert turns[:5] == [15, 30, 45, 60, TOO_MANY]
    assert all(isinstance(turn, Refusal) and not turn.permanent for turn in turns[4:])


def test_who_waited_finds_his_turn_and_the_line_moves_on() -> None:
    machine = Throttle()
    fail(machine, 3)
    assert machine.started(HERE, 0.0) == 1
    assert machine.started(HERE, 0.5) == 1.5
    machine.ended(HERE, 2.0)
    machine.ended(HERE, 2.0)
    assert machine.started(HERE, 10.0) == 1


def test_an_office_coming_back_after_an_outage_does_not_wait() -> None:
    machine = Throttle()
    assert [machine.started(HERE, 0.0) for _ in range(throttle.PARALLEL)] == [0] * throttle.PARALLEL


def test_a_burst_before_the_first_failure_is_slowed_too() -> None:
    machine = Throttle()
    turns = [machine.started(HERE, 0.0) for _ in range(500)]
    assert sum(1 for turn in turns if turn == 0) < 25
    assert isinstance(turns[-1], Refusal)


def test_attempts_that_ended_do_not_count() -> None:
    machine = Throttle()
    for _ in range(1000):
        assert machine.started(HERE, 0.0) == 0
        machine.ended(HERE, 0.0)
    machine.ended(HERE, 0.0)
    assert machine.delay(HERE, 0.0) == 0


def test_the_same_wrong_password_again_is_no_new_guess() -> None:
    machine = Throttle()
    for _ in range(100):
        machine.failed(HERE, 0.0, b"stale")
    assert machine.delay(HERE, 0.0) == 0
    for number in range(4):
        machine.failed(HERE, 0.0, b"guess%d" % number)
    assert machine.delay(HERE, 0.0) == 4
    machine.failed(HERE, 0.0, b"stale")
    assert machine.delay(HERE, 0.0) == 4


def test_going_round_in_more_guesses_than_are_remembered_counts() -> None:
    machine = Throttle()
    for number in range(100):
        machine.failed(HERE, 0.0, b"guess%d" % (number % (throttle.GUESSES + 1)))
    assert machine.delay(HERE, 0.0) == throttle.LONGEST
    assert len(machine._clients[HERE].guesses) == throttle.GUESSES


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        ("2001:db8::1", "2001:db8::ffff:1:2:3", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("fe80::1%eth0", "fe80::2", True),
        ("no:address", "no:address", True),
        (b"192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
    ],
)
def test_an_ipv6_customer_is_one_client(one: str | bytes, other: str, together: bool) -> None:
    machine = Throttle()
    for _ in range(4):
        machine.failed(one, 0.0)
    assert (machine.delay(other, 0.0) > 0) is together


def test_the_table_is_bounded_and_forgets_who_was_heard_of_longest_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttle, "ADDRESSES", 3)
    machine = Throttle()
    for address in ("192.0.2.1", "192.0.2.2", "192.0.2.3"):
        fail(machine, 4, address)
    fail(machine, 1, "192.0.2.1")
    fail(machine, 1, "192.0.2.4")
    assert machine.delay("192.0.2.2", 0.0) == 0
    assert machine.delay("192.0.2.1", 0.0) > 0
    assert machine.delay("192.0.2.3", 0.0) > 0
