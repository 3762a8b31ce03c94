"""qmail-remote with a login of control/smtproutes at real mail servers."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests import hosts
from tests.hosts import place
from tests.programs.remotely import control, home, run
from tests.server import SECRET, a_server, listen

__all__ = ["home"]

MESSAGE = b"Subject: from joe\n\n.dot\n"


def report(home: Path, port: int, login: str, recipient: str = "far@away.test") -> bytes:
    control(home, smtproutes=f"away.test:127.0.0.1:{port} {login}\n:127.0.0.1:{port} {login}\n")
    domain = recipient.partition("@")[2]
    return asyncio.run(run(home, domain, "joe@example.org", recipient, message=MESSAGE))


# row: remote-auth-login, remote-auth-others, remote-starttls
@pytest.mark.parametrize(
    ("tls", "logins", "how"),
    [
        (False, ("PLAIN", "LOGIN", "CRAM-MD5"), b"login"),
        (False, ("PLAIN", "CRAM-MD5"), b"plain"),
        (False, ("CRAM-MD5",), b"cram"),
        (True, ("PLAIN", "LOGIN", "CRAM-MD5"), b"login"),
        (True, ("PLAIN",), b"plain"),
    ],
)
def test_exim_lets_us_log_in(home: Path, tls: bool, logins: tuple[str, ...], how: bytes) -> None:
    with place() as there, hosts.exim(there, tls=tls, logins=logins, clear=True) as host:
        assert report(home, host.port, "joe s3cret word").startswith(
            b"r\0K127.0.0.1 accepted message.\nRemote host said: 250 OK id="
        )
        arrived = host.await_received(b"from joe")
        assert b"with esmtpsa" in arrived if tls else b"with esmtpa" in arrived
        assert b"A=%s:joe" % how in host.log.read_bytes()


# row: remote-auth-refused
@pytest.mark.parametrize(
    ("logins", "step"), [(("LOGIN",), b"password"), (("PLAIN",), b"AUTH PLAIN"), (("CRAM-MD5",), b"response")]
)
def test_a_wrong_password_at_exim_is_temporary(home: Path, logins: tuple[str, ...], step: bytes) -> None:
    with place() as there, hosts.exim(there, logins=logins, clear=True) as host:
        assert report(home, host.port, "joe wrong") == (
            b"ZConnected to 127.0.0.1 but authentication was rejected (%s).\n"
            b"Remote host said: 535 Incorrect authentication data\n\0" % step
        )
        assert not host.received()


# row: remote-auth-refused
def test_postfix_that_knows_no_logins_is_told_one_and_its_refusal_is_temporary(home: Path) -> None:
    with place() as there, hosts.postfix(there, tls=False) as host:
        said = report(home, host.port, "joe secret", "joe@example.test")
        assert said.startswith(
            b"ZConnected to 127.0.0.1 but authentication was rejected (AUTH LOGIN).\nRemote host said: 503 "
        )
        assert not host.received()


# row: remote-auth-login, remote-starttls
@pytest.mark.parametrize("tls", [True, False])
def test_another_pillarbox_lets_us_log_in(home: Path, tls: bool) -> None:
    clear = {} if tls else {"authcleartext": "1\n", "tlscert": "tls/none.pem\n", "tlskey": "tls/none.pem\n"}
    with a_server({"listen": listen("submission"), **clear}) as server:
        port = server.ports["submission"]
        said = report(home, port, f"joe@example.org {SECRET}", "joe@example.org")
        assert said.startswith(b"r\0K127.0.0.1 accepted message.\nRemote host said: 250 ")
        received = server.await_delivered(b"from joe").read_bytes()
        assert b"with ESMTPSA" in received if tls else b"with ESMTPA" in received
        assert report(home, port, "joe@example.org wrong", "joe@example.org").startswith(
            b"ZConnected to 127.0.0.1 but authentication was rejected (password).\nRemote host said: 535 "
        )
