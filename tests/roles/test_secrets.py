"""What stays in the memory of a role: a secret that it may not have must not have come there by inheritance."""

from __future__ import annotations

import base64
import re
import smtplib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server import Server, a_home, listen

ROUTE = "far.example:relay.example:25 bob RoUtEpAsSwOrD77\n"
MAY_HAVE_KEY = {"pillarbox-smtpd", "pillarbox-pop3d"}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with a_home({"listen": listen("smtp", "pop3"), "smtproutes": ROUTE}) as server:
        server.start()
        with smtplib.SMTP("127.0.0.1", server.ports["smtp"]) as client:  # an owner role is there then
            client.sendmail("a@example.net", ["joe@example.org"], "Subject: x\n\nhello\n")
        server.await_delivered(b"hello")
        yield server


def memory(pid: int) -> bytes:
    """All that a process can write to; what of it cannot be read is left out."""
    found = []
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as stream:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, rights, *_ = line.split()
            start, end = (int(number, 16) for number in span.split("-"))
            if rights.startswith("rw"):
                stream.seek(start)
                try:
                    found.append(stream.read(end - start))
                except OSError:
                    continue
    return b"".join(found)


def holders(server: Server, *needles: bytes) -> set[str]:
    """The names of the processes of this server that hold one of them."""
    holding = set()
    for pid in (server.pid, *server.processes()):
        try:
            held = memory(pid)
        except PermissionError:
            pytest.skip("needs root: roles cannot be traced")
        if any(needle in held for needle in needles):
            holding.add("supervisor" if pid == server.pid else Path(f"/proc/{pid}/comm").read_text().strip())
    return holding


def test_the_private_key_of_the_certificate_is_in_no_role_that_speaks_no_tls(server: Server) -> None:
    text = (server.home / "tls" / "key.pem").read_bytes()
    lines = [line for line in text.split(b"\n") if line and not line.startswith(b"-")]
    octets = base64.b64decode(b"".join(lines))
    scalar = re.search(rb"\x02\x01\x01\x04\x20(.{32})", octets, re.DOTALL)  # RFC 5915: version, private key
    assert scalar is not None
    assert holders(server, lines[1][:40], scalar[1], scalar[1][::-1]) <= MAY_HAVE_KEY


def test_the_password_of_a_route_is_in_the_queue_role_alone(server: Server) -> None:
    assert holders(server, b"RoUtEpAsSwOrD77") == {"pillarbox-queue"}


def test_the_password_of_the_first_account_is_in_nobody_s_memory_once_it_is_told() -> None:
    with a_home({"listen": listen("smtp", "pop3")}, accounts=()) as fresh:
        fresh.start()
        (line,) = [line for line in fresh.output.splitlines() if line.startswith("password  ")]
        password = line.removeprefix("password  ").encode()
        assert holders(fresh, password) == set()
