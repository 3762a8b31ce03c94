"""Addresses that let connections time out."""

from __future__ import annotations

from pillarbox.net.deaf import APART, PAUSE, REMEMBERED, Deaf

HOST = "192.0.2.1"


def failing(*times: float) -> Deaf:
    deaf = Deaf()
    for now in times:
        deaf.timed_out(HOST, now)
    return deaf


# row: known-tcpto
def test_an_address_that_timed_out_twice_is_left_alone_for_a_while() -> None:
    deaf = failing(0.0, APART)
    assert deaf.skips(HOST, APART) and deaf.skips(HOST, APART + PAUSE - 1)
    assert not deaf.skips(HOST, APART + PAUSE)
    assert not deaf.skips("192.0.2.2", APART)


def test_connections_that_fail_together_are_one_failure() -> None:
    assert not failing(0.0, 0.1, APART - 1).skips(HOST, APART)


def test_after_the_pause_one_more_failure_is_enough() -> None:
    later = APART + PAUSE
    assert failing(0.0, APART, later).skips(HOST, later + 1)


def test_an_answer_forgives_everything() -> None:
    deaf = failing(0.0, APART)
    deaf.answered(HOST)
    assert not deaf.skips(HOST, APART)
    deaf.timed_out(HOST, APART)
    assert not deaf.skips(HOST, APART)


def test_what_is_remembered_is_bounded_and_the_oldest_goes_first() -> None:
    deaf = failing(0.0, APART)
    for number in range(REMEMBERED):
        assert deaf.skips(HOST, APART + 1)
        deaf.timed_out(f"10.0.{number // 256}.{number % 256}", APART + 1)
    assert not deaf.skips(HOST, APART + 1)
