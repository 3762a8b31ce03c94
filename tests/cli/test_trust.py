"""Who could change what root will run: asked of owners, modes, links and lists, never of names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pillarbox.cli.trust import closed_to_others, loose_within, writable_by_others

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root can make files of others")
NOBODY = 65534


@pytest.fixture
def tree(open_path: Path) -> Path:
    """Directories as root makes them, below a directory of root's that others may enter."""
    (open_path / "a" / "b").mkdir(parents=True)
    (open_path / "a" / "b" / "file").touch()
    return open_path / "a"


def test_what_only_root_may_write_is_safe_below_tmp_too(tree: Path) -> None:
    """Nobody can take away a directory of root's from one with the sticky bit."""
    assert writable_by_others(tree / "b" / "file") is None
    assert loose_within(tree) is None


@pytest.mark.parametrize("mode", [0o757, 0o777, 0o702])
def test_a_directory_on_the_way_that_others_may_write_is_found(tree: Path, mode: int) -> None:
    tree.chmod(mode)
    assert writable_by_others(tree / "b" / "file") == tree


def test_a_group_may_write_only_if_it_is_roots(tree: Path) -> None:
    tree.chmod(0o775)
    assert writable_by_others(tree / "b") is None
    os.chown(tree, 0, NOBODY)
    assert writable_by_others(tree / "b") == tree


def test_whose_a_thing_is_counts_as_his_right_to_write_it(tree: Path) -> None:
    os.chown(tree / "b" / "file", NOBODY, 0)
    (tree / "b" / "file").chmod(0o400)
    assert writable_by_others(tree / "b" / "file") == tree / "b" / "file"
    assert loose_within(tree) == tree / "b" / "file"


def test_a_file_in_a_sticky_directory_that_everybody_may_write_is_not_safe_itself(tree: Path) -> None:
    (tree / "b" / "file").chmod(0o1666)
    assert writable_by_others(tree / "b" / "file") == tree / "b" / "file"


def test_where_a_link_leads_counts_too(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open" / "target").touch()
    (tmp_path / "open").chmod(0o777)
    (tree / "b" / "link").symlink_to(tmp_path / "open" / "target")
    assert writable_by_others(tree / "b" / "link") == tmp_path / "open"
    assert loose_within(tree) == tmp_path / "open"


def test_a_directory_that_is_left_out_is_not_looked_into(tree: Path) -> None:
    (tree / "b" / "file").chmod(0o666)
    assert loose_within(tree, frozenset({"b"})) is None


def test_the_first_directory_that_others_may_not_enter_is_named(tree: Path) -> None:
    (tree / "b" / "file").chmod(0o755)
    assert closed_to_others(tree / "b" / "file") is None
    (tree / "b" / "file").chmod(0o744)
    assert closed_to_others(tree / "b" / "file") == tree / "b" / "file"
    tree.chmod(0o700)
    assert closed_to_others(tree / "b" / "file") == tree
