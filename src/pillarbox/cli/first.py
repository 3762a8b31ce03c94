"""The account that the first start makes, so that mail can be sent and read at once and postmaster reaches somebody."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path

from pillarbox import accounts
from pillarbox.cli import audience
from pillarbox.cli.layout import passwords_reader, users_of
from pillarbox.control.table import Settings
from pillarbox.users.roles import caller

PASSWORD_OCTETS = 15  # of chance: 120 bits, 20 characters


def first_account(home: Path, settings: Settings) -> tuple[str | None, str | None]:
    """(login, password) of the account made just now; (login of one that is there, at this host if there is, None) when
    there are accounts; two Nones where all were removed again, where the host's mail belongs to its own users, or where
    the password would be printed into a log. Raises Failure, OSError."""
    me = settings.me.lower()
    there = [account.address for account in accounts.list(home) if account.login]
    if there:
        ours = [address for address in there if address.endswith(b"@" + me)]
        return (ours or there)[0].decode("utf-8", "backslashreplace"), None
    if (home / "users" / "passwords").exists() or me in settings.locals or audience.nobody(os.environ):
        return None, None
    login = f"{_name(os.environ)}@{me.decode('ascii')}"
    password = secrets.token_urlsafe(PASSWORD_OCTETS)
    vmail, group = users_of(settings)["vmail"], passwords_reader(settings).gid
    owner = accounts.MailboxUser(vmail.name, vmail.uid, vmail.gid)
    accounts.add(home, login.encode("ascii"), password.encode("ascii"), user=owner, group=group)
    return login, password


def _name(environ: Mapping[str, str]) -> str:
    """Whoever set this up: the caller, or who called sudo; root itself has no mailbox."""
    name = caller().name if os.getuid() != 0 else environ.get("SUDO_USER", "")
    return name if name != "root" and re.fullmatch(r"[a-z][a-z0-9_]{0,31}", name) else "admin"
