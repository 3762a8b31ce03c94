from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace

import pytest

from pillarbox.admission import Admission
from pillarbox.credentials import Digest, Password
from pillarbox.envelope import Envelope
from pillarbox.sessions.effects import Abort, Authenticate, CheckRecipient, Commit, Effect, OpenDraft, Pause, WriteBlock
from pillarbox.sessions.reception import KEPT, Exchange, Reception
from pillarbox.smtp import replies as r
from pillarbox.smtp.events import Auth, Content, Event, Hello, Mail
from pillarbox.smtp.reply import Reply
from pillarbox.status import Failure, Refusal, Status
from tests.smtp.connection import (
    DATE,
    DISK_FULL,
    TLS,
    Connection,
    World,
    body,
    codes,
    facts,
    greeted,
    settings,
)

MAIL = (b"MAIL FROM:<a@b.example>", b"RCPT TO:<joe@example.org>")
LOGIN = b"AUTH PLAIN AGpvZQBzZWNyZXQ="
WRONG_LOGIN = b"AUTH PLAIN AGpvZQB4"
NOT_NOW = Refusal(Status(4, 3, 0), "queue not available, try again later")


def submitting(*, world: World | None = None, service: str = "submissions", **given: object) -> Connection:
    """A connection that has logged in as joe."""
    connection = Connection(facts(service, policy=settings(**given)), world)
    assert codes(connection.say(b"EHLO laptop", LOGIN)) == [220, 250, 235]
    return connection


def submitted(*lines: bytes, connection: Connection | None = None) -> bytes:
    """What is queued of these lines of content."""
    connection = connection or submitting()
    heard = connection.say(b"MAIL FROM:<joe@example.org>", b"RCPT TO:<amy@example.org>", b"DATA", *lines, b".")
    assert codes(heard) == [250, 250, 354, 250]
    return body(connection.world.queued[-1][1])


# a message from a stranger


def test_a_message_is_queued_with_its_envelope_and_a_received_field() -> None:
    connection = greeted()
    heard = connection.say(
        *MAIL, b"RCPT TO:<eve@example.org>", b"RCPT TO:<amy@example.org>", b"DATA", b"A: b", b"", b"c", b"."
    )
    assert heard.split(b"\r\n") == [
        b"250 2.1.0 ok",
        b"250 2.1.5 ok",
        b"550 5.1.1 sorry, no mailbox here by that name",
        b"250 2.1.5 ok",
        b"354 go ahead",
        b"250 2.0.0 ok 1",
        b"",
    ]
    assert connection.world.queued == [
        (
            Envelope(b"a@b.example", (b"joe@example.org", b"amy@example.org")),
            b"Received: from client.example ([192.0.2.1])\n"
            b"  by mx.example.org with ESMTP;\n"
            b"  22 Nov 2026 13:03:55 -0000\n"
            b"A: b\n\nc\n",
        )
    ]


def test_a_small_message_costs_two_effects_and_its_recipients() -> None:
    connection = greeted()
    connection.say(*MAIL, b"DATA", b"x", b".")
    assert [type(effect) for effect in connection.world.done] == [CheckRecipient, OpenDraft, Commit]


def test_a_large_message_is_written_as_it_comes() -> None:
    connection = greeted()
    connection.say(*MAIL, b"DATA")
    for number in range(300):
        connection.say(b"%d" % number + b"x" * 995)
        assert connection.world.draft is not None and len(connection.world.draft) >= 998 * number - KEPT
    assert codes(connection.say(b".")) == [250]
    content = b"".join(b"%d" % number + b"x" * 995 + b"\n" for number in range(300))
    assert body(connection.world.queued[0][1]) == content
    assert 2 <= [type(effect) for effect in connection.world.done].count(WriteBlock) <= len(content) // KEPT


def test_nothing_is_added_to_the_message_of_a_stranger_but_received() -> None:
    connection = greeted()
    connection.say(*MAIL, b"DATA", b"Subject: neither date nor id", b"", b".")
    assert body(connection.world.queued[0][1]) == b"Subject: neither date nor id\n\n"


def test_an_empty_message_is_a_message() -> None:
    connection = greeted()
    assert codes(connection.say(*MAIL, b"DATA", b".")) == [250, 250, 354, 250]
    assert body(connection.world.queued[0][1]) == b""


