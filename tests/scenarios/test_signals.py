"""SIGTERM drains, SIGHUP re-reads, and a renewed certificate is taken; nobody who is being served is cut off for it."""

from __future__ import annotations

import os
import signal
import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from pillarbox.cli.certificate import new_key, self_signed
from tests.scenarios.wire import Wire, deliver, envelope, login, pop3, smtp, submit, token
from tests.server import ME, SECRET, Server, a_home, a_server, until

JOE = b"joe@example.org"
GRACE = 15  # seconds, half of what control/draintime gives to deliveries


@pytest.fixture(scope="module")
def told() -> Iterator[Server]:
    """A server that is sent SIGHUP again and again."""
    with a_server() as server:
        yield server


@pytest.fixture(scope="module")
def home() -> Iterator[Server]:
    with a_home() as server:
        yield server


@pytest.fixture
def ending(home: Server) -> Iterator[Server]:
    """A server that the test stops."""
    home.empty()
    home.start()
    yield home
    home.kill()


# SIGTERM


def test_sigterm_says_goodbye_to_clients_and_ends_with_status_0(ending: Server) -> None:
    roles = ending.processes()
    with smtp(ending) as mail, login(ending, JOE, SECRET.encode()) as drop, smtp(ending) as half:
        envelope(half, b"ann@example.net", JOE)
        assert half.tell(b"DATA").startswith(b"354 ")
        half.send(b"Subject: half a message\r\n\r\nhal")
        shaking = socket.create_connection(("127.0.0.1", ending.ports["pop3s"]))
        ending.signal(signal.SIGTERM)
        assert mail.reply().startswith(b"421 ")
        assert half.reply().startswith(b"421 ")
        assert mail.closed() and half.closed() and drop.closed()
        assert ending.wait(GRACE) == 0
        shaking.close()
    assert not any(os.path.exists(f"/proc/{pid}") for pid in roles)
    assert ending.delivered() == []


def test_sigterm_is_not_held_up_by_a_client_that_does_not_read(ending: Server) -> None:
    deliver(ending, b"Subject: large\r\n\r\n" + (b"x" * 998 + b"\r\n") * 20_000)
    ending.await_delivered(b"Subject: large")
    with login(ending, JOE, SECRET.encode()) as drop:
        drop.send(b"RETR 1\r\n")
        assert drop.line().startswith(b"+OK")
        ending.signal(signal.SIGTERM)
        assert ending.wait(GRACE) == 0


def test_sigterm_lets_a_delivery_under_way_end(ending: Server) -> None:
    word = token()
    content = b"Subject: %s\r\n\r\n%s" % (word, (b"x" * 998 + b"\r\n") * 20_000)
    tmp = ending.mailbox() / "Maildir" / "tmp"
    with smtp(ending) as wire:
        envelope(wire, b"ann@example.net", JOE)
        assert submit(wire, content).startswith(b"250 ")
        until(lambda: os.listdir(tmp) or ending.delivered(), "the delivery's begin")
        ending.signal(signal.SIGTERM)
        assert ending.wait() == 0
    assert len(ending.holding(word)) == 1
    assert os.listdir(tmp) == []
    assert ending.pillarbox("queue", "list") == ""
    ending.start()
    deliver(ending, b"Subject: later\r\n\r\n")
    ending.await_delivered(b"Subject: later")
    assert len(ending.holding(word)) == 1
    assert ending.stop() == 0


def test_sigterm_under_load_loses_nothing_that_was_answered(ending: Server) -> None:
    words = [token() for _ in range(60)]
    with smtp(ending) as wire:
        for word in words:
            envelope(wire, b"ann@example.net", JOE)
            assert submit(wire, b"Subject: %s\r\n\r\n" % word).startswith(b"250 ")
        ending.signal(signal.SIGTERM)
        assert ending.wait() == 0
    ending.start()
    for word in words:
        ending.await_delivered(word)
    assert len(ending.delivered()) == len(words)
    assert ending.stop() == 0


