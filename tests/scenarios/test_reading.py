"""Real mail programs read: each over STLS and over TLS from the start, verifying our certificate, with the mechanism it
chooses by itself. What they bring home is what was sent, and what they delete is gone."""

from __future__ import annotations

import poplib
from pathlib import Path

import pytest

from tests.peers import peer, run
from tests.scenarios.wire import deliver, token
from tests.server import SECRET, Server, until

JOE = "joe@example.org"
SERVICES = pytest.mark.parametrize("service", ["pop3", "pop3s"])
BODY = b"%s\n.\n..\n.dot first\n\nspaces at the end:  \n\xe9 is not ASCII\n\tlast line\n"


@pytest.fixture
def letters(server: Server) -> list[bytes]:
    """Bodies, with LF line ends, of what is in joe's mailbox: three messages, in their order, and no others."""
    server.empty()
    bodies = [BODY % token() for _ in range(3)]
    for number, body in enumerate(bodies):
        content = b"From: ann@example.net\nTo: joe@example.org\nSubject: number %d\n\n" % number + body
        deliver(server, content.replace(b"\n", b"\r\n").replace(b"\r\n.", b"\r\n.."))
        until(lambda n=number: len(server.delivered()) == n + 1, "the message")
    return bodies


def bodies_in(directory: Path) -> list[bytes]:
    """Bodies of the messages in a directory, sorted."""
    return sorted(body(file.read_bytes()) for file in directory.iterdir())


def body(content: bytes) -> bytes:
    return content.partition(b"\n\n")[2]


@SERVICES
def test_curl_reads_and_deletes(server: Server, letters: list[bytes], service: str) -> None:
    verified = ("--ssl-reqd", "--cacert", str(server.authority))
    curl = (peer("curl"), "--silent", "--show-error", *verified, "--user", f"{JOE}:{SECRET}")
    at = f"{service}://localhost:{server.ports[service]}"
    listed = run(*curl, at)
    assert [line.split()[0] for line in listed.splitlines()] == [b"1", b"2", b"3"]
    for number, letter in enumerate(letters, 1):
        fetched = run(*curl, f"{at}/{number}")
        assert body(fetched.replace(b"\r\n", b"\n")) == letter
        assert b"%d %d" % (number, len(fetched)) in listed.splitlines()
    run(*curl, "--request", "DELE", "--head", f"{at}/2")
    assert sorted(body(file.read_bytes()) for file in server.delivered()) == sorted([letters[0], letters[2]])


@SERVICES
def test_mpop_reads_and_deletes(server: Server, letters: list[bytes], service: str, tmp_path: Path) -> None:
    maildir = tmp_path / "Maildir"
    for place in ("new", "cur", "tmp"):
        (maildir / place).mkdir(parents=True)
    file = tmp_path / "mpoprc"
    file.write_text(
        f"account default\nhost localhost\nport {server.ports[service]}\nuser {JOE}\n"
        f'password "{SECRET}"\ntls on\ntls_starttls {"off" if service == "pop3s" else "on"}\n'
        f"tls_trust_file {server.authority}\nuidls_file {tmp_path}/uidls\ndelivery maildir {maildir}\n"
    )
    file.chmod(0o600)
    run(peer("mpop"), f"--file={file}")
    assert bodies_in(maildir / "new") == sorted(letters)
    assert server.delivered() == []


@SERVICES
def test_fetchmail_reads_and_deletes(server: Server, letters: list[bytes], service: str, tmp_path: Path) -> None:
    file = tmp_path / "fetchmailrc"
    file.write_text(
        f"poll localhost protocol pop3 port {server.ports[service]} user '{JOE}' password '{SECRET}'\n"
        f"{'ssl' if service == 'pop3s' else ''} sslcertck sslcertfile '{server.authority}'\n"
        f"""mda "/bin/sh -c 'cat >{tmp_path}/got.$$'"\n"""
    )
    file.chmod(0o600)
    run(
        "env", f"FETCHMAILHOME={tmp_path}", peer("fetchmail"), "--fetchmailrc", file, "--nodetach", "--nosyslog",
        "--verbose",
    )  # fmt: skip
    got = sorted(body(file.read_bytes().replace(b"\r\n", b"\n")) for file in tmp_path.glob("got.*"))
    assert got == sorted(letters)
    assert server.delivered() == []


def test_getmail_reads_and_deletes(server: Server, letters: list[bytes], tmp_path: Path) -> None:
    # getmail has no STLS, and as root it delivers to nothing but programs.
    file = tmp_path / "getmailrc"
    file.write_text(
        f"[retriever]\ntype = SimplePOP3SSLRetriever\nserver = localhost\nport = {server.ports['pop3s']}\n"
        f"username = {JOE}\npassword = {SECRET}\nca_certs = {server.authority}\n"
        f"""[destination]\ntype = MDA_external\npath = /bin/sh\narguments = ("-c", "cat >{tmp_path}/got.$$")\n"""
        "allow_root_commands = true\n[options]\ndelete = true\ndelivered_to = false\nreceived = false\n"
    )
    run(peer("getmail"), f"--getmaildir={tmp_path}", f"--rcfile={file}")
    assert sorted(body(got.read_bytes()) for got in tmp_path.glob("got.*")) == sorted(letters)
    assert server.delivered() == []


@SERVICES
def test_poplib_reads_and_deletes(server: Server, letters: list[bytes], service: str) -> None:
    if service == "pop3s":
        client: poplib.POP3 = poplib.POP3_SSL("localhost", server.ports[service], context=server.trust())
    else:
        client = poplib.POP3("localhost", server.ports[service])
        client.stls(context=server.trust())
    client.user(JOE)
    client.pass_(SECRET)
    count, octets = client.stat()
    assert count == 3
    sizes = []
    for number, letter in enumerate(letters, 1):
        _answer, lines, _size = client.retr(number)
        assert body(b"\n".join(lines) + b"\n") == letter
        sizes.append(sum(len(line) + 2 for line in lines))
        client.dele(number)
    assert sum(sizes) == octets
    client.quit()
    assert server.delivered() == []


def test_poplib_logs_in_by_apop(secret_house: Server) -> None:
    client = poplib.POP3_SSL("localhost", secret_house.ports["pop3s"], context=secret_house.trust())
    answer = client.apop(JOE, SECRET)
    assert answer.startswith(b"+OK")
    client.quit()
