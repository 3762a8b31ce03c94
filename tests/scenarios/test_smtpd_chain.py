"""The page's run line with our programs: tcpserver, qmail-smtpd, cmd5checkpw; and real mail programs that log in there
with the mechanism that each chooses, or one that it is told."""

from __future__ import annotations

import os
import smtplib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.peers import peer, run
from tests.programs.smtpd import Home, connect, ends
from tests.tcpserver import ME, Tcpserver, a_place, tcpserver

JOE, FAR = "joe@example.org", "anybody@far.example"
USER, SECRET = "joe", "Tr0ub4dor &3"
CONTENT = b"Subject: hello\n\nhello there\n"


class Chain:
    """A server, and what it took."""

    def __init__(self, home: Home, server: Tcpserver) -> None:
        self.home, self.server, self.port = home, server, str(server.port)

    def taken(self) -> bytes:
        """The one message, that somebody who logged in sent to another host."""
        ((content, envelope, _process),) = self.home.messages()
        assert envelope == [JOE.encode(), FAR.encode()]
        trace, _, rest = content.partition(b";")
        assert trace.startswith(b"Received: from ") and b" (joe@127.0.0.1)\n  by mx.example.org with SMTP" in trace
        return rest.partition(b"\n")[2]


@pytest.fixture
def chain() -> Iterator[Chain]:
    with a_place() as place:
        home = Home(place)
        home.control("smtppasswd", f"{place}/smtp.passwd\n")
        file = place / "smtp.passwd"
        file.write_text(f"amy:other\n{USER}:{SECRET}\n")
        file.chmod(0o400)
        line = ["qmail-smtpd", ME, "cmd5checkpw", "/bin/true"]
        with tcpserver(place, *line, environment=home.environ()) as server:
            yield Chain(home, server)
            assert "Traceback" not in server.log()


def lines(content: bytes) -> list[bytes]:
    return [line for line in content.splitlines() if line]


@pytest.mark.parametrize("mechanism", [None, "LOGIN", "PLAIN", "CRAM-MD5"])
def test_swaks_sends(chain: Chain, mechanism: str | None) -> None:
    said = run(
        peer("swaks"), "--server", "127.0.0.1", "--port", chain.port, "--auth", *([mechanism] if mechanism else []),
        "--auth-user", USER, "--auth-password", SECRET, "--from", JOE, "--to", FAR, "--data", "-", say=CONTENT,
    )  # fmt: skip
    assert b"235 ok, joe, go ahead (#2.0.0)" in said
    assert lines(chain.taken()) == lines(CONTENT)


@pytest.mark.parametrize("mechanism", [None, "LOGIN", "PLAIN", "CRAM-MD5"])
def test_curl_sends(chain: Chain, mechanism: str | None, tmp_path: Path) -> None:
    (tmp_path / "letter").write_bytes(CONTENT)
    run(
        peer("curl"), "--silent", "--show-error", "--user", f"{USER}:{SECRET}", "--crlf",
        *(["--login-options", f"AUTH={mechanism}"] if mechanism else []),
        "--mail-from", JOE, "--mail-rcpt", FAR, "--upload-file", tmp_path / "letter", f"smtp://127.0.0.1:{chain.port}",
    )  # fmt: skip
    assert lines(chain.taken()) == lines(CONTENT)


@pytest.mark.parametrize("mechanism", ["cram-md5", "login", "plain"])  # by itself it wants TLS for every one of these
def test_msmtp_sends(chain: Chain, mechanism: str, tmp_path: Path) -> None:
    file = tmp_path / "msmtprc"
    file.write_text(
        f"account default\nhost 127.0.0.1\nport {chain.port}\nfrom {JOE}\nauth {mechanism}\nuser {USER}\n"
        f'password "{SECRET}"\ntls off\n'
    )
    file.chmod(0o600)
    run(peer("msmtp"), f"--file={file}", FAR, say=CONTENT)
    assert set(lines(CONTENT)) <= set(lines(chain.taken()))  # it adds fields


def test_smtplib_sends(chain: Chain) -> None:
    with smtplib.SMTP("127.0.0.1", int(chain.port)) as client:
        client.login(USER, SECRET)
        assert client.sendmail(JOE, [FAR], CONTENT.decode()) == {}
    assert lines(chain.taken()) == lines(CONTENT)


def test_a_wrong_password_gets_nobody_in(chain: Chain) -> None:
    done = subprocess.run(
        [
            peer("swaks"), "--server", "127.0.0.1", "--port", chain.port, "--auth", "LOGIN", "--auth-user", USER,
            "--auth-password", "wrong", "--from", JOE, "--to", FAR, "--data", "-",
        ],
        input=CONTENT, capture_output=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 28  # swaks: authentication failed
    assert b"535 authorization failed (#5.7.0)" in done.stdout
    assert chain.home.nothing_queued()


# row: rblsmtpd-chain
def test_rblsmtpd_stands_ahead_of_it_and_stands_aside(chain: Chain) -> None:
    words = [peer("rblsmtpd"), "-r", "bl.test", "qmail-smtpd", ME, "cmd5checkpw", "/bin/true"]
    place = chain.home.place
    for variable, greeting in (("", b"220 mx.example.org ESMTP"), ("-go away", b"220 rblsmtpd.local")):
        environ = chain.home.environ(RBLSMTPD=variable)
        with tcpserver(place, *words, environment=environ) as server, connect(server) as client:
            assert client.line() == greeting
            if variable:
                assert client.tell(b"MAIL FROM:<a@b>") == b"250 rblsmtpd.local"
                assert client.tell(b"RCPT TO:<joe@example.org>") == b"553 go away"
            else:
                assert client.tell(b"QUIT") == b"221 mx.example.org"
                assert ends(server) == [0]
    assert os.access(place / "bin" / "qmail-smtpd", os.X_OK)