def test_sigint_is_sigterm(ending: Server) -> None:
    ending.signal(signal.SIGINT)
    assert ending.wait() == 0


# SIGHUP


def size_offered(server: Server) -> bytes:
    with Wire(server, "smtp") as wire:
        wire.reply()
        lines = wire.tell(b"EHLO client.example").split(b"\n")
    return next(line[4:] for line in lines if line[4:].startswith(b"SIZE"))


# row: known-hup
def test_sighup_takes_new_settings_for_new_connections(told: Server) -> None:
    told.control("databytes", "5000\n")
    told.control("badmailfrom", "@spam.example\n")
    told.signal(signal.SIGHUP)
    until(lambda: size_offered(told) == b"SIZE 5000", "the new databytes")
    with smtp(told) as wire:
        assert wire.tell(b"MAIL FROM:<x@spam.example>").startswith(b"5")
    told.control("databytes", None)
    told.control("badmailfrom", None)
    told.signal(signal.SIGHUP)
    until(lambda: size_offered(told) == b"SIZE 0" or size_offered(told) == b"SIZE", "no databytes")


def test_sighup_keeps_what_it_cannot_read_and_says_so_in_one_line(told: Server) -> None:
    told.control("maxrecipients", "2\n")
    told.signal(signal.SIGHUP)
    until(lambda: most_recipients(told) == 2, "two recipients and no more")
    told.news()
    told.control("maxrecipients", "many\n")
    told.signal(signal.SIGHUP)
    told.await_log("maxrecipients: line 1")
    assert most_recipients(told) == 2
    complaints = [line for line in told.news().splitlines() if "maxrecipients" in line]
    assert len(complaints) == 1 and "many" in complaints[0], complaints
    told.control("maxrecipients", None)
    told.signal(signal.SIGHUP)
    until(lambda: most_recipients(told) == 4, "the default again")


def most_recipients(server: Server) -> int:
    """How many of four recipients are taken."""
    with smtp(server) as wire:
        wire.tell(b"MAIL FROM:<ann@example.net>")
        return [wire.tell(b"RCPT TO:<joe-%d@example.org>" % number)[:3] for number in range(4)].count(b"250")


def test_a_new_account_is_there_without_any_signal(told: Server) -> None:
    told.pillarbox("account", "add", "eve@example.com", "--password-stdin", say="n3w\n")
    until(lambda: knows(told, b"eve@example.com"), "the new domain's recipient")
    word = token()
    deliver(told, b"Subject: %s\r\n\r\n" % word, b"eve@example.com")
    new = told.mailbox("eve", "example.com") / "Maildir" / "new"
    until(lambda: any(word in file.read_bytes() for file in new.iterdir()), "the message")
    login(told, b"eve@example.com", b"n3w").close()


def test_a_new_password_is_valid_at_once_and_the_old_one_is_not(told: Server) -> None:
    told.pillarbox("account", "password", "joe@example.org", "--password-stdin", say="another\n")
    login(told, JOE, b"another").close()
    with pop3(told, source="127.0.5.1") as wire:
        wire.tell(b"USER " + JOE)
        assert wire.tell(b"PASS " + SECRET.encode()) == b"-ERR [AUTH] authorization failed"
    told.pillarbox("account", "password", "joe@example.org", "--password-stdin", say=SECRET)


def test_an_account_that_was_removed_gets_no_mail_and_lets_nobody_in(told: Server) -> None:
    told.pillarbox("account", "add", "max@example.org", "--password-stdin", say=SECRET)
    until(lambda: knows(told, b"max@example.org"), "the account")
    told.pillarbox("account", "remove", "max@example.org")
    until(lambda: not knows(told, b"max@example.org"), "its end")
    with pop3(told, source="127.0.5.2") as wire:
        wire.tell(b"USER max@example.org")
        assert wire.tell(b"PASS " + SECRET.encode()) == b"-ERR [AUTH] authorization failed"


