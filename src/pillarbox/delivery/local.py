"""Local delivery: what qmail-local does, for a batch of messages at a time.

For each job: whose address is it, has the message been here before, which dot-qmail file speaks for it, what do its
lines say. Then all Maildirs of the batch at once. The rule that must stay true: a job is done when all of its
instructions are; one that cannot be followed leaves the whole job undone, before anything of it is delivered.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from pillarbox.address import quote
from pillarbox.delivery import dotqmail
from pillarbox.mailbox import maildir
from pillarbox.outcome import Outcome
from pillarbox.status import Failure, Refusal, Status
from pillarbox.users.owner import Owner, Owners

_LOOPING = Outcome.never(b"This message is looping: it already has my Delivered-To line. (#5.4.6)\n", Status(5, 4, 6))
NO_MAILBOX = Refusal(Status(5, 1, 1), "sorry, no mailbox here by that name")
_NO_MAILBOX = Outcome.never(b"Sorry, no mailbox here by that name. (#5.1.1)\n", Status(5, 1, 1))
_NOT_AS_ROOT = Outcome.later(b"Not allowed to perform deliveries as root.\n", Status(4, 3, 5))
_DID_ONE = Outcome.done(b"did 1+0+0\n")

_NOT_BUILT = {dotqmail.Program: "program", dotqmail.Mbox: "mbox", dotqmail.Forward: "forward"}


class Job(NamedTuple):
    """One recipient of one message. `message`, `incarnation` (hex), `number`: the queue's names for message and
    recipient; `born`: seconds; `again`: it may have been tried before. `local`: the local part as routing made it,
    virtualdomains prefix included; it decides the owner. `recipient`: the address that Delivered-To shows. `content`:
    stored form of `size` octets, bytes or a read-only descriptor."""

    message: int
    incarnation: bytes
    number: int
    born: int
    again: bool
    sender: bytes
    local: bytes
    domain: bytes
    recipient: bytes
    content: bytes | int
    size: int


class _Plan(NamedTuple):
    """What to do for an address: Maildirs (instruction's line, path), and the Delivered-To line that goes ahead."""

    delivered_to: bytes
    maildirs: tuple[tuple[int, bytes], ...]


class Deliveries:
    """The deliveries of one owner role. `defaultdelivery`: dot-qmail lines; `host`: for file names; `uid`: who we are,
    nobody else's mailbox is touched."""

    def __init__(self, owners: Owners, defaultdelivery: bytes, host: bytes, uid: int) -> None:
        self._owners = owners
        self._defaultdelivery = defaultdelivery
        self._host = host
        self._uid = uid

    def deliver(self, jobs: Sequence[Job]) -> list[Outcome]:
        """Carry out `jobs` together; an outcome for each, in order. What is reported done is on the disk."""
        plans: dict[tuple[bytes, bytes], _Plan | Outcome] = {}
        outcomes: list[Outcome] = []
        copies: list[maildir.Copy] = []
        of_job: list[int] = []
        for index, job in enumerate(jobs):
            address = (job.local, job.recipient)
            plan = plans.get(address)
            if plan is None:
                plan = plans[address] = self._decide(job.local, job.recipient)
            outcome = plan if isinstance(plan, Outcome) else _begin(job, plan, copies)
            outcomes.append(outcome)
            of_job.extend([index] * (len(copies) - len(of_job)))
        if copies:
            for index, failure in zip(of_job, maildir.deliver(copies, self._host), strict=True):
                if failure is not None:
                    outcomes[index] = _outcome(failure)
        return outcomes

    def refused(self, local: bytes) -> Refusal | None:
        """Why mail to this local part would be refused for good; None: it finds a mailbox. Raises Failure."""
        owner = self._owners.for_delivery(local)
        if owner.uid != self._uid:
            raise Failure("this is another owner's role", Status(4, 3, 5))
        found = dotqmail.find(owner.home, owner.dash, owner.ext, self._defaultdelivery)
        return None if found is not None else NO_MAILBOX

    def _decide(self, local: bytes, recipient: bytes) -> _Plan | Outcome:
        """What to do with mail for this local part."""
        try:
            owner = self._owners.for_delivery(local)
            if owner.uid == 0:
                return _NOT_AS_ROOT
            if owner.uid != self._uid:
                return _not_ours(owner, self._uid)
            found = dotqmail.find(owner.home, owner.dash, owner.ext, self._defaultdelivery)
        except Failure as failure:
            return _outcome(failure)
        if found is None:
            return _NO_MAILBOX
        maildirs = []
        for instruction in found.instructions:
            if not isinstance(instruction, dotqmail.Maildir):
                return _not_built(found, instruction)
            maildirs.append((instruction.line, os.path.join(owner.home, instruction.directory)))
        return _Plan(b"Delivered-To: %s\n" % recipient.replace(b"\n", b"_"), tuple(maildirs))


def _begin(job: Job, plan: _Plan, copies: list[maildir.Copy]) -> Outcome:
    """Add the copies that `job` needs to the batch; its outcome, if all of them get delivered."""
    try:
        if _loops(job.content, plan.delivered_to):
            return _LOOPING
    except OSError:
        return Outcome.later(b"Unable to read message. (#4.3.0)\n")
    head = b"Return-Path: <%s>\n%s" % (quote(job.sender).replace(b"\n", b"_"), plan.delivered_to)
    for line, directory in plan.maildirs:
        name = maildir.stem(job.born, job.incarnation, job.message, job.number, line)
        copies.append(maildir.Copy(directory, name, head, job.content, job.size, job.again))
    delivered = len(plan.maildirs)
    return _DID_ONE if delivered == 1 else Outcome.done(b"did %d+0+0\n" % delivered)


def _loops(content: bytes | int, line: bytes) -> bool:
    """Whether the header holds exactly this line. Raises OSError."""
    if isinstance(content, int):
        return _in_header(_blocks(content), line)
    end = content.find(b"\n\n") + 1 or len(content)
    return content.find(line, 0, end) >= 0 and _in_header((content,), line)  # nearly always the first says no


def _in_header(blocks: Iterable[bytes], line: bytes) -> bool:
    wanted = b"\n" + line
    held = b"\n"
    for block in blocks:
        text = held + block
        end = text.find(b"\n\n")
        if text.find(wanted, 0, end + 1 if end >= 0 else len(text)) >= 0:
            return True
        if end >= 0:
            return False
        held = text[-len(wanted) :]
    return False


def _blocks(descriptor: int) -> Iterator[bytes]:
    offset = 0
    while block := os.pread(descriptor, maildir.BLOCK, offset):
        yield block
        offset += len(block)


def _outcome(failure: Failure) -> Outcome:
    """Trouble on this machine is temporary, whatever it is: mail does not bounce for it."""
    return Outcome.later(failure.text.encode("ascii", "backslashreplace") + b"\n", failure.status)


def _not_ours(owner: Owner, uid: int) -> Outcome:
    user = dotqmail.printable(owner.user)
    report = f"Unable to deliver as {user} (uid {owner.uid}): this server runs as uid {uid}. (#4.3.5)\n"
    return Outcome.later(report.encode(), Status(4, 3, 5))


def _not_built(found: dotqmail.DotQmail, instruction: dotqmail.Instruction) -> Outcome:
    where = dotqmail.printable(found.name) if found.name else "default delivery"
    kind = _NOT_BUILT[type(instruction)]
    report = f"Unable to follow line {instruction.line} of {where}: no {kind} deliveries yet. (#4.3.5)\n"
    return Outcome.later(report.encode(), Status(4, 3, 5))