def test_250_is_said_only_when_the_message_is_committed() -> None:
    connection = greeted(world=World(refusing={Commit: NOT_NOW}))
    heard = connection.say(*MAIL, b"DATA", b"x", b".")
    assert heard.endswith(b"354 go ahead\r\n451 4.3.0 queue not available, try again later\r\n")
    assert connection.world.queued == []
    assert connection.say(b"DATA") == b"503 5.5.1 MAIL first\r\n"


def test_trouble_with_the_draft_is_said_before_354() -> None:
    connection = greeted(world=World(refusing={OpenDraft: NOT_NOW}))
    assert connection.say(*MAIL, b"DATA").endswith(b"451 4.3.0 queue not available, try again later\r\n")
    connection.world.refusing.clear()
    assert codes(connection.say(b"DATA", b"x", b".")) == [354, 250]


def test_trouble_in_the_midst_is_remembered_and_the_rest_is_thrown_away() -> None:
    connection = greeted(world=World(refusing={WriteBlock: DISK_FULL}))
    assert codes(connection.say(*MAIL, b"DATA")) == [250, 250, 354]
    assert connection.say(b"x" * KEPT) == b""
    connection.world.refusing.clear()
    assert connection.say(b"more", b"QUIT") == b""
    assert connection.say(b".") == b"452 4.3.1 the disk is full\r\n"
    assert connection.world.queued == []
    assert [type(effect) for effect in connection.world.done].count(WriteBlock) == 1
    assert codes(connection.say(*MAIL, b"DATA", b"x", b".")) == [250, 250, 354, 250]


def test_a_second_message_has_nothing_of_the_first() -> None:
    connection = greeted()
    connection.say(*MAIL, b"DATA", *[b"Received: x"] * 60, b"", b".")
    heard = connection.say(b"MAIL FROM:<>", b"RCPT TO:<amy@example.org>", b"DATA", *[b"Received: y"] * 60, b"", b".")
    assert codes(heard) == [250, 250, 354, 250]
    assert connection.world.queued[1][0] == Envelope(b"", (b"amy@example.org",))
    assert b"Received: x" not in connection.world.queued[1][1]


@pytest.mark.parametrize("command", [b"RSET", b"EHLO again", b"HELO again", b"QUIT"])
def test_a_transaction_that_is_dropped_leaves_no_draft(command: bytes) -> None:
    connection = greeted()
    connection.say(*MAIL, b"BDAT 3", b"x")
    assert connection.world.draft is not None
    connection.say(command)
    assert connection.world.done[-1] == Abort()
    assert connection.world.draft is None
    assert connection.world.queued == []


def test_a_client_that_is_lost_in_the_midst_leaves_no_draft() -> None:
    connection = greeted()
    connection.say(*MAIL, b"DATA", b"x")
    connection.hang_up()
    assert connection.world.draft is None
    assert connection.world.queued == []


def test_a_client_that_is_lost_elsewhere_leaves_nothing_to_do() -> None:
    connection = greeted()
    assert connection.session.lost() is None
    connection.say(*MAIL)
    assert connection.session.lost() is None
    connection.say(b"DATA", b"x", b".")
    assert connection.session.lost() is None


# trace fields


# row: known-protocol-word
@pytest.mark.parametrize(
    ("hello", "parameters", "word"),
    [
        (b"HELO c", b"", b"SMTP"),
        (b"EHLO c", b"", b"ESMTP"),
        (b"EHLO c", b" SMTPUTF8", b"UTF8SMTP"),
    ],
)
def test_received_says_which_protocol(hello: bytes, parameters: bytes, word: bytes) -> None:
    connection = Connection()
    connection.say(hello, MAIL[0] + parameters, MAIL[1], b"DATA", b".")
    assert b" with %s;\n" % word in connection.world.queued[0][1]


# row: known-protocol-word
def test_received_says_tls_and_login() -> None:
    connection = greeted()
    connection.say(b"STARTTLS")
    connection.tls()
    connection.say(b"EHLO c", *MAIL, b"DATA", b".")
    assert b" with ESMTPS (TLSv1.3 TLS_AES_256_GCM_SHA384);\n" in connection.world.queued[0][1]
    connection = submitting()
    submitted(b"x", connection=connection)
    assert b" with ESMTPSA (TLSv1.3 TLS_AES_256_GCM_SHA384);\n" in connection.world.queued[0][1]
    assert b"joe" not in connection.world.queued[0][1]


