"""The process that carries one errand out: forked from the owner role, in a session of its own, gone when it is done.

It tells how it went on a pipe that programs do not have; what they write comes on another, which is the report.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from typing import NamedTuple, NoReturn

from pillarbox.delivery.errand import Result, Surroundings, carry_out
from pillarbox.delivery.job import Errand
from pillarbox.outcome import Verdict
from pillarbox.roles.process import keep_only
from pillarbox.status import Status

TEXT_LIMIT = 4000  # octets of a result's own text: with its numbers it fits into a pipe at one stroke
NUMBERS = 7
_VERDICTS = {verdict.value: verdict for verdict in Verdict}
_LEFT_TO_US = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)  # that a role ignores; a program must not


class Runner(NamedTuple):
    """A runner at work: its process (and group), and our ends of its two pipes."""

    pid: int
    output: int
    result: int


def launch(errand: Errand, host: bytes, variables: Mapping[bytes, bytes]) -> Runner:
    """Start one. `variables`: what programs get beside those of qmail-command. Raises OSError."""
    opened: list[int] = []
    try:
        opened += os.pipe2(os.O_CLOEXEC)
        opened += os.pipe2(os.O_CLOEXEC)
        pid = os.fork()
    except OSError:
        for descriptor in opened:
            os.close(descriptor)
        raise
    output, said, result, told = opened
    if pid == 0:
        _be(errand, host, variables, said, told)
    os.close(said)
    os.close(told)
    os.set_blocking(output, False)
    os.set_blocking(result, False)
    return Runner(pid, output, result)


def _be(errand: Errand, host: bytes, variables: Mapping[bytes, bytes], said: int, told: int) -> NoReturn:
    status = 1
    try:
        os.setsid()
        for number in _LEFT_TO_US:
            signal.signal(number, signal.SIG_DFL)
        nothing = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        for descriptor, place in ((nothing, 0), (said, 1), (said, 2)):
            os.dup2(descriptor, place)
        content = {errand.job.content} if isinstance(errand.job.content, int) else set()
        keep_only({0, 1, 2, told, *content})
        result = carry_out(errand, Surroundings(host, variables, int(time.time()), time.sleep))
        os.write(told, written(result))
        status = 0
    except BaseException:
        import traceback

        last = traceback.format_exc(limit=-3).replace("\n", " / ")
        os.write(told, b"bug " + last.encode("ascii", "backslashreplace")[:TEXT_LIMIT])
    finally:
        os._exit(status)


def written(result: Result) -> bytes:
    """A result as it goes through the pipe."""
    status = result.status
    numbers = (status.kind, status.subject, status.detail, result.files, result.programs, result.cut)
    return b"%s %d %d %d %d %d %d " % (result.verdict.value, *numbers) + result.text[:TEXT_LIMIT]


def read(octets: bytes) -> Result | None:
    """What `written` wrote; None when it is nothing of the kind: the runner died, or it met a bug of ours."""
    verdict, *rest = octets.split(b" ", NUMBERS)
    if verdict not in _VERDICTS or len(rest) != NUMBERS or not all(one.isdigit() for one in rest[:-1]):
        return None
    kind, subject, detail, files, programs, cut = map(int, rest[:-1])
    return Result(_VERDICTS[verdict], Status(kind, subject, detail), rest[-1], files, programs, cut)
