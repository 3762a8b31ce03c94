"""What a large message and many idle clients cost in memory, role by role. Needs root: roles are not dumpable."""

from __future__ import annotations

import hashlib
import poplib
import smtplib
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench import machine, server

LARGE = 100 << 20  # octets
LINE = b"Nothing of this message may be held in memory whole, by nobody, ever...123456\r\n"
BLOCK = LINE * 800
IDLE = 500  # connections


@dataclass(frozen=True, slots=True)
class Growth:
    """One process, octets: what it had before, and how much more it had at most."""

    role: str
    before: int
    growth: int


def large_message(home: Path) -> list[Growth]:
    """A message of LARGE octets in by SMTP and out by POP3 over TLS, checked to be the same."""
    with server.running(home, ["joe"]) as serving:
        _send(serving.ports["smtp"], blocks=1)  # it starts the owner role
        while not (small := list(serving.new("joe").iterdir())):
            time.sleep(0.05)
        small[0].unlink()
        roles = machine.family(serving.pid)
        before = {pid: machine.resident(pid) for pid in roles}
        sent = _send(serving.ports["smtp"], LARGE // len(BLOCK))
        while not any(serving.new("joe").iterdir()):
            time.sleep(0.05)
        if _fetch(serving.ports["pop3s"], home / "tls/cert.pem") != sent:
            raise SystemExit("bench: the large message came out changed")
        return [Growth(role, before[pid], machine.peak(pid) - before[pid]) for pid, role in roles.items()]


def _send(port: int, blocks: int) -> str:
    """A message of so many BLOCKs; the digest of its body."""
    digest = hashlib.sha256()
    with smtplib.SMTP("127.0.0.1", port, "client.example.test") as client:
        client.ehlo()
        client.mail("a@sender.test")
        client.rcpt("joe@example.test")
        client.docmd("DATA")
        client.send(b"Subject: large\r\n\r\n")
        for _ in range(blocks):
            digest.update(BLOCK)
            client.send(BLOCK)
        client.send(b".\r\n")
        code, text = client.getreply()
        if code != 250:
            raise SystemExit(f"bench: the large message was refused: {code} {text.decode()}")
    return digest.hexdigest()


def _fetch(port: int, certificate: Path) -> str:
    client = poplib.POP3_SSL("localhost", port, context=ssl.create_default_context(cafile=str(certificate)))
    client.user("joe@example.test")
    client.pass_(server.PASSWORD)
    client.sock.sendall(b"RETR 1\r\n")  # poplib's own retr() would keep all lines
    digest = hashlib.sha256()
    for line in _body(client):
        digest.update(line)
    client.quit()
    return digest.hexdigest()


def _body(client: poplib.POP3) -> Iterator[bytes]:
    lines = iter(client.file.readline, b".\r\n")
    for line in lines:
        if line == b"\r\n":
            break
    yield from lines


def idle_connections(home: Path) -> float:
    """Octets that each of IDLE connections costs, over all roles: greeted, said EHLO, and silent."""
    with server.running(home, ["joe"]) as serving, ExitStack() as stack:
        before = machine.proportional(serving.pid)
        for _ in range(IDLE):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", serving.ports["smtp"]), 10))
            client.recv(512)
            client.sendall(b"EHLO client.example.test\r\n")
            client.recv(4096)
        time.sleep(2.0)
        return (machine.proportional(serving.pid) - before) / IDLE
