"""The checkpassword interface, both its ends: who asks starts a program and says on its descriptor 3 who somebody
claims to be; the program reads that, and its exit status answers. 0: he is; 1: he is not; 2: asked wrongly; 111:
cannot say.

The interface is that of checkpassword 0.90, qmail-popup 1.03 and qmail-smtpd-auth 0.31. The rule that must stay true:
what is said is on a pipe and nowhere else, neither in an argument nor in the environment, and the pipe is nobody's but
the program's, as descriptor 3, whatever descriptor 3 is here.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from pillarbox.credentials import Credentials, Digest, Password
from pillarbox.status import Failure

MOST_SAID = 512  # octets: checkpassword refuses more
WRONG = 1
MISUSED = 2
TROUBLE = 111
DESCRIPTOR = 3

_KILL = 9
_DYING = 1.0  # seconds, for a process that was killed
_ABOVE = 10  # descriptors from here on are in nobody's way
_MOST_LEFT = 256  # descriptors to look at where they are not listed
# Python ignores some signals, and roles of `serve` more (1, 2, 15); a program finds all as it expects them.
_SIGNALS = (1, 2, 13, 15, 25)
# errno of a process that could not be made, unlike those of a program that could not be run.
_NO_PROCESS = frozenset({errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE})


class NotAsked(Failure):
    """There is nothing to answer. `exit_status` is what checkpassword ends with: 2, 1 or 111."""

    def __init__(self, text: str, exit_status: int) -> None:
        super().__init__(text)
        self.exit_status = exit_status


class CannotStart(Failure):
    """No pipe or no process for a checkpassword program: temporary. `pipe` says which."""

    def __init__(self, text: str, *, pipe: bool) -> None:
        super().__init__(text)
        self.pipe = pipe


class Overdue(Failure):
    """A checkpassword program did not end in time, and was ended: temporary."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What was said on descriptor 3. `third` is None where nothing is said behind `second`, or it has no end. `raw` is
    all of it, for a program that asks another one."""

    login: bytes
    second: bytes = field(repr=False)
    third: bytes | None = field(repr=False)
    raw: bytes = field(repr=False)


def said(credentials: Credentials, stamp: bytes = b"") -> bytes | None:
    """What stands on descriptor 3: three fields, each with a NUL behind it. `stamp`: the third one of a password, where
    qmail-popup puts its greeting's. None for what no program can be asked: an empty password, more than 512 octets, a
    NUL, by which a client would write fields of his own."""
    match credentials:
        case Password(login, password):
            fields = (login, password, stamp)
        case Digest(b"CRAM-MD5", login, challenge, response):
            fields = (login, challenge, response)  # the order of qmail-smtpd-auth 0.31
        case Digest(_, login, challenge, response):
            fields = (login, response, challenge)  # qmail-popup's APOP
    if not fields[1] or any(b"\0" in one for one in fields):
        return None
    octets = b"".join(one + b"\0" for one in fields)
    return octets if len(octets) <= MOST_SAID else None


def read(descriptor: int = DESCRIPTOR) -> Asked:
    """Read to its end, and close, what a checkpassword program is asked. Two fields at least, each with its NUL. Blocks
    as long as somebody holds the pipe open. Raises NotAsked."""
    octets = b""
    try:
        with open(descriptor, "rb", buffering=0) as pipe:
            while len(octets) <= MOST_SAID and (block := pipe.read(MOST_SAID + 1 - len(octets))):
                octets += block
    except OSError as problem:
        raise NotAsked(f"cannot read descriptor {descriptor}: {problem.strerror or problem}", TROUBLE) from None
    return parse(octets)


def parse(octets: bytes) -> Asked:
    """What was said, from its octets. Raises NotAsked."""
    if len(octets) > MOST_SAID:
        raise NotAsked(f"asked with more than {MOST_SAID} octets", WRONG)
    fields = octets.split(b"\0")
    if len(fields) < 3:
        raise NotAsked("asked without a name and a password, each with a NUL behind it", MISUSED)
    return Asked(fields[0], fields[1], fields[2] if len(fields) > 3 else None, octets)


def hand_on(said: bytes) -> None:
    """Make `said` what there is to read on descriptor 3, for the program that takes the place of this process. Raises
    OSError."""
    assert len(said) <= MOST_SAID
    reading, writing = os.pipe2(os.O_CLOEXEC)
    os.write(writing, said)
    os.close(writing)
    if reading == DESCRIPTOR:
        os.set_inheritable(reading, True)
    else:
        os.dup2(reading, DESCRIPTOR)
        os.close(reading)


class Process:
    """A checkpassword program that runs. `problem` says why it could not be run, where that is so: then its exit status
    is 1, as that of the C programs' child. `wait` must be called, once."""

    __slots__ = ("_apart", "_pid", "problem")

    def __init__(self, pid: int, *, apart: bool, problem: OSError | None = None) -> None:
        self._pid = pid
        self._apart = apart
        self.problem = problem

    def wait(self, seconds: float | None = None) -> int:
        """Its exit status, or the negative number of the signal that ended it. After `seconds` it is killed, with all
        that it started where it was started `apart`, and Overdue raised; None waits for ever."""
        if self.problem is not None:
            return WRONG
        if seconds is not None:
            self._end_within(seconds)
        _pid, status = os.waitpid(self._pid, 0)
        return os.waitstatus_to_exitcode(status)

    def _watch(self) -> None:
        with suppress(ChildProcessError):  # given up, and reaped since
            os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOWAIT)

    def _end_within(self, seconds: float) -> None:
        from threading import Thread

        watch = Thread(target=self._watch, daemon=True)
        watch.start()
        watch.join(seconds)
        if not watch.is_alive():
            return
        # It is not reaped yet, so its number is still its own. A program that became somebody else cannot be ended.
        with suppress(ProcessLookupError, PermissionError):
            (os.killpg if self._apart else os.kill)(self._pid, _KILL)
        watch.join(_DYING)
        os.waitpid(self._pid, os.WNOHANG)
        raise Overdue(f"took more than {seconds:g} seconds")


