"""qmail-local: deliver the message on descriptor 0 to one user, as he says in his dot-qmail files (qmail-local(8)).

Runs as whoever calls it. The server's owner roles do the same without this program; it is there for scripts that call
it, and `-n` says what would be done.
"""

from __future__ import annotations

import os
import sys
import time
from typing import NamedTuple

from pillarbox.delivery import dotqmail, local
from pillarbox.delivery.dotqmail import DotQmail, DotQmailTrouble
from pillarbox.delivery.errand import Surroundings, carry_out, conclusion
from pillarbox.delivery.job import Errand, Forwarding, Job
from pillarbox.envelope import Envelope
from pillarbox.outcome import Outcome, Verdict
from pillarbox.programs import other_queue, whereabouts
from pillarbox.programs.content import BLOCK, Content
from pillarbox.programs.injector import Result, inject
from pillarbox.status import Failure
from pillarbox.users.owner import Owner

NAME = "qmail-local"
PERMANENT = 100
TEMPORARY = 111
USAGE = "qmail-local: usage: qmail-local [ -nN ] user homedir local dash ext domain sender aliasempty\n"
_OPERANDS = 8
_STATUSES = {Verdict.DONE: 0, Verdict.LATER: TEMPORARY, Verdict.NEVER: PERMANENT}
_WORDS: dict[type, tuple[bytes, str]] = {
    dotqmail.Mbox: (b"mbox", "file"),
    dotqmail.Maildir: (b"maildir", "directory"),
    dotqmail.Program: (b"program", "command"),
    dotqmail.Forward: (b"forward", "address"),
}


class _Call(NamedTuple):
    """The arguments."""

    describe: bool
    user: bytes
    home: bytes
    local: bytes
    dash: bytes
    ext: bytes
    domain: bytes
    sender: bytes
    defaultdelivery: bytes


def main(arguments: list[str]) -> int:
    """0 delivered, 100 not ever, 111 not now. What it did and what programs say goes to standard output, why not to
    standard error."""
    call = _parse(arguments)
    if call is None:
        sys.stderr.write(USAGE)
        return PERMANENT
    os.umask(0o077)
    owner = Owner(call.user, os.getuid(), os.getgid(), call.home, call.dash, call.ext)
    try:
        found = dotqmail.find(call.home, call.dash, call.ext, call.defaultdelivery)
        if found is None:
            return _say(Outcome.never(b"Sorry, no mailbox here by that name. (#5.1.1)\n"))
        return _describe(found) if call.describe else _deliver(call, owner, found)
    except Failure as failure:
        return _say(Outcome.later(failure.text.encode("ascii", "backslashreplace") + b"\n"))


def _parse(arguments: list[str]) -> _Call | None:
    describe = False
    rest = list(map(os.fsencode, arguments))
    while rest and rest[0].startswith(b"-") and len(rest) > _OPERANDS:
        flags = rest.pop(0)
        if flags == b"--":
            break
        if flags.strip(b"-nN") or len(flags) < 2:
            return None
        describe = flags.endswith(b"n")
    return _Call(describe, *rest) if len(rest) == _OPERANDS and rest[1].startswith(b"/") else None


def _describe(found: DotQmail) -> int:
    counts = dict.fromkeys(_WORDS, 0)
    for one in found.instructions:
        counts[type(one)] += 1
        word, what = _WORDS[type(one)]
        sys.stdout.buffer.write(b"%s %s\n" % (word, getattr(one, what)))
    files = counts[dotqmail.Mbox] + counts[dotqmail.Maildir]
    sys.stdout.buffer.write(b"did %d+%d+%d\n" % (files, counts[dotqmail.Forward], counts[dotqmail.Program]))
    return 0


def _deliver(call: _Call, owner: Owner, found: DotQmail) -> int:
    if owner.uid == 0:
        return _say(Outcome.later(b"Not allowed to perform deliveries as root.\n"))
    job = _job(call)
    if local.loops(job.content, b"Delivered-To: %s\n" % job.recipient.replace(b"\n", b"_")):
        return _say(local.LOOPING)
    now = int(time.time())
    errand = Errand(job, owner, found)
    host = os.uname().nodename.encode("ascii", "replace")
    result = carry_out(errand, Surroundings(host, os.environb, now, time.sleep))
    step = conclusion(errand, result, b"")
    return _forward(step) if isinstance(step, Forwarding) else _say(step)


def _job(call: _Call) -> Job:
    """The message has no name in a queue that its copy in a Maildir could have: it gets one that nobody else has."""
    try:
        os.lseek(0, 0, os.SEEK_SET)
        size = os.fstat(0).st_size
    except OSError:
        raise DotQmailTrouble("Unable to rewind message. (#4.3.0)") from None
    unique = os.urandom(4).hex().encode()
    recipient = call.local + b"@" + call.domain
    return Job(
        os.getpid(), unique, 0, int(time.time()), False, call.sender, call.local, call.domain, recipient, 0, size
    )


def _forward(step: Forwarding) -> int:
    with Content() as content:
        content.write(step.delivered_to)
        offset = 0
        while block := os.pread(0, BLOCK, offset):
            content.write(block)
            offset += len(block)
        done = _brought(Envelope(step.sender, step.recipients), content)
    if done.status == 0:
        return _say(Outcome.done(b"%sqp %d\n" % (step.report, done.number)))
    text = f"Unable to forward message: {done.text}.\n".encode("ascii", "replace")
    return _say(Outcome.never(text) if done.permanent else Outcome.later(text))


def _brought(envelope: Envelope, content: Content) -> Result:
    home = whereabouts.find(os.environ)
    program = other_queue.program(home, os.environb)
    if program is None:
        return inject(home, envelope, content)
    from pillarbox.programs.elsewhere import hand_over

    return hand_over(program, envelope, content)


def _say(outcome: Outcome) -> int:
    stream = sys.stdout.buffer if outcome.verdict is Verdict.DONE else sys.stderr.buffer
    stream.write(outcome.report)
    stream.flush()
    return _STATUSES[outcome.verdict]
