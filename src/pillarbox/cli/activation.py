"""Socket activation (sd_listen_fds(3)): systemd listens for us and hands the sockets over at every start, so that a
restart refuses no connection: clients wait in the kernel meanwhile.

control/listen stays the one place that says what is served. A socket handed over stands for its line there; a socket
that was given the name of a service (FileDescriptorName=) needs no line.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pillarbox.control.table import SERVICES, Listener
from pillarbox.net import listening
from pillarbox.status import Failure, Status

FIRST = 3  # the first descriptor handed over
MOST = 512
VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID")

_NUMBER = re.compile(r"[0-9]{1,9}", re.ASCII)


class BadActivation(Failure):
    """What was handed over cannot be served; the text says what to change."""

    status = Status(5, 3, 5)


@dataclass(frozen=True, slots=True)
class Handed:
    """A listening socket that was handed over, and the name it came with."""

    name: str
    sock: socket.socket

    def __str__(self) -> str:
        at = self.sock.getsockname()
        if self.sock.family == socket.AF_UNIX:
            return os.fsdecode(at)
        return f"[{at[0]}]:{at[1]}" if self.sock.family == socket.AF_INET6 else f"{at[0]}:{at[1]}"


def handed(environ: MutableMapping[str, str], pid: int) -> list[Handed]:
    """The sockets that were handed to the process `pid`, in their order. They will not be inherited by programs, and
    the variables that told of them are taken away. Raises BadActivation."""
    told = {name: environ.pop(name, "") for name in VARIABLES}
    if told["LISTEN_PID"] != str(pid):
        return []  # they were somebody else's, who left his environment to us
    if not _NUMBER.fullmatch(told["LISTEN_FDS"]) or int(told["LISTEN_FDS"]) > MOST:
        raise BadActivation(f"$LISTEN_FDS: not a number up to {MOST}: {told['LISTEN_FDS']!r}")
    count = int(told["LISTEN_FDS"])
    names = told["LISTEN_FDNAMES"].split(":") if told["LISTEN_FDNAMES"] else []
    names += ["unknown"] * (count - len(names))
    return [Handed(names[at], _listening_on(FIRST + at)) for at in range(count)]


def _listening_on(descriptor: int) -> socket.socket:
    what = f"descriptor {descriptor} of $LISTEN_FDS"
    try:
        sock = socket.socket(fileno=descriptor)
        listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as problem:
        raise BadActivation(f"{what}: {problem.strerror}: hand over listening sockets only") from None
    known = sock.family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
    if not known or sock.type != socket.SOCK_STREAM or not listens:
        raise BadActivation(f"{what}: not a stream socket that listens: use ListenStream= and Accept=no")
    sock.set_inheritable(False)
    sock.setblocking(False)
    return sock


def listeners(
    received: Sequence[Handed], configured: Sequence[Listener]
) -> list[tuple[Listener, socket.socket | None]]:
    """Each line of control/listen with its socket, None where the port has still to be taken; then what is served by
    its name alone. One IPv6 socket that takes IPv4 too stands for the lines of both. Raises BadActivation for a socket
    that nothing says the service of."""
    served: list[tuple[Listener, socket.socket | None]] = []
    network = [each for each in received if each.sock.family != socket.AF_UNIX]
    claimed: dict[Handed, Listener] = {}
    for line in configured:
        one = next((each for each in network if _stands_for(each.sock, line)), None)
        if one is None:
            served.append((line, None))
            continue
        before = claimed.setdefault(one, line)
        if before.service != line.service or (one.name in SERVICES and one.name != line.service):
            raise BadActivation(f"control/listen: {line}: the socket handed over for {one} serves {_of(one, before)}")
        if before is line:
            served.append((line, one.sock))
    return served + [(_by_name(each), each.sock) for each in network if each not in claimed]


def _of(one: Handed, line: Listener) -> str:
    return one.name if one.name in SERVICES else line.service


def _by_name(one: Handed) -> Listener:
    if one.name not in SERVICES:
        remedy = f"add a line to control/listen, like: smtp {one}; or name the socket: FileDescriptorName=smtp"
        raise BadActivation(f"the socket {one} was handed over, and nothing says what it is for: {remedy}")
    address, port = one.sock.getsockname()[:2]
    return Listener(one.name, address, port)


def _stands_for(sock: socket.socket, line: Listener) -> bool:
    here = sock.getsockname()
    if sock.family == socket.AF_INET6 and line.address == "0.0.0.0":
        both = here[0] == "::" and not sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
        return both and bool(here[1] == line.port)
    numeric = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    there = socket.getaddrinfo(line.address, line.port, type=socket.SOCK_STREAM, flags=numeric)[0]
    return bool(there[0] == sock.family and there[4] == here)


def unix(received: Sequence[Handed], path: Path, mode: int) -> socket.socket:
    """The Unix socket at `path`: the one handed over, else a new one with these permissions. Raises OSError."""
    for each in received:
        if each.sock.family == socket.AF_UNIX and os.path.realpath(str(each)) == os.path.realpath(path):
            return each.sock
    return listening.unix(path, mode)


def refuse_strange(received: Sequence[Handed], paths: Sequence[Path]) -> None:
    """Raises BadActivation for a Unix socket that is none of `paths`: nobody would ever answer there."""
    ours = {os.path.realpath(path) for path in paths}
    for each in received:
        if each.sock.family == socket.AF_UNIX and os.path.realpath(str(each)) not in ours:
            names = ", ".join(map(str, paths))
            raise BadActivation(f"the socket {each} was handed over, and there is nothing to serve on it: only {names}")
