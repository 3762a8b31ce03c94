"""Mail for other hosts: to the mail servers of others."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import hosts
from tests.hosts import Host, Starter, place
from tests.nameserver import nameserver
from tests.scenarios.wire import deliver, envelope, smtp, submit, token
from tests.server import Server, a_server, listen

JOE = b"joe@example.test"


def near(host: Host, **control: str) -> dict[str, str]:
    """Control files of a host that relays example.test, and away.test, to `host`."""
    files = {
        "smtproutes": f":127.0.0.1:{host.port}\n",
        "rcpthosts": "example.org\nlocalhost\nexample.test\naway.test\n",
    }
    return files | {"listen": listen("smtp")} | control


@pytest.fixture(params=hosts.ALL, ids=lambda start: start.__name__, scope="module")
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[Server, Host]]:
    start: Starter = request.param
    with place() as home, start(home) as host, a_server(near(host)) as server:
        yield server, host


def test_mail_gets_there_as_it_was_and_over_tls_where_there_is_some(pair: tuple[Server, Host]) -> None:
    server, host = pair
    word = token()
    text = b".\r\n..\r\n" + bytes(range(32, 127)) + "\r\nJörg\r\n".encode() + b"x" * 900 + b"\r\n"
    deliver(server, (b"Subject: %s\r\n\r\n" % word + text).replace(b"\n.", b"\n.."), JOE)
    arrived = host.await_received(word)
    assert arrived.partition(b"\n\n")[2].rstrip(b"\n") == text.replace(b"\r\n", b"\n").rstrip(b"\n")
    server.await_log("success: 127.0.0.1_accepted_message./Remote_host_said:_250_")
    if host.name != "OpenSMTPD":  # Debian's offers TLS and cannot do it
        assert b"with esmtps" in arrived.lower()


def test_who_is_not_there_is_told_to_the_sender_and_the_others_get_the_mail(pair: tuple[Server, Host]) -> None:
    server, host = pair
    word = token()
    with smtp(server) as wire:
        envelope(wire, b"joe@example.org", b"nobody@example.test", JOE, b"amy@example.test")
        assert submit(wire, b"Subject: %s\r\n\r\n" % word).startswith(b"250 ")
    host.await_received(word)
    bounce = server.await_delivered(word).read_bytes()
    assert b"<nobody@example.test>:\n127.0.0.1 does not like recipient.\nRemote host said: 550" in bounce
    assert b"<joe@example.test>" not in bounce.partition(b"--- Below this line")[0]


def test_a_message_too_large_for_memory_gets_there(pair: tuple[Server, Host]) -> None:
    server, host = pair
    word = token()
    lines = b"".join(b"%08d %s\r\n" % (number, b"x" * 80) for number in range(30_000))
    deliver(server, b"Subject: %s\r\n\r\n" % word + lines, JOE)
    assert host.await_received(word).count(b"\n") > 30_000


# What stands in control/smtproutes opens Exim for recipients elsewhere; its certificate is nobody's.
@pytest.mark.parametrize("trusted", [True, False])
def test_a_password_goes_to_a_host_that_proves_who_it_is_or_that_needs_not(trusted: bool) -> None:
    with place() as home, hosts.exim(home) as host, nameserver("relay.example. A 127.0.0.1\n") as names:
        routes = {"smtproutes": f":relay.example:{host.port} joe s3cret word\n", "resolvers": f"127.0.0.1:{names}\n"}
        if trusted:
            routes["cleartextroutes"] = "relay.example\n"
        with a_server(near(host, **routes)) as server:
            deliver(server, b"Subject: %s\r\n\r\n" % (word := token()), b"far@away.test")
            if trusted:
                assert b"esmtpsa" in host.await_received(word)
            else:
                server.await_log("deferral: Connected_to_127.0.0.1_but_TLS_failed:_CERTIFICATE_VERIFY_FAILED")
                assert not host.received()
            assert "s3cret" not in server.log() and "s3cret" not in host.log.read_text()


# row: remote-cleartext-serve
def test_a_password_goes_in_clear_to_this_machine_and_a_refused_one_bounces_nothing() -> None:
    routes = "away.test:127.0.0.1:{port} joe s3cret word\nexample.test:127.0.0.1:{port} joe wr0ng word\n"
    with (
        place() as home,
        hosts.exim(home, tls=False, logins=("PLAIN", "LOGIN"), clear=True) as host,
        a_server(near(host, smtproutes=routes.format(port=host.port))) as server,
    ):
        deliver(server, b"Subject: %s\r\n\r\n" % (word := token()), b"far@away.test")
        assert b"with esmtpa" in host.await_received(word)
        deliver(server, b"Subject: %s\r\n\r\n" % token(), JOE)
        server.await_log("deferral: Connected_to_127.0.0.1_but_authentication_was_rejected_.password.")
        assert "joe@example.test" in server.pillarbox("queue", "list")
        assert not any(secret in log for secret in ("s3cret", "wr0ng") for log in (server.log(), host.log.read_text()))


def test_many_messages_at_a_time_all_get_there_at_once(pair: tuple[Server, Host]) -> None:
    server, host = pair
    words = [token() for _ in range(30)]
    with smtp(server) as wire:
        for word in words:
            envelope(wire, b"joe@example.org", JOE)
            assert submit(wire, b"Subject: %s\r\n\r\n" % word).startswith(b"250 ")
    for word in words:
        host.await_received(word)