def start(
    argv: Sequence[bytes],
    said: bytes,
    *,
    stdin: int | None = None,
    stdout: int | None = None,
    stderr: int | None = None,
    environment: Mapping[bytes, bytes] | None = None,
    apart: bool = True,
) -> Process:
    """Start `argv` (its program looked for in our PATH) with `said` to read on descriptor 3. Descriptors 0 to 2 are
    those given, or ours; it gets no other. `environment`: ours where None. `apart`: in a session of its own, which
    `wait` can end with all that is in it; else it stays in our process group. Raises CannotStart."""
    assert len(said) <= MOST_SAID
    try:
        pipe = _pipe(said)
    except OSError as problem:
        raise CannotStart(f"cannot open a pipe: {problem.strerror}", pipe=True) from None
    ours: list[int] = [pipe]
    try:
        # Each goes through a number that is nobody's target: a dup2 must not close what another one still needs.
        for given in (stdin, stdout, stderr):
            if given is not None:
                ours.append(fcntl.fcntl(given, fcntl.F_DUPFD_CLOEXEC, _ABOVE))
        return _spawn(argv, _actions(ours, (stdin, stdout, stderr)), environment, apart)
    except OSError as problem:
        raise CannotStart(f"cannot start a process: {problem.strerror}", pipe=False) from None
    finally:
        for descriptor in ours:
            os.close(descriptor)


def _pipe(said: bytes) -> int:
    """The read end of a pipe that holds all of `said` and then its end: nobody can hold us up, or keep it open."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    try:
        os.write(writing, said)
        return fcntl.fcntl(reading, fcntl.F_DUPFD_CLOEXEC, _ABOVE)
    finally:
        os.close(reading)
        os.close(writing)


def _actions(ours: Sequence[int], given: Sequence[int | None]) -> list[tuple[int, ...]]:
    sources = iter(ours[1:])
    actions: list[tuple[int, ...]] = [
        (os.POSIX_SPAWN_DUP2, next(sources), target) for target, one in enumerate(given) if one is not None
    ]
    actions.append((os.POSIX_SPAWN_DUP2, ours[0], DESCRIPTOR))
    return actions + [(os.POSIX_SPAWN_CLOSE, inherited) for inherited in _inheritable()]


def _inheritable() -> list[int]:
    """Descriptors above 3 that were left open for us by whoever started us. Ours are all close-on-exec."""
    try:
        numbers: Iterable[int] = [int(name) for name in os.listdir("/dev/fd")]
    except FileNotFoundError:  # a changed root without it
        numbers = range(_MOST_LEFT)
    found = []
    for number in numbers:
        with suppress(OSError):
            if number > DESCRIPTOR and os.get_inheritable(number):
                found.append(number)
    return found


def _spawn(
    argv: Sequence[bytes], actions: list[tuple[int, ...]], environment: Mapping[bytes, bytes] | None, apart: bool
) -> Process:
    surroundings = os.environb if environment is None else environment
    try:
        if not argv[0]:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        pid = os.posix_spawnp(
            argv[0],
            list(argv),
            surroundings,
            file_actions=actions,
            setsid=apart,
            setsigmask=(),
            setsigdef=_SIGNALS,
        )
    except OSError as problem:
        if problem.errno in _NO_PROCESS:
            raise
        return Process(0, apart=apart, problem=problem)
    return Process(pid, apart=apart)
