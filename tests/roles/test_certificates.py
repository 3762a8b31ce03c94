"""Certificates on their way from the home's files to the roles that serve them."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

import pytest
from cryptography.hazmat.primitives import serialization

from pillarbox.cli.certificate import new_key, self_signed
from pillarbox.control.table import Settings
from pillarbox.net.tls import Tls
from pillarbox.roles import certificates
from pillarbox.roles.certificates import BadCertificate
from pillarbox.roles.connections import Connections
from pillarbox.roles.house import House
from pillarbox.roles.link import Link
from pillarbox.roles.log import Log
from pillarbox.roles.supervisor import Supervisor
from pillarbox.roles.verbs import ROLE_SAYS
from tests.net.test_tls import Client, certificate

MANY = 2 * certificates.AT_ONCE + 50


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """With a certificate of its own."""
    for name in ("control", "tls"):
        (tmp_path / name).mkdir()
    key = new_key()
    (tmp_path / "tls" / "key.pem").write_bytes(key)
    (tmp_path / "tls" / "cert.pem").write_bytes(self_signed(key, "mx.example.org", datetime.now(UTC)))
    return tmp_path


def read(home: Path) -> dict[str, int]:
    return certificates.read(home, "tls/cert.pem", "tls/key.pem")


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_certificates_that_cannot_serve_leave_no_descriptor_behind(home: Path) -> None:
    (home / "tls" / "a.example.pem").write_text("nonsense\n")
    before = descriptors()
    with pytest.raises(BadCertificate, match=r"a\.example\.pem: no usable certificate"):
        read(home)
    assert descriptors() == before


def test_a_key_with_a_passphrase_is_refused_and_nobody_is_asked_for_it(home: Path) -> None:
    file = home / "tls" / "key.pem"
    key = serialization.load_pem_private_key(file.read_bytes(), None)
    encryption = serialization.BestAvailableEncryption(b"secret")
    formats = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    file.write_bytes(key.private_bytes(*formats, encryption))
    with pytest.raises(BadCertificate, match=r"key\.pem: the key is encrypted"):
        read(home)


def test_more_certificates_than_a_frame_carries_are_all_served(home: Path) -> None:
    """From the supervisor's end of the control link to a role's contexts."""

    def never(*_: object) -> NoReturn:
        raise AssertionError

    default, _chain = certificate("mx.example.org")
    last, trusted = certificate("last.example")
    house = House(home, Settings(me=b"mx.example.org"), [])
    house.certificates = {"": default} | {f"{n}.example": default for n in range(MANY)} | {"last.example": last}
    boss = Supervisor(house, [("pop3d", never, 1)], Log("supervisor", as_json=False), lambda moment: None)
    process = boss._processes[0]
    ours, theirs = socket.socketpair()
    process.link, process.start_at = Link(ours, ROLE_SAYS), time.monotonic() + 60
    before = descriptors()

    async def take() -> None:
        role = Connections(
            "pop3d", house, theirs, welcome=never, attach=never, full=b"", descriptors=3, log=Log("pop3d", False)
        )
        boss._send_certificates(process)
        for _ in range(20):
            boss._round(0)
            await asyncio.sleep(0.01)
        assert role.context is not None
        client = Client(Tls(role.context), trusted, "last.example")
        client.shake_hands()
        role._control.close()

    asyncio.run(take())
    assert descriptors() == before - 1
    for descriptor in (default, last):
        os.close(descriptor)
    process.link.close()


def test_a_role_whose_supervisor_died_before_it_sent_certificates_ends(home: Path) -> None:
    def never(*_: object) -> NoReturn:
        raise AssertionError

    house = House(home, Settings(me=b"mx.example.org"), [])
    ours, theirs = socket.socketpair()
    ours.close()

    async def serve() -> None:
        role = Connections(
            "pop3d", house, theirs, welcome=never, attach=never, full=b"", descriptors=3, log=Log("pop3d", False)
        )
        async with asyncio.timeout(5):
            await role.serve()

    asyncio.run(serve())
