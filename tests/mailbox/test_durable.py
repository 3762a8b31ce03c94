"""A rename that never replaces, with and without the kernel's help."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pillarbox.mailbox import durable


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    opened = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield opened
    os.close(opened)


def without_kernel(*_arguments: object) -> int:
    """What renameat2 does on a file system that knows no flags."""
    import ctypes

    ctypes.set_errno(errno.EINVAL)
    return -1


ways = pytest.mark.parametrize(
    "way", [durable._renameat2, without_kernel, None], ids=["renameat2", "no flag", "no call"]
)


@ways
def test_a_rename_moves_the_file(
    tmp_path: Path, directory: int, way: Callable[..., int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable, "_renameat2", way)
    (tmp_path / "a").write_bytes(b"text")
    durable.rename_without_replacing(directory, b"a", directory, b"b")
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {"b": b"text"}


@ways
def test_a_rename_replaces_nothing(
    tmp_path: Path, directory: int, way: Callable[..., int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable, "_renameat2", way)
    (tmp_path / "a").write_bytes(b"ours")
    (tmp_path / "b").write_bytes(b"theirs")
    with pytest.raises(FileExistsError):
        durable.rename_without_replacing(directory, b"a", directory, b"b")
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {"a": b"ours", "b": b"theirs"}


@ways
def test_a_missing_file_is_said_to_be_missing(
    directory: int, way: Callable[..., int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable, "_renameat2", way)
    with pytest.raises(FileNotFoundError):
        durable.rename_without_replacing(directory, b"a", directory, b"b")


def test_a_sync_that_fails_is_an_error() -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        durable.sync_file_system(-1)


def test_a_file_system_can_be_synced(directory: int) -> None:
    durable.sync_file_system(directory)


@pytest.mark.parametrize(
    ("release", "honest"),
    [("4.18.0-553.el8", False), ("5.7.19", False), ("5.8.0", True), ("5.10.0-28-amd64", True), ("6.1", True)],
)
def test_syncfs_is_believed_only_where_it_tells_errors(
    release: str, honest: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before Linux 5.8 it was silent about a write that had failed, and mail would have been reported delivered."""
    names = list(os.uname())
    names[2] = release
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(names))
    durable.can_sync_file_system.cache_clear()
    try:
        assert durable.can_sync_file_system() is honest
    finally:
        durable.can_sync_file_system.cache_clear()
