"""The Maildir writer: whole, durable, once, and each mailbox for itself."""

from __future__ import annotations

import errno
import os
import re
import resource
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pillarbox.content import octets
from pillarbox.mailbox import durable, maildir
from pillarbox.mailbox.maildir import Copy
from pillarbox.status import Status

HOST = b"mx.example.org"
HEAD = b"Return-Path: <ann@example.net>\nDelivered-To: joe@example.org\n"
CONTENT = b"Subject: hello\n\nFirst line.\n"
STEM = b"1700000000.0123abcdQ12R1I1"


@pytest.fixture
def box(tmp_path: Path) -> Path:
    maildir.make(bytes(tmp_path / "Maildir"))
    return tmp_path / "Maildir"


@pytest.fixture
def spooled(tmp_path: Path) -> Iterator[int]:
    """A descriptor of a message larger than two blocks, with line ends of every kind at the edges of blocks."""
    text = CONTENT + b"x" * (maildir.BLOCK - len(CONTENT) - 1) + b"\r\n" + b"y" * maildir.BLOCK + b"\rz\n"
    (tmp_path / "spool").write_bytes(text)
    opened = os.open(tmp_path / "spool", os.O_RDONLY)
    yield opened
    os.close(opened)


def copy(box: Path, content: bytes | int = CONTENT, *, number: int = 1, again: bool = False) -> Copy:
    size = os.fstat(content).st_size if isinstance(content, int) else len(content)
    return Copy(bytes(box), maildir.stem(1_700_000_000, b"0123abcd", 12, number, 1), HEAD, content, size, again)


def deliver(*copies: Copy) -> list[str | None]:
    """The texts of what went wrong."""
    return [None if failure is None else failure.text for failure in maildir.deliver(copies, HOST)]


def files(directory: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in directory.iterdir()}


def test_a_copy_lands_in_new_under_the_name_of_what_it_is(box: Path) -> None:
    assert deliver(copy(box)) == [None]
    assert files(box / "new") == {"1700000000.0123abcdQ12R1I1.mx.example.org,S=89,W=94": HEAD + CONTENT}
    assert files(box / "tmp") == files(box / "cur") == {}


def test_only_the_owner_may_read_a_copy(box: Path) -> None:
    deliver(copy(box))
    (file,) = (box / "new").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_batch_lands_as_a_whole(box: Path) -> None:
    assert deliver(*(copy(box, number=number) for number in range(64))) == [None] * 64
    assert len(files(box / "new")) == 64
    assert files(box / "tmp") == {}


def test_a_delivery_to_hundreds_of_maildirs_needs_a_bounded_number_of_descriptors(tmp_path: Path) -> None:
    boxes = [tmp_path / str(number) for number in range(300)]
    for box in boxes:
        for part in ("tmp", "new", "cur"):
            (box / part).mkdir(parents=True)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 550, hard))
    try:
        assert deliver(*(copy(box, again=True) for box in boxes)) == [None] * 300
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert [len(files(box / "new")) for box in boxes] == [1] * 300


def test_the_name_says_the_exact_size_of_the_file_and_on_the_wire(box: Path) -> None:
    contents = [b"a\r\nb\n\n", b"a\rb\n\n", b"\r\r\n\n\r", b"no last line end", b"", b"\n"]
    deliver(*(copy(box, content, number=number) for number, content in enumerate(contents)))
    sizes = {}
    for file in (box / "new").iterdir():
        said = re.search(r"R(\d)I1.*,S=(\d+),W=(\d+)\Z", file.name)
        assert said is not None and int(said[2]) == file.stat().st_size
        sizes[int(said[1])] = int(said[3])
    assert [sizes[number] for number in range(6)] == [octets([HEAD + content]) for content in contents]


def test_a_large_message_is_copied_block_by_block(box: Path, spooled: int) -> None:
    assert deliver(copy(box, spooled), copy(box, spooled, number=2)) == [None, None]
    content = os.pread(spooled, 1 << 20, 0)
    assert list(files(box / "new").values()) == [HEAD + content] * 2
    assert all(name.endswith(f",W={octets([HEAD + content])}") for name in files(box / "new"))
    assert os.lseek(spooled, 0, os.SEEK_CUR) == 0


