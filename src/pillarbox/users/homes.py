"""Homes of accounts under HOME/mail/DOMAIN/: making them, and setting them aside when the account goes.

Root may do this for another user. The rule that must stay true: nothing here follows a name inside a directory that
already belongs to that user, so he can lead root nowhere.
"""

from __future__ import annotations

import os
import shutil
import stat
from itertools import count
from pathlib import Path

from pillarbox.mailbox import maildir
from pillarbox.status import Failure, Status
from pillarbox.users import replace

ACCOUNTS = "mail"
_REMOVED = ".removed"


class HomeTrouble(Failure):
    """A home is not as it must be; the text says what to do."""

    status = Status(5, 3, 0)


def place(home: Path, local: bytes, domain: bytes) -> Path:
    """Where the home of an account is. Both parts come from `accounts`, which lets no slash and no leading dot pass."""
    return home / ACCOUNTS / os.fsdecode(domain) / os.fsdecode(local)


def make(directory: Path, uid: int, gid: int) -> None:
    """A home (0700) with its Maildir, whole or not at all, durable. One that is there already is taken as it is, if
    it is that user's. Raises HomeTrouble, OSError."""
    if _is_there(directory, uid):
        return
    for parent in (directory.parent.parent, directory.parent):
        _make_passage(parent)
    fresh = directory.with_name(f".new-{directory.name}")
    if fresh.exists():
        shutil.rmtree(fresh)
    fresh.mkdir(mode=0o700)
    maildir.make(os.fsencode(fresh / "Maildir"))
    if uid != os.geteuid():
        for part in ("Maildir/tmp", "Maildir/new", "Maildir/cur", "Maildir", ""):
            os.chown(fresh / part, uid, gid, follow_symlinks=False)
    os.rename(fresh, directory)
    replace.sync_directory(directory.parent)


def _is_there(directory: Path, uid: int) -> bool:
    try:
        facts = os.lstat(directory)
    except FileNotFoundError:
        return False
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != uid:
        raise HomeTrouble(f"{directory} is there already and is not the mailbox user's; move it away")
    if not (directory / "Maildir").is_dir():
        raise HomeTrouble(f"{directory} is there already without a Maildir in it; move it away")
    return True


def _make_passage(directory: Path) -> None:
    """A directory that others may pass through but not list."""
    if directory.is_dir():
        return
    directory.mkdir(mode=0o700)
    directory.chmod(0o711)
    replace.sync_directory(directory.parent)


def set_aside(directory: Path) -> Path | None:
    """Move a home to .removed/NAME.N beside it, durably, so that an account made anew under its name finds nothing;
    returns where to, None when there was no home. Raises OSError."""
    if not directory.is_dir():
        return None
    removed = directory.parent / _REMOVED
    removed.mkdir(mode=0o700, exist_ok=True)
    target = next(free for n in count(1) if not os.path.lexists(free := removed / f"{directory.name}.{n}"))
    os.rename(directory, target)
    replace.sync_directory(removed)
    replace.sync_directory(directory.parent)
    return target