def test_a_client_that_says_nothing_for_control_timeoutsmtpd_is_sent_away(told: Server) -> None:
    told.control("timeoutsmtpd", "1\n")
    told.signal(signal.SIGHUP)
    until(lambda: sent_away(told, 3), "the new timeout")
    told.control("timeoutsmtpd", None)
    told.signal(signal.SIGHUP)


def sent_away(server: Server, seconds: float) -> bool:
    with smtp(server) as wire:
        return not wire.silent(seconds) and wire.reply().startswith(b"421 ") and wire.closed()


def knows(server: Server, recipient: bytes) -> bool:
    with smtp(server) as wire:
        wire.tell(b"MAIL FROM:<ann@example.net>")
        return wire.tell(b"RCPT TO:<%s>" % recipient).startswith(b"250 ")


# certificates


def certify(server: Server, name: str = ME) -> bytes:
    """Put a new key and certificate in the place of the old ones; the certificate, PEM."""
    key = new_key()
    certificate = self_signed(key, name, datetime.now(UTC))
    replace(server, "key.pem", key, 0o640)
    replace(server, "cert.pem", certificate, 0o644)
    return certificate


def replace(server: Server, name: str, octets: bytes, mode: int) -> None:
    fresh = server.home / "tls" / f".{name}"
    server.put(fresh, octets, mode)
    fresh.replace(server.home / "tls" / name)


def shown(server: Server, service: str) -> bytes:
    """The certificate that a new connection is shown, DER; it must be the one that clients trust now."""
    with Wire(server, service) as wire:
        return wire.certificate


def test_a_renewed_certificate_is_for_new_connections_and_old_ones_live_on(told: Server) -> None:
    with smtp(told, "submissions") as mail, login(told, JOE, SECRET.encode()) as drop:
        before = mail.certificate
        certify(told)
        told.signal(signal.SIGHUP)
        until(lambda: presented(told) not in (b"", before), "the new certificate")
        assert shown(told, "submissions") != before
        assert shown(told, "pop3s") != before
        assert mail.tell(b"NOOP").startswith(b"250 ")
        assert drop.tell(b"STAT").startswith(b"+OK")


def presented(server: Server) -> bytes:
    """As `shown`; empty while old and new differ between the file and the server."""
    try:
        return shown(server, "submissions")
    except OSError:
        return b""


def test_a_renewed_certificate_is_noticed_without_a_signal(told: Server) -> None:
    before = shown(told, "submissions")
    certify(told)
    until(lambda: presented(told) not in (b"", before), "the new certificate")


def test_a_certificate_that_does_not_match_is_not_taken(told: Server) -> None:
    before = shown(told, "submissions")
    good = (told.home / "tls" / "cert.pem").read_bytes()
    replace(told, "cert.pem", self_signed(new_key(), ME, datetime.now(UTC)), 0o644)
    told.signal(signal.SIGHUP)
    told.await_log("certificate not taken, the old one stays")
    replace(told, "cert.pem", good, 0o644)
    assert shown(told, "submissions") == before


def test_a_client_that_asks_for_a_name_gets_that_name_s_certificate(told: Server) -> None:
    key = new_key()
    certificate = self_signed(key, "other.example.com", datetime.now(UTC))
    told.put(told.home / "tls" / "other.example.com.pem", key + certificate, 0o640)
    told.signal(signal.SIGHUP)
    until(lambda: verified(told, "other.example.com", certificate), "the certificate of that name")
    assert not verified(told, ME, certificate)
    shown(told, "submissions")


def verified(server: Server, name: str, authority: bytes) -> bool:
    """Does a client that trusts this certificate alone reach the server by this name?"""
    context = ssl.create_default_context(cadata=authority.decode())
    with socket.create_connection(("127.0.0.1", server.ports["submissions"]), 10) as plain:
        try:
            context.wrap_socket(plain, server_hostname=name).close()
        except ssl.SSLCertVerificationError:
            return False
    return True