def test_a_message_that_is_shorter_than_it_should_be_is_not_delivered(box: Path, spooled: int) -> None:
    short = copy(box, spooled)._replace(size=10**6)
    cut = copy(box, number=2)._replace(size=len(CONTENT) + 1)
    assert deliver(short, cut) == ["Unable to read message. (#4.3.0)"] * 2
    assert files(box / "new") == files(box / "tmp") == {}


def test_a_message_that_cannot_be_read_is_not_delivered(box: Path) -> None:
    unreadable = copy(box)._replace(content=-1)
    assert deliver(unreadable, copy(box, number=2)) == ["Unable to read message. (#4.3.0)", None]
    assert files(box / "tmp") == {}


def test_a_missing_maildir_is_trouble_for_its_own_copies_only(box: Path, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    results = maildir.deliver([copy(gone), copy(box), copy(gone, number=2)], HOST)
    assert [failure and (failure.text, failure.status) for failure in results] == [
        ("Unable to chdir to maildir. (#4.2.1)", Status(4, 2, 1)),
        None,
        ("Unable to chdir to maildir. (#4.2.1)", Status(4, 2, 1)),
    ]
    assert not gone.exists()


def test_a_maildir_without_new_is_trouble_and_leaves_no_descriptor_open(box: Path) -> None:
    (box / "new").rmdir()
    before = os.listdir("/proc/self/fd")
    assert deliver(copy(box)) == ["Temporary error on maildir delivery: No such file or directory. (#4.3.0)"]
    assert os.listdir("/proc/self/fd") == before


def test_a_delivery_leaves_no_descriptor_open(box: Path, spooled: int) -> None:
    before = os.listdir("/proc/self/fd")
    deliver(copy(box, again=True), copy(box, spooled, number=2), copy(box, b"x", number=3)._replace(size=7))
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize(
    ("number", "status", "reason"),
    [
        (errno.ENOSPC, Status(4, 3, 1), "No space left on device"),
        (errno.EDQUOT, Status(4, 2, 2), "Disk quota exceeded"),
        (errno.EIO, Status(4, 3, 0), "Input/output error"),
    ],
)
def test_a_failed_sync_gives_up_the_whole_file_system(
    box: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, status: Status, reason: str
) -> None:
    def failing(_descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    other = tmp_path / "other"
    maildir.make(str(other))
    monkeypatch.setattr(maildir, "sync_file_system", failing)
    results = maildir.deliver([copy(box), copy(box, number=2), copy(other)], HOST)
    said = (f"Temporary error on maildir delivery: {reason}. (#{status})", status)
    assert [failure and (failure.text, failure.status) for failure in results] == [said] * 3
    assert files(box / "new") == files(box / "tmp") == files(other / "new") == files(other / "tmp") == {}


def test_a_failed_sync_spares_the_other_file_system(
    box: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    healthy = durable.sync_file_system
    device = box.stat().st_dev

    def failing(descriptor: int) -> None:
        if os.fstat(descriptor).st_dev == device:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        healthy(descriptor)

    maildir.make(str(elsewhere / "Maildir"))
    monkeypatch.setattr(maildir, "sync_file_system", failing)
    failed, delivered, failed_too = deliver(copy(box), copy(elsewhere / "Maildir"), copy(box, number=2))
    assert failed and delivered is None and failed_too
    assert len(files(elsewhere / "Maildir" / "new")) == 1
    assert files(box / "new") == files(box / "tmp") == {}


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A directory on another file system."""
    shared = Path("/dev/shm")
    if not shared.is_dir() or shared.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system: /dev/shm is missing")
    directory = Path(tempfile.mkdtemp(dir=shared))
    yield directory
    shutil.rmtree(directory)


def test_a_single_copy_whose_own_sync_fails_is_not_delivered(box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(_descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", failing)
    assert deliver(copy(box)) == ["Temporary error on maildir delivery: Input/output error. (#4.3.0)"]
    assert files(box / "new") == files(box / "tmp") == {}


def test_a_kernel_whose_syncfs_is_silent_gets_an_fsync_for_each_file(
    box: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []
    healthy = os.fsync

    def watched(descriptor: int) -> None:
        synced.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))
        healthy(descriptor)

    monkeypatch.setattr(maildir, "can_sync_file_system", lambda: False)
    monkeypatch.setattr(os, "fsync", watched)
    deliver(copy(box), copy(box, number=2))
    assert [name.partition("I1")[0] for name in synced] == [
        "1700000000.0123abcdQ12R1",
        "1700000000.0123abcdQ12R2",
        "new",
    ]


def test_a_directory_that_cannot_be_synced_is_not_reported_delivered(
    box: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    healthy = os.fsync

    def failing(descriptor: int) -> None:
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith("/new"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        healthy(descriptor)

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", failing)
        assert None not in deliver(copy(box), copy(box, number=2))
    assert deliver(copy(box, again=True), copy(box, number=2, again=True)) == [None, None]
    assert len(files(box / "new")) == 2


def test_many_maildirs_share_one_sync_after_the_renames_as_before_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boxes = [tmp_path / str(number) for number in range(maildir.FEW + 1)]
    for box in boxes:
        maildir.make(str(box))
    seen = []

    def failing_at_last(_descriptor: int) -> None:
        seen.append([(len(files(box / "tmp")), len(files(box / "new"))) for box in boxes])
        if len(seen) == 2:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as broken:
        broken.setattr(maildir, "sync_file_system", failing_at_last)
        assert None not in deliver(*map(copy, boxes))
    assert seen == [[(1, 0)] * len(boxes), [(0, 1)] * len(boxes)]
    assert deliver(*(copy(box, again=True) for box in boxes)) == [None] * len(boxes)
    assert [len(files(box / "new")) for box in boxes] == [1] * len(boxes)


def test_every_file_system_is_synced_before_and_after_the_renames(
    tmp_path: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boxes = [place / str(number) for place in (tmp_path, elsewhere) for number in range(maildir.FEW + 1)]
    for box in boxes:
        maildir.make(str(box))
    synced: list[int] = []
    monkeypatch.setattr(maildir, "sync_file_system", lambda descriptor: synced.append(os.fstat(descriptor).st_dev))
    assert deliver(*map(copy, boxes)) == [None] * len(boxes)
    assert synced == [tmp_path.stat().st_dev, elsewhere.stat().st_dev] * 2


def test_many_maildirs_are_synced_one_by_one_where_syncfs_is_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boxes = [tmp_path / str(number) for number in range(maildir.FEW + 1)]
    for box in boxes:
        maildir.make(str(box))
    synced: list[str] = []
    monkeypatch.setattr(maildir, "can_sync_file_system", lambda: False)
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    deliver(*map(copy, boxes))
    assert synced[-len(boxes) :] == [str(box / "new") for box in boxes]


def test_a_disk_that_fills_up_in_the_middle_of_a_file_leaves_nothing(box: Path, spooled: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(HEAD) + len(CONTENT) + 10, hard))  # the rest of write(2) is refused
    try:
        results = deliver(copy(box, b"x" * 1000), copy(box, number=2), copy(box, spooled, number=3))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    refused = "Temporary error on maildir delivery: File too large. (#4.3.0)"
    assert results == [refused, None, refused]
    assert list(files(box / "new").values()) == [HEAD + CONTENT]
    assert files(box / "tmp") == {}


def test_a_write_that_stops_short_is_finished(box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writev, write = os.writev, os.write
    monkeypatch.setattr(os, "writev", lambda descriptor, parts: write(descriptor, parts[0][:10]))
    monkeypatch.setattr(os, "write", lambda descriptor, part: write(descriptor, bytes(part[:7])))
    assert writev is not os.writev
    assert deliver(copy(box)) == [None]
    assert list(files(box / "new").values()) == [HEAD + CONTENT]


def test_a_repeated_delivery_finds_its_copy_in_new(box: Path) -> None:
    deliver(copy(box))
    assert deliver(copy(box, again=True)) == [None]
    assert len(files(box / "new")) == 1
    assert files(box / "tmp") == {}


@pytest.mark.parametrize("flags", ["", ":2,", ":2,FRS", ":1,x"])
def test_a_repeated_delivery_finds_its_copy_in_cur_whatever_its_flags(box: Path, flags: str) -> None:
    deliver(copy(box))
    (file,) = (box / "new").iterdir()
    file.rename(box / "cur" / (file.name + flags))
    assert deliver(copy(box, again=True), copy(box, number=2, again=True)) == [None, None]
    assert len(files(box / "new")) == len(files(box / "cur")) == 1


def test_a_repeated_delivery_finds_its_copy_under_an_older_host_name(box: Path) -> None:
    maildir.deliver([copy(box)], b"former.example.org")
    deliver(copy(box, again=True))
    assert len(files(box / "new")) == 1


def test_a_repeated_large_delivery_finds_its_copy(box: Path, spooled: int) -> None:
    deliver(copy(box, spooled))
    assert deliver(copy(box, spooled, again=True)) == [None]
    assert len(files(box / "new")) == 1


@pytest.mark.parametrize("number", [1, 2, 11])
def test_a_copy_for_another_recipient_is_not_this_copy(box: Path, number: int) -> None:
    deliver(copy(box, number=number))
    deliver(*(copy(box, number=other, again=True) for other in (1, 2, 11)))
    assert len(files(box / "new")) == 3


def test_a_file_of_this_name_that_is_no_copy_does_not_stand_for_it(box: Path) -> None:
    deliver(copy(box))
    (file,) = (box / "new").iterdir()
    other_head = HEAD.replace(b"ann", b"bob") + CONTENT
    changed = [
        other_head,
        b"Changed. " + b"x" * (file.stat().st_size - 9),
        HEAD + CONTENT[:-1],
        HEAD + b"s" + CONTENT[1:],
    ]
    for round_number, text in enumerate(changed, 1):
        file.write_bytes(text)
        assert deliver(copy(box, again=True)) == [None]
        mine = [name for name, content in files(box / "new").items() if content == HEAD + CONTENT]
        assert len(mine) == 1, round_number
        assert file.read_bytes() == text
        (box / "new" / mine[0]).unlink(missing_ok=mine[0] == file.name)


def test_a_copy_beside_a_changed_file_is_found_again_too(box: Path) -> None:
    deliver(copy(box))
    (file,) = (box / "new").iterdir()
    file.write_bytes(b"x" * file.stat().st_size)
    for _ in range(3):
        assert deliver(copy(box, again=True)) == [None]
    assert len(files(box / "new")) == 2


def test_a_delivery_that_does_not_know_it_is_a_repeat_still_meets_itself_in_new(box: Path) -> None:
    assert deliver(copy(box)) == deliver(copy(box)) == [None]
    assert len(files(box / "new")) == 1
    assert files(box / "tmp") == {}


def test_a_copy_that_is_asked_for_twice_in_one_batch_meets_itself(box: Path) -> None:
    assert deliver(copy(box), copy(box), copy(box, again=True)) == [None] * 3
    assert len(files(box / "new")) == 1
    assert files(box / "tmp") == {}


# row: known-maildir-race
def test_nothing_in_new_is_ever_replaced(box: Path) -> None:
    names = [f"{STEM.decode()}{turn}.mx.example.org,S=89,W=94" for turn in ("", "C2", "C3", "C4")]
    for name in names:
        (box / "new" / name).write_bytes(b"theirs")
    assert deliver(copy(box)) == ["Temporary error on maildir delivery: File exists. (#4.3.0)"]
    assert files(box / "new") == dict.fromkeys(names, b"theirs")
    assert files(box / "tmp") == {}


def test_a_fifo_under_the_name_of_a_copy_does_not_hold_up_the_batch(box: Path) -> None:
    os.mkfifo(box / "cur" / (STEM.decode() + ".mx,S=89,W=94:2,"))
    assert deliver(copy(box, again=True)) == [None]
    assert len(files(box / "new")) == 1


def test_a_repeat_asks_no_cur_of_a_maildir_that_has_none(box: Path) -> None:
    (box / "cur").rmdir()
    assert deliver(copy(box, again=True)) == deliver(copy(box, again=True)) == [None]
    assert len(files(box / "new")) == 1


def test_a_directory_under_the_name_of_a_copy_does_not_stop_it(box: Path) -> None:
    taken = box / "cur" / (STEM.decode() + ".mx:2,")
    taken.mkdir()
    assert deliver(copy(box, b"x" * (taken.stat().st_size - len(HEAD)), again=True)) == [None]
    assert len(files(box / "new")) == 1


def test_a_copy_that_a_rename_hid_while_we_read_the_directory_is_found(
    box: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliver(copy(box))
    (file,) = (box / "new").iterdir()
    os.utime(box / "cur", (0, 0))  # clocks of file systems are coarse
    healthy = maildir._stems

    def looking(*directories: int) -> dict[str, list[tuple[int, str]]]:
        if not file.exists():
            return healthy(*directories)
        file.rename(box / "cur" / (file.name + ":2,S"))
        return {}

    monkeypatch.setattr(maildir, "_stems", looking)
    assert deliver(copy(box, again=True)) == [None]
    assert files(box / "new") == {}
    assert len(files(box / "cur")) == 1


def test_a_copy_that_gets_a_flag_after_we_looked_is_found(box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deliver(copy(box))
    (file,) = (box / "new").iterdir()
    healthy = maildir._is_copy

    def comparing(directory: int, name: str, copy: Copy) -> bool:
        if file.exists():
            file.rename(box / "cur" / (file.name + ":2,S"))
        return healthy(directory, name, copy)

    monkeypatch.setattr(maildir, "_is_copy", comparing)
    assert deliver(copy(box, again=True)) == [None]
    assert files(box / "new") == {}
    assert len(files(box / "cur")) == 1


def test_leftovers_of_another_attempt_in_tmp_are_neither_used_nor_touched(box: Path) -> None:
    """It may still be at work: an owner role that was given up for dead."""
    (box / "tmp" / STEM.decode()).write_bytes(b"half a mess")
    assert deliver(copy(box), copy(box, number=2)) == [None, None]
    assert files(box / "tmp") == {STEM.decode(): b"half a mess"}


# row: known-maildir-names, known-maildir-race
def test_two_batches_never_share_a_name_in_tmp(box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    healthy = durable.rename_without_replacing

    def watched(source: int, name: bytes, target: int, new_name: bytes) -> None:
        seen.append(name)
        healthy(source, name, target, new_name)

    monkeypatch.setattr(maildir, "rename_without_replacing", watched)
    deliver(copy(box))
    deliver(copy(box))
    assert len(set(seen)) == 2


# row: known-maildir-names
def test_a_host_name_cannot_leave_the_maildir_nor_look_like_flags(box: Path) -> None:
    maildir.deliver([copy(box)], b"../a:2,S b\xff\\")
    (file,) = (box / "new").iterdir()
    assert file.name == r"1700000000.0123abcdQ12R1I1...\057a\0722\054S\040b\377\134,S=89,W=94"


@given(
    born=st.integers(0, 10**10 - 1),
    message=st.integers(1, 10**12),
    number=st.integers(0, 10**5),
    instruction=st.integers(1, 999),
    size=st.integers(0, 10**9),
    host=st.binary(max_size=64),
)
def test_every_name_is_short_enough_for_a_unique_id(
    born: int, message: int, number: int, instruction: int, size: int, host: bytes
) -> None:
    stem = maildir.stem(born, b"ffffffff", message, number, instruction)
    name = stem + b"C2" + maildir._tail(stem, maildir._escaped(host), size, size + size // 2)
    assert len(name) <= 70
    assert re.fullmatch(rb"[!-~]+", name) and not set(name) & set(b"/:")
    assert (ours := maildir._OURS.match(name.decode())) and ours[1].encode() == stem


def test_a_maildir_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    maildir.make(bytes(tmp_path / "a"))
    maildir.make(f"{tmp_path}/b/")
    for directory in (tmp_path / "a", tmp_path / "b"):
        assert sorted(part.name for part in directory.iterdir()) == ["cur", "new", "tmp"]
        assert {part.stat().st_mode & 0o7777 for part in (directory, *directory.iterdir())} == {0o700}


def test_a_half_made_maildir_is_completed_and_keeps_its_mail(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "mail").write_bytes(b"text")
    maildir.make(str(tmp_path))
    maildir.make(str(tmp_path))
    assert sorted(part.name for part in tmp_path.iterdir()) == ["cur", "new", "tmp"]
    assert files(tmp_path / "new") == {"mail": b"text"}


def test_a_file_in_the_place_of_a_maildir_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "Maildir").write_bytes(b"From ann\n")
    with pytest.raises(FileExistsError):
        maildir.make(str(tmp_path / "Maildir"))
