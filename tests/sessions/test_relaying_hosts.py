"""A sender with the mail servers of others."""

from __future__ import annotations

import os
import secrets
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from pillarbox.attempt import Advice
from pillarbox.credentials import Password
from pillarbox.envelope import Envelope
from pillarbox.outcome import Verdict
from pillarbox.smtp.sender import Phase
from pillarbox.status import Status
from tests import hosts
from tests.hosts import Host, Starter, place
from tests.peers import peer
from tests.server import SECRET, a_server, listen, until
from tests.sessions.client import order
from tests.sessions.driver import bring

DONE, LATER, NEVER = Verdict.DONE, Verdict.LATER, Verdict.NEVER
TWO = Envelope(b"a@b.example", (b"joe@example.test", b"nobody@example.test", b"amy@example.test"))
JOE = Envelope(b"", (b"joe@example.test",))


@pytest.fixture(params=hosts.ALL, ids=lambda start: start.__name__)
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    start: Starter = request.param
    with place() as home, start(home) as running:
        yield running


def test_mail_arrives_as_it_was_and_everybody_has_his_outcome(host: Host) -> None:
    token = secrets.token_hex(8).encode()
    text = b"Subject: " + token + b"\n\n.dots\n..\n.\nJ\xc3\xb6rg\n" + b"x" * 900 + b"\nno end"
    trip = bring(order(TWO, size=len(text)), host.port, [text[:20], text[20:]])
    if trip.attempt.advice is Advice.WITHOUT_TLS:
        assert host.name == "OpenSMTPD"  # Debian's cannot shake hands: its OpenSSL is too new for it
        trip = bring(order(TWO, tls=False), host.port, [text[:20], text[20:]])
    else:
        assert trip.tls in ("TLSv1.2", "TLSv1.3")
    assert [outcome.verdict for outcome in trip.attempt.outcomes] == [DONE, NEVER, DONE]
    assert trip.attempt.outcomes[1].report.startswith(b"192.0.2.1 does not like recipient.\nRemote host said: 550")
    arrived = host.await_received(token, copies=2 if host.name != "Exim" else 1)
    assert arrived.partition(b"\n\n")[2].rstrip(b"\n") == text.partition(b"\n\n")[2]


def test_a_large_message_is_not_needed_whole(host: Host) -> None:
    token = secrets.token_hex(8).encode()
    blocks = (b"%07d %s\n" % (number, b"y" * 70) * 100 for number in range(300))
    head = iter([b"Subject: " + token + b"\n\n"])
    trip = bring(order(JOE, tls=False), host.port, (block for part in (head, blocks) for block in part))
    assert [outcome.verdict for outcome in trip.attempt.outcomes] == [DONE]
    arrived = host.await_received(token)
    assert arrived.count(b"\n0000299 ") == 100
    assert trip.phases[-2:] == [Phase.END, Phase.QUIT]


def test_a_host_that_takes_no_more_than_it_says_is_not_brought_more(host: Host) -> None:
    trip = bring(order(JOE, tls=False, size=1 << 33), host.port, [])
    [outcome] = trip.attempt.outcomes
    assert (outcome.verdict, outcome.status) == (NEVER, Status(5, 3, 4))
    assert Phase.MAIL not in trip.phases


@pytest.mark.parametrize(
    ("tls", "password", "verdict"),
    [
        (True, b"s3cret word", DONE),
        (False, b"s3cret word", DONE),  # by CRAM-MD5
        (True, b"wrong", LATER),
        (False, b"wrong", LATER),
    ],
)
def test_exim_lets_us_log_in(tls: bool, password: bytes, verdict: Verdict) -> None:
    with place() as home, hosts.exim(home) as host:
        to = order(Envelope(b"", (b"far@away.test",)), tls=tls, credentials=Password(b"joe", password))
        trip = bring(to, host.port, [b"Subject: from joe\n\n"])
        [outcome] = trip.attempt.outcomes
        assert outcome.verdict is verdict
        if verdict is DONE:
            host.await_received(b"from joe")
            how = b"esmtpsa" if tls else b"esmtpa"
            assert how in host.await_received(b"from joe")
        else:
            assert b"authentication was rejected (" in outcome.report
            assert outcome.status == Status(4, 7, 8)


