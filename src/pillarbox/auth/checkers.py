"""How system users log in: control/checkers, tried in order until one says yes.

`shadow` reads /etc/shadow; anything else is a checkpassword command (auth.checkpassword: exit status 0 yes, 1 no, all
else: cannot say). The program becomes the user and starts what it is told to; ours says whom it became, and where.

The rule that must stay true: a checker proves a name, it does not choose a mailbox. Whose mailbox that is says
users.owner alone, and a checker that became somebody else is not believed. A name that is nobody's is put to every
checker all the same, so that time tells nothing.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO

from pillarbox.auth import checkpassword, shadow
from pillarbox.credentials import Credentials, Password
from pillarbox.status import Failure, Status
from pillarbox.users.owner import Owner

SHADOW = b"shadow"
TIME = 20.0
"""Seconds that a program has."""
_AT_ROOT = b'cd / && exec "$@"'
_WHO = b"id -u && pwd -P"
_ENVIRONMENT = {b"PATH": b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
_REPORT = re.compile(rb"([0-9]{1,10})\n(/[^\n]*)\n")
_REPORT_SIZE = 8192


class CannotCheck(Failure):
    """No checker said yes, and one of them could not say: temporary. The text is for the log, not for the client."""

    status = Status(4, 7, 0)


@dataclass(frozen=True, slots=True)
class Verdict:
    """`remark` is for the log: why a yes of a program was not taken."""

    right: bool
    remark: str = ""


def check(checkers: Sequence[bytes], name: bytes, owner: Owner | None, credentials: Credentials, today: int) -> Verdict:
    """Is this the system user `name`? `owner` is whose mailbox that is; None for a name that is nobody's: every checker
    is asked, and the answer is no. `today`: days since 1970. Blocks, for TIME at most for each program; safe in any
    thread. Raises CannotCheck."""
    trouble: CannotCheck | None = None
    remark = ""
    for checker in checkers:
        try:
            verdict = _ask(checker, name, owner, credentials, today)
        except CannotCheck as problem:
            trouble = trouble or problem
            continue
        if verdict.right:
            return verdict
        remark = remark or verdict.remark
    if trouble is not None:
        raise trouble
    return Verdict(False, remark)


def _ask(checker: bytes, name: bytes, owner: Owner | None, credentials: Credentials, today: int) -> Verdict:
    if checker == SHADOW:
        return Verdict(_by_shadow(name if owner is not None else None, credentials, today))
    return _program(checker.split(), name, owner, credentials)


def _by_shadow(name: bytes | None, credentials: Credentials, today: int) -> bool:
    password = credentials.password if isinstance(credentials, Password) else b""
    try:
        return shadow.right(name, password, today)
    except shadow.CannotRead as problem:
        raise CannotCheck(problem.text) from None


# programs


def _program(words: Sequence[bytes], name: bytes, owner: Owner | None, credentials: Credentials) -> Verdict:
    told = checkpassword.said(replace(credentials, login=name))
    if told is None:
        return Verdict(False)
    shown = words[0].decode("utf-8", "backslashreplace")
    status, report = _run(words, told, shown)
    if status == checkpassword.WRONG:
        return Verdict(False)
    if status != 0:
        how = f"signal {-status}" if status < 0 else f"status {status}"
        raise CannotCheck(f"{shown} ended with {how}")
    if owner is None:
        return Verdict(False, f"{shown} knows a name that no system user has")
    became = _REPORT.fullmatch(report)
    if became is None or not _is(owner, int(became[1]), became[2]):
        return Verdict(False, f"{shown} became another user than the owner of the mailbox, or in another home")
    return Verdict(True)


def _is(owner: Owner, uid: int, directory: bytes) -> bool:
    """Whether a program that says yes became the owner, in his home; one that becomes nobody (cmd5checkpw) is still who
    we are, where it was started."""
    if uid == os.geteuid() and directory == b"/":
        return True
    try:
        return uid == owner.uid and os.path.samefile(directory, owner.home)
    except OSError:
        return False


def _run(words: Sequence[bytes], told: bytes, shown: str) -> tuple[int, bytes]:
    """(exit status, or the negative number of the signal that ended it; what was said of whom it became). The program
    runs with no terminal, no log and no descriptor but 3: what it was asked."""
    command = [b"/bin/sh", b"-c", _AT_ROOT, b"sh", *words, b"/bin/sh", b"-c", _WHO]
    with open(os.devnull, "r+b", buffering=0) as nowhere, _report() as report:
        null = nowhere.fileno()
        try:
            process = checkpassword.start(
                command, told, stdin=null, stdout=report.fileno(), stderr=null, environment=_ENVIRONMENT
            )
            status = process.wait(TIME)
        except checkpassword.CannotStart as problem:
            raise CannotCheck(f"cannot start {shown}: {problem.text}") from None
        except checkpassword.Overdue as problem:
            raise CannotCheck(f"{shown} {problem.text}") from None
        return status, os.pread(report.fileno(), _REPORT_SIZE, 0).rstrip(b"\0")


def _report() -> BinaryIO:
    """A file in memory that nobody can make larger: what writes there may be anybody's."""
    descriptor = os.memfd_create("report", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, _REPORT_SIZE)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
    return open(descriptor, "r+b", buffering=0)
