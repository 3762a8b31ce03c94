"""cmd5checkpw's file of logins: USER:PASSWORD a line, in clear, because CRAM-MD5 (RFC 2195) needs the password itself.

As cmd5checkpw 0.22: the first line of exactly this user counts; a line that is none ends the matter ahead of it. The
rule that must stay true: an unknown user, a wrong password and a right one cost the same, and nothing here ever shows
what a line holds.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import stat
from pathlib import Path

from pillarbox.auth.checkpassword import MISUSED, Asked, NotAsked
from pillarbox.status import Failure, Status

LARGEST_FILE = 4 << 20  # octets
LONGEST_LINE = 256  # octets
_FIELDS = 3  # on descriptor 3, when it is about a digest
# Stands in for the password of nobody; a file has no line with a NUL that anybody could say.
_NOBODY = b"\0"


class CannotRead(Failure):
    """The file cannot be read, or is none that can be used."""


class Malformed(Failure):
    """A line ahead of the user's is not USER:PASSWORD. The text names its number alone."""

    status = Status(5, 3, 5)


def read(file: Path) -> bytes:
    """The whole file: a regular one, no link, LARGEST_FILE at most. Never waits. Raises CannotRead."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as stream:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise CannotRead(f"{file}: not a regular file")
            text = stream.read(LARGEST_FILE + 1)
    except OSError as problem:
        raise CannotRead(f"{file}: {problem.strerror}") from None
    if len(text) > LARGEST_FILE:
        raise CannotRead(f"{file}: larger than {LARGEST_FILE} octets")
    return text


def right(text: bytes, asked: Asked) -> bool:
    """Is this the password of the user, or his digest over the challenge (lower-case hex)? Of the second and third
    field the challenge is the one in < and >: qmail-smtpd-auth 0.31 says it first, its successors last. Raises
    Malformed; NotAsked without a third field."""
    if asked.third is None:
        raise NotAsked("asked without a third field with a NUL behind it", MISUSED)
    password = _password(text, asked.login)
    known = _NOBODY if password is None else password
    plain = hmac.compare_digest(known, asked.second)
    challenge, response = _challenge(asked.second, asked.third)
    digest = hmac.new(known, challenge, _md5).hexdigest().encode()
    # All is computed whatever is asked; what does not apply does not count.
    proven = hmac.compare_digest(digest, response) & _is_digest(asked, challenge)
    return bool(password) and bool(plain | proven)


def look_through(text: bytes) -> None:
    """Raises Malformed for the first line that is none, wherever it is."""
    _password(text, b"\n")


def _password(text: bytes, login: bytes) -> bytes | None:
    """Of the first line with this user; the whole file is gone through wherever that is."""
    found: bytes | None = None
    lines = text.split(b"\n")
    if not lines[-1]:
        lines.pop()
    for number, line in enumerate(lines, 1):
        user, colon, password = line.partition(b":")
        if found is not None:
            continue
        if not colon or len(line) > LONGEST_LINE:
            raise Malformed(f"line {number}: not USER:PASSWORD of at most {LONGEST_LINE} octets")
        if user == login:
            found = password
    return found


def _challenge(second: bytes, third: bytes) -> tuple[bytes, bytes]:
    """(the challenge, the other one)"""
    return (third, second) if _in_brackets(third) and not _in_brackets(second) else (second, third)


def _is_digest(asked: Asked, challenge: bytes) -> bool:
    """Three fields and no more. A name or password in clear with NULs in it, as a C qmail-smtpd passes it on, would say
    a challenge and a digest that were overheard: it makes fields of its own, and so more of them."""
    return bool(asked.third) and _in_brackets(challenge) and asked.raw.count(b"\0") == _FIELDS


def _in_brackets(field: bytes) -> bool:
    return field.startswith(b"<") and field.endswith(b">")


def _md5(octets: bytes = b"") -> hashlib._Hash:
    return hashlib.md5(octets, usedforsecurity=False)
