"""Which directory is Pillarbox's home, and who is running it.

The rule that must stay true: whoever changes the queue or the accounts holds `Lock`, or asks him who does.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from pillarbox.programs import whereabouts
from pillarbox.status import Failure, Status

QMAIL = Path("/var/qmail")
LOCK = "run/lock"


class NoHome(Failure):
    """There is no telling which directory is meant, or the one meant was never set up."""

    status = Status(5, 3, 5)


class Running(Failure):
    """Somebody else holds the lock of this home."""

    status = Status(4, 3, 0)


def resolve(option: str | None, environ: Mapping[str, str], qmail: Path = QMAIL) -> Path:
    """The home, absolute: --home, else $PILLARBOX_HOME, else the one named in /etc/pillarbox/home, else /var/qmail if
    it is set up and no qmail-send runs there, else ~/.local/share/pillarbox. Raises NoHome when qmail-send runs there,
    or when that cannot be told."""
    if option:
        return Path(os.path.abspath(option))
    found = existing(environ, qmail)
    if found == qmail and not environ.get("PILLARBOX_HOME"):
        refuse_beside_qmail_send(qmail)
    return found


def existing(environ: Mapping[str, str], qmail: Path = QMAIL) -> Path:
    """The same without the question who runs there: for qmail's own programs, which work beside a running server."""
    return Path(whereabouts.find(environ, qmail=str(qmail)))


def require(home: Path) -> None:
    """Raises NoHome unless the home was set up."""
    if not (home / "control" / "me").exists():
        raise NoHome(f"{home}: not set up; run: pillarbox init --home DIR --me HOST")


def refuse_beside_qmail_send(qmail: Path) -> None:
    """Raises NoHome unless the lock of qmail-send (queue/lock/sendmutex) can be had."""
    try:
        descriptor = os.open(qmail / "queue" / "lock" / "sendmutex", os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    except OSError as problem:
        raise NoHome(
            f"{qmail}: cannot tell whether qmail-send runs there ({problem.strerror}); say --home DIR, or run as root"
        ) from problem
    try:
        if not locked(descriptor):
            raise NoHome(f"{qmail}: qmail-send runs there; stop it, or say --home DIR for a home of Pillarbox's own")
    finally:
        os.close(descriptor)


def locked(descriptor: int) -> bool:
    """Take an exclusive lock on the file now, or return False."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as problem:
        if problem.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise
    return True


class Lock:
    """The one lock of a home: `serve` holds it while it runs; other commands take it while they open files themselves.

    It is a flock on HOME/run/lock, so it ends with its holder, however he dies. Children that inherit the descriptor
    share it. The file holds the pid of the last holder, for people."""

    def __init__(self, home: Path) -> None:
        self._file = home / LOCK
        self._home = home
        self._descriptor: int | None = None

    def take(self) -> None:
        """Raises Running when another process has it, NoHome when the home was never set up."""
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(self._file, flags, 0o644)
        except FileNotFoundError as problem:
            raise NoHome(f"{self._home}: not set up; run: pillarbox init --home DIR --me HOST") from problem
        try:
            if not locked(descriptor):
                raise Running(f"{self._home}: in use by {holder(descriptor)}; stop it first, or say another --home")
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def release(self) -> None:
        """Give it up. Without effect when it was not taken."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Lock:
        self.take()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.release()


def holder(descriptor: int) -> str:
    """Who wrote the lock file: `process 123`, or `another process` while he has not yet written."""
    text = os.pread(descriptor, 32, 0).strip()
    return f"process {text.decode('ascii')}" if text.isdigit() else "another process"
