"""~joe/Maildir-lists/passwd: how it is read, whatever its owner put there, and how it is written."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pillarbox.auth import extension
from pillarbox.auth.extension import NoMailbox, UnusablePasswd

DES = b"0ZsfajRLIfp0w"


@pytest.fixture
def lists(tmp_path: Path) -> Path:
    (tmp_path / "Maildir-lists").mkdir()
    return tmp_path / "Maildir-lists"


@pytest.mark.parametrize("text", [DES, DES + b"\n", DES + b"\r\n", DES + b" \nmore\n", DES + b"\n" * 9000])
def test_the_first_line_is_the_hash(lists: Path, text: bytes) -> None:
    (lists / "passwd").write_bytes(text)
    assert extension.read(bytes(lists)) == DES


def test_without_file_or_mailbox_there_is_no_hash(lists: Path) -> None:
    assert extension.read(bytes(lists)) is None
    assert extension.read(bytes(lists) + b"x") is None
    assert extension.read(bytes(lists) + b"x" * 300) is None
    (lists.parent / "Maildir-file").write_bytes(b"")
    assert extension.read(bytes(lists.parent / "Maildir-file")) is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "it is empty"),
        (b"\n" + DES + b"\n", "it is empty"),
        (b"x" * (1 << 20), "its first line is no password hash of a kind that is taken"),
        (DES + b" " * (1 << 20) + b"\n", "its first line is no password hash of a kind that is taken"),
        (b"bar\n", "its first line is no password hash of a kind that is taken"),
        (b"joe-lists:" + DES + b"\n", "its first line is no password hash of a kind that is taken"),
    ],
)
def test_what_is_no_hash_lets_nobody_in_and_says_why(lists: Path, text: bytes, why: str) -> None:
    (lists / "passwd").write_bytes(text)
    with pytest.raises(UnusablePasswd) as caught:
        extension.read(bytes(lists))
    assert caught.value.text == why


def a_link(file: Path) -> None:
    file.with_name("elsewhere").write_bytes(DES + b"\n")
    file.symlink_to("elsewhere")


def a_socket(file: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(file))


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, a_link, a_socket], ids=lambda make: make.__name__)
def test_nothing_but_a_regular_file_is_read_and_nothing_is_waited_for(
    lists: Path, make: Callable[[Path], None]
) -> None:
    make(lists / "passwd")
    with pytest.raises(UnusablePasswd) as caught:
        extension.read(bytes(lists))
    assert caught.value.text == "it is no regular file"


def test_a_file_of_any_size_costs_the_reader_nothing(lists: Path) -> None:
    with open(lists / "passwd", "wb") as file:
        file.truncate(1 << 40)
    begun = time.process_time()
    with pytest.raises(UnusablePasswd):
        extension.read(bytes(lists))
    assert time.process_time() - begun < 5


@pytest.mark.parametrize(
    ("name", "there"),
    [
        (b"lists", True), (b"a.b-c", True), (b"x" * 300, True), (b"\xff", True),
        (b"", False), (b".", False), (b"..", False), (b"a..b", False), (b".x", False), (b"/", False), (b"a/b", False),
        (b"../x", False), (b"a/../../x", False), (b"a\0", False),
    ],
)  # fmt: skip
def test_an_extension_is_part_of_one_file_name(name: bytes, there: bool) -> None:
    assert extension.allowed(name) is there


def test_a_mailbox_of_its_own_lies_beside_the_first_one() -> None:
    assert extension.maildir(b"Maildir", b"a-b") == b"Maildir-a-b"
    assert extension.maildir(b"./Mail/Box", b"lists") == b"./Mail/Box-lists"


def test_a_hash_is_written_at_once_for_its_owner_alone(lists: Path) -> None:
    (lists / "passwd").write_bytes(b"old\n")
    (lists / "passwd").chmod(0o644)
    (lists / f".passwd.{os.getpid()}").write_bytes(b"left behind")
    old = (lists / "passwd").stat().st_ino
    with extension.opened(bytes(lists.parent), b"lists") as directory:
        extension.write(directory, DES)
    assert (lists / "passwd").read_bytes() == DES + b"\n"
    facts = (lists / "passwd").stat()
    assert facts.st_mode & 0o7777 == 0o600 and facts.st_ino != old
    assert os.listdir(lists) == ["passwd"]


def test_the_mode_is_0600_whatever_the_umask(lists: Path) -> None:
    before = os.umask(0)
    try:
        with extension.opened(bytes(lists.parent), b"lists") as directory:
            extension.write(directory, DES)
    finally:
        os.umask(before)
    assert (lists / "passwd").stat().st_mode & 0o7777 == 0o600


def test_what_cannot_be_written_leaves_the_old_password(lists: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (lists / "passwd").write_bytes(b"old\n")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with extension.opened(bytes(lists.parent), b"lists") as directory:
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            extension.write(directory, DES)
    assert (lists / "passwd").read_bytes() == b"old\n"
    assert os.listdir(lists) == ["passwd"]


def test_it_is_on_disk_before_it_has_its_name(lists: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    fsync, rename = os.fsync, os.rename

    def synced(descriptor: int) -> None:
        steps.append("sync " + os.readlink(f"/proc/self/fd/{descriptor}").rpartition("/")[2].partition(".passwd")[1])
        fsync(descriptor)

    def renamed(old: str, new: bytes, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        steps.append("rename")
        rename(old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "rename", renamed)
    with extension.opened(bytes(lists.parent), b"lists") as directory:
        extension.write(directory, DES)
    assert steps == ["sync .passwd", "rename", "sync "]


def test_a_link_is_followed_only_for_the_owner_himself(lists: Path) -> None:
    (lists.parent / "Maildir-link").symlink_to("Maildir-lists")
    with pytest.raises(NoMailbox), extension.opened(bytes(lists.parent), b"link"):
        pass
    with extension.opened(bytes(lists.parent), b"link", follow=True) as directory:
        extension.write(directory, DES)
    assert (lists / "passwd").read_bytes() == DES + b"\n"


def test_a_missing_mailbox_is_named_with_what_makes_it(lists: Path) -> None:
    with pytest.raises(NoMailbox) as caught, extension.opened(b"/nowhere", b"lists"):
        pass
    assert caught.value.text == (
        "/nowhere/Maildir-lists is no directory; make it first: maildirmake /nowhere/Maildir-lists"
    )