def test_a_host_without_tls_gets_mail_in_clear_and_no_password() -> None:
    with place() as home, hosts.postfix(home, tls=False) as host:
        assert bring(order(JOE), host.port, [b"Subject: clear\n\n"]).tls is None
        host.await_received(b"Subject: clear")
        trip = bring(order(JOE, credentials=Password(b"joe", b"x")), host.port, [])
        assert trip.attempt.message.status == Status(4, 7, 11)


def test_another_pillarbox_takes_mail_and_lets_us_log_in() -> None:
    with a_server(control={"listen": listen("smtp", "submission")}) as server:
        to = Envelope(b"a@b.example", (b"joe@example.org", b"nobody@example.org", b"far@away.test"))
        trip = bring(order(to), server.ports["smtp"], [b"Subject: one\n\n"])
        assert [outcome.verdict for outcome in trip.attempt.outcomes] == [DONE, NEVER, NEVER]
        assert trip.tls == "TLSv1.3"
        server.await_delivered(b"Subject: one")
        for password, verdict in ((SECRET.encode(), DONE), (b"wrong", LATER)):
            login = Password(b"joe@example.org", password)
            to = Envelope(b"joe@example.org", (b"joe@example.org",))
            trip = bring(order(to, credentials=login), server.ports["submission"], [b"Subject: two\n\n"])
            assert [outcome.verdict for outcome in trip.attempt.outcomes] == [verdict]
        server.await_delivered(b"Subject: two")


@contextmanager
def sink(*options: str) -> Iterator[int]:
    """Postfix's smtp-sink."""
    with hosts.free_port() as port:
        command = [peer("smtp-sink"), *options, f"127.0.0.1:{port}", "100"]
    user = ["-u", "nobody"] if os.getuid() == 0 else []
    process = subprocess.Popen([command[0], *user, *command[1:]])
    try:
        until(lambda: hosts.greets(port), "smtp-sink")
        yield port
    finally:
        process.terminate()
        process.wait()


@pytest.mark.parametrize(
    ("options", "verdicts", "advice"),
    [
        (("-p",), [DONE, DONE, DONE], Advice.NOTHING),
        (("-e",), [DONE, DONE, DONE], Advice.NOTHING),
        (("-E",), [DONE, DONE, DONE], Advice.NOTHING),
        (("-r", "mail"), [LATER, LATER, LATER], Advice.NOTHING),
        (("-f", "mail"), [NEVER, NEVER, NEVER], Advice.NOTHING),
        (("-r", "rcpt"), [LATER, LATER, LATER], Advice.NOTHING),
        (("-f", "rcpt"), [NEVER, NEVER, NEVER], Advice.NOTHING),
        (("-r", "data"), [LATER, LATER, LATER], Advice.NOTHING),
        (("-f", "data"), [NEVER, NEVER, NEVER], Advice.NOTHING),
        (("-r", "."), [LATER, LATER, LATER], Advice.NOTHING),
        (("-f", "."), [NEVER, NEVER, NEVER], Advice.NOTHING),
        (("-q", "ehlo"), [LATER, LATER, LATER], Advice.WITHOUT_EHLO),
        (("-q", "mail"), [LATER, LATER, LATER], Advice.NEXT_HOST),
        (("-q", "rcpt"), [LATER, LATER, LATER], Advice.NEXT_HOST),
        (("-q", "data"), [LATER, LATER, LATER], Advice.NEXT_HOST),
        (("-q", "."), [LATER, LATER, LATER], Advice.NOTHING),
        (("-q", "quit"), [DONE, DONE, DONE], Advice.NOTHING),
    ],
    ids=lambda value: "".join(value) if isinstance(value, tuple) else "",
)
@pytest.mark.parametrize("pipelining", [True, False])
def test_a_sink_that_fails_somewhere(
    options: tuple[str, ...], verdicts: list[Verdict], advice: Advice, pipelining: bool
) -> None:
    with sink(*options, *([] if pipelining or "-p" in options else ["-p"])) as port:
        began = time.monotonic()
        trip = bring(order(TWO), port, [b"Subject: x\n\n", b"y" * 100000])
    assert [outcome.verdict for outcome in trip.attempt.outcomes] == verdicts
    assert trip.attempt.advice is advice
    assert time.monotonic() - began < 20  # nobody waited for anybody
