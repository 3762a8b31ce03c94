"""A home as `init` makes one, for tests of accounts and logins."""

from __future__ import annotations

import os
from pathlib import Path

from pillarbox.accounts import MailboxUser

# Mailboxes never belong to root.
USER = MailboxUser("vmail", os.geteuid() or 4711, os.getegid())


def make_home(directory: Path, **control: str) -> Path:
    """An empty home; `control` adds or replaces control files."""
    files = {"me": "example.org\n", "locals": "localhost\n", "rcpthosts": "localhost\n", **control}
    for name in ("control", "users", "alias", "mail"):
        (directory / name).mkdir(parents=True)
    for name, text in files.items():
        (directory / "control" / name).write_text(text)
    return directory
