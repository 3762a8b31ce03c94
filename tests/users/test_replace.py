"""Replacing a file: on disk before it has its name, its name on disk before anybody is told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pillarbox.users import replace


def test_the_content_is_synced_before_the_rename_and_the_directory_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, rename = os.fsync, os.rename

    def watched_fsync(descriptor: int) -> None:
        done.append(f"sync {Path(os.readlink(f'/proc/self/fd/{descriptor}')).name}")
        fsync(descriptor)

    def watched_rename(source: Path, target: Path) -> None:
        done.append(f"rename {source.name} {target.name} of {source.stat().st_size}")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "rename", watched_rename)
    replace.file(tmp_path / "me", b"content", mode=0o644)
    assert done == ["sync me.tmp", "rename me.tmp me of 7", f"sync {tmp_path.name}"]
    assert (tmp_path / "me").read_bytes() == b"content"


def test_trouble_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    (tmp_path / "me").write_bytes(b"old")
    with pytest.raises(KeyError), replace.writing(tmp_path / "me", mode=0o644) as descriptor:
        os.write(descriptor, b"half")
        raise KeyError
    assert [file.name for file in tmp_path.iterdir()] == ["me"]
    assert (tmp_path / "me").read_bytes() == b"old"


def test_what_lies_under_the_temporary_name_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"untouched")
    os.link(tmp_path / "victim", tmp_path / "me.tmp")
    replace.file(tmp_path / "me", b"content", mode=0o644)
    assert (tmp_path / "victim").read_bytes() == b"untouched"
    (tmp_path / "me.tmp").symlink_to(tmp_path / "victim")
    replace.file(tmp_path / "me", b"more", mode=0o644)
    assert (tmp_path / "victim").read_bytes() == b"untouched"
    assert (tmp_path / "me").read_bytes() == b"more"


def test_a_write_that_takes_less_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, octets: write(descriptor, octets[:3]))
    replace.file(tmp_path / "me", b"0123456789", mode=0o644)
    assert (tmp_path / "me").read_bytes() == b"0123456789"


def test_a_new_file_has_the_mode_asked_for_whatever_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        replace.file(tmp_path / "new", b"", mode=0o644)
    finally:
        os.umask(old)
    assert (tmp_path / "new").stat().st_mode & 0o7777 == 0o644
