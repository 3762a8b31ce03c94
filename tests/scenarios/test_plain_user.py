"""A server without root: everything runs as the caller, also on a machine that has the users of another server."""

from __future__ import annotations

import os
import poplib
import shutil
import smtplib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import server as servers
from tests.broken.test_broken import AS_USER, NOBODY
from tests.server import DOMAIN, SECRET, Server


@pytest.fixture(scope="module")
def plain() -> Iterator[Server]:
    directory = Path(tempfile.mkdtemp(prefix="pillarbox-test-"))
    directory.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        if os.getuid() == 0:
            patch.setattr(servers, "_COMMAND", (sys.executable, "-c", AS_USER, str(NOBODY)))
            os.chown(directory, NOBODY, NOBODY)
        server = Server(directory / "home", {}, [f"joe@{DOMAIN}"])
        server.start()
        try:
            yield server
            assert server.stop() == 0
            assert not server.trouble()
        finally:
            server.kill()
            shutil.rmtree(directory)


def test_everything_runs_as_the_caller(plain: Server) -> None:
    uid = NOBODY if os.getuid() == 0 else os.getuid()
    status = [Path(f"/proc/{pid}/status").read_text() for pid in plain.processes()]
    assert len(status) >= 6
    assert all(f"Uid:\t{uid}\t{uid}\t{uid}\t{uid}\n" in text for text in status)


@pytest.mark.parametrize("local", ["joe", "joe-lists"])
def test_accounts_and_their_extensions_get_mail(plain: Server, local: str) -> None:
    with smtplib.SMTP("127.0.0.1", plain.ports["smtp"], timeout=30) as client:
        assert client.sendmail("ann@example.net", [f"{local}@{DOMAIN}"], "Subject: hello\r\n\r\nHello.\r\n") == {}


def test_an_account_logs_in(plain: Server) -> None:
    pop = poplib.POP3_SSL("localhost", plain.ports["pop3s"], context=plain.trust(), timeout=30)
    pop.user(f"joe@{DOMAIN}")
    assert pop.pass_(SECRET).startswith(b"+OK")
    pop.quit()
