"""mbox files on a real file system: quoting, locks, and files that end up as they were."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pillarbox.delivery import mbox
from pillarbox.delivery.mbox import MboxTrouble
from pillarbox.status import Failure

HEAD = b"From ann@example.net Sun Nov 22 13:03:55 2026\nReturn-Path: <ann@example.net>\n"


def append(file: Path, *blocks: bytes) -> None:
    def no_wait(_seconds: float) -> None:
        raise AssertionError("nobody has it locked")

    mbox.append(bytes(file), file.name, HEAD, blocks, no_wait)


# row: vectors-mbox
def test_a_message_stands_between_its_from_line_and_an_empty_one(tmp_path: Path) -> None:
    append(tmp_path / "Mailbox", b"Subject: x\n\nbody\n")
    append(tmp_path / "Mailbox", b"Subject: y\n\nno line end")
    first, second = HEAD + b"Subject: x\n\nbody\n\n", HEAD + b"Subject: y\n\nno line end\n\n"
    assert (tmp_path / "Mailbox").read_bytes() == first + second
    assert (tmp_path / "Mailbox").stat().st_mode & 0o777 == 0o600


def test_an_empty_message_is_one_too(tmp_path: Path) -> None:
    append(tmp_path / "Mailbox")
    assert (tmp_path / "Mailbox").read_bytes() == HEAD + b"\n"


# row: vectors-mbox
@pytest.mark.parametrize(
    ("line", "written"),
    [
        (b"From x", b">From x"),
        (b">From y", b">>From y"),
        (b">>>From z", b">>>>From z"),
        (b"From", b"From"),
        (b"from x", b"from x"),
        (b" From x", b" From x"),
        (b"> From x", b"> From x"),
        (b"a From x", b"a From x"),
        (b"From: x", b"From: x"),
    ],
)
def test_lines_that_look_like_a_from_line_are_quoted(line: bytes, written: bytes) -> None:
    for before in (b"", b"a\n", b"\n\n"):
        assert b"".join(mbox.quoted([before + line + b"\nz\n"])) == before + written + b"\nz\n"


@given(st.lists(st.sampled_from([b"From ", b">", b"\n", b"Fro", b"m ", b"x", b"From"])), st.data())
def test_where_blocks_begin_does_not_matter(parts: list[bytes], data: st.DataObject) -> None:
    text = b"".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)))))
    blocks = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert b"".join(mbox.quoted(blocks)) == b"".join(mbox.quoted([text]))


def test_a_line_without_end_is_not_held_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mbox, "_LINE_KEPT", 100)
    pieces = list(mbox.quoted([b"x" * 60] * 100 + [b"From y\nFrom z\n"]))
    assert max(map(len, pieces)) < 300
    assert b"".join(pieces) == b"x" * 6000 + b"From y\n>From z\n"


def test_a_file_that_a_dead_writer_left_within_a_line_does_not_swallow_the_next_message(tmp_path: Path) -> None:
    for left, gap in ((b"From x\n\nhal", b"\n\n"), (b"From x\n\nbody\n", b"\n"), (b"From x\n\nbody\n\n", b"")):
        (tmp_path / "Mailbox").write_bytes(left)
        append(tmp_path / "Mailbox", b"body\n")
        assert (tmp_path / "Mailbox").read_bytes() == left + gap + HEAD + b"body\n\n"


def test_a_failed_write_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    def breaks() -> Iterator[bytes]:
        yield b"Subject: x\n" * 10_000
        raise Failure("Unable to read message. (#4.3.0)")

    file = tmp_path / "Mailbox"
    append(file, b"first\n")
    before = file.read_bytes()
    with pytest.raises(Failure, match="Unable to read message"):
        mbox.append(bytes(file), "Mailbox", HEAD, breaks(), lambda _: None)
    assert file.read_bytes() == before


def test_a_full_disk_is_told_and_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    with pytest.raises(MboxTrouble) as told:
        mbox.append(b"/dev/full", "/dev/full", HEAD, [b"body\n"], lambda _: None)
    assert told.value.text == "Unable to write /dev/full: No space left on device. (#4.3.1)"
    assert str(told.value.status) == "4.3.1"


def test_dev_null_takes_everything() -> None:
    mbox.append(b"/dev/null", "/dev/null", HEAD, [b"body\n"], lambda _: None)


def test_a_pipe_that_nobody_reads_holds_nobody_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(MboxTrouble, match=r"Unable to open pipe: No such device or address. \(#4.3.0\)"):
        append(tmp_path / "pipe", b"body\n")


def test_a_directory_is_no_mbox(tmp_path: Path) -> None:
    with pytest.raises(MboxTrouble, match="Unable to open"):
        append(tmp_path, b"body\n")


def test_a_message_is_on_the_disk_before_it_is_called_delivered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[int, int]] = []

    def sync(descriptor: int) -> None:
        facts = os.fstat(descriptor)
        synced.append((facts.st_ino, facts.st_size if stat.S_ISREG(facts.st_mode) else 0))

    monkeypatch.setattr(os, "fsync", sync)
    file = tmp_path / "Mailbox"
    append(file, b"body\n")
    whole = len(HEAD + b"body\n\n")
    assert synced == [(file.stat().st_ino, whole), (tmp_path.stat().st_ino, 0)]
    append(file, b"body\n")
    assert synced[2:] == [(file.stat().st_ino, 2 * whole)], "the directory has not changed"


def test_a_locked_file_is_waited_for_thirty_seconds_and_no_longer(tmp_path: Path) -> None:
    waited: list[float] = []
    with open(tmp_path / "Mailbox", "ab") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        with pytest.raises(MboxTrouble, match="File has been locked for 30 seconds straight"):
            mbox.append(bytes(tmp_path / "Mailbox"), "Mailbox", HEAD, [b"body\n"], waited.append)
    assert sum(waited) == pytest.approx(30)
    assert (tmp_path / "Mailbox").read_bytes() == b""


def test_a_file_that_becomes_free_is_written_to(tmp_path: Path) -> None:
    with open(tmp_path / "Mailbox", "ab") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)

        def frees(_seconds: float) -> None:
            holder.close()

        mbox.append(bytes(tmp_path / "Mailbox"), "Mailbox", HEAD, [b"body\n"], frees)
    assert (tmp_path / "Mailbox").read_bytes() == HEAD + b"body\n\n"


def test_mail_is_not_written_into_a_file_that_was_moved_away_under_the_lock(tmp_path: Path) -> None:
    with open(tmp_path / "Mailbox", "ab") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)

        def fetches(_seconds: float) -> None:
            (tmp_path / "Mailbox").rename(tmp_path / "fetched")
            holder.close()

        with pytest.raises(MboxTrouble, match="moved away meanwhile"):
            mbox.append(bytes(tmp_path / "Mailbox"), "Mailbox", HEAD, [b"body\n"], fetches)
    assert (tmp_path / "fetched").read_bytes() == b""
