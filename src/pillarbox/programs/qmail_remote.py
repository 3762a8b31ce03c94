"""qmail-remote HOST SENDER RECIP...: bring the message on descriptor 0 to HOST's mail exchangers, qmail-remote(8).

Its report on descriptor 1 is a chunk for each recipient (`r` taken, `h` refused, `s` refused for now) and one for the
message (`K` done, `Z` later, `D` never), each ended by NUL; the exit status is always 0.

A password of control/smtproutes goes to its relay as it did from the patched qmail-remote: over TLS where the relay
offers it, else in clear. Who wants it otherwise runs `serve`.
"""

from __future__ import annotations

import os
import socket
import stat
import time
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pillarbox.attempt import Attempt
from pillarbox.control.table import Settings, read
from pillarbox.envelope import Envelope
from pillarbox.net import hosts
from pillarbox.net.hosts import Host, NoHost
from pillarbox.net.names import Exchanger, Names
from pillarbox.outcome import Outcome, Verdict
from pillarbox.programs import whereabouts
from pillarbox.programs.carrying import Carrying
from pillarbox.programs.tcpto import Tcpto
from pillarbox.roles import journey
from pillarbox.roles.journey import BLOCK, Content, Errand, Journey, Result, server_name
from pillarbox.routes import BadRoute, Routes
from pillarbox.sessions.relaying import Order, sender

NAME = "qmail-remote"
READS = frozenset({"me", "helohost", "timeoutremote", "timeoutconnect", "smtproutes", "resolvers"})

IMPROPER = Outcome.never(b"I (qmail-remote) was invoked improperly. (#5.3.5)\n")
NO_HOME = Outcome.later(b"Unable to switch to home directory. (#4.3.0)\n")
NO_CONTROL = Outcome.later(b"Unable to read control files. (#4.3.0)\n")
UNREADABLE = Outcome.later(b"Unable to read message. (#4.3.0)\n")
NO_RESOURCES = Outcome.later(b"System resources temporarily unavailable. (#4.3.0)\n")
NO_MEMORY = Outcome.later(b"Out of memory. (#4.3.0)\n")
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
    domain, reverse_path, *recipients = arguments
    try:
        message = _message()
        content = Content(message, os.fstat(message).st_size)
        whole = not content.size or os.pread(message, 1, content.size - 1) == b"\n"
    except OSError:
        return Result.alike(UNREADABLE, 0)
    if not whole:
        return Result.alike(PARTIAL, 0)
    try:
        return _bring(domain, Envelope(reverse_path, tuple(recipients)), content, settings, home)
    except OSError:
        return Result.alike(NO_RESOURCES, 0)
    except MemoryError:
        return Result.alike(NO_MEMORY, 0)


def _bring(domain: bytes, envelope: Envelope, content: Content, settings: Settings, home: str) -> Result:
    try:
        hop = Routes(settings.smtproutes).find(domain.lower())
    except BadRoute as failure:
        return Result.alike(Outcome.later(failure.text.encode("ascii", "replace") + b"\n", failure.status), 0)
    errand = Errand(domain, hop, envelope, content, clear=True)
    try:
        found = _hosts(errand, settings)
    except NoHost as failure:
        return journey.nowhere(failure, len(envelope.recipients))
    calls = _Calls(errand, settings, Tcpto(f"{home}/queue/lock/tcpto", os.getpid()))
    return _finished(Journey(errand, _own_name(settings), calls.call, time.monotonic).run(found))


def _hosts(errand: Errand, settings: Settings) -> list[Host]:
    """Raises NoHost."""
    looking = _looking(errand, _Asked(settings))
    if hosts.is_written(errand.domain if errand.hop is None else errand.hop.relay):
        return _finished(looking)
    import asyncio

    return asyncio.run(looking)


async def _looking(errand: Errand, names: Names) -> list[Host]:
    if errand.hop is not None:
        return await hosts.of_relay(names, errand.hop.relay)
    import random

    from pillarbox.net.interfaces import own_addresses

    return await hosts.of_domain(names, errand.domain, own_addresses(), random.shuffle)


_T = TypeVar("_T")


def _finished(coroutine: Coroutine[Any, Any, _T]) -> _T:
    """The result of one that waits for nothing: what it calls has done the waiting."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: _T = end.value
        return result
    raise AssertionError("it waits")


class _Calls:
    """How the hosts of one errand are spoken with."""

    def __init__(self, errand: Errand, settings: Settings, deaf: Tcpto) -> None:
        self._errand, self._settings, self._deaf = errand, settings, deaf

    async def call(self, host: Host, order: Order) -> Attempt | None:
        """One conversation; None: no connection."""
        connection = self._connected(host)
        if connection is None:
            return None

        def secure() -> Any:
            from pillarbox.net import tls

            context = tls.verifying() if order.verified else tls.opportunistic()
            return tls.Tls(context, server_name=server_name(host))

        with connection:
            patience = float(self._settings.timeoutremote)
            return Carrying(connection, sender(order), self._errand.content, secure, patience).run()

    def _connected(self, host: Host) -> socket.socket | None:
        if self._deaf.skips(host.address):
            return None
        connection = socket.socket(socket.AF_INET6 if ":" in host.address else socket.AF_INET)
        connection.settimeout(float(self._settings.timeoutconnect))
        try:
            connection.connect((host.address, self._errand.port))
        except OSError as problem:
            connection.close()
            if isinstance(problem, TimeoutError):
                self._deaf.timed_out(host.address)
            else:
                self._deaf.answered(host.address)
            return None
        self._deaf.answered(host.address)
        return connection


def _own_name(settings: Settings) -> bytes:
    return settings.helohost or settings.me


def _message() -> int:
    """A descriptor of a file that begins with the message: 0 itself, mostly. It is never closed. Raises OSError."""
    if stat.S_ISREG(os.fstat(0).st_mode) and os.lseek(0, 0, os.SEEK_CUR) == 0:
        return 0
    copy = _nameless()
    while block := os.read(0, BLOCK):
        while block:
            block = block[os.write(copy, block) :]
    return copy


def _nameless() -> int:
    """A file that nobody else can open. Raises OSError."""
    try:
        return os.open(os.environ.get("TMPDIR") or "/tmp", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError:
        import tempfile  # for file systems that know no such files

        with tempfile.TemporaryFile(buffering=0) as file:
            return os.dup(file.fileno())


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
