"""`pillarbox account`: add, list and remove accounts, and give them passwords. A running server notices by itself."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from pillarbox import accounts
from pillarbox.cli.home import require
from pillarbox.cli.layout import broken_assign, passwords_reader, settings_of, users_of
from pillarbox.cli.output import printable, table
from pillarbox.status import Failure, Status
from pillarbox.users.assign import BadAssign

LONGEST_LINE = 4096  # octets of a password on standard input


class BrokenTable(Failure):
    """users/assign was broken by hand."""

    status = Status(5, 3, 5)


class NoPassword(Failure):
    """There is nobody to ask, and nothing was piped in."""

    status = Status(5, 3, 0)


@contextmanager
def _accounts_of(home: Path) -> Iterator[None]:
    """Work on the accounts of a home that there is. Says where users/assign is broken."""
    require(home)
    try:
        yield
    except BadAssign as failure:
        raise BrokenTable(broken_assign(home, failure)) from failure


def add(home: Path, address: str, *, stdin: bool) -> int:
    """Make an account; the password comes from standard input or is asked for twice. Raises Failure, OSError."""
    with _accounts_of(home):
        settings = settings_of(home)
        vmail, group = users_of(settings)["vmail"], passwords_reader(settings).gid
        owner = accounts.MailboxUser(vmail.name, vmail.uid, vmail.gid)
        accounts.add(home, os.fsencode(address), _password(stdin=stdin), user=owner, group=group)
    print(f"{printable(address.lower())}: added")
    return 0


def remove(home: Path, address: str) -> int:
    """Take an account away; its mail stays on disk. Raises Failure, OSError."""
    with _accounts_of(home):
        kept = accounts.remove(home, os.fsencode(address))
    print(f"{printable(address)}: removed" + (f"; its mail is kept in {kept}" if kept else ""))
    return 0


def password(home: Path, address: str, *, stdin: bool) -> int:
    """Set a password. Raises Failure, OSError."""
    with _accounts_of(home):
        accounts.set_password(home, os.fsencode(address), _password(stdin=stdin))
    print(f"{printable(address)}: has a new password")
    return 0


def show(home: Path) -> int:
    """List all accounts. Raises Failure, OSError."""
    with _accounts_of(home):
        found = accounts.list(home)
    unfinished = "unfinished: say its add or remove again"
    rows = [(account.address, str(account.home), "" if account.login else unfinished) for account in found]
    table(("account", "home", ""), rows)
    return 0


def _password(*, stdin: bool) -> bytes:
    """The password, without its line end."""
    if stdin:
        line = sys.stdin.buffer.readline(LONGEST_LINE + 1)
        return line.removesuffix(b"\n").removesuffix(b"\r")
    if not sys.stdin.isatty():
        raise NoPassword("there is no terminal to ask for the password; pipe it in, with --password-stdin")
    return os.fsencode(click.prompt("Password", hide_input=True, confirmation_prompt="The same again", err=True))
