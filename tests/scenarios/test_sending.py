"""Real mail programs send: each over STARTTLS and over TLS from the start, verifying our certificate, with the
mechanism it chooses by itself."""

from __future__ import annotations

import smtplib
from email.message import EmailMessage
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.peers import peer, run
from tests.scenarios.wire import token
from tests.server import SECRET, Server, until

JOE = "joe@example.org"
SUBMISSION = pytest.mark.parametrize("service", ["submission", "submissions"])


def message(word: bytes) -> bytes:
    """With LF line ends, and what transport spoils when it is careless."""
    return (
        b"From: Joe <joe@example.org>\nTo: joe@example.org\nSubject: scenario\n\n"
        b"%s\n.\n..\n.dot first\n\nspaces at the end:  \n\tlast line\n" % word
    )


def arrived(server: Server, word: bytes) -> bytes:
    """The one copy in joe's mailbox, with the header fields that prove how it came."""
    content = server.await_delivered(word).read_bytes()
    assert content.startswith(b"Return-Path: <joe@example.org>\nDelivered-To: joe@example.org\nReceived: from "), (
        content
    )
    header = content.partition(b"\n\n")[0]
    assert b" with ESMTPSA" in header and b"TLSv1.3" in header, header
    assert b"\nDate: " in header and b"\nMessage-ID: " in header.replace(b"\nMessage-Id: ", b"\nMessage-ID: "), header
    return content


def body(content: bytes) -> bytes:
    return content.partition(b"\n\n")[2]


@SUBMISSION
def test_curl_sends_a_file(server: Server, service: str, tmp_path: Path) -> None:
    word = token()
    file = tmp_path / "message"
    file.write_bytes(message(word).replace(b"\n", b"\r\n"))
    scheme = "smtps" if service == "submissions" else "smtp"
    run(
        peer("curl"), "--silent", "--show-error", "--ssl-reqd", "--cacert", server.authority,
        "--user", f"{JOE}:{SECRET}", "--mail-from", JOE, "--mail-rcpt", JOE, "--upload-file", file,
        f"{scheme}://127.0.0.1:{server.ports[service]}",
    )  # fmt: skip
    assert body(arrived(server, word)) == body(message(word))


@pytest.mark.parametrize("server, mechanism", [("off", b"PLAIN"), ("on", b"CRAM-MD5")], indirect=["server"])
def test_curl_chooses_a_mechanism_that_works(server: Server, mechanism: bytes) -> None:
    said = run(
        peer("curl"), "--silent", "--show-error", "--verbose", "--ssl-reqd", "--cacert", server.authority,
        "--user", f"{JOE}:{SECRET}", "--mail-from", JOE, "--mail-rcpt", JOE, "-H", "Subject: hello", "-F", "=hello",
        f"smtp://localhost:{server.ports['submission']}",
    )  # fmt: skip
    assert b"> AUTH " + mechanism in said


@SUBMISSION
def test_swaks_sends(server: Server, service: str) -> None:
    word = token()
    tls = "--tls-on-connect" if service == "submissions" else "--tls"
    said = run(
        peer("swaks"), "--server", "localhost", "--port", str(server.ports[service]), tls, "--tls-verify",
        "--tls-ca-path", server.authority, "--auth", "--auth-user", JOE, "--auth-password", SECRET,
        "--from", JOE, "--to", JOE, "--data", "-", say=message(word),
    )  # fmt: skip
    assert body(arrived(server, word)) == body(message(word)) + b"\n", said  # swaks ends all it sends with a blank line


@SUBMISSION
def test_msmtp_sends(server: Server, service: str, tmp_path: Path) -> None:
    word = token()
    file = tmp_path / "msmtprc"
    file.write_text(
        f"account default\nhost localhost\nport {server.ports[service]}\nfrom {JOE}\nauth on\nuser {JOE}\n"
        f'password "{SECRET}"\ntls on\ntls_starttls {"off" if service == "submissions" else "on"}\n'
        f"tls_trust_file {server.authority}\n"
    )
    file.chmod(0o600)
    run(peer("msmtp"), f"--file={file}", JOE, say=message(word))
    assert body(arrived(server, word)) == body(message(word))


@SUBMISSION
def test_s_nail_sends(server: Server, service: str) -> None:
    word = token()
    scheme = "smtps" if service == "submissions" else "smtp"
    url = f"{scheme}://{quote(JOE, safe='')}:{quote(SECRET)}@localhost:{server.ports[service]}"
    settings = [
        "v15-compat", f"mta={url}", "smtp-use-starttls", f"tls-ca-file={server.authority}", "tls-ca-no-defaults",
        "tls-verify=strict", f"from={JOE}", "smtp-config=all", "nosave", "sendwait",
    ]  # fmt: skip
    options = [option for setting in settings for option in ("-S", setting)]
    run(peer("s-nail"), "-:/", *options, "-s", "scenario", JOE, say=body(message(word)))
    assert body(arrived(server, word)) == body(message(word))


@SUBMISSION
def test_smtplib_sends(server: Server, service: str) -> None:
    word = token()
    port = server.ports[service]
    client = (
        smtplib.SMTP_SSL("localhost", port, context=server.trust())
        if service == "submissions"
        else smtplib.SMTP("localhost", port)
    )
    with client:
        if service == "submission":
            client.starttls(context=server.trust())
        client.login(JOE, SECRET)
        assert client.sendmail(JOE, [JOE], message(word).decode()) == {}
    assert body(arrived(server, word)) == body(message(word))


def test_smtplib_sends_from_an_address_beyond_ascii(house: Server) -> None:
    word = token().decode()
    letter = EmailMessage()
    letter["From"], letter["To"], letter["Subject"] = "joe-größe@example.org", JOE, f"Grüße {word}"
    letter.set_content("Zwölf Boxkämpfer\n")
    with smtplib.SMTP("localhost", house.ports["submission"]) as client:
        client.starttls(context=house.trust())
        client.login(JOE, SECRET)
        client.send_message(letter)
    content = house.await_delivered(word.encode()).read_bytes()
    assert f"Subject: Grüße {word}\n".encode() in content
    assert b" with UTF8SMTPSA" in content


def test_smtp_source_sends_hundreds_over_ten_connections(house: Server) -> None:
    house.empty("ann")
    run(
        peer("smtp-source"), "-s", "10", "-l", "4096", "-m", "300", "-f", "a@sender.test", "-t", "ann@example.org",
        f"127.0.0.1:{house.ports['smtp']}",
    )  # fmt: skip
    until(lambda: len(house.delivered("ann")) == 300, "300 messages")
    assert all(file.stat().st_size > 4096 for file in house.delivered("ann"))
    house.empty("ann")
