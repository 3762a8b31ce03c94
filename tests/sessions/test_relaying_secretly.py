"""TLS and passwords on the way out."""

from __future__ import annotations

import pytest

from pillarbox.attempt import Advice, Attempt
from pillarbox.credentials import Password
from pillarbox.envelope import Envelope
from pillarbox.outcome import Verdict
from pillarbox.sessions.relaying import Order, sender
from pillarbox.smtp.sender import Phase, Sender
from pillarbox.status import Status
from tests.sessions.client import brought, order, script
from tests.smtp.connection import Connection, facts

ONE = Envelope(b"joe@example.org", (b"amy@example.org",))
JOE = Password(b"joe", b"secret")
STARTTLS = (b"220 mx\r\n", b"250-mx\r\n250-AUTH PLAIN LOGIN\r\n250 STARTTLS\r\n")
EHLO = b"EHLO client.example\r\n"


def ended(machine: Sender) -> Attempt:
    assert machine.attempt is not None
    return machine.attempt


def over_tls(order: Order, *replies: bytes) -> tuple[list[bytes], Attempt | None]:
    """What is said behind the handshake to these replies, and what became of it."""
    machine = sender(order)
    script(machine, *STARTTLS, b"220 go\r\n")
    machine.secured()
    return script(machine, *replies), machine.attempt


def logged_in(offer: bytes, *replies: bytes) -> tuple[list[bytes], Attempt | None]:
    """As over_tls, with a password; behind EHLO's reply, which offers this."""
    said, attempt = over_tls(order(ONE, credentials=JOE), b"250-mx\r\n250 " + offer + b"\r\n", *replies)
    return said[1:], attempt


# TLS


def test_what_a_server_offered_in_clear_is_forgotten_behind_the_handshake() -> None:
    machine = sender(order(ONE, size=50))
    said = script(machine, b"220 mx\r\n", b"250-mx\r\n250-SIZE 10\r\n250-PIPELINING\r\n250 STARTTLS\r\n", b"220 go\r\n")
    assert said == [EHLO, b"STARTTLS\r\n"]
    assert machine.wants_tls
    machine.secured()
    assert script(machine, b"250 mx\r\n") == [EHLO, b"MAIL FROM:<joe@example.org>\r\n"]


def test_a_server_that_offers_tls_and_refuses_it_gets_the_mail_in_clear() -> None:
    assert script(sender(order(ONE)), *STARTTLS, b"454 not now\r\n")[2].startswith(b"MAIL FROM:")


def test_a_server_that_does_not_offer_tls_again_behind_it_is_asked_no_more() -> None:
    assert over_tls(order(ONE), b"250-mx\r\n250 STARTTLS\r\n")[0][1].startswith(b"MAIL FROM:")


def test_a_connection_that_began_with_tls_is_not_secured_twice() -> None:
    assert script(sender(order(ONE, secure=True, insist=True)), *STARTTLS)[1].startswith(b"MAIL FROM:")


def test_tls_that_is_not_wanted_is_not_asked_for() -> None:
    assert script(sender(order(ONE, tls=False)), *STARTTLS)[1].startswith(b"MAIL FROM:")


@pytest.mark.parametrize(
    ("more", "advice"),
    [
        ({}, Advice.WITHOUT_TLS),
        ({"insist": True}, Advice.NEXT_HOST),
        ({"credentials": JOE}, Advice.NEXT_HOST),
        ({"credentials": JOE, "clear": True}, Advice.WITHOUT_TLS),
    ],
)
def test_after_a_failed_handshake_mail_goes_in_clear_unless_it_must_not(
    more: dict[str, object], advice: Advice
) -> None:
    machine = sender(order(ONE, **more))
    script(machine, *STARTTLS, b"220 go\r\n")
    machine.tls_failed(b"WRONG_VERSION_NUMBER")
    assert machine.finished
    attempt = ended(machine)
    assert (attempt.advice, attempt.unsettled) == (advice, (0,))
    [outcome] = attempt.outcomes
    assert (outcome.verdict, outcome.status) == (Verdict.LATER, Status(4, 7, 5))
    assert outcome.report == b"Connected to 192.0.2.1 but TLS failed: WRONG_VERSION_NUMBER. (#4.7.5)\n"


