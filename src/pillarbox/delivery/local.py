"""Local delivery: what qmail-local does, for a batch of messages at a time.

For each job: whose address is it, has the message been here before, which dot-qmail file speaks for it, what do its
lines say. Then all Maildirs of the batch at once. A job with programs or mbox files becomes an errand, one with
addresses a forwarding once its Maildirs have it. The rule that must stay true: a job is done when all of its
instructions are; one that cannot be followed leaves the whole job undone, before anything of it is delivered.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from pillarbox.address import split
from pillarbox.delivery import dotqmail, forward
from pillarbox.delivery.aliases import Table
from pillarbox.delivery.job import Errand, Forwarding, Job, delivered_to, return_path
from pillarbox.mailbox import maildir
from pillarbox.outcome import Outcome
from pillarbox.status import Failure, Refusal, Status
from pillarbox.users.owner import Owner, Owners

LOOPING = Outcome.never(b"This message is looping: it already has my Delivered-To line. (#5.4.6)\n", Status(5, 4, 6))
_LOOPING_ALIAS = Outcome.never(b"This alias leads back to itself. (#5.4.6)\n", Status(5, 4, 6))
NO_MAILBOX = Refusal(Status(5, 1, 1), "sorry, no mailbox here by that name")
_NO_MAILBOX = Outcome.never(b"Sorry, no mailbox here by that name. (#5.1.1)\n", Status(5, 1, 1))
_NOT_AS_ROOT = Outcome.later(b"Not allowed to perform deliveries as root.\n", Status(4, 3, 5))
_DID_ONE = Outcome.done(b"did 1+0+0\n")
_TABLE = b"aliases"  # stands for a dot-qmail file's name where the aliases table speaks

Step = Outcome | Errand | Forwarding


class _Plan(NamedTuple):
    """What to do for an address: Maildirs (instruction's line, path), the Delivered-To line that goes ahead, addresses
    to forward to. `alone`: a process of its own is to follow the instructions. `sender`: of forwards, where the alias
    table names one."""

    delivered_to: bytes
    maildirs: tuple[tuple[int, bytes], ...]
    addresses: tuple[bytes, ...]
    alone: bool
    owner: Owner
    found: dotqmail.DotQmail
    sender: bytes | None


class Deliveries:
    """The deliveries of one owner role. `defaultdelivery`: dot-qmail lines; `host`: for file names; `uid`: who we are,
    nobody else's mailbox is touched. `aliases` is asked ahead of the dot-qmail files of alias, and nobody else's."""

    def __init__(
        self, owners: Owners, defaultdelivery: bytes, host: bytes, uid: int, aliases: Table | None = None
    ) -> None:
        self._owners = owners
        self._defaultdelivery = defaultdelivery
        self._host = host
        self._uid = uid
        self._aliases = aliases

    def deliver(self, jobs: Sequence[Job]) -> list[Step]:
        """Carry out `jobs` together, in order an outcome for each, or what is left to do of it: an Errand (nothing of
        it is done yet) or a Forwarding (all else of it is). What is reported done is on the disk."""
        plans: dict[tuple[bytes, bytes], _Plan | Outcome] = {}
        outcomes: list[Step] = []
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
        table = self._table_for(owner)
        if table is not None and table.has(owner.ext):
            return None
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
            sender, found = self._instructions(owner, split(recipient)[1])
        except Failure as failure:
            return _outcome(failure)
        if found is None:
            return _NO_MAILBOX
        if found.name == _TABLE and not found.instructions:
            return _LOOPING_ALIAS
        maildirs = tuple(
            (one.line, os.path.join(owner.home, one.directory))
            for one in found.instructions
            if isinstance(one, dotqmail.Maildir)
        )
        addresses = forward.addresses(found.instructions)
        alone = len(maildirs) + len(addresses) < len(found.instructions)
        return _Plan(delivered_to(recipient), maildirs, addresses, alone, owner, found, sender)

    def _instructions(self, owner: Owner, domain: bytes) -> tuple[bytes | None, dotqmail.DotQmail | None]:
        """The sender that forwards get, where the alias table names one, and what is to be done."""
        table = self._table_for(owner)
        addresses = table.expand(owner.ext, domain) if table is not None else None
        if table is None or addresses is None:
            return None, dotqmail.find(owner.home, owner.dash, owner.ext, self._defaultdelivery)
        forwards = tuple(dotqmail.Forward(line, address) for line, address in enumerate(addresses, 1))
        return table.sender(owner.ext, domain), dotqmail.DotQmail(_TABLE, forwards)

    def _table_for(self, owner: Owner) -> Table | None:
        return self._aliases if owner.user == self._owners.alias and owner.dash else None


def _begin(job: Job, plan: _Plan, copies: list[maildir.Copy]) -> Step:
    """Add the copies that `job` needs to the batch; what comes next, if all of them get delivered."""
    try:
        if loops(job.content, plan.delivered_to):
            return LOOPING
    except OSError:
        return Outcome.later(b"Unable to read message. (#4.3.0)\n")
    if plan.alone:
        return Errand(job, plan.owner, plan.found)
    delivered = len(plan.maildirs)
    outcome: Step = _DID_ONE
    if plan.addresses:
        report = b"did %d+%d+0\n" % (delivered, len(plan.addresses))
        try:
            outcome = forward.forwarding(job, plan.owner, plan.addresses, report, plan.sender)
        except Failure as failure:
            return _outcome(failure)
    elif delivered != 1:
        outcome = Outcome.done(b"did %d+0+0\n" % delivered)
    head = return_path(job.sender) + plan.delivered_to
    for line, directory in plan.maildirs:
        name = maildir.stem(job.born, job.incarnation, job.message, job.number, line)
        copies.append(maildir.Copy(directory, name, head, job.content, job.size, job.again))
    return outcome


def loops(content: bytes | int, line: bytes) -> bool:
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
