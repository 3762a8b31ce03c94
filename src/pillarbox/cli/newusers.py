"""`init` as root: makes the groups and system users of the roles that are missing. What is there is never changed.

Every command is one that can be said by hand, and is shown with its reason when it fails.
"""

from __future__ import annotations

import fcntl
import grp
import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from pillarbox.control.table import Settings
from pillarbox.status import Failure, Status
from pillarbox.users import system
from pillarbox.users.roles import ALIAS, POSTS, Post, name_of

PROGRAM_TIME = 60  # seconds for one command
TRIES = 40  # while somebody else holds the lock of /etc/passwd
PAUSE = 0.25  # seconds between two tries
BUSY = "try again later"  # what shadow's programs say then
ELSEWHERE = ":/usr/sbin:/sbin"


class CannotMakeUser(Failure):
    """A user or group could not be made; the text says why, and the command to do it by hand."""

    status = Status(5, 3, 5)


def make_missing(home: Path, settings: Settings) -> Iterator[str]:
    """A line for each group and user made. Raises CannotMakeUser, Failure (4.3.0) when the password database does not
    answer."""
    if all(_user_exists(name_of(post, settings)) for post in POSTS):
        return
    with _alone():
        yield from _made(home, settings)


def _made(home: Path, settings: Settings) -> Iterator[str]:
    for post in POSTS:
        name = name_of(post, settings)
        if _user_exists(name):
            continue
        if not _group_exists(post.group):
            _make(("groupadd", "--system", post.group), partial(_group_exists, post.group))
            yield f"created the group {post.group}"
        _make(command(home, post, name), partial(_user_exists, name))
        yield f"created the system user {name}: {post.purpose}"


@contextmanager
def _alone() -> Iterator[None]:
    """One `init` at a time: of several at once, one's user has been seen in the group of another's."""
    etc = os.open("/etc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        end = time.monotonic() + PROGRAM_TIME
        while not _locked(etc):
            if time.monotonic() > end:
                raise CannotMakeUser("another `pillarbox init` is making users and does not end: try again later")
            time.sleep(PAUSE)
        yield
    finally:
        os.close(etc)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def command(home: Path, post: Post, name: str) -> tuple[str, ...]:
    """The command that makes the user of a post."""
    return (
        "useradd", "--system", "--gid", post.group, "--no-create-home",
        "--home-dir", str(home / "alias") if post.role == ALIAS else "/nonexistent",
        "--shell", "/usr/sbin/nologin", "--comment", "Pillarbox mail server", name,
    )  # fmt: skip


def _user_exists(name: str) -> bool:
    return system.find(name.encode()) is not None


def _group_exists(name: str) -> bool:
    try:
        grp.getgrnam(name)
    except KeyError:
        return False
    return True


def _make(words: Sequence[str], exists: Callable[[], bool]) -> None:
    """Run a command until what it makes is there: another `init` may be at it just now."""
    by_hand = shlex.join(words)
    program = shutil.which(words[0], path=os.environ.get("PATH", "") + ELSEWHERE)
    if program is None:
        raise CannotMakeUser(f"the server needs what this command makes, and {words[0]} is not here: {by_hand}")
    for _ in range(TRIES):
        done = subprocess.run(
            [program, *words[1:]], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=PROGRAM_TIME
        )
        if done.returncode == 0 or exists():
            return
        if BUSY not in done.stderr:
            break
        time.sleep(PAUSE)
    reason = " ".join(done.stderr.split()) or f"status {done.returncode}"
    raise CannotMakeUser(f"cannot make a user of the server: {reason}; do it by hand: {by_hand}")
