"""qmail-remote HOST SENDER RECIP...: bring the message on descriptor 0 to HOST's mail exchangers, qmail-remote(8).

Its report on descriptor 1 is a chunk for each recipient (`r` taken, `h` refused, `s` refused for now) and one for the
message (`K` done, `Z` later, `D` never), each ended by NUL; the exit status is always 0.

A password of control/smtproutes goes to its relay as it did from the patched qmail-remote: over TLS where the relay
offers it, else in clear. Who wants it otherwise runs `serve`.
"""

from __future__ import annotations

import asyncio
import os
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pillarbox.control.table import Settings, read
from pillarbox.envelope import Envelope
from pillarbox.net.names import Exchanger, Names
from pillarbox.outcome import Outcome, Verdict
from pillarbox.programs import whereabouts
from pillarbox.roles import relay
from pillarbox.roles.carrier import BLOCK, Content
from pillarbox.roles.relay import Errand, Result, Road
from pillarbox.routes import BadRoute, Routes

NAME = "qmail-remote"
READS = frozenset({"me", "helohost", "timeoutremote", "timeoutconnect", "smtproutes", "resolvers"})

IMPROPER = Outcome.never(b"I (qmail-remote) was invoked improperly. (#5.3.5)\n")
NO_HOME = Outcome.later(b"Unable to switch to home directory. (#4.3.0)\n")
NO_CONTROL = Outcome.later(b"Unable to read control files. (#4.3.0)\n")
UNREADABLE = Outcome.later(b"Unable to read message. (#4.3.0)\n")
PARTIAL = Outcome.never(b"SMTP cannot transfer messages with partial final lines. (#5.6.2)\n")
_LETTERS = {Verdict.DONE: b"r", Verdict.LATER: b"s", Verdict.NEVER: b"h"}


def main(arguments: list[str]) -> int:
    """Always 0: the report says how it went."""
    report = _report(_run([os.fsencode(argument) for argument in arguments]))
    try:
        while report:
            report = report[os.write(1, report) :]
    except OSError:
        return 0  # nobody listens
    return 0


def _run(arguments: Sequence[bytes]) -> Result:
    if len(arguments) < 3:
        return Result.alike(IMPROPER, 0)
    home = whereabouts.find(os.environ)
    if not os.path.isdir(f"{home}/control"):
        return Result.alike(NO_HOME, 0)
    settings, complaints = read(Path(home) / "control")
    if any(complaint.fatal and complaint.file in READS for complaint in complaints) or not _own_name(settings):
        return Result.alike(NO_CONTROL, 0)
    domain, sender, *recipients = arguments
    try:
        with _message() as message:
            return _bring(domain, Envelope(sender, tuple(recipients)), message, settings)
    except OSError:
        return Result.alike(UNREADABLE, 0)


def _bring(domain: bytes, envelope: Envelope, message: BinaryIO, settings: Settings) -> Result:
    size = os.fstat(message.fileno()).st_size
    if size and os.pread(message.fileno(), 1, size - 1) != b"\n":
        return Result.alike(PARTIAL, 0)
    try:
        hop = Routes(settings.smtproutes).find(domain.lower())
    except BadRoute as failure:
        return Result.alike(Outcome.later(failure.text.encode("ascii", "replace") + b"\n", failure.status), 0)
    road = Road(_Asked(settings), _own_name(settings), float(settings.timeoutconnect), float(settings.timeoutremote))
    errand = Errand(domain, hop, envelope, Content(message.fileno(), size), clear=True)
    return asyncio.run(relay.run(errand, road))


def _own_name(settings: Settings) -> bytes:
    return settings.helohost or settings.me


@contextmanager
def _message() -> Iterator[BinaryIO]:
    """Descriptor 0 as a file that begins with the message: what it is already, mostly. Raises OSError."""
    if stat.S_ISREG(os.fstat(0).st_mode) and os.lseek(0, 0, os.SEEK_CUR) == 0:
        with open(0, "rb", buffering=0, closefd=False) as file:
            yield file
        return
    with tempfile.TemporaryFile(buffering=0) as copy:
        while block := os.read(0, BLOCK):
            copy.write(block)
        yield copy


def _report(result: Result) -> bytes:
    """qmail-remote's chunks. Nobody is named where the conversation ended ahead of the recipients."""
    chunks = []
    if any(recipient is not None for recipient in result.recipients):
        chunks = [b"r" if one is None else _LETTERS[one.verdict] + one.report for one in result.recipients]
    chunks.append(result.message.verdict.value + result.message.report)
    return b"".join(chunk.replace(b"\0", b"?") + b"\0" for chunk in chunks)


class _Asked:
    """A resolver that is imported when something is asked: a literal in smtproutes needs none."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._made: Names | None = None

    def _names(self) -> Names:
        if self._made is None:
            from pillarbox.net.resolver import Resolver, Server

            servers = [Server(address, port) for address, port in self._settings.resolvers]
            self._made = Resolver(servers, float(self._settings.timeoutconnect))
        return self._made

    async def exchangers(self, domain: bytes) -> list[Exchanger]:
        return await self._names().exchangers(domain)

    async def addresses(self, name: bytes) -> list[str]:
        return await self._names().addresses(name)