def test_received_shows_the_client_as_it_is_and_as_it_says() -> None:
    connection = Connection(facts(client=b"2001:db8::7"))
    connection.say(b"EHLO [IPv6:2001:db8::7]", *MAIL, b"DATA", b".")
    assert connection.world.queued[0][1].startswith(b"Received: from [IPv6:2001:db8::7] ([IPv6:2001:db8::7])\n")
    connection = Connection()
    connection.say(b"EHLO evil) by (x; y", *MAIL, b"DATA", b".")
    assert connection.world.queued[0][1].startswith(b"Received: from evil??by??x??y ([192.0.2.1])\n")


# policy of the envelope


@pytest.mark.parametrize("recipient", [b"joe@example.org", b"postmaster", b"far@elsewhere.example"])
def test_who_is_blocked_is_refused_every_recipient_and_nobody_is_asked(recipient: bytes) -> None:
    connection = Connection(replace(facts(), blocked=Refusal(Status(5, 7, 1), "listed")))
    heard = connection.say(b"EHLO b.example", b"MAIL FROM:<a@b.example>", b"RCPT TO:<%s>" % recipient, b"DATA")
    assert codes(heard) == [220, 250, 250, 553, 503]
    assert b"\r\n553 5.7.1 listed\r\n" in heard
    assert connection.world.done == []


def test_who_is_blocked_and_has_logged_in_is_not() -> None:
    connection = Connection(replace(facts("submissions"), blocked=Refusal(Status(4, 7, 1), "not now")))
    heard = connection.say(b"EHLO laptop", LOGIN, b"MAIL FROM:<joe@example.org>", b"RCPT TO:<joe@example.org>")
    assert codes(heard) == [220, 250, 235, 250, 250]


def test_a_sender_in_badmailfrom_is_refused() -> None:
    connection = greeted(facts(policy=settings(badmailfrom=frozenset((b"a@b.example",)))))
    assert connection.say(MAIL[0]) == b"550 5.7.1 sorry, your envelope sender is in my badmailfrom list\r\n"
    assert codes(connection.say(MAIL[1])) == [503]


# row: known-size
def test_a_message_that_says_it_is_too_big_is_refused_at_once() -> None:
    connection = greeted(facts(policy=settings(databytes=100)))
    assert (
        connection.say(MAIL[0] + b" SIZE=101") == b"552 5.3.4 sorry, that message size exceeds my databytes limit\r\n"
    )
    assert codes(connection.say(MAIL[0] + b" SIZE=100")) == [250]


def test_strangers_may_not_send_to_other_hosts_and_nobody_is_asked() -> None:
    connection = greeted()
    heard = connection.say(MAIL[0], b"RCPT TO:<x@far.example>", b"DATA")
    assert codes(heard) == [250, 550, 503]
    assert b"550 5.7.1 " in heard
    assert CheckRecipient(b"x@far.example") not in connection.world.done


def test_who_logged_in_may_send_to_other_hosts() -> None:
    connection = submitting(world=World(known=frozenset((b"x@far.example",))))
    heard = connection.say(b"MAIL FROM:<joe@example.org>", b"RCPT TO:<x@far.example>", b"DATA", b".")
    assert codes(heard) == [250, 250, 354, 250]
    assert connection.world.queued[0][0].recipients == (b"x@far.example",)


@pytest.mark.parametrize(
    "postmaster", [b"postmaster", b"PostMaster", b"postmaster@example.org", b"POSTMASTER@Example.Org"]
)
def test_postmaster_is_always_taken_and_nobody_is_asked(postmaster: bytes) -> None:
    connection = greeted(world=World(refusing={CheckRecipient: NOT_NOW}))
    assert codes(connection.say(MAIL[0], b"RCPT TO:<%s>" % postmaster, b"DATA", b".")) == [250, 250, 354, 250]
    assert connection.world.queued[0][0].recipients == (postmaster,)


def test_a_recipient_that_cannot_be_looked_up_is_put_off() -> None:
    connection = greeted(world=World(refusing={CheckRecipient: NOT_NOW}))
    assert codes(connection.say(*MAIL)) == [250, 451]


