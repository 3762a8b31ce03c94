"""What `pillarbox check` says of a qmail that programs of ours were put into, and of those programs."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from pathlib import Path

from pillarbox import __version__
from pillarbox.cli import relays
from pillarbox.cli.finding import Finding, note, ok, problem
from pillarbox.cli.launchers import KEPT, Programs
from pillarbox.cli.shell import quoted
from pillarbox.cli.trust import loose_within, writable_by_others
from pillarbox.control.table import Settings
from pillarbox.programs.other_queue import SOCKET

OF_QMAIL_SEND = frozenset({"bounce", "info", "intd", "local", "lock", "mess", "pid", "remote", "todo"})
"""What lies in the queue of a qmail, and is nothing of ours."""


def is_qmail_sends(home: Path) -> bool:
    """Is it the home of a qmail that never was one of Pillarbox? Such a one was told by `init` where to listen, or was
    served: run/ alone may be there for the checker."""
    ours = (home / "control" / "listen").exists() or (home / SOCKET).exists()
    return (home / "queue" / "lock" / "sendmutex").exists() and not ours


def of_qmail(home: Path, settings: Settings) -> Iterator[Finding]:
    """All that there is to say of such a home. Raises OSError."""
    make = f"pillarbox init --home {quoted(home)}"
    yield note(str(home), f"the home of qmail-send; what only `pillarbox serve` needs is left out here ({make})")
    yield from relays.findings(home, settings, "qmail")
    yield from programs(home)


def programs(home: Path) -> Iterator[Finding]:
    """Our programs in HOME/bin, and what they start. Raises OSError."""
    there = Programs(home / "bin")
    if not there.kept.is_dir():
        return
    again = f"pillarbox install --into {quoted(home)}"
    found = writable_by_others(there.directory)
    if found is not None:
        yield problem(str(found), "others than root could change the programs there", f"chmod go-w {quoted(found)}")
    ours = there.ours()
    lost = [name for name in ours if not _copy(there.directory / name).is_dir()]
    if lost:
        yield problem(str(there.directory), f"{' '.join(lost)}: the copy that they start is gone", again)
    for python in sorted({_interpreter(there.directory / name) for name in ours}):
        if not os.access(python, os.X_OK):
            yield problem(python, f"gone, and what {there.directory} has of Pillarbox cannot run without it", again)
    if sorted(set(ours) - set(lost)):
        yield ok(str(there.directory), f"Pillarbox's: {' '.join(name for name in ours if name not in lost)}")
    for copy in sorted({_copy(there.directory / name) for name in ours if name not in lost}):
        yield from _looked_at(copy, again)
    yield from _unfinished(there, again)


def _looked_at(copy: Path, again: str) -> Iterator[Finding]:
    found = loose_within(copy)
    if found is not None:
        yield problem(str(found), "others than root could change what everybody runs", f"chown root {quoted(found)}")
    elif not copy.name.startswith(f"{__version__}-"):
        yield note(str(copy), f"another version than this one; {again} brings {__version__}")
    else:
        yield ok(str(copy), "what they start, and only root can change")


def _unfinished(there: Programs, again: str) -> Iterator[Finding]:
    for name in there.replaced():
        facts, kept = there.facts(name), os.lstat(there.kept / "replaced" / name)
        if facts is None or os.path.samestat(facts, kept):
            yield problem(str(there.directory / name), "an install was broken off here", f"{again}, or with --undo")
        elif not there.is_ours(name):
            yield note(str(there.directory / name), f"came after Pillarbox's; {KEPT}/replaced has the one from before")


def _interpreter(launcher: Path) -> str:
    """What stands behind `#!`, or behind a shell's `exec`; of a compiled one what its copy has."""
    octets = launcher.read_bytes()
    if octets.startswith(b"#!/bin/sh\n"):
        return shlex.split(os.fsdecode(octets.partition(b"\nexec ")[2]))[0]
    if octets.startswith(b"#!"):
        return os.fsdecode(octets[2:].split(maxsplit=1)[0])
    return os.path.realpath(_copy(launcher) / "bin" / "python")


def _copy(launcher: Path) -> Path:
    """The copy that a launcher starts, by what stands in it; a directory that is none where that cannot be told."""
    octets = launcher.read_bytes()
    at = octets.find(os.fsencode(f"/{KEPT}/runtime/"))
    if at < 0:
        return launcher
    start = max(octets.rfind(quote, 0, at) for quote in (b"'", b'"', b"\0")) + 1
    end = min(found for found in (octets.find(stop, at) for stop in (b"'", b'"', b"\0")) if found >= 0)
    words = os.fsdecode(octets[start:end]).split("/")
    return Path("/".join(words[: words.index("runtime", words.index(KEPT)) + 2]))