@pytest.mark.parametrize("replies", [(b"220 mx\r\n", b"250 mx\r\n"), (*STARTTLS, b"454 no\r\n")])
def test_who_insists_on_tls_sends_nothing_without(replies: tuple[bytes, ...]) -> None:
    machine = sender(order(ONE, insist=True))
    assert script(machine, *replies)[-1] == b"QUIT\r\n"
    attempt = ended(machine)
    assert (attempt.advice, attempt.destination_failed) == (Advice.NEXT_HOST, True)
    assert (attempt.message.verdict, attempt.message.status) == (Verdict.LATER, Status(4, 7, 4))


def test_a_host_that_goes_away_at_starttls_is_no_host() -> None:
    machine = sender(order(ONE))
    script(machine, *STARTTLS, b"")
    assert ended(machine).advice is Advice.NEXT_HOST
    assert machine.phase is Phase.OVER


def test_a_host_that_hangs_up_on_ehlo_behind_tls_is_not_deaf_to_it() -> None:
    machine = sender(order(ONE))
    script(machine, *STARTTLS, b"220 go\r\n")
    machine.secured()
    machine.eof()
    assert ended(machine).advice is Advice.NEXT_HOST


def test_octets_in_clear_ahead_of_the_handshake_end_it() -> None:
    machine = sender(order(ONE))
    script(machine, *STARTTLS, b"220 go\r\n250 mx\r\n")
    assert machine.finished
    assert ended(machine).advice is Advice.NEXT_HOST
    assert b"it spoke out of turn. (#4.5.0)" in ended(machine).message.report


# passwords


@pytest.mark.parametrize("clear", [False, True])
@pytest.mark.parametrize("offer", [b"250-AUTH PLAIN LOGIN\r\n", b"250-AUTH=LOGIN\r\n", b""])
def test_no_password_goes_in_clear_unless_it_may(clear: bool, offer: bytes) -> None:
    machine = sender(order(ONE, credentials=JOE, clear=clear))
    said = script(machine, b"220 mx\r\n", b"250-mx\r\n" + offer + b"250 SIZE\r\n")
    assert said[1].startswith(b"AUTH ") is clear
    if not clear:
        assert said[1:] == [b"QUIT\r\n"]
        attempt = ended(machine)
        assert (attempt.advice, attempt.destination_failed) == (Advice.NOTHING, True)
        assert (attempt.message.verdict, attempt.message.status) == (Verdict.LATER, Status(4, 7, 11))
        assert b"control/cleartextroutes" in attempt.message.report


def test_a_refused_starttls_does_not_bring_the_password_out() -> None:
    assert script(sender(order(ONE, credentials=JOE)), *STARTTLS, b"454 not now\r\n")[2:] == [b"QUIT\r\n"]


def test_a_keyed_digest_may_go_in_clear() -> None:
    machine = sender(order(ONE, credentials=Password(b"tim", b"tanstaaftanstaaf")))
    challenge = b"334 PDE4OTYuNjk3MTcwOTUyQHBvc3RvZmZpY2UucmVzdG9uLm1jaS5uZXQ+\r\n"
    said = script(machine, b"220 mx\r\n", b"250-mx\r\n250 AUTH LOGIN CRAM-MD5\r\n", challenge, b"235 ok\r\n")
    assert said[1:3] == [b"AUTH CRAM-MD5\r\n", b"dGltIGI5MTNhNjAyYzdlZGE3YTQ5NWI0ZTZlNzMzNGQzODkw\r\n"]
    assert said[3].startswith(b"MAIL FROM:")


@pytest.mark.parametrize(
    ("offer", "replies", "said"),
    [
        (b"AUTH PLAIN", (b"235 ok\r\n",), [b"AUTH PLAIN AGpvZQBzZWNyZXQ=\r\n"]),
        (
            b"AUTH PLAIN LOGIN",
            (b"334 x\r\n", b"334 y\r\n", b"235 ok\r\n"),
            [b"AUTH LOGIN\r\n", b"am9l\r\n", b"c2VjcmV0\r\n"],
        ),
        # qmail's AUTH patches log in also where no list is given
        (b"SIZE", (b"334 x\r\n", b"334 y\r\n", b"235 ok\r\n"), [b"AUTH LOGIN\r\n", b"am9l\r\n", b"c2VjcmV0\r\n"]),
    ],
)
def test_a_password_is_said_over_tls(offer: bytes, replies: tuple[bytes, ...], said: list[bytes]) -> None:
    everything, _ = logged_in(offer, *replies)
    assert everything[:-1] == said
    assert everything[-1].startswith(b"MAIL FROM:")


