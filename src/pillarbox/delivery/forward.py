"""Forwards of a dot-qmail file: all its addresses get one new message, once.

Source: dot-qmail(5), qmail-local. The rule that must stay true: a job that is repeated makes the same key, so whoever
carries a forward out can ask the queue whether it is there already.
"""

from __future__ import annotations

import os
from hashlib import sha256

from pillarbox.delivery.dotqmail import MAY_EXIST, DotQmailTrouble, Forward, Instruction, printable
from pillarbox.delivery.job import Forwarding, Job, delivered_to
from pillarbox.header import date
from pillarbox.users.owner import ALIAS, Owner, dotqmail_names

KEY_OCTETS = 16
UNCHANGED = frozenset({b"", b"#@[]"})  # senders of bounces and double bounces
VERP = b"-@[]"


def addresses(instructions: tuple[Instruction, ...], before: int | None = None) -> tuple[bytes, ...]:
    """The addresses that instructions forward to; `before`: only those ahead of this line."""
    return tuple(
        one.address for one in instructions if isinstance(one, Forward) and (before is None or one.line < before)
    )


def forwarding(
    job: Job, owner: Owner, recipients: tuple[bytes, ...], report: bytes, sender: bytes | None = None
) -> Forwarding:
    """The last step of `job`. `sender` is a list's owner, where the alias table names one. Raises DotQmailTrouble."""
    if sender is None or job.sender in UNCHANGED:
        sender = new_sender(owner, job)
    return Forwarding(job, owner, key(job), sender, recipients, delivered_to(job.recipient), report)


def key(job: Job) -> bytes:
    """The draft's key: of what it is made from, never from chance."""
    named = b"forward\0%s\0%d\0%d" % (job.incarnation, job.message, job.number)
    return sha256(named).digest()[:KEY_OCTETS]


def received(owner: Owner, pid: int, now: int) -> bytes:
    """The trace field of a message made on this machine, qmail-queue's form; `now`: seconds since 1970."""
    who = b"by alias" if owner.user == ALIAS else b"by uid %d" % owner.uid
    return b"Received: (qmail %d invoked %s); %s\n" % (pid, who, date(now))


def new_sender(owner: Owner, job: Job) -> bytes:
    """The envelope sender of this job's forwards: a list's owner, if there is .qmail-LIST-owner, in VERP form if there
    is .qmail-LIST-owner-default too. Raises DotQmailTrouble."""
    if job.sender in UNCHANGED:
        return job.sender
    name = next(dotqmail_names(owner.dash, owner.ext)) + b"-owner"
    if not _exists(owner.home, name):
        return job.sender
    local = job.recipient.rpartition(b"@")[0]
    if _exists(owner.home, name + b"-default"):
        return b"%s-owner-@%s%s" % (local, job.domain, VERP)
    return b"%s-owner@%s" % (local, job.domain)


def _exists(home: bytes, name: bytes) -> bool:
    if b"/" in name or b"\0" in name:
        return False
    try:
        os.stat(home + b"/" + name)
    except OSError as problem:
        if problem.errno in MAY_EXIST:
            reason = os.strerror(problem.errno or 0)
            raise DotQmailTrouble(f"Unable to open {printable(name)}: {reason}. (#4.3.0)") from problem
        return False
    return True
