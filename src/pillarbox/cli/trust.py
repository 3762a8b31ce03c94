"""Who could change what root and every user will run, or keep them from running it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

_ACL = "system.posix_acl_access"  # with one, the group's bits of the mode are what it grants to anybody at most


def writable_by_others(path: Path) -> Path | None:
    """The first of `path`, the directories above it and what its links lead to that another user than root may write;
    None: only root may. Raises OSError."""
    ways = dict.fromkeys([*_ways(path), *_ways(path.resolve())])
    return next((way for way in ways if loose(way, os.stat(way))), None)


def closed_to_others(path: Path) -> Path | None:
    """The first directory above `path` that not everybody may enter, or `path` itself where not everybody may run (or
    enter) it; None: everybody may."""
    ways = reversed(list(dict.fromkeys([*_ways(path.resolve()), *_ways(path)])))
    return next((way for way in ways if not os.stat(way).st_mode & stat.S_IXOTH), None)


def loose(path: Path, facts: os.stat_result) -> bool:
    """May others than root change this file, or what lies in this directory? Of a directory like /tmp nobody can take
    away what is root's."""
    if facts.st_uid != 0:
        return True
    others = facts.st_mode & (stat.S_IWOTH | (stat.S_IWGRP if facts.st_gid != 0 or _has_acl(path) else 0))
    return bool(others) and not (stat.S_ISDIR(facts.st_mode) and facts.st_mode & stat.S_ISVTX)


def loose_within(tree: Path, leave_out: frozenset[str] = frozenset()) -> Path | None:
    """The first thing in a tree that another user than root may write, or a link there that leads to one; directories
    named in `leave_out` are not looked into. Raises OSError."""
    for entry in _entries(tree, leave_out):
        path = Path(entry.path)
        if entry.is_symlink():
            if path.exists() and (found := writable_by_others(path)) is not None:
                return found
        elif loose(path, entry.stat(follow_symlinks=False)):
            return path
    return None


def _entries(tree: Path, leave_out: frozenset[str]) -> Iterator[os.DirEntry[str]]:
    with os.scandir(tree) as found:
        for entry in found:
            yield entry
            if entry.is_dir(follow_symlinks=False) and entry.name not in leave_out:
                yield from _entries(Path(entry.path), leave_out)


def _has_acl(path: Path) -> bool:
    try:
        return _ACL in os.listxattr(path)
    except OSError:
        return False


def _ways(path: Path) -> list[Path]:
    return [path, *path.parents]