def test_rcpthosts_that_cannot_be_read_put_a_recipient_off() -> None:
    def unreadable(_host: bytes) -> bool:
        raise Failure("unable to read control/morercpthosts.cdb")

    exchange = facts()
    policy = settings(rcpthosts=frozenset())
    broken = Exchange(
        exchange.service, exchange.me, exchange.client, Admission(policy, unreadable), exchange.clock, exchange.token
    )
    connection = greeted(broken)
    assert connection.say(*MAIL).endswith(b"451 4.3.0 unable to read control/morercpthosts.cdb\r\n")


# row: known-limits
@pytest.mark.parametrize(
    ("suffix", "recipient"), [(b"", b"joe@elsewhere.example"), (b"@r", b"joe@elsewhere.example@r")]
)
def test_a_client_with_relayclient_may_send_anywhere_with_its_value_appended(suffix: bytes, recipient: bytes) -> None:
    connection = greeted(replace(facts(), relayclient=suffix), World(known=frozenset((recipient,))))
    heard = connection.say(MAIL[0], b"RCPT TO:<joe@elsewhere.example>", b"DATA", b".")
    assert codes(heard) == [250, 250, 354, 250]
    assert connection.world.queued[0][0].recipients == (recipient,)


# row: badmailfrom-in-serve
def test_badmailfrom_is_for_clients_with_relayclient_too() -> None:
    policy = settings(badmailfrom=frozenset((b".email-info.example",)))
    connection = greeted(replace(facts(policy=policy), relayclient=b""))
    heard = connection.say(b"MAIL FROM:<opt-in@mtsopt21.email-info.example>", b"MAIL FROM:<x@email-info.example>")
    assert heard.splitlines() == [
        b"550 5.7.1 sorry, your envelope sender is in my badmailfrom list",
        b"250 2.1.0 ok",
    ]


def test_recipients_have_a_limit_and_those_before_it_get_the_message() -> None:
    connection = greeted(facts(policy=settings(maxrecipients=2)))
    heard = connection.say(MAIL[0], *[b"RCPT TO:<joe@example.org>"] * 3, b"DATA", b".")
    assert codes(heard) == [250, 250, 250, 452, 354, 250]
    assert b"452 4.5.3 " in heard
    assert connection.world.queued[0][0].recipients == (b"joe@example.org",) * 2


# policy of the content


def test_databytes_counts_the_stored_octets_of_the_client() -> None:
    connection = greeted(facts(policy=settings(databytes=20)))
    assert codes(connection.say(*MAIL, b"DATA", b"123456789012345678", b"", b".")) == [250, 250, 354, 250]
    heard = connection.say(*MAIL, b"DATA", b"1234567890123456789", b"", b".")
    assert heard.endswith(b"354 go ahead\r\n552 5.3.4 sorry, that message size exceeds my databytes limit\r\n")
    assert len(connection.world.queued) == 1


def test_a_message_that_grows_too_big_is_read_on_but_kept_no_longer() -> None:
    connection = greeted(facts(policy=settings(databytes=20)))
    connection.say(*MAIL, b"DATA")
    connection.say(b"x" * 30)
    assert connection.world.draft is None
    assert connection.say(b"QUIT" * 1000, b"RSET") == b""
    assert codes(connection.say(b".", b"NOOP")) == [552, 250]
    assert connection.world.queued == []


@pytest.mark.parametrize(("hops", "code"), [(99, 250), (100, 554), (150, 554)])
def test_a_hundred_hops_are_a_loop(hops: int, code: int) -> None:
    connection = greeted()
    trace = [b"rEceived: x", b"DELIVERED-TO: y"] * 75
    heard = connection.say(*MAIL, b"DATA", *trace[:hops], b"", b"Received: in the body", b".")
    assert codes(heard) == [250, 250, 354, code]
    assert len(connection.world.queued) == (code == 250)
    assert connection.world.draft is None


def test_hops_without_a_body_count_too() -> None:
    connection = greeted()
    assert codes(connection.say(*MAIL, b"DATA", *[b"Received: x"] * 100, b"."))[-1] == 554


def test_a_loop_is_told_before_size() -> None:
    connection = greeted(facts(policy=settings(databytes=20)))
    heard = connection.say(*MAIL, b"DATA", *[b"Received: x"] * 100, b"", b".")
    assert heard.endswith(b"554 5.4.6 too many hops, this message is looping\r\n")


