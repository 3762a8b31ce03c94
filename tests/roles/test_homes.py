"""Homes that answer, and one on a file system whose server never does."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pillarbox.roles import homes
from pillarbox.roles.homes import Homes
from pillarbox.users.owner import CannotResolve
from tests.mounts import dead_mount


@pytest.fixture
def dead(tmp_path: Path) -> Iterator[Path]:
    with dead_mount(tmp_path / "dead") as place:
        yield place


@pytest.fixture
def look() -> Iterator[Homes]:
    homes = Homes(time.monotonic)
    yield homes
    homes.close()


def test_a_home_is_its_owner_s_and_nobody_else_s(tmp_path: Path, look: Homes) -> None:
    assert look.owned(os.fsencode(tmp_path), os.getuid())
    assert not look.owned(os.fsencode(tmp_path), os.getuid() + 1)
    assert not look.owned(os.fsencode(tmp_path / "absent"), os.getuid())


def test_an_answer_counts_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    look = Homes(lambda: now[0])
    home = tmp_path / "joe"
    assert not look.owned(os.fsencode(home), os.getuid())
    home.mkdir()
    assert not look.owned(os.fsencode(home), os.getuid())
    now[0] += homes.REMEMBERED_TIME
    assert look.owned(os.fsencode(home), os.getuid())
    look.close()


def test_a_child_that_was_killed_is_followed_by_another(tmp_path: Path, look: Homes) -> None:
    look.owned(os.fsencode(tmp_path), os.getuid())
    assert look._child is not None
    os.kill(look._child.pid, 9)
    (tmp_path / "other").mkdir()
    assert look.owned(os.fsencode(tmp_path / "other"), os.getuid())


def test_homes_on_a_dead_mount_are_trouble_and_hold_up_nobody_for_long(
    dead: Path, tmp_path: Path, look: Homes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(homes, "ANSWER_TIME", 0.2)
    before = time.monotonic()
    for number in range(100):
        with pytest.raises(CannotResolve, match="does not answer"):
            look.owned(os.fsencode(dead / f"user{number}"), 1000)
    assert look.owned(os.fsencode(tmp_path), os.getuid())
    assert time.monotonic() - before < 10, "each of them was waited for"
