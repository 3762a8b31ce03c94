"""Spool files: durable or absent, private, bounded by the disk, swept."""

from __future__ import annotations

import os
import resource
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from pillarbox.queue import spool
from pillarbox.queue.engine import BodyGone, QueueFull
from pillarbox.queue.spool import SpoolFile
from pillarbox.status import SystemTrouble


@pytest.fixture
def small_files() -> Iterator[int]:
    """No file may be larger than this: the nearest thing to a full disk that needs no disk."""
    limit = 100_000
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, ignored)


def test_blocks_become_one_file_that_only_we_can_read(tmp_path: Path) -> None:
    file = SpoolFile(tmp_path)
    for block in (b"one ", bytearray(b"two "), memoryview(b"three")):
        file.write(block)
    file.sync()
    assert (tmp_path / file.name).read_bytes() == b"one two three"
    assert file.size == 13
    assert stat.S_IMODE((tmp_path / file.name).stat().st_mode) == 0o600


def test_a_large_body_comes_back_as_it_was(tmp_path: Path) -> None:
    """Its writing is begun early, in steps."""
    file = SpoolFile(tmp_path)
    blocks = [os.urandom(700_001) for _ in range(5)]
    for block in blocks:
        file.write(block)
    file.sync()
    assert (tmp_path / file.name).read_bytes() == b"".join(blocks)


def test_names_are_random(tmp_path: Path) -> None:
    names = {SpoolFile(tmp_path).name for _ in range(20)}
    assert len(names) == 20
    assert all(len(name) == 32 and int(name, 16) >= 0 for name in names)


def test_a_discarded_file_is_gone_and_may_be_discarded_again(tmp_path: Path) -> None:
    file = SpoolFile(tmp_path)
    file.write(b"x")
    file.discard()
    file.discard()
    assert os.listdir(tmp_path) == []


def test_a_synced_file_can_still_be_discarded(tmp_path: Path) -> None:
    file = SpoolFile(tmp_path)
    file.sync()
    file.discard()
    assert os.listdir(tmp_path) == []


def test_descriptors_are_closed_whatever_happens(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    SpoolFile(tmp_path).discard()
    SpoolFile(tmp_path).sync()
    assert len(os.listdir("/proc/self/fd")) == before


def test_new_mail_leaves_the_last_of_the_disk_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = SpoolFile(tmp_path)
    file.write(b"x" * 10)
    monkeypatch.setattr(spool, "SPARE", 1 << 60)
    with pytest.raises(QueueFull) as caught:
        file.write(b"y")
    assert caught.value.status == (4, 3, 1)
    assert os.listdir(tmp_path) == []


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, small_files: int) -> None:
    """EFBIG comes after a short write of what still fitted: both are dealt with."""
    file = SpoolFile(tmp_path)
    file.write(b"x" * (small_files - 5))
    with pytest.raises(SystemTrouble):
        file.write(b"y" * 10)
    assert os.listdir(tmp_path) == []


def test_a_directory_that_is_not_there_is_trouble(tmp_path: Path) -> None:
    with pytest.raises(SystemTrouble):
        SpoolFile(tmp_path / "missing")
    with pytest.raises(SystemTrouble):
        spool.room(tmp_path / "missing")


def test_a_body_is_read_through_a_descriptor_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"body")
    with open(spool.open_file(tmp_path, "f"), "rb") as file:
        assert file.read() == b"body"


def test_a_missing_body_is_said_to_be_gone(tmp_path: Path) -> None:
    with pytest.raises(BodyGone, match="queue/spool/f"):
        spool.open_file(tmp_path, "f")


def test_a_link_in_the_spool_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "f").symlink_to("/etc/passwd")
    with pytest.raises(SystemTrouble):
        spool.open_file(tmp_path, "f")


# row: known-leftovers
def test_a_sweep_takes_what_nobody_names_and_nothing_else(tmp_path: Path) -> None:
    kept, left = SpoolFile(tmp_path), SpoolFile(tmp_path)
    (tmp_path / "README").touch()
    (tmp_path / (left.name + ".orig")).touch()
    assert spool.sweep(tmp_path, lambda name: name == kept.name) == 1
    assert set(os.listdir(tmp_path)) == {kept.name, "README", left.name + ".orig"}


def test_a_directory_of_ours_is_private(tmp_path: Path) -> None:
    os.umask(before := os.umask(0))
    spool.make_directory(tmp_path / "queue")
    assert stat.S_IMODE((tmp_path / "queue").stat().st_mode) == 0o700
    (tmp_path / "queue").chmod(0o755)
    spool.make_directory(tmp_path / "queue")
    assert stat.S_IMODE((tmp_path / "queue").stat().st_mode) == 0o700
    os.umask(before)
