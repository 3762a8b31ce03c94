"""The smallest driver of a sender there is: one socket, and it blocks."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from pillarbox.attempt import Attempt
from pillarbox.sessions.relaying import Order, sender
from pillarbox.smtp.sender import Phase, Sender

PATIENCE = 30.0


@dataclass
class Trip:
    """What became of an order, and what was seen on the way."""

    attempt: Attempt
    tls: str | None = None
    phases: list[Phase] = field(default_factory=list)


def bring(order: Order, to: int | Path, content: Iterable[bytes]) -> Trip:
    """Connect to a port of this machine, or to a Unix socket, and bring the message."""
    machine = sender(order)
    blocks = iter(content)
    phases: list[Phase] = []
    with _connected(to) as plain:
        connection: socket.socket = plain
        while not machine.finished:
            if not phases or phases[-1] is not machine.phase:
                phases.append(machine.phase)
            if data := machine.data_to_send():
                connection.sendall(data)
            elif machine.wants_tls:
                connection = _secured(machine, connection)
            elif machine.wants_content:
                _give(machine, next(blocks, None))
            else:
                _hear(machine, connection)
        tls = connection.version() if isinstance(connection, ssl.SSLSocket) else None
        connection.close()
    assert machine.attempt is not None
    return Trip(machine.attempt, tls, phases)


def _connected(to: int | Path) -> socket.socket:
    if isinstance(to, int):
        return socket.create_connection(("127.0.0.1", to), timeout=PATIENCE)
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(PATIENCE)
    connection.connect(str(to))
    return connection


def _secured(machine: Sender, connection: socket.socket) -> socket.socket:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        secure = context.wrap_socket(connection)
    except ssl.SSLError as problem:
        machine.tls_failed((problem.reason or "").encode())
        return connection
    machine.secured()
    return secure


def _give(machine: Sender, block: bytes | None) -> None:
    if block is None:
        machine.end_of_content()
    else:
        machine.content(block)


def _hear(machine: Sender, connection: socket.socket) -> None:
    data = b""
    with suppress(ConnectionError):
        data = connection.recv(65536)
    if data:
        machine.receive(data)
    else:
        machine.eof()
