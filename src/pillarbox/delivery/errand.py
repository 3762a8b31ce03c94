"""A job carried out in a process of its own, as qmail-local does it: instructions in file order, forwards for last.

The first instruction that fails ends the job. What was delivered by then stays delivered: repeated later, a Maildir
finds its copy, a program and an mbox file get the message again. Everything here may block; whoever started the
process bounds it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import NamedTuple

from pillarbox.delivery import forward, mbox, program
from pillarbox.delivery.dotqmail import Forward, Maildir, Mbox, printable
from pillarbox.delivery.environment import environment, from_line
from pillarbox.delivery.job import Errand, Forwarding, delivered_to, return_path
from pillarbox.mailbox import maildir
from pillarbox.outcome import Outcome, Verdict
from pillarbox.status import Failure, Status

_UNREADABLE = "Unable to read message. (#4.3.0)"


class Surroundings(NamedTuple):
    """What an errand finds: `host` for file names, further `variables` for programs, the time (seconds since 1970),
    and how to sleep."""

    host: bytes
    variables: Mapping[bytes, bytes]
    now: int
    pause: Callable[[float], None]


class Result(NamedTuple):
    """How it ended. `text`: what the report gets behind what programs said. `files`, `programs`: how many were done.
    `cut`: the line at which a program said that no more are to be looked at, 0 when none did."""

    verdict: Verdict
    status: Status
    text: bytes
    files: int = 0
    programs: int = 0
    cut: int = 0


def carry_out(errand: Errand, surroundings: Surroundings) -> Result:
    """Follow all instructions but the forwards. Programs write to our standard output and error."""
    steps = _Steps(errand, surroundings)
    try:
        return steps.follow()
    except Failure as failure:
        verdict = Verdict.NEVER if failure.refusal.permanent else Verdict.LATER
        text = failure.text.encode("ascii", "backslashreplace") + b"\n" if failure.text else b""
        return Result(verdict, failure.status, text)
    finally:
        steps.opened.close()


def conclusion(errand: Errand, result: Result, said: bytes) -> Outcome | Forwarding:
    """What follows from the result, `said` being what programs wrote: the outcome, or the forwards that are left.
    Raises DotQmailTrouble."""
    if result.verdict is not Verdict.DONE:
        return Outcome(result.verdict, said + result.text, result.status)
    recipients = forward.addresses(errand.found.instructions, result.cut or None)
    report = said + b"did %d+%d+%d\n" % (result.files, len(recipients), result.programs)
    if not recipients:
        return Outcome.done(report)
    return forward.forwarding(errand.job, errand.owner, recipients, report)


class _Steps:
    """The state of one errand under way."""

    def __init__(self, errand: Errand, surroundings: Surroundings) -> None:
        self._errand = errand
        self._surroundings = surroundings
        self._message = -1
        self.opened = ExitStack()

    def follow(self) -> Result:
        files = programs = 0
        for instruction in self._errand.found.instructions:
            match instruction:
                case Maildir():
                    self._to_maildir(instruction)
                    files += 1
                case Mbox():
                    self._to_mbox(instruction)
                    files += 1
                case Forward():
                    pass
                case _:
                    programs += 1
                    if not self._to_program(instruction.command):
                        return Result(Verdict.DONE, Status(2, 0, 0), b"", files, programs, instruction.line)
        return Result(Verdict.DONE, Status(2, 0, 0), b"", files, programs)

    def _to_maildir(self, instruction: Maildir) -> None:
        job = self._errand.job
        stem = maildir.stem(job.born, job.incarnation, job.message, job.number, instruction.line)
        directory = os.path.join(self._errand.owner.home, instruction.directory)
        copy = maildir.Copy(directory, stem, _head(self._errand), job.content, job.size, job.again)
        (failure,) = maildir.deliver([copy], self._surroundings.host)
        if failure is not None:
            raise failure

    def _to_mbox(self, instruction: Mbox) -> None:
        job = self._errand.job
        head = from_line(job.sender, self._surroundings.now) + _head(self._errand)
        file = os.path.join(self._errand.owner.home, instruction.file)
        mbox.append(file, printable(instruction.file), head, _blocks(job.content, job.size), self._surroundings.pause)

    def _to_program(self, command: bytes) -> bool:
        job, owner = self._errand.job, self._errand.owner
        if self._message < 0:
            self._message = program.message_file(job.content, job.size, owner.home)
            self.opened.callback(os.close, self._message)
        sender = forward.new_sender(owner, job)
        variables = environment(self._errand, sender, self._surroundings.now)
        return program.run(command, owner.home, {**self._surroundings.variables, **variables}, self._message)


def _head(errand: Errand) -> bytes:
    return return_path(errand.job.sender) + delivered_to(errand.job.recipient)


def _blocks(content: bytes | int, size: int) -> Iterator[bytes]:
    """The content, checked to be whole. Raises MboxTrouble."""
    if isinstance(content, bytes):
        offset = len(content)
        yield content
    else:
        offset = 0
        while block := _read(content, offset):
            yield block
            offset += len(block)
    if offset != size:
        raise mbox.MboxTrouble(_UNREADABLE)


def _read(descriptor: int, offset: int) -> bytes:
    try:
        return os.pread(descriptor, maildir.BLOCK, offset)
    except OSError as problem:
        raise mbox.MboxTrouble(_UNREADABLE) from problem
