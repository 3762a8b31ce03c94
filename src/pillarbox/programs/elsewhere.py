"""Another program queues the message: $QMAILQUEUE, or the qmail-queue of a C qmail. It gets the message on descriptor 0
and the envelope on descriptor 1, and its exit status says what became of it (qmail-queue(8), qmail.c).

The rule that must stay true: an envelope whose message was not written whole never gets its end, and a 0 counts only
when all of both was taken: a pipe holds 64 KiB that nobody ever reads.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
from contextlib import suppress

from pillarbox.envelope import Envelope
from pillarbox.programs.content import Content
from pillarbox.programs.conversation import TimedOut, send
from pillarbox.programs.injector import REFUSED, REFUSED_FOR_NOW, Result

PATIENCE = 86400.0  # seconds, as long as qmail-queue itself takes
_GIVEN_UP = 30.0  # seconds that we wait for one whose message was given up
CRASHED = 81
NOT_RUN = 120
UNREADABLE = 54
TIMED_OUT = 52
CUSTOM = 82
"""The program says itself why, on descriptor 4, with D (for good) or Z (for now) ahead: notqmail, and the patch of
before."""
_CUSTOM_DESCRIPTOR = 4
_LONGEST_WORDS = 256  # octets, as in qmail.c with that patch
_ABOVE = 10  # descriptors from here on are in nobody's way
_SIGNALS = (1, 2, 13, 15, 25)  # Python ignores some; a program finds all as it expects them
_NO_PROCESS = frozenset({errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE})

# qmail.c's words for exit statuses.
_TEXTS = {
    11: "envelope address too long for qq (#5.1.3)",
    31: "mail server permanently rejected message (#5.3.0)",
    51: "qq out of memory (#4.3.0)",
    52: "qq timeout (#4.3.0)",
    53: "qq write error or disk full (#4.3.0)",
    54: "qq read error (#4.3.0)",
    55: "qq unable to read configuration (#4.3.0)",
    56: "qq trouble making network connection (#4.3.0)",
    61: "qq trouble in home directory (#4.3.0)",
    71: "mail server temporarily rejected message (#4.3.0)",
    72: "connection to mail server timed out (#4.4.1)",
    73: "connection to mail server rejected (#4.4.1)",
    74: "communication with mail server failed (#4.4.2)",
    81: "qq internal bug (#4.3.0)",
    91: "qq internal bug (#4.3.0)",
    120: "unable to exec qq (#4.3.0)",
}
_TEXTS |= {115: _TEXTS[11], **dict.fromkeys(range(62, 67), "qq trouble creating files in queue (#4.3.0)")}


def text(status: int) -> str:
    """What qmail's programs say for an exit status of qmail-queue."""
    other = "qq permanent problem (#5.3.0)" if 11 <= status <= 40 else "qq temporary problem (#4.3.0)"
    return _TEXTS.get(status, other)


def hand_over(program: bytes, envelope: Envelope, content: Content) -> Result:
    """Run `program` and tell it everything. Raises OSError for `content`, and where no process can be made."""
    injection = Injection(program)
    try:
        for block in content.blocks():
            injection.write(block)
    except OSError:
        injection.abort()
        raise
    return injection.finish(envelope)


