"""Maildrops: exact sizes, unique ids that last, and a mailbox that others use at the same time."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pillarbox.content import octets
from pillarbox.mailbox import maildir, maildrop
from pillarbox.mailbox.maildrop import InUse, Maildrop, NoMaildrop
from pillarbox.status import Failure, Status

NOW = 1_700_000_000.0


@pytest.fixture
def box(tmp_path: Path) -> Path:
    maildir.make(bytes(tmp_path / "Maildir"))
    return tmp_path / "Maildir"


def put(box: Path, name: str, text: bytes = b"Subject: x\n\nbody\n", at: float = NOW) -> Path:
    file = box / name
    file.write_bytes(text)
    os.utime(file, (at, at))
    return file


@contextmanager
def opened(box: Path) -> Iterator[Maildrop]:
    drop = Maildrop.open(str(box), NOW)
    try:
        yield drop
    finally:
        drop.close()


def read(drop: Maildrop, number: int) -> bytes:
    descriptor = drop.content(number)
    with open(descriptor, "rb") as file:
        return file.read()


def uids(box: Path) -> list[bytes]:
    with opened(box) as drop:
        return [listing.uid for listing in drop.listings]


def sizes(box: Path) -> list[int]:
    with opened(box) as drop:
        return [listing.octets for listing in drop.listings]


# the lock


def test_a_second_session_is_told_that_the_maildrop_is_in_use(box: Path) -> None:
    with opened(box):
        with pytest.raises(InUse, match="maildrop in use") as raised:
            Maildrop.open(str(box), NOW)
        assert raised.value.status == Status(4, 2, 0)
    with opened(box):
        pass


def test_the_lock_goes_with_the_process_that_held_it(box: Path) -> None:
    program = (
        "import sys, pillarbox.mailbox.maildrop as m\n"
        "m.Maildrop.open(sys.argv[1], 0)\n"
        "print(flush=True)\n"
        "sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(box)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"\n"
        with pytest.raises(InUse):
            Maildrop.open(str(box), NOW)
        other.kill()
    with opened(box):
        pass


def test_two_maildirs_have_two_locks(box: Path, tmp_path: Path) -> None:
    maildir.make(bytes(tmp_path / "Maildir-lists"))
    with opened(box), opened(tmp_path / "Maildir-lists"):
        pass


def test_where_a_directory_cannot_be_locked_a_file_in_it_is(box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS."""
    healthy = fcntl.flock

    def flock(descriptor: int, operation: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        healthy(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    before = os.listdir("/proc/self/fd")
    for _ in range(2):
        with opened(box), pytest.raises(InUse):
            Maildrop.open(str(box), NOW)
    assert os.listdir("/proc/self/fd") == before


def test_a_failed_or_closed_maildrop_leaves_no_descriptor_open(box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(box, "cur/a")
    before = os.listdir("/proc/self/fd")
    with opened(box), pytest.raises(InUse):
        Maildrop.open(str(box), NOW)
    (box / "cur" / "a").unlink()
    (box / "cur").rmdir()
    with pytest.raises(NoMaildrop):
        Maildrop.open(str(box), NOW)
    (box / "cur").mkdir()

    def failing(_new: int, _cur: int, _look: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(maildrop, "_scan", failing)
    with pytest.raises(Failure, match="Input/output error"):
        Maildrop.open(str(box), NOW)
    assert os.listdir("/proc/self/fd") == before


def test_a_missing_maildir_is_said_in_qmail_pop3ds_words(box: Path, tmp_path: Path) -> None:
    with pytest.raises(NoMaildrop, match=r"^this user has no \$HOME/Maildir$"):
        Maildrop.open(str(tmp_path / "gone"), NOW)
    (box / "new").rmdir()
    with pytest.raises(NoMaildrop, match=r"^unable to scan \$HOME/Maildir$"):
        Maildrop.open(str(box), NOW)


# the listing


def test_an_empty_maildrop_lists_nothing(box: Path) -> None:
    with opened(box) as drop:
        assert drop.listings == ()


def test_messages_of_new_and_cur_stand_in_order_of_delivery(box: Path) -> None:
    put(box, "new/third", at=NOW + 2)
    put(box, "cur/first:2,S", at=NOW)
    put(box, "new/second", at=NOW + 1)
    put(box, "cur/fourth:2,", at=NOW + 3)
    assert uids(box) == [b"first", b"second", b"third", b"fourth"]


def test_messages_of_one_moment_stand_in_the_order_of_our_numbers(box: Path) -> None:
    names = [f"{NOW:.0f}.0123abcdQ{message}R0I1.mx,S=17,W=20" for message in (9, 10, 11, 99, 100, 101)]
    shuffled = names.copy()
    random.Random(5).shuffle(shuffled)
    for turn, name in enumerate(shuffled):
        put(box, f"new/{name}" if turn % 2 else f"cur/{name}:2,S")
    assert uids(box) == [name.encode() for name in names]


def test_only_regular_files_without_a_dot_ahead_are_messages(box: Path) -> None:
    put(box, "cur/message")
    put(box, "cur/.hidden")
    (box / "cur" / "directory").mkdir()
    (box / "new" / "link").symlink_to(box / "cur" / "message")
    os.mkfifo(box / "new" / "fifo")
    assert uids(box) == [b"message"]


def test_what_we_delivered_is_listed_with_its_exact_octets(box: Path) -> None:
    contents = [b"a: b\n\nc\n", b"a\r\n\r\nb\n", b"a\rb\n\rc\r\n", b""]
    copies = [
        maildir.Copy(bytes(box), maildir.stem(1, b"00", 1, number, 1), b"R: x\n", content, len(content), False)
        for number, content in enumerate(contents)
    ]
    assert maildir.deliver(copies, b"mx") == [None] * 4
    with opened(box) as drop:
        assert [read(drop, number) for number in (1, 2, 3, 4)] == [b"R: x\n" + content for content in contents]
        assert [listing.octets for listing in drop.listings] == [octets([b"R: x\n", content]) for content in contents]


@settings(max_examples=50, deadline=None)
@given(contents=st.lists(st.text("ab\r\n.").map(str.encode), max_size=4))
def test_counted_octets_are_what_the_wire_needs(contents: list[bytes]) -> None:
    maildrop._counted.clear()  # every round uses the same names and times, and inodes again
    with tempfile.TemporaryDirectory() as directory:
        box = Path(directory, "Maildir")
        maildir.make(str(box))
        for number, content in enumerate(contents):
            put(box, f"new/{number}", content, NOW + number)
        assert sizes(box) == [octets([content]) for content in contents]


def test_a_name_is_believed_only_while_it_is_right_about_the_file(box: Path) -> None:
    put(box, "cur/believed,S=17,W=21:2,S")  # three lines: 20 on the wire, but this is Dovecot's to know
    put(box, "cur/changed,S=16,W=19:2,S", at=NOW + 1)
    put(box, "cur/impossible,S=17,W=16", at=NOW + 2)
    put(box, "cur/impossible,S=17,W=35", at=NOW + 3)
    put(box, "cur/only,S=17", at=NOW + 4)
    put(box, "cur/flags:2,S=17,W=21", at=NOW + 5)
    assert sizes(box) == [21, 20, 20, 20, 20, 20]


def test_sizes_are_counted_once_and_again_after_a_change(box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = []
    healthy = maildrop._count

    def watched(name: str, directory: int) -> int:
        counted.append(name)
        return healthy(name, directory)

    monkeypatch.setattr(maildrop, "_count", watched)
    put(box, "new/a")
    file = put(box, "new/b", at=NOW + 1)
    assert sizes(box) == sizes(box) == [20, 20]
    file.rename(box / "cur" / "b:2,S")
    assert sizes(box) == [20, 20]
    put(box, "cur/b:2,S", b"\n\n\nx\n", at=NOW + 1)
    assert sizes(box) == [20, 9]
    assert sorted(counted) == ["a", "b", "b:2,S"]


def test_a_message_that_got_the_inode_of_another_is_counted_itself(box: Path) -> None:
    file = put(box, "new/former", b"abcd\n")
    assert sizes(box) == [6]
    file.rename(box / "new" / "later")
    put(box, "new/later", b"\n\n\n\n\n")
    assert sizes(box) == [10]


def test_the_memory_for_sizes_is_bounded(box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maildrop, "_REMEMBERED", 3)
    monkeypatch.setattr(maildrop, "_counted", {})
    for number in range(10):
        put(box, f"new/{number}", at=NOW + number)
    assert sizes(box) == [20] * 10
    assert len(maildrop._counted) == 3


def test_a_message_that_cannot_be_read_does_not_close_the_maildrop(box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(box, "new/good")
    put(box, "new/sealed", at=NOW + 1)
    healthy = os.open

    def failing(path: str, flags: int, *rest: int, dir_fd: int | None = None) -> int:
        if path == "sealed":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return healthy(path, flags, *rest, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", failing)
    with opened(box) as drop:
        assert [listing.octets for listing in drop.listings] == [20, 17]
        assert read(drop, 1) == b"Subject: x\n\nbody\n"
        with pytest.raises(Failure, match="unable to open that message"):
            drop.content(2)


# unique ids


def test_a_unique_id_is_the_base_name_whatever_the_flags(box: Path) -> None:
    file = put(box, "new/1700000000.M1P2.mx,S=17")
    before = uids(box)
    assert before == [b"1700000000.M1P2.mx,S=17"]
    for name in ("a:2,", "b:2,FS", "c:1,new"):
        flagged = box / "cur" / (before[0].decode() + name[1:])
        file.rename(flagged)
        file = flagged
        assert uids(box) == before


def test_names_that_rfc_1939_does_not_allow_as_ids_are_hashed(box: Path) -> None:
    names = [b"x" * 70, b"x" * 71, b"with space", b"caf\xc3\xa9", b"\xff\xfe", b"tab\there", b""]
    for number, name in enumerate(names):
        put(box, "cur/" + os.fsdecode(name) + ":2,S", at=NOW + number)
    plain, *hashed = uids(box)
    assert plain == names[0]
    assert hashed == [hashlib.sha256(name).hexdigest().encode() for name in names[1:]]


def test_messages_of_one_base_name_have_different_lasting_ids(box: Path) -> None:
    first = put(box, "cur/twin:2,S")
    put(box, "cur/twin:2,FS", b"other text\n", at=NOW + 1)
    put(box, "new/twin", b"third text\n", at=NOW + 2)
    before = uids(box)
    assert before[0] == b"twin"
    assert len(set(before)) == 3
    assert {len(uid) for uid in before[1:]} == {64}
    first.rename(box / "cur" / "twin:2,RS")
    assert uids(box) == before


# other programs at work


def test_a_message_that_moves_between_the_two_directories_is_listed_once(
    box: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even when a reader is so busy that each look sees the directories change."""
    for number, name in enumerate("abc"):
        put(box, f"new/{name}", f"text {name}\n".encode(), at=NOW + number)
    unchanged(box / "cur")
    healthy = maildrop._files
    calls = iter(("c", None, "b", None, "a", None))

    def moving(directory: int, look: maildrop._Look) -> object:
        found = healthy(directory, look)
        if name := next(calls):
            (box / "new" / name).rename(box / "cur" / f"{name}:2,S")
        return found

    monkeypatch.setattr(maildrop, "_files", moving)
    with opened(box) as drop:
        assert [listing.uid for listing in drop.listings] == [b"a", b"b", b"c"]
        assert read(drop, 1) == b"text a\n"


def test_a_message_that_is_renamed_during_the_listing_is_not_missed(box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = put(box, "cur/a:2,")
    healthy = os.scandir
    flags = iter("FRS")
    unchanged(box / "cur")

    def renaming(directory: int) -> object:
        names = healthy(directory)
        nonlocal file
        entries = list(names)
        names.close()
        if flag := next(flags, ""):
            file = file.rename(box / "cur" / f"a:2,{flag}")
            unchanged(box / "cur")
        return _Entries(entries)

    monkeypatch.setattr(os, "scandir", renaming)
    with opened(box) as drop:
        assert [listing.uid for listing in drop.listings] == [b"a"]


def unchanged(directory: Path) -> None:
    """As if nothing had happened in it of late: clocks of file systems are coarse."""
    os.utime(directory, (0, 0))


class _Entries(list[os.DirEntry[str]]):
    def __enter__(self) -> _Entries:
        return self

    def __exit__(self, *_exception: object) -> None:
        return None


def test_a_message_that_a_rename_hid_while_we_read_the_directory_is_not_missed(
    box: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = put(box, "cur/a:2,")
    unchanged(box / "cur")
    healthy = maildrop._files

    def looking(directory: int, look: maildrop._Look) -> tuple[list[maildrop._Found], bool]:
        if file.exists() and os.path.samestat(os.fstat(directory), (box / "cur").stat()):
            file.rename(box / "cur" / "a:2,S")
            return [], False
        return healthy(directory, look)

    monkeypatch.setattr(maildrop, "_files", looking)
    assert uids(box) == [b"a"]


def test_a_message_that_is_renamed_before_it_is_counted_has_its_exact_size(
    box: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = put(box, "cur/a:2,")
    unchanged(box / "cur")
    healthy = maildrop._count

    def counting(name: str, directory: int) -> int:
        if file.exists():
            file.rename(box / "cur" / "a:2,S")
            unchanged(box / "cur")
        return healthy(name, directory)

    monkeypatch.setattr(maildrop, "_count", counting)
    assert sizes(box) == [20]


def test_content_is_found_under_new_flags_and_in_its_new_directory(box: Path) -> None:
    file = put(box, "new/a", b"text a\n")
    put(box, "cur/b:2,", b"text b\n", at=NOW + 1)
    with opened(box) as drop:
        for name in ("cur/a:2,", "cur/a:2,S", "cur/a:2,RS", "new/a"):
            file = file.rename(box / name)
            assert read(drop, 1) == b"text a\n"
            assert read(drop, 2) == b"text b\n"


def test_content_of_a_twin_is_never_the_other_twins(box: Path) -> None:
    first = put(box, "cur/twin:2,S", b"first\n")
    second = put(box, "cur/twin:2,FS", b"second\n", at=NOW + 1)
    with opened(box) as drop:
        first.rename(box / "cur" / "twin:2,T")
        second.rename(box / "cur" / "twin:2,D")
        assert [read(drop, 1), read(drop, 2)] == [b"first\n", b"second\n"]
        (box / "cur" / "twin:2,T").unlink()
        with pytest.raises(Failure):
            read(drop, 1)
        assert read(drop, 2) == b"second\n"


def test_content_of_a_rewritten_message_is_found(box: Path) -> None:
    put(box, "cur/a:2,S", b"text\n").unlink()
    put(box, "cur/z", b"other\n", at=NOW + 1)
    put(box, "cur/a:2,S", b"text\n")
    with opened(box) as drop:
        put(box, "cur/tmp", b"TEXT\n").rename(box / "cur" / "a:2,RS")
        (box / "cur" / "a:2,S").unlink()
        assert read(drop, 1) == b"TEXT\n"


def test_content_that_is_gone_is_a_failure(box: Path) -> None:
    file = put(box, "cur/a:2,")
    with opened(box) as drop:
        file.unlink()
        for _ in range(2):
            with pytest.raises(Failure, match="unable to open that message"):
                drop.content(1)


@pytest.mark.parametrize("stand_in", ["fifo", "link"])
def test_what_takes_the_place_of_a_message_is_not_handed_out(box: Path, stand_in: str) -> None:
    file = put(box, "cur/a:2,")
    with opened(box) as drop:
        file.unlink()
        if stand_in == "fifo":
            os.mkfifo(file)
        else:
            file.symlink_to("/etc/passwd")
        before = os.listdir("/proc/self/fd")
        with pytest.raises(Failure, match="unable to open that message"):
            drop.content(1)
        assert os.listdir("/proc/self/fd") == before


def test_a_session_stops_looking_in_a_maildir_that_never_rests(box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(box, "cur/a:2,")
    monkeypatch.setattr(maildrop, "_RESCANS", 5)
    with opened(box) as drop:
        looks: list[Path] = []
        healthy = maildrop._whereabouts

        def restless(new: int, cur: int) -> dict[str, list[tuple[int, int, str]]]:
            where = healthy(new, cur)
            (file,) = (box / "cur").iterdir()
            file.rename(box / "cur" / f"a:2,{'F' * len(looks)}S")
            looks.append(file)
            return where

        monkeypatch.setattr(maildrop, "_whereabouts", restless)
        next((box / "cur").iterdir()).rename(box / "cur" / "a:2,RT")
        with pytest.raises(Failure, match="unable to open that message"):
            drop.content(1)
        assert len(looks) == 5
        with pytest.raises(Failure, match="unable to unlink all deleted messages"):
            drop.update([1])


# the UPDATE state


def test_an_update_deletes_what_it_is_told_and_ages_the_rest(box: Path) -> None:
    put(box, "new/a", b"a\n")
    put(box, "new/b", b"b\n", at=NOW + 1)
    put(box, "cur/c:2,S", b"c\n", at=NOW + 2)
    put(box, "cur/d:2,S", b"d\n", at=NOW + 3)
    with opened(box) as drop:
        drop.update([2, 4])
    assert sorted(str(file.relative_to(box)) for file in box.glob("*/*")) == ["cur/a:2,", "cur/c:2,S"]


def test_a_new_message_that_has_flags_already_keeps_them(box: Path) -> None:
    put(box, "new/a:2,F")
    with opened(box) as drop:
        drop.update([])
    assert [file.name for file in (box / "cur").iterdir()] == ["a:2,F"]


def test_closing_without_update_changes_nothing(box: Path) -> None:
    put(box, "new/a")
    with opened(box) as drop:
        assert read(drop, 1)
    assert sorted(str(file.relative_to(box)) for file in box.glob("*/*")) == ["new/a"]


def test_an_update_deletes_what_was_renamed_and_passes_over_what_is_gone(box: Path) -> None:
    put(box, "new/a")
    gone = put(box, "new/b", at=NOW + 1)
    put(box, "cur/c:2,", at=NOW + 2)
    put(box, "new/late", at=NOW + 3)
    with opened(box) as drop:
        (box / "new" / "a").rename(box / "cur" / "a:2,FS")
        gone.unlink()
        (box / "cur" / "c:2,").rename(box / "cur" / "c:2,S")
        (box / "new" / "late").rename(box / "cur" / "late:2,S")
        put(box, "new/arrived", at=NOW + 4)
        drop.update([1, 2, 3])
    assert sorted(str(file.relative_to(box)) for file in box.glob("*/*")) == ["cur/late:2,S", "new/arrived"]


def test_an_update_that_cannot_delete_something_says_so_and_does_the_rest(
    box: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, name in enumerate("abc"):
        put(box, f"cur/{name}:2,", at=NOW + number)
    healthy = os.unlink

    def failing(path: str, *, dir_fd: int | None = None) -> None:
        if path.startswith("b"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        healthy(path, dir_fd=dir_fd)

    with opened(box) as drop:
        monkeypatch.setattr(os, "unlink", failing)
        with pytest.raises(Failure, match="unable to unlink all deleted messages"):
            drop.update([1, 2, 3])
        monkeypatch.undo()
    assert [file.name for file in (box / "cur").iterdir()] == ["b:2,"]


def test_ageing_never_replaces_a_message(box: Path) -> None:
    put(box, "new/twin", b"new\n")
    put(box, "cur/twin:2,", b"old\n", at=NOW + 1)
    with opened(box) as drop:
        drop.update([])
    assert {str(file.relative_to(box)): file.read_bytes() for file in box.glob("*/*")} == {
        "new/twin": b"new\n",
        "cur/twin:2,": b"old\n",
    }


def test_deletions_are_on_the_disk_before_the_update_is_over(box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", _recorder(synced))
    put(box, "new/a")
    with opened(box) as drop:
        drop.update([])
        assert synced == []
        drop.update([1])
    assert synced == ["new", "cur"]


def _recorder(synced: list[str]) -> Callable[[int], None]:
    return lambda descriptor: synced.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))


# tmp/


# row: pop3d-tmp
def test_only_leftovers_older_than_thirty_six_hours_are_swept_away(box: Path) -> None:
    later = time.time() + 129_700  # by then the changes of these files' inodes are old as well
    put(box, "tmp/stale", at=later - 129_601)
    put(box, "tmp/recent", at=later - 129_599)
    put(box, "tmp/.hidden", at=later - 10**6)
    (box / "tmp" / "directory").mkdir()
    os.utime(box / "tmp" / "directory", (0, 0))
    put(box, "cur/stale", at=later - 10**6)
    drop = Maildrop.open(str(box), later)
    assert len(drop.listings) == 1
    drop.close()
    assert sorted(file.name for file in (box / "tmp").iterdir()) == [".hidden", "directory", "recent"]


# row: pop3d-tmp
def test_a_leftover_that_a_backup_has_read_is_swept_away_all_the_same(box: Path) -> None:
    """qmail's goes by the time of the last reading alone."""
    later = time.time() + 129_700
    os.utime(put(box, "tmp/read"), (later - 1, later - 10**6))
    Maildrop.open(str(box), later).close()
    assert list((box / "tmp").iterdir()) == []


# row: pop3d-tmp
def test_a_file_that_came_into_tmp_just_now_is_no_leftover_however_old_its_content(box: Path) -> None:
    """As `cp -p` makes it: both of the times that can be set are old."""
    put(box, "tmp/restored", at=NOW)
    Maildrop.open(str(box), time.time()).close()
    assert [file.name for file in (box / "tmp").iterdir()] == ["restored"]


def test_a_maildir_without_tmp_can_still_be_read(box: Path) -> None:
    (box / "tmp").rmdir()
    put(box, "cur/a")
    assert uids(box) == [b"a"]


# as qmail-pop3d


def listed(box: Path, now: float = NOW + 10) -> list[tuple[bytes, int]]:
    drop = Maildrop.open(bytes(box), now, as_qmail=True)
    drop.close()
    return [(listing.uid, listing.octets) for listing in drop.listings]


# row: pop3d-scan
def test_for_qmail_messages_are_in_order_of_time_with_their_files_sizes(box: Path) -> None:
    put(box, "new/later", b"Subject: x\n\nbody\n", at=NOW + 2)
    put(box, "cur/first:2,S", b"\n", at=NOW)
    put(box, "new/second,S=1,W=2", b"\n", at=NOW + 1)
    put(box, "new/.hidden", at=NOW)
    assert listed(box) == [(b"first", 1), (b"second,S=1,W=2", 1), (b"later", 17)]


# row: pop3d-scan
@pytest.mark.parametrize(("at", "there"), [(NOW + 8.999, True), (NOW + 9.0, False), (NOW + 9.9, False), (2e9, False)])
def test_for_qmail_a_message_of_this_very_second_is_not_there_yet(box: Path, at: float, there: bool) -> None:
    put(box, "new/a", at=at)
    assert [uid for uid, _ in listed(box, NOW + 9.5)] == [b"a"] * there


# row: pop3d-no-lock
def test_for_qmail_there_is_no_lock(box: Path) -> None:
    put(box, "new/a")
    with opened(box) as drop:
        assert listed(box) == [(b"a", 17)]
        second = Maildrop.open(str(box), NOW + 10, as_qmail=True)
        second.update([1])
        second.close()
        drop.update([1])
    assert listed(box) == []


# row: pop3d-uid
@pytest.mark.parametrize("name", ["a" * 200, "with blank", "caf\udce9", "a,S=5:2,S", "twin"])
def test_for_qmail_a_unique_id_is_the_name_up_to_its_colon_whatever_it_is(box: Path, name: str) -> None:
    put(box, f"cur/{name}")
    put(box, "new/twin")
    assert listed(box)[-1 if name < "twin" else 0][0] in (os.fsencode(name.partition(":")[0]), b"twin")
    assert {uid for uid, _ in listed(box)} == {os.fsencode(name.partition(":")[0]), b"twin"}


def test_for_qmail_a_name_with_a_line_end_cannot_write_lines_of_its_own(box: Path) -> None:
    put(box, "cur/a\r\n.\r\n+OK ")
    [(uid, _)] = listed(box)
    assert len(uid) == 64 and uid.isalnum()


def test_for_qmail_links_to_messages_are_messages_and_other_things_are_none(box: Path, tmp_path: Path) -> None:
    text = put(tmp_path, "elsewhere", b"linked\n")
    (box / "new" / "link").symlink_to(text)
    (box / "new" / "nowhere").symlink_to(tmp_path / "gone")
    (box / "new" / "itself").symlink_to("itself")
    (box / "new" / "directory").mkdir()
    os.mkfifo(box / "new" / "fifo")
    drop = Maildrop.open(str(box), time.time() + 5, as_qmail=True)
    assert [listing.uid for listing in drop.listings] == [b"link"]
    assert read(drop, 1) == b"linked\n"
    (box / "new" / "link").rename(box / "cur" / "link:2,S")
    assert read(drop, 1) == b"linked\n"
    drop.close()
