"""Programs replaced one by one and taken back, with the process killed at every step."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from pillarbox.cli.launchers import CannotInstall, Launcher, Programs
from tests import qmail
from tests.queue import kills

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="programs for everybody are root's")

SMTPD = Launcher("qmail-smtpd", b"#!/bin/sh\n# Put here by pillarbox install\necho our smtpd\n")
QUEUE = Launcher("qmail-queue", b"#!/bin/sh\n# Put here by pillarbox install\necho our queue\n")
FRESH = Launcher("qmail-newer", b"#!/bin/sh\n# Put here by pillarbox install\necho our newer\n")
ALL = (SMTPD, QUEUE, FRESH)


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    return Programs(qmail.make(tmp_path / "qmail") / "bin")


def installed(directory: Path) -> None:
    programs = Programs(directory)
    with programs.alone():
        for launcher in ALL:
            programs.put(launcher)


def undone(directory: Path) -> None:
    programs = Programs(directory)
    with programs.alone():
        for name in sorted({*programs.ours(), *programs.replaced()}):
            programs.take_back(name)
        programs.clear()


def test_a_launcher_stands_under_the_programs_name_and_everybody_can_run_it(programs: Programs) -> None:
    programs.put(QUEUE)
    file = programs.directory / "qmail-queue"
    assert file.read_bytes() == QUEUE.octets
    assert (file.stat().st_uid, file.stat().st_gid, stat.S_IMODE(file.stat().st_mode)) == (0, 0, 0o755)
    assert programs.ours() == ["qmail-queue"]


# row: install-modes
def test_what_it_replaces_is_kept_where_nobody_but_root_can_run_it(programs: Programs) -> None:
    """A set-uid program that is not used any more may have a hole that nobody mends any more."""
    before = qmail.facts(programs.directory / "qmail-queue")
    os.umask(0)
    try:
        programs.put(QUEUE)
    finally:
        os.umask(0o022)
    kept = programs.kept / "replaced" / "qmail-queue"
    assert qmail.facts(kept) == before
    assert before.mode & stat.S_ISUID
    assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(programs.kept.stat().st_mode) == 0o755


# row: install-undo
def test_undone_every_program_is_what_it_was_to_the_bit(programs: Programs) -> None:
    before = qmail.programs(programs.directory)
    names = sorted(os.listdir(programs.directory))
    installed(programs.directory)
    assert qmail.programs(programs.directory) != before
    undone(programs.directory)
    assert qmail.programs(programs.directory) == before
    assert sorted(os.listdir(programs.directory)) == names


def test_a_link_is_put_back_as_the_link_that_it_was(programs: Programs) -> None:
    smtpd = programs.directory / "qmail-smtpd"
    smtpd.unlink()
    smtpd.symlink_to("../elsewhere/qmail-smtpd")
    before = qmail.facts(smtpd)
    installed(programs.directory)
    assert not smtpd.is_symlink()
    undone(programs.directory)
    assert qmail.facts(smtpd) == before


def each_kill() -> Iterator[int]:
    yield from range(1, 400)


# row: install-killed
@pytest.mark.parametrize("then", [installed, undone], ids=lambda work: str(work.__name__))
def test_killed_at_any_step_of_an_installation_each_program_is_old_or_new_and_both_ways_end_well(
    tmp_path: Path, then: object
) -> None:
    assert callable(then)
    for at in each_kill():
        directory = qmail.make(tmp_path / str(at)) / "bin"
        before = qmail.programs(directory)
        killed = kills.run_until(partial(installed, directory), at)
        _each_is_old_or_new(directory, before)
        if not killed:
            assert at > 20
            return
        then(directory)
        _all_as_wanted(directory, before, then)
    raise AssertionError("it never came to its end")


# row: install-killed
@pytest.mark.parametrize("then", [installed, undone], ids=lambda work: str(work.__name__))
def test_killed_at_any_step_of_an_undoing_each_program_is_old_or_new_and_both_ways_end_well(
    tmp_path: Path, then: object
) -> None:
    assert callable(then)
    for at in each_kill():
        directory = qmail.make(tmp_path / str(at)) / "bin"
        before = qmail.programs(directory)
        installed(directory)
        killed = kills.run_until(partial(undone, directory), at)
        _each_is_old_or_new(directory, before)
        if not killed:
            assert at > 10
            return
        then(directory)
        _all_as_wanted(directory, before, then)
    raise AssertionError("it never came to its end")


def _each_is_old_or_new(directory: Path, before: dict[str, qmail.Facts]) -> None:
    ours = {launcher.name: launcher.octets for launcher in ALL}
    now = qmail.programs(directory)
    assert set(before) - set(now) == set()
    for name, found in now.items():
        old = before.get(name)
        if old is not None and found.inode == old.inode:
            assert found._replace(links=1) == old
        else:
            assert (found.content, stat.S_IMODE(found.mode), found.uid) == (ours[name], 0o755, 0)


def _all_as_wanted(directory: Path, before: dict[str, qmail.Facts], then: object) -> None:
    if then is undone:
        assert qmail.programs(directory) == before
        assert not (directory / ".pillarbox").exists()
        return
    for launcher in ALL:
        assert (directory / launcher.name).read_bytes() == launcher.octets
    undone(directory)
    assert qmail.programs(directory) == before


def test_done_twice_it_does_not_take_its_own_program_for_the_old_one(programs: Programs) -> None:
    before = qmail.programs(programs.directory)
    installed(programs.directory)
    programs.put(Launcher("qmail-smtpd", SMTPD.octets + b"# of a newer version\n"))
    assert programs.replaced() == ["qmail-queue", "qmail-smtpd"]
    undone(programs.directory)
    assert qmail.programs(programs.directory) == before


def test_a_program_that_came_in_its_place_since_stays_and_is_the_one_that_is_kept_next(programs: Programs) -> None:
    installed(programs.directory)
    first = qmail.facts(programs.kept / "replaced" / "qmail-smtpd")
    (programs.directory / "qmail-smtpd").unlink()
    qmail.add(programs.directory, "qmail-smtpd")
    mine = qmail.facts(programs.directory / "qmail-smtpd")
    assert not programs.take_back("qmail-smtpd")
    assert qmail.facts(programs.directory / "qmail-smtpd") == mine
    installed(programs.directory)
    assert qmail.facts(programs.kept / "replaced" / "qmail-smtpd") == mine
    assert qmail.facts(programs.kept / "older" / "qmail-smtpd.1") == first
    undone(programs.directory)
    assert qmail.facts(programs.directory / "qmail-smtpd") == mine
    assert qmail.facts(programs.kept / "older" / "qmail-smtpd.1") == first


def test_one_that_somebody_removed_is_there_again_when_it_is_undone(programs: Programs) -> None:
    before = qmail.programs(programs.directory)
    installed(programs.directory)
    (programs.directory / "qmail-smtpd").unlink()
    undone(programs.directory)
    assert qmail.programs(programs.directory) == before


def test_a_set_uid_launcher_has_its_bits_and_owner(programs: Programs) -> None:
    """Its mode is set last: a change of owner takes the bits away."""
    programs.put(Launcher("cmd5checkpw", b"ELF Put here by pillarbox install", 0o6755, qmail.ALIAS, 0))
    facts = (programs.directory / "cmd5checkpw").stat()
    assert (facts.st_uid, stat.S_IMODE(facts.st_mode)) == (qmail.ALIAS, 0o6755)


def test_a_directory_of_a_programs_name_is_not_touched(programs: Programs) -> None:
    (programs.directory / "qmail-newer").mkdir()
    with pytest.raises(CannotInstall, match=r"bin/qmail-newer: a directory; leave qmail-newer out with --only"):
        programs.put(FRESH)


def test_two_at_a_time_is_one_too_many(programs: Programs) -> None:
    somebody = os.open(programs.directory, os.O_RDONLY)
    try:
        fcntl.flock(somebody, fcntl.LOCK_EX)
        with pytest.raises(CannotInstall, match="another install works there"), programs.alone():
            raise AssertionError("both were let in")
    finally:
        os.close(somebody)
