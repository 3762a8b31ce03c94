"""Programs under a real shell: exit statuses, the message on standard input, and what is not handed down."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pillarbox.delivery import program
from pillarbox.delivery.program import ProgramTrouble

PATH = {b"PATH": b"/usr/bin:/bin"}


@pytest.fixture
def message() -> Iterator[int]:
    descriptor = program.message_file(b"Subject: x\n\nbody\n", 17, b"/")
    yield descriptor
    os.close(descriptor)


def run(command: bytes, home: Path, message: int, **variables: bytes) -> bool:
    given = {name.encode(): value for name, value in variables.items()}
    return program.run(command, bytes(home), {**PATH, **given}, message)


def test_a_command_runs_in_the_home_with_the_message_from_its_start(tmp_path: Path, message: int) -> None:
    assert run(b"cat > first", tmp_path, message)
    assert run(b"cat > second; pwd > third", tmp_path, message)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes() == b"Subject: x\n\nbody\n"
    assert (tmp_path / "third").read_text() == f"{tmp_path}\n"


def test_a_command_finds_its_variables_and_no_others(tmp_path: Path, message: int) -> None:
    os.environ["PILLARBOX_TEST_SECRET"] = "x"
    try:
        run(b"env > out", tmp_path, message, EXT=b"a b\n$(x)")
    finally:
        del os.environ["PILLARBOX_TEST_SECRET"]
    found = (tmp_path / "out").read_bytes()
    assert b"EXT=a b\n$(x)\n" in found
    assert b"PILLARBOX_TEST_SECRET" not in found


# row: vectors-local
def test_status_99_leaves_out_what_follows(tmp_path: Path, message: int) -> None:
    assert not run(b"exit 99", tmp_path, message)


# row: vectors-local
@pytest.mark.parametrize("status", [100, 64, 65, 70, 76, 77, 78, 112])
def test_these_statuses_are_permanent(tmp_path: Path, message: int, status: int) -> None:
    with pytest.raises(ProgramTrouble) as told:
        run(b"exit %d" % status, tmp_path, message)
    assert told.value.refusal.permanent
    assert told.value.text == ""


# row: vectors-local
@pytest.mark.parametrize("status", [1, 2, 63, 66, 67, 71, 74, 75, 98, 101, 111, 126, 127, 255])
def test_all_other_statuses_are_temporary(tmp_path: Path, message: int, status: int) -> None:
    with pytest.raises(ProgramTrouble) as told:
        run(b"exit %d" % status, tmp_path, message)
    assert not told.value.refusal.permanent
    assert told.value.text == ""


def test_a_shell_that_is_killed_is_temporary_and_says_so(tmp_path: Path, message: int) -> None:
    with pytest.raises(ProgramTrouble, match=r"Aack, child crashed. \(#4.3.0\)") as told:
        run(b"kill -9 $$", tmp_path, message)
    assert not told.value.refusal.permanent


def test_a_home_that_is_gone_is_temporary(tmp_path: Path, message: int) -> None:
    with pytest.raises(ProgramTrouble, match=r"Unable to switch to .*gone: No such file or directory"):
        run(b"true", tmp_path / "gone", message)


def test_a_command_that_is_too_long_for_the_system_is_temporary(tmp_path: Path, message: int) -> None:
    with pytest.raises(ProgramTrouble, match="Argument list too long") as told:
        run(b": " + b"x" * 200_000, tmp_path, message)
    assert not told.value.refusal.permanent


def test_no_command_can_change_the_message_that_the_next_one_gets(tmp_path: Path, message: int) -> None:
    with pytest.raises(ProgramTrouble):
        run(b"echo other >&0", tmp_path, message)
    with pytest.raises(ProgramTrouble):
        run(b"echo other > /proc/self/fd/0", tmp_path, message)
    run(b"cat > out", tmp_path, message)
    assert (tmp_path / "out").read_bytes() == b"Subject: x\n\nbody\n"


def test_no_other_descriptor_of_ours_is_handed_down(tmp_path: Path, message: int) -> None:
    secret = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(secret, True)
    try:
        run(b"ls /proc/$$/fd > out", tmp_path, message)
    finally:
        os.close(secret)
    assert {int(name) for name in (tmp_path / "out").read_text().split()} <= {0, 1, 2, 10, 255}


@pytest.mark.parametrize("readable", [True, False])
def test_two_commands_that_read_one_large_message_do_not_disturb_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, readable: bool
) -> None:
    (tmp_path / "spool").write_bytes(b"line\n" * 50_000)
    opening = os.open

    def refuses(file: str, *rest: int) -> int:
        if str(file) == f"/proc/self/fd/{spool}":
            raise PermissionError(13, "Permission denied")
        return opening(file, *rest)

    spool = os.open(tmp_path / "spool", os.O_RDONLY)
    if not readable:
        monkeypatch.setattr(os, "open", refuses)
    one = program.message_file(spool, 250_000, bytes(tmp_path))
    other = program.message_file(spool, 250_000, bytes(tmp_path))
    assert os.read(one, 1000) == os.read(other, 1000)
    assert os.lseek(spool, 0, os.SEEK_CUR) == 0
    for descriptor in (spool, one, other):
        os.close(descriptor)
    assert [file.name for file in tmp_path.iterdir()] == ["spool"]


def test_a_large_message_that_is_not_whole_is_given_to_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "spool").write_bytes(b"line\n" * 50_000)
    spool = os.open(tmp_path / "spool", os.O_RDONLY)
    opening = os.open
    refused = f"/proc/self/fd/{spool}"

    def refuses(file: str, *rest: int) -> int:
        if str(file) == refused:
            raise PermissionError(13, "Permission denied")
        return opening(file, *rest)

    monkeypatch.setattr(os, "open", refuses)
    with pytest.raises(ProgramTrouble, match=r"Unable to read message\. \(#4\.3\.0\)"):
        program.message_file(spool, 250_001, bytes(tmp_path))
    os.close(spool)