# BDAT


def test_a_message_in_chunks_is_the_same_message() -> None:
    connection = greeted()
    heard = connection.send(b"\r\n".join(MAIL) + b"\r\nBDAT 7\r\nA: b\r\n\rBDAT 5 LAST\r\n\nbodyNOOP\r\n")
    assert codes(heard) == [250, 250, 250, 250, 250]
    assert body(connection.world.queued[0][1]) == b"A: b\n\nbody\n"


def test_an_empty_last_chunk_makes_an_empty_message() -> None:
    connection = greeted()
    assert codes(connection.say(*MAIL, b"BDAT 0 LAST")) == [250, 250, 250]
    assert body(connection.world.queued[0][1]) == b""


def test_a_draft_that_cannot_be_opened_refuses_the_first_chunk() -> None:
    connection = greeted(world=World(refusing={OpenDraft: NOT_NOW}))
    heard = connection.say(*MAIL, b"BDAT 6", b"QUIT", b"BDAT 6 LAST", b"QUIT", b"NOOP")
    assert codes(heard) == [250, 250, 451, 503, 250]
    connection = greeted(world=World(refusing={OpenDraft: NOT_NOW}))
    assert codes(connection.say(*MAIL, b"BDAT 6 LAST", b"QUIT", b"NOOP")) == [250, 250, 451, 250]


def test_trouble_in_a_chunk_is_told_at_its_end() -> None:
    connection = greeted(facts(policy=settings(databytes=20)))
    heard = connection.say(*MAIL, b"BDAT 32", b"x" * 30, b"BDAT 3 LAST", b"x", b"NOOP")
    assert codes(heard) == [250, 250, 552, 503, 250]
    assert connection.world.draft is None
    assert connection.world.queued == []
    connection = greeted(facts(policy=settings(databytes=20)))
    assert codes(connection.say(*MAIL, b"BDAT 12", b"x" * 10, b"BDAT 12 LAST", b"x" * 10)) == [250, 250, 250, 552]
    assert connection.world.draft is None


# submission


@pytest.mark.parametrize(
    ("service", "cleartext", "answer"),
    [
        ("submission", False, b"530 5.7.0 must issue a STARTTLS command first\r\n"),
        ("submission", True, b"530 5.7.0 authentication required\r\n"),
        ("submissions", False, b"530 5.7.0 authentication required\r\n"),
    ],
)
def test_on_submission_nothing_is_taken_without_a_login(service: str, cleartext: bool, answer: bytes) -> None:
    connection = greeted(facts(service, cleartext=cleartext))
    assert connection.say(b"MAIL FROM:<joe@example.org>") == answer
    assert codes(connection.say(MAIL[1], b"DATA")) == [503, 503]
    assert connection.world.done == []


def test_no_login_is_offered_or_taken_on_port_25() -> None:
    connection = greeted()
    connection.say(b"STARTTLS")
    connection.tls()
    assert b"AUTH" not in connection.say(b"EHLO c")
    assert codes(connection.say(LOGIN)) == [503]
    assert connection.world.done == []


def test_no_login_is_taken_before_tls() -> None:
    connection = Connection(facts("submission"))
    assert b"AUTH" not in connection.say(b"EHLO c")
    assert codes(connection.say(LOGIN)) == [538]
    connection.say(b"STARTTLS")
    connection.tls()
    assert b"AUTH PLAIN LOGIN" in connection.say(b"EHLO c")
    assert codes(connection.say(LOGIN)) == [235]
    assert connection.world.done == [Authenticate(Password(b"joe", b"secret"))]


@pytest.mark.parametrize(
    "exchange", [facts("submission"), facts("smtp", cleartext=True), facts("submission", mechanisms=())]
)
def test_the_session_itself_takes_no_login_where_none_is_offered(exchange: Exchange) -> None:
    with pytest.raises(StopIteration) as stop:
        asked(Reception(exchange), Auth(b"PLAIN", b"AGpvZQBzZWNyZXQ="))
    assert stop.value.value is r.AUTH_TYPE


def test_a_mechanism_that_sasl_does_not_know_is_none() -> None:
    connection = greeted(facts("submissions", mechanisms=(b"GSSAPI",)))
    assert codes(connection.say(b"AUTH GSSAPI")) == [504]


