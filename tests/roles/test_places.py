"""Places over several processes: each is one's at a time, and nobody's when its process is gone."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from pillarbox.roles import places
from pillarbox.roles.places import NOWHERE, Places


@pytest.fixture
def shared() -> Iterator[int]:
    descriptor = places.file()
    yield descriptor
    os.close(descriptor)


class Other:
    """Another process that takes as many of `count` places as it gets, and keeps them while it lives."""

    def __init__(self, shared: int, count: int) -> None:
        told, tell = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            mine = Places(shared, count)
            taken = 0
            while mine.take() is not None:
                taken += 1
            signal.alarm(20)  # when the test fails nobody else ends us
            os.write(tell, b"%d" % taken)
            signal.pause()
            os._exit(0)
        self.taken = int(os.read(told, 100))
        os.close(told)
        os.close(tell)

    def die(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def test_a_place_is_one_process_own(shared: int) -> None:
    other = Other(shared, 8)
    assert other.taken == 6, "three of four"
    mine = Places(shared, 8)
    ours = [mine.take(), mine.take()]
    assert None not in ours
    assert mine.take() is None
    mine.leave(ours[0])
    assert mine.take() == ours[0]
    other.die()
    assert mine.take() is not None


def test_places_of_who_died_are_free(shared: int) -> None:
    other = Other(shared, 1)
    mine = Places(shared, 1)
    assert mine.take() is None
    other.die()
    assert mine.take() == 0


def test_a_child_has_not_its_parents_places(shared: int) -> None:
    mine = Places(shared, 4)
    assert mine.take() is not None
    other = Other(shared, 4)
    assert other.taken == 3
    other.die()


def test_without_a_file_there_is_no_end_of_places() -> None:
    mine = Places(None, 1)
    assert [mine.take(), mine.take()] == [NOWHERE, NOWHERE]
    mine.leave(NOWHERE)


def test_fewer_places_than_before_are_fewer(shared: int) -> None:
    mine = Places(shared, 8)
    first = mine.take()
    mine.count = 1
    assert mine.take() is None
    mine.leave(first)
    mine.leave(None)
    assert mine.take() == 0