def test_where_ehlo_is_refused_login_is_tried_all_the_same() -> None:
    machine = sender(order(ONE, credentials=JOE, secure=True))
    assert script(machine, b"220 mx\r\n", b"500 what\r\n", b"250 mx\r\n")[2] == b"AUTH LOGIN\r\n"


@pytest.mark.parametrize(
    ("offer", "replies", "where"),
    [
        (b"AUTH LOGIN", (b"504 no\r\n",), b"AUTH LOGIN"),
        (b"AUTH LOGIN", (b"334 x\r\n", b"535 no\r\n"), b"username"),
        (b"AUTH LOGIN", (b"334 x\r\n", b"334 y\r\n", b"535 no\r\n"), b"password"),
        (b"AUTH LOGIN", (b"334 x\r\n", b"334 y\r\n", b"334 and then?\r\n"), b"password"),
        (b"AUTH PLAIN", (b"454 later\r\n",), b"AUTH PLAIN"),
        (b"AUTH CRAM-MD5", (b"334 PDE+\r\n", b"535 no\r\n"), b"response"),
    ],
)
def test_a_wrong_password_bounces_nothing(offer: bytes, replies: tuple[bytes, ...], where: bytes) -> None:
    said, attempt = logged_in(offer, *replies)
    assert said[-1] == b"QUIT\r\n"
    assert attempt is not None
    assert (attempt.advice, attempt.destination_failed) == (Advice.NOTHING, True)
    [outcome] = attempt.outcomes
    assert (outcome.verdict, outcome.status) == (Verdict.LATER, Status(4, 7, 8))
    assert outcome.report == (
        b"Connected to 192.0.2.1 but authentication was rejected (%s).\nRemote host said: %s\n"
        % (where, replies[-1].removesuffix(b"\r\n"))
    )


@pytest.mark.parametrize(
    ("offer", "replies", "echo"),
    [
        (b"AUTH PLAIN", (), b"AUTH PLAIN AGpvZQBzZWNyZXQ="),
        (b"AUTH PLAIN", (), b"AGpvZQBzZWNyZXQ="),
        (b"AUTH LOGIN", (b"334 x\r\n", b"334 y\r\n"), b"c2VjcmV0"),
        (b"AUTH LOGIN", (b"334 x\r\n", b"334 y\r\n"), b"secret"),
    ],
)
def test_a_server_that_repeats_the_password_does_not_get_it_into_the_log(
    offer: bytes, replies: tuple[bytes, ...], echo: bytes
) -> None:
    _, attempt = logged_in(offer, *replies, b"500 unknown command: " + echo + b"\r\n")
    assert attempt is not None
    assert attempt.message.report.endswith(b"Remote host said: 500 unknown command: *\n")


def test_no_mechanism_in_common_is_trouble_with_the_route() -> None:
    said, attempt = logged_in(b"AUTH GSSAPI")
    assert said == [b"QUIT\r\n"]
    assert attempt is not None
    assert (attempt.message.verdict, attempt.message.status) == (Verdict.LATER, Status(4, 7, 4))
    assert attempt.destination_failed


@pytest.mark.parametrize("end", [b"", b"421 too busy\r\n"])
def test_a_host_that_goes_away_amid_a_login_has_not_refused_it(end: bytes) -> None:
    _, attempt = logged_in(b"AUTH LOGIN", b"334 x\r\n", end)
    assert attempt is not None
    assert attempt.advice is Advice.NEXT_HOST


def test_our_own_submission_service_lets_us_in() -> None:
    connection = Connection(facts("submission"))
    to = order(ONE, credentials=JOE)
    attempt = brought(to, connection, [b"x\n"])
    assert [outcome.verdict for outcome in attempt.outcomes] == [Verdict.DONE]
    assert b"with ESMTPSA" in connection.world.queued[0][1]