def test_authcleartext_allows_it() -> None:
    connection = Connection(facts("submission", cleartext=True))
    assert b"AUTH PLAIN LOGIN" in connection.say(b"EHLO c")
    assert codes(connection.say(LOGIN)) == [235]


@pytest.mark.parametrize(
    ("lines", "heard"),
    [
        ((LOGIN,), [235]),
        ((b"AUTH PLAIN", b"AGpvZQBzZWNyZXQ="), [334, 235]),
        ((b"AUTH LOGIN", b"am9l", b"c2VjcmV0"), [334, 334, 235]),
        ((b"AUTH LOGIN am9l", b"c2VjcmV0"), [334, 235]),
        ((b"AUTH PLAIN", b"*"), [334, 501]),
        ((b"AUTH PLAIN", b""), [334, 501]),
        ((b"AUTH PLAIN", b"!"), [334, 501]),
        ((b"AUTH PLAIN =",), [501]),
        ((WRONG_LOGIN,), [535]),
        ((b"AUTH LOGIN", b"am9l", b"eA=="), [334, 334, 535]),
        ((b"AUTH CRAM-MD5",), [504]),
        ((b"AUTH GSSAPI",), [504]),
    ],
)
def test_logins_go_as_their_mechanism_says(lines: tuple[bytes, ...], heard: list[int]) -> None:
    connection = greeted(facts("submissions"))
    assert codes(connection.say(*lines)) == heard
    assert (connection.session.identity is not None) == (heard[-1] == 235)


def test_cram_md5_is_there_where_it_is_offered_with_a_challenge_never_given_before() -> None:
    connection = greeted(facts("submissions", mechanisms=(b"PLAIN", b"CRAM-MD5")))
    assert connection.say(b"AUTH CRAM-MD5") == b"334 PHRva2VuMUBteC5leGFtcGxlLm9yZz4=\r\n"
    assert codes(connection.say(b"am9lIGFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFh")) == [235]
    assert connection.world.done == [Authenticate(Digest(b"CRAM-MD5", b"joe", b"<token1@mx.example.org>", b"a" * 32))]
    other = greeted(facts("submissions", mechanisms=(b"CRAM-MD5",)))
    assert other.say(b"AUTH CRAM-MD5", b"*", b"AUTH CRAM-MD5").count(b"dG9rZW4x") == 0
    assert codes(other.say(b"*")) == [501]


# row: known-limits
def test_a_failed_login_waits_and_the_third_closes() -> None:
    connection = greeted(facts("submissions"))
    assert connection.say(WRONG_LOGIN, WRONG_LOGIN).count(b"535 5.7.8 authorization failed\r\n") == 2
    heard = connection.say(WRONG_LOGIN, LOGIN)
    assert heard == b"535 5.7.8 authorization failed\r\n421 4.7.0 too many failed logins\r\n"
    assert connection.machine.closing
    assert connection.world.done.count(Pause(2.0)) == 3


def test_failed_logins_are_counted_across_starttls() -> None:
    connection = greeted(facts("submission", cleartext=True))
    connection.say(WRONG_LOGIN, WRONG_LOGIN, b"STARTTLS")
    connection.tls()
    connection.say(b"EHLO c", WRONG_LOGIN)
    assert connection.machine.closing


def test_a_login_that_cannot_be_verified_now_is_454_and_counts_for_nothing() -> None:
    connection = greeted(facts("submissions"), World(refusing={Authenticate: NOT_NOW}))
    heard = connection.say(*[LOGIN] * 5)
    assert heard == b"454 4.7.0 queue not available, try again later\r\n" * 5
    connection.world.refusing.clear()
    assert codes(connection.say(LOGIN)) == [235]


@pytest.mark.parametrize(
    ("sender", "code"),
    [
        (b"joe@example.org", 250),
        (b"JOE@Example.org", 250),
        (b"joe-lists@example.org", 250),
        (b"sales@example.org", 250),
        (b"", 250),
        (b"amy@example.org", 550),
        (b"joey@example.org", 550),
        (b"joe@elsewhere.example", 550),
        (b"joe", 550),
    ],
)
def test_a_login_sends_only_as_himself(sender: bytes, code: int) -> None:
    assert codes(submitting().say(b"MAIL FROM:<%s>" % sender)) == [code]


