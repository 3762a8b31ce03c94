"""shadow(5): the passwords of system users. Only root may read them."""

from __future__ import annotations

import re
from pathlib import Path

from pillarbox.auth import hashes
from pillarbox.status import Failure

FILE = Path("/etc/shadow")
LARGEST_FILE = 16 << 20  # octets
_DIGEST_OF = re.compile(rb"[./0-9A-Za-z]+\Z")


class CannotRead(Failure):
    """The file cannot be read: temporary. The text is for the log, not for the client."""


def right(name: bytes | None, password: bytes, today: int) -> bool:
    """Is this the password of the system user `name` (None: nobody's), neither it nor the account being over?
    `today`: days since 1970. What is no password costs what a wrong one does: a hash of the kind that others there
    have. Blocks. Raises CannotRead."""
    lines = [line.split(b":") for line in _read().split(b"\n") if line]
    stored = next((line[1] for line in lines if line[0] == name and _lives(line, today)), b"") if name else b""
    sane = 0 < len(password) <= hashes.LONGEST_PASSWORD and b"\0" not in password
    if sane and hashes.usable(stored):
        return hashes.crypted(stored, password)
    hashes.crypted(_decoy(lines), b"-")
    return False


def _read() -> bytes:
    try:
        with open(FILE, "rb") as stream:
            text = stream.read(LARGEST_FILE + 1)
    except OSError as problem:
        raise CannotRead(f"cannot read {FILE}: {problem.strerror}") from None
    if len(text) > LARGEST_FILE:
        raise CannotRead(f"{FILE} is absurdly large")
    return text


def _lives(line: list[bytes], today: int) -> bool:
    """Neither the account nor its password is over. Fields: name, hash, last change, minimum, maximum, warning,
    inactive, expiry; days since 1970, empty where there is no such limit."""
    changed, longest, grace, expiry = (_days(line, at) for at in (2, 4, 6, 7))
    if expiry is not None and today >= expiry:
        return False
    if changed is None or longest is None or grace is None:
        return True
    return today <= changed + longest + grace


def _days(line: list[bytes], at: int) -> int | None:
    field = line[at] if at < len(line) else b""
    return int(field) if field.isdigit() and len(field) < 9 else None


def _decoy(lines: list[list[bytes]]) -> bytes:
    """Somebody's salt and cost, with a result that no password has."""
    stored = next((line[1] for line in lines if len(line) > 1 and hashes.usable(line[1])), b"")
    head, dollar, digest = stored.rpartition(b"$")
    return head + dollar + _DIGEST_OF.sub(lambda found: b"." * len(found[0]), digest)
