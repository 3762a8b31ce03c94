"""Programs of dot-qmail files: `/bin/sh -c COMMAND` in the owner's home, and what its exit status means.

Source: qmail-command(8) and qmail-local. What the program writes goes where our own standard output goes: it is the
report. How long it may run is for whoever started this process to say.
"""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import suppress

from pillarbox.delivery.dotqmail import printable
from pillarbox.status import Failure, Status

STOP = 99  # all is done: no further instruction is looked at
PERMANENT = frozenset({100, 64, 65, 70, 76, 77, 78, 112})
_BLOCK = 65536
_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL


class ProgramTrouble(Failure):
    """The program did not do it. Its own words are in the report already; the text is what is to be added."""


def run(command: bytes, home: bytes, environment: Mapping[bytes, bytes], message: int) -> bool:
    """Run one command with the message, a seekable descriptor, from its start on standard input. False: leave out the
    instructions that follow. Raises ProgramTrouble: with status 5.3.0 the program wants the message refused."""
    os.lseek(message, 0, os.SEEK_SET)
    try:
        done = subprocess.run(
            [b"/bin/sh", b"-c", command], stdin=message, cwd=home, env=environment, close_fds=True, check=False
        )
    except OSError as problem:
        what = "switch to" if problem.filename == home else "run /bin/sh in"
        reason = os.strerror(problem.errno) if problem.errno else "unknown"
        raise ProgramTrouble(f"Unable to {what} {printable(home)}: {reason}. (#4.3.0)") from problem
    if done.returncode < 0:
        raise ProgramTrouble("Aack, child crashed. (#4.3.0)")
    if done.returncode in PERMANENT:
        raise ProgramTrouble("", Status(5, 3, 0))
    if done.returncode not in (0, STOP):
        raise ProgramTrouble("")
    return done.returncode != STOP


def message_file(content: bytes | int, size: int, home: bytes) -> int:
    """A seekable read-only descriptor of a message, with an offset that nobody else moves. Raises ProgramTrouble."""
    try:
        if isinstance(content, bytes):
            return _in_memory(content)
        with suppress(OSError):  # a file of the queue's, which we were handed open and may not open ourselves
            return os.open(f"/proc/self/fd/{content}", os.O_RDONLY | os.O_CLOEXEC)
        return _copy(content, size, home)
    except OSError as problem:
        raise ProgramTrouble("Unable to read message. (#4.3.0)") from problem


def _in_memory(content: bytes) -> int:
    descriptor = os.memfd_create("message", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _copy(content: int, size: int, home: bytes) -> int:
    """On the disk where the mail is to go: a large message never is whole in memory."""
    with tempfile.TemporaryFile(dir=home) as file:
        offset = 0
        while block := os.pread(content, _BLOCK, offset):
            file.write(block)
            offset += len(block)
        if offset != size:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        file.flush()
        return os.open(f"/proc/self/fd/{file.fileno()}", os.O_RDONLY | os.O_CLOEXEC)