class Injection:
    """qmail_open and what follows: the program runs, in our directory, and hears the message as it comes. Ends with
    `finish` or `abort`."""

    def __init__(self, program: bytes) -> None:
        """Raises OSError where there are no pipes or processes; a program that cannot be run is told by `finish`."""
        self._theirs: list[int] = []
        self._ours: list[int] = []
        self._left: list[int] = []
        try:
            message, envelope = (self._pipe(backwards=False) for _ in range(2))
            self._said = self._pipe(backwards=True)
            self._pid = self._spawned(program)
        except OSError:
            self._close(self._ours)
            raise
        finally:
            self._close(self._theirs)
        self._message, self._envelope = message, envelope
        self._whole = True  # all that we had to say was taken

    def write(self, block: bytes) -> None:
        """Some of the message."""
        self._say(self._message, block)

    def finish(self, envelope: Envelope) -> Result:
        """The message is whole, and this is its envelope. What became of it; `number` is the program's process."""
        self._end(self._message)
        self._say(self._envelope, b"F" + envelope.sender + b"\0")
        for recipient in envelope.recipients:
            self._say(self._envelope, b"T" + recipient + b"\0")
        self._say(self._envelope, b"\0")
        self._end(self._envelope)
        return self._outcome()

    def abort(self) -> None:
        """There will be no message: an envelope without its end is none."""
        self._close(self._ours)
        self._status(_GIVEN_UP)

    def _outcome(self) -> Result:
        status = self._status(PATIENCE)
        said = self._words() if status == CUSTOM else b""
        whole = self._whole and not any(map(_unread, self._left))
        self._close(self._ours)
        self._close(self._left)
        if status is None:
            return Result(TIMED_OUT, text(TIMED_OUT))
        if status < 0:
            return Result(CRASHED, "qq crashed (#4.3.0)")
        if said[:1] in (b"D", b"Z"):
            words = said[1:].decode("ascii", "replace")
            return Result(REFUSED if said.startswith(b"D") else REFUSED_FOR_NOW, words)
        if not status and not whole:
            status = UNREADABLE
        return Result(status, text(status)) if status else Result(0, "", self._pid)  # what qmail's programs call `qp`

    def _status(self, seconds: float) -> int | None:
        """Its exit status, the negative number of the signal that ended it, or None when it took too long."""
        if not self._pid:
            return NOT_RUN
        process = os.pidfd_open(self._pid)
        try:
            if not select.select([process], [], [], seconds)[0]:
                return None
        finally:
            os.close(process)
        return os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])

    def _words(self) -> bytes:
        """What it said on its descriptor 4; it has ended, so all of that is there."""
        os.set_blocking(self._said, False)
        with suppress(BlockingIOError):
            return os.read(self._said, _LONGEST_WORDS).partition(b"\0")[0].rstrip(b"\r\n")
        return b""

    def _say(self, descriptor: int, octets: bytes) -> None:
        if not self._whole or not self._pid:
            return
        try:
            send(descriptor, octets, PATIENCE)
        except (BrokenPipeError, TimedOut):
            self._whole = False  # its status says why it would not hear the end

    def _end(self, descriptor: int) -> None:
        """No more of this. The other end is opened to see afterwards whether anything was left in the pipe; no earlier,
        for it would keep writes waiting for a program that has closed its own. Without /proc nobody can see."""
        with suppress(OSError):
            self._left.append(os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
        self._ours.remove(descriptor)
        os.close(descriptor)

    def _pipe(self, *, backwards: bool) -> int:
        """A pipe to the program, or back from it; our end."""
        ends = os.pipe2(os.O_CLOEXEC)
        try:
            # Each end of the program goes through a number that is none of its own: a dup2 must close nothing needed.
            self._theirs.append(fcntl.fcntl(ends[backwards], fcntl.F_DUPFD_CLOEXEC, _ABOVE))
            self._ours.append(fcntl.fcntl(ends[not backwards], fcntl.F_DUPFD_CLOEXEC, _ABOVE))
        finally:
            for end in ends:
                os.close(end)
        return self._ours[-1]

    def _spawned(self, program: bytes) -> int:
        """Its process; 0 when there is no such program. Raises OSError."""
        targets = (0, 1, _CUSTOM_DESCRIPTOR)
        actions = [(os.POSIX_SPAWN_DUP2, end, target) for end, target in zip(self._theirs, targets, strict=True)]
        try:
            return os.posix_spawn(program, [program], os.environb, file_actions=actions, setsigdef=_SIGNALS)
        except OSError as problem:
            if problem.errno in _NO_PROCESS:
                raise
            return 0

    @staticmethod
    def _close(descriptors: list[int]) -> None:
        while descriptors:
            os.close(descriptors.pop())


def _unread(descriptor: int) -> bool:
    """Is anything in this pipe? Nobody can write into it any more, and one that is empty says so alone (POLLHUP)."""
    looking = select.poll()
    looking.register(descriptor, select.POLLIN)
    return any(events & select.POLLIN for _, events in looking.poll(0))