def test_a_login_from_before_starttls_is_none() -> None:
    connection = greeted(facts("submission", cleartext=True))
    connection.say(LOGIN, b"STARTTLS")
    connection.tls()
    assert codes(connection.say(b"EHLO c", b"MAIL FROM:<joe@example.org>")) == [250, 530]


def asked(session: Reception, event: Event) -> Effect:
    """The first effect that an event brings."""
    asking = session.respond(event)
    assert isinstance(asking, Generator)
    return next(asking)


def test_secured_forgets_who_the_client_said_it_was() -> None:
    session = Reception(facts())
    for event in (Hello(b"evil", extended=True), Mail(b"a@b.example")):
        assert isinstance(session.respond(event), Reply)
    session.secured(TLS)
    with pytest.raises(AssertionError):
        asked(session, Content(b"x"))


# Date and Message-ID of submitted mail


def test_what_a_submitted_message_lacks_is_put_in_front() -> None:
    assert submitted(b"Subject: x", b"", b"Date: in the body") == (
        b"Message-ID: <token1@mx.example.org>\nDate: " + DATE + b"\nSubject: x\n\nDate: in the body\n"
    )
    assert submitted(b"date: x", b"", b"y") == b"Message-ID: <token1@mx.example.org>\ndate: x\n\ny\n"
    assert submitted(b"MESSAGE-ID: x", b"", b"y") == b"Date: " + DATE + b"\nMESSAGE-ID: x\n\ny\n"
    assert submitted(b"Date: x", b"Message-ID: y", b"", b"z") == b"Date: x\nMessage-ID: y\n\nz\n"


def test_received_stands_above_what_is_added() -> None:
    connection = submitting()
    submitted(b"Subject: x", b"", connection=connection)
    content = connection.world.queued[0][1]
    assert content.index(b"Received:") == 0 < content.index(b"Message-ID:") < content.index(b"Subject:")


def test_a_submitted_message_without_body_or_header_gets_them_too() -> None:
    added = b"Message-ID: <token1@mx.example.org>\nDate: " + DATE + b"\n"
    assert submitted(b"Subject: x") == added + b"Subject: x\n"
    assert submitted() == added
    assert submitted(b"", b"body") == added + b"\nbody\n"


def test_a_header_that_comes_octet_by_octet_is_one_header() -> None:
    connection = submitting()
    connection.say(b"MAIL FROM:<joe@example.org>", b"RCPT TO:<amy@example.org>", b"DATA")
    for octet in b"A: b\r\nDate: x\r\nMessage-ID: y\r\n\r\nbody\r\n.\r\n":
        connection.send(bytes([octet]))
    assert body(connection.world.queued[0][1]) == b"A: b\nDate: x\nMessage-ID: y\n\nbody\n"


def test_only_so_much_of_a_header_is_held_back() -> None:
    connection = submitting()
    connection.say(b"MAIL FROM:<joe@example.org>", b"RCPT TO:<amy@example.org>", b"DATA")
    line = b"X: " + b"y" * 997
    for _ in range(KEPT // 1001 - 1):
        connection.say(line)
        assert not connection.world.draft
    connection.say(line, line)
    assert connection.world.draft
    assert len(connection.world.draft) > KEPT
    assert codes(connection.say(b"", b"body", b".")) == [250]
    assert connection.world.queued[0][1].endswith(b"yyy\n\nbody\n")
    assert connection.world.queued[0][1].count(b"Date: ") == 1


def test_trouble_with_the_first_block_of_a_submitted_message_is_told_once() -> None:
    connection = submitting(world=World(refusing={WriteBlock: DISK_FULL}))
    heard = connection.say(b"MAIL FROM:<joe@example.org>", b"RCPT TO:<amy@example.org>", b"DATA", b"x" * KEPT, b".")
    assert codes(heard) == [250, 250, 354, 452]
    assert [type(effect) for effect in connection.world.done].count(WriteBlock) == 1


def test_a_submitted_message_that_grows_too_big_is_let_go_with_its_header() -> None:
    connection = submitting(databytes=50)
    heard = connection.say(
        b"MAIL FROM:<joe@example.org>", b"RCPT TO:<amy@example.org>", b"DATA", b"X: " + b"y" * 60, b"."
    )
    assert codes(heard) == [250, 250, 354, 552]
    assert WriteBlock not in [type(effect) for effect in connection.world.done]
