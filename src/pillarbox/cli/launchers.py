"""Programs of ours put in the place of others, each for itself and at once, and taken back.

What stands in a directory of programs says itself how far an installation or its undoing came; nothing is written down
beside it. A program there is ours if `LAUNCHER` stands in it. What it replaced is kept as the very file, by a second
name in KEPT/replaced, where only root may go: a set-uid program that nobody uses any more must not be there for others
to run. So killed at any moment each program is the old or the new one, and doing the same again ends well.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pillarbox.cli.trust import loose
from pillarbox.programs.other_queue import LAUNCHER
from pillarbox.status import Failure, Status
from pillarbox.users.replace import sync_directory, write_all

KEPT = ".pillarbox"
_INSIDE = ("runtime", "replaced", "older")
_LARGEST = 16 << 20  # octets of a compiled launcher
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class CannotInstall(Failure):
    """It cannot be done as asked; the text says why and what to do."""

    status = Status(5, 3, 5)


@dataclass(frozen=True, slots=True)
class Launcher:
    """A program of ours to be put somewhere: its octets, with LAUNCHER among them, and whose it is."""

    name: str
    octets: bytes
    mode: int = 0o755
    uid: int = 0
    gid: int = 0


class Programs:
    """The programs of one directory: ours, theirs, and theirs that are kept."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.kept = directory / KEPT
        self._replaced = self.kept / "replaced"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else installs here meanwhile. Raises CannotInstall, OSError."""
        descriptor = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CannotInstall(f"{self.directory}: another install works there; wait for its end") from None
        else:
            yield
        finally:
            os.close(descriptor)

    def ours(self) -> list[str]:
        """The names under which ours stand here."""
        return sorted(name for name in os.listdir(self.directory) if self.is_ours(name))

    def is_ours(self, name: str) -> bool:
        """Does one of ours stand under that name?"""
        return _holds_mark(self.directory / name)

    def replaced(self) -> list[str]:
        """The names of programs that are kept."""
        with suppress(FileNotFoundError, PermissionError):
            return sorted(os.listdir(self._replaced))
        return []

    def facts(self, name: str) -> os.stat_result | None:
        """lstat(2) of what stands under that name."""
        with suppress(FileNotFoundError):
            return os.lstat(self.directory / name)
        return None

    def refuse_loose(self) -> None:
        """Raises CannotInstall when what is kept lies where others than root could have put something of theirs: root
        would run it, or put it back. OSError."""
        for directory in (self.kept, *(self.kept / name for name in _INSIDE)):
            facts = _lstat(directory)
            if facts is None:
                continue
            if not stat.S_ISDIR(facts.st_mode):
                raise CannotInstall(f"{directory}: no directory of an installation's; look at it, and move it away")
            if loose(directory, facts) or facts.st_mode & stat.S_IWOTH:
                raise CannotInstall(
                    f"{directory}: others than root may write there, and root would run what lies there; move it away, "
                    f"or if all in it is as it was: chown -h root {directory}; chmod go-w {directory}"
                )

    def put(self, launcher: Launcher) -> None:
        """Put a launcher in its place, and keep what was there. Raises CannotInstall, OSError."""
        self.refuse_loose()
        if not self.kept.is_dir():
            self.kept.mkdir(mode=0o755)
            sync_directory(self.directory)
        self.kept.chmod(0o755)  # whatever the umask: the runtime lies there
        self._keep(launcher.name)
        fresh = self.kept / f"next-{launcher.name}"
        fresh.unlink(missing_ok=True)
        _write(fresh, launcher)
        os.rename(fresh, self.directory / launcher.name)
        sync_directory(self.directory)

    def take_back(self, name: str) -> bool:
        """What was there before ours came. False: what stands there now is neither, and stays. Raises CannotInstall,
        OSError."""
        self.refuse_loose()
        target, kept = self.directory / name, self._replaced / name
        there, old = self.facts(name), _lstat(kept)
        if old is None:
            if there is not None and self.is_ours(name):
                target.unlink()
                sync_directory(self.directory)
            return True
        if there is None or self.is_ours(name):
            os.rename(kept, target)
        elif os.path.samestat(there, old):
            kept.unlink()  # it was only about to be replaced; rename(2) would leave both names
        else:
            return False
        sync_directory(self.directory)
        sync_directory(self._replaced)
        return True

    def clear(self) -> None:
        """Take away what an installation needed beside programs, which must all be taken back. What is still kept
        stays: another program has come in its place."""
        for unfinished in self.kept.glob("next-*"):
            unfinished.unlink()
        for directory in (self._replaced, self.kept):
            with suppress(FileNotFoundError):
                if not os.listdir(directory):
                    directory.rmdir()
        sync_directory(self.directory)

    def _keep(self, name: str) -> None:
        """Give what stands there a second name in replaced/, unless it is ours. What was kept before, and has been
        replaced by hand since, goes to older/NAME.1, .2, ..."""
        target, kept = self.directory / name, self._replaced / name
        there = self.facts(name)
        if there is None or self.is_ours(name):
            return
        if stat.S_ISDIR(there.st_mode):
            raise CannotInstall(f"{target}: a directory; leave {name} out with --only, or move it away")
        self._replaced.mkdir(mode=0o700, exist_ok=True)
        self._replaced.chmod(0o700)
        old = _lstat(kept)
        if old is not None and os.path.samestat(old, there):
            return
        if old is not None:
            older = self.kept / "older"
            older.mkdir(mode=0o700, exist_ok=True)
            os.rename(kept, _free(older, name))
            sync_directory(older)
        os.link(target, kept, follow_symlinks=False)
        sync_directory(self._replaced)
        sync_directory(self.kept)


def _free(older: Path, name: str) -> Path:
    places = (older / f"{name}.{number}" for number in range(1, 1000))
    return next(place for place in places if not os.path.lexists(place))


def _lstat(file: Path) -> os.stat_result | None:
    with suppress(FileNotFoundError, PermissionError):
        return os.lstat(file)
    return None


def _holds_mark(file: Path) -> bool:
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False  # a link, none, or one of theirs that only its owner may read
    try:
        facts = os.fstat(descriptor)
        return stat.S_ISREG(facts.st_mode) and facts.st_size <= _LARGEST and _read_whole(descriptor).find(LAUNCHER) >= 0
    finally:
        os.close(descriptor)


def _read_whole(descriptor: int) -> bytes:
    found = bytearray()
    while (block := os.read(descriptor, 1 << 20)) and len(found) <= _LARGEST:
        found += block
    return bytes(found)


def _write(fresh: Path, launcher: Launcher) -> None:
    """The mode comes last: a change of owner, and every write, takes set-uid bits away."""
    descriptor = os.open(fresh, _NEW, 0o600)
    try:
        write_all(descriptor, launcher.octets)
        if (launcher.uid, launcher.gid) != (os.geteuid(), os.getegid()):
            os.fchown(descriptor, launcher.uid, launcher.gid)
        os.fchmod(descriptor, launcher.mode)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
