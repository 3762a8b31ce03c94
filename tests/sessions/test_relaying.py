"""What a sender says, and what becomes of each recipient. Reports are those of qmail-remote, octet for octet."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from pillarbox.attempt import Advice, Attempt
from pillarbox.envelope import Envelope
from pillarbox.outcome import Verdict
from pillarbox.sessions.effects import Commit
from pillarbox.sessions.relaying import LARGEST_GROUP, Line, Order, sender
from pillarbox.smtp.sender import Phase, Sender
from pillarbox.status import Refusal, Status
from tests.sessions.client import ENVELOPE, brought, order, script
from tests.smtp.connection import Connection, World, body, facts
from tests.test_content import CUTS, EVERY_BYTE, STORED, lines_ended, split

DONE, LATER, NEVER = Verdict.DONE, Verdict.LATER, Verdict.NEVER
ONE = Envelope(b"", (b"x@y",))
HELLO = (b"220 mx ESMTP\r\n", b"250 mx\r\n")
PIPELINING = (b"220 mx ESMTP\r\n", b"250-mx\r\n250 PIPELINING\r\n")


def ended(machine: Sender) -> Attempt:
    assert machine.attempt is not None
    return machine.attempt


def tried(*replies: bytes, to: Order | None = None) -> Attempt:
    machine = sender(to or order(ONE))
    script(machine, *replies)
    return ended(machine)


def verdicts(attempt: Attempt) -> list[Verdict]:
    return [outcome.verdict for outcome in attempt.outcomes]


# with our own receiver


@pytest.mark.parametrize("octet_by_octet", [False, True])
def test_receiver_takes_what_sender_brings(octet_by_octet: bool) -> None:
    connection = Connection()
    content = [b"Subject: x\n", b"", b"\n.body\r\n", b"no end"]
    attempt = brought(order(), connection, content, octet_by_octet=octet_by_octet)
    assert verdicts(attempt) == [DONE, NEVER, DONE]
    [(envelope, content_there)] = connection.world.queued
    assert envelope == Envelope(b"a@b.example", (b"joe@example.org", b"amy@example.org"))
    assert body(content_there) == b"Subject: x\n\n.body\nno end\n"
    assert connection.machine.closing
    assert (attempt.advice, attempt.destination_failed) == (Advice.NOTHING, False)


@given(STORED, CUTS)
@example(EVERY_BYTE, [])
@example(b"".join(bytes([a, b]) for a in (10, 13, 46) for b in range(256)), [])
@hypothesis_settings(deadline=None)
def test_every_byte_makes_the_way_from_sender_to_receiver(content: bytes, cuts: list[int]) -> None:
    connection = Connection()
    brought(order(Envelope(b"", (b"joe@example.org",))), connection, split(content, cuts))
    assert body(connection.world.queued[0][1]) == lines_ended(content)


# What a header or an address of ours may hold and a path may not show is quoted.
@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=60))
@hypothesis_settings(deadline=None)
def test_every_printable_local_part_makes_the_way(local: str) -> None:
    address = local.encode() + b"@example.org"
    connection = Connection(world=World(known=frozenset((address.lower(),))))
    brought(order(Envelope(address, (address,))), connection, [])
    assert connection.world.queued[0][0] == Envelope(address, (address,))


def test_a_refused_message_is_refused_for_those_who_were_taken() -> None:
    connection = Connection(world=World(refusing={Commit: Refusal(Status(4, 3, 1), "the disk is full")}))
    attempt = brought(order(), connection, [b"x\n"])
    assert [(outcome.verdict, outcome.status) for outcome in attempt.outcomes] == [
        (LATER, Status(4, 3, 1)),
        (NEVER, Status(5, 1, 1)),
        (LATER, Status(4, 3, 1)),
    ]


def test_many_recipients_go_in_groups_that_fit_into_a_buffer() -> None:
    known = tuple(b"joe-%d-%s@example.org" % (number, b"x" * 50) for number in range(300))
    connection = Connection(world=World(known=frozenset(known)))
    machine = sender(order(Envelope(b"", known), tls=False))
    machine.receive(connection.hear())
    largest = groups = 0
    while not machine.finished:
        if machine.wants_content:
            machine.end_of_content()
        said = machine.data_to_send()
        assert said
        largest, groups = max(largest, len(said)), groups + 1
        machine.receive(connection.send(said))
    assert [envelope.recipients for envelope, _ in connection.world.queued] == [known]
    assert LARGEST_GROUP // 2 < largest <= LARGEST_GROUP
    assert groups < 15


# Whole conversations, cut anywhere, give the same attempt and the same words.
REPLIES = st.lists(
    st.sampled_from(
        [b"220 x\r\n", b"250 x\r\n", b"250-x\r\n250-PIPELINING\r\n250 SIZE 9\r\n", b"250-x\r\n250 STARTTLS\r\n",
         b"354 x\r\n", b"550 x\r\n", b"450 x\r\n", b"421 x\r\n", b"552 x\r\n", b"334 x\r\n", b"235 x\r\n", b"x\r\n"]
    ),
    max_size=12,
).map(b"".join)  # fmt: skip


@given(REPLIES, st.booleans())
@hypothesis_settings(deadline=None, max_examples=300)
def test_replies_cut_into_octets_make_no_difference(replies: bytes, extended: bool) -> None:
    machines = [sender(order(extended=extended)) for _ in range(2)]
    said = [machine.data_to_send() for machine in machines]
    machines[0].receive(replies)
    for at in range(len(replies)):
        machines[1].receive(replies[at : at + 1])
        said[1] += machines[1].data_to_send()
    if not machines[0].finished:
        said[0] += machines[0].data_to_send()
        assert said[0] == said[1]
    for machine in machines:
        if machine.wants_tls:
            machine.tls_failed(b"")
        machine.eof()
    assert machines[0].attempt == machines[1].attempt


# Whatever a server says, nobody's mail counts as brought unless 2xx came behind a final dot.
@given(REPLIES)
@hypothesis_settings(deadline=None, max_examples=300)
def test_no_replies_without_the_final_dot_are_a_success(replies: bytes) -> None:
    machine = sender(order())
    machine.receive(replies)
    if machine.wants_content:
        machine.content(b"x\n")
    machine.eof()
    assert DONE not in verdicts(ended(machine))


# words


def test_the_plainest_conversation() -> None:
    machine = sender(order(Envelope(b"s@a", (b"x@y", b"z@y"))))
    said = script(machine, *HELLO, b"250\r\n", b"250\r\n", b"250\r\n", b"354\r\n", b"250 queued\r\n")
    assert said == [
        b"EHLO client.example\r\n",
        b"MAIL FROM:<s@a>\r\n",
        b"RCPT TO:<x@y>\r\n",
        b"RCPT TO:<z@y>\r\n",
        b"DATA\r\n",
        b"Subject: x\r\n\r\nhello\r\n",
        b".\r\n",
        b"QUIT\r\n",
    ]
    attempt = ended(machine)
    assert verdicts(attempt) == [DONE, DONE]
    assert attempt.message.report == b"192.0.2.1 accepted message.\nRemote host said: 250 queued\n"
    assert [recipient and recipient.report for recipient in attempt.recipients] == [b"", b""]


def test_with_pipelining_envelope_and_data_are_one_group() -> None:
    machine = sender(order(Envelope(b"s@a", (b"x@y", b"z@y"))))
    said = script(machine, *PIPELINING, b"250\r\n250\r\n550 no\r\n354\r\n", b"250\r\n")
    assert said[1] == b"MAIL FROM:<s@a>\r\nRCPT TO:<x@y>\r\nRCPT TO:<z@y>\r\nDATA\r\n"
    assert verdicts(ended(machine)) == [DONE, NEVER]


# row: remote-ehlo
def test_without_ehlo_helo_will_do() -> None:
    machine = sender(order(ONE))
    said = script(machine, b"220 x\r\n", b"502 what\r\n", b"250 x\n", b"250\r\n", b"550-no\r\n550 way\r\n")
    assert said == [b"EHLO client.example\r\n", b"HELO client.example\r\n", b"MAIL FROM:<>\r\n",
                    b"RCPT TO:<x@y>\r\n", b"QUIT\r\n"]  # fmt: skip
    assert machine.phase is Phase.QUIT
    assert ended(machine).outcomes[0].report == (
        b"192.0.2.1 does not like recipient.\nRemote host said: 550-no\n550 way\nGiving up on 192.0.2.1.\n"
    )


def test_what_helo_offers_is_nothing() -> None:
    machine = sender(order(ONE, extended=False, size=100))
    said = script(machine, b"220 x\r\n", b"250-x\r\n250-SIZE 10\r\n250-STARTTLS\r\n250 PIPELINING\r\n", b"550 no\r\n")
    assert said == [b"HELO client.example\r\n", b"MAIL FROM:<>\r\n", b"QUIT\r\n"]


def test_parameters_are_said_where_they_are_offered() -> None:
    replies = (b"220 x\r\n", b"250-x\r\n250-SIZE\r\n250-SMTPUTF8\r\n250 8BITMIME\r\n", b"250\r\n")
    assert script(sender(order(ONE, size=77)), *replies)[1] == b"MAIL FROM:<> SIZE=77 BODY=8BITMIME\r\n"
    assert script(sender(order(ONE, eight_bit=False)), *replies)[1] == b"MAIL FROM:<>\r\n"
    envelope = Envelope(b"", (b"x@y", "jörg@y".encode()))
    said = script(sender(order(envelope)), *replies)
    assert said[1] == b"MAIL FROM:<> BODY=8BITMIME SMTPUTF8\r\n"


CONNECTED = b"Connected to 192.0.2.1 but "


@pytest.mark.parametrize(
    ("replies", "verdict", "report"),
    [
        ((b"554 go away\r\n",), LATER, CONNECTED + b"greeting failed.\nRemote host said: 554 go away\n"),
        ((b"250 x\r\n",), LATER, CONNECTED + b"greeting failed.\nRemote host said: 250 x\n"),
        ((b"220 x\r\n", b"451 x\r\n"), LATER, CONNECTED + b"my name was rejected.\nRemote host said: 451 x\n"),
        (
            (b"220 x\r\n", b"500 x\r\n", b"550-you\r\n550 no\r\n"),
            LATER,
            CONNECTED + b"my name was rejected.\nRemote host said: 550-you\n550 no\n",
        ),
        ((*HELLO, b"550 5.7.1 no\r\n"), NEVER, CONNECTED + b"sender was rejected.\nRemote host said: 550 5.7.1 no\n"),
        ((*HELLO, b"451 x\r\n"), LATER, CONNECTED + b"sender was rejected.\nRemote host said: 451 x\n"),
        ((*HELLO, b"354 x\r\n"), LATER, CONNECTED + b"sender was rejected.\nRemote host said: 354 x\n"),
        (
            (*HELLO, b"250\r\n", b"451 x\r\n"),
            LATER,
            b"192.0.2.1 does not like recipient.\nRemote host said: 451 x\nGiving up on 192.0.2.1.\n",
        ),
        (
            (*HELLO, b"250\r\n", b"354 x\r\n"),
            LATER,
            b"192.0.2.1 does not like recipient.\nRemote host said: 354 x\nGiving up on 192.0.2.1.\n",
        ),
        (
            (*HELLO, b"250\r\n", b"250\r\n", b"554 no\r\n"),
            NEVER,
            b"192.0.2.1 failed on DATA command.\nRemote host said: 554 no\n",
        ),
        (
            (*HELLO, b"250\r\n", b"250\r\n", b"250 what\r\n"),
            LATER,
            b"192.0.2.1 failed on DATA command.\nRemote host said: 250 what\n",
        ),
        (
            (*HELLO, b"250\r\n", b"250\r\n", b"354\r\n", b"554 spam\r\n"),
            NEVER,
            b"192.0.2.1 failed after I sent the message.\nRemote host said: 554 spam\n",
        ),
        (
            (*HELLO, b"250\r\n", b"250\r\n", b"354\r\n", b"451 x\r\n"),
            LATER,
            b"192.0.2.1 failed after I sent the message.\nRemote host said: 451 x\n",
        ),
        (
            (*HELLO, b"250\r\n", b"250\r\n", b"354\r\n", b"354 what\r\n"),
            LATER,
            b"192.0.2.1 failed after I sent the message.\nRemote host said: 354 what\n",
        ),
        ((b"",), LATER, CONNECTED + b"connection died. (#4.4.2)\n"),
        ((*HELLO, b"250\r\n", b""), LATER, CONNECTED + b"connection died. (#4.4.2)\n"),
        (
            (*HELLO, b"250\r\n", b"250\r\n", b"354\r\n", b""),
            LATER,
            CONNECTED + b"connection died. Possible duplicate! (#4.4.2)\n",
        ),
        (
            (*HELLO, b"250\r\n", b"250\r\n", b"354\r\n", b"hello?\r\n"),
            LATER,
            CONNECTED + b"it does not speak SMTP. Possible duplicate! (#4.5.0)\nRemote host said: hello?\n",
        ),
        (
            (*HELLO, b"250\r\n", b"421 shutting down\r\n"),
            LATER,
            CONNECTED + b"connection died. (#4.4.2)\nRemote host said: 421 shutting down\n",
        ),
        (
            (*HELLO, b"250\r\n", b"250\r\n", b"354 go\r\n250 already\r\n"),
            LATER,
            CONNECTED + b"it spoke out of turn. (#4.5.0)\nRemote host said: 250 already\n",
        ),
    ],
)
def test_every_end_has_its_words(replies: tuple[bytes, ...], verdict: Verdict, report: bytes) -> None:
    [outcome] = tried(*replies).outcomes
    assert (outcome.verdict, outcome.report) == (verdict, report)
    assert outcome.status.kind == {NEVER: 5, LATER: 4}[verdict]


@pytest.mark.parametrize(
    ("replies", "advice", "failed"),
    [
        ((b"554 go away\r\n",), Advice.NEXT_HOST, True),
        ((b"421 busy\r\n",), Advice.NEXT_HOST, True),
        ((b"",), Advice.NEXT_HOST, True),
        ((b"220 x\r\n", b"421 x\r\n"), Advice.NEXT_HOST, True),
        ((b"220 x\r\n", b"500 x\r\n", b"550 x\r\n"), Advice.NEXT_HOST, True),
        ((b"220 x\r\n", b"500 x\r\n", b""), Advice.NEXT_HOST, True),
        ((b"220 x\r\n", b""), Advice.WITHOUT_EHLO, True),
        ((*HELLO, b"421 x\r\n"), Advice.NEXT_HOST, True),
        ((*HELLO, b""), Advice.NEXT_HOST, True),
        ((*HELLO, b"hello\r\n"), Advice.NEXT_HOST, True),
        ((*HELLO, b"550 x\r\n"), Advice.NOTHING, False),
        ((*HELLO, b"250\r\n", b"550 x\r\n"), Advice.NOTHING, False),
        ((*HELLO, b"250\r\n", b"250\r\n", b"421 x\r\n"), Advice.NEXT_HOST, True),
        ((*HELLO, b"250\r\n", b"250\r\n", b"451 x\r\n"), Advice.NOTHING, False),
        ((*HELLO, b"250\r\n", b"250\r\n", b"354\r\n250 early\r\n"), Advice.NEXT_HOST, False),
        ((*HELLO, b"250\r\n", b"250\r\n", b"354\r\n", b""), Advice.NOTHING, False),
        ((*HELLO, b"250\r\n", b"250\r\n", b"354\r\n", b"421 x\r\n"), Advice.NOTHING, False),
        ((*HELLO, b"250\r\n", b"250\r\n", b"354\r\n", b"250 x\r\n"), Advice.NOTHING, False),
    ],
)
def test_the_next_host_is_tried_unless_this_one_may_have_the_message(
    replies: tuple[bytes, ...], advice: Advice, failed: bool
) -> None:
    attempt = tried(*replies)
    assert (attempt.advice, attempt.destination_failed) == (advice, failed)


def test_a_server_that_is_too_slow_for_ehlo_is_not_deaf_to_it() -> None:
    machine = sender(order(ONE))
    machine.receive(b"220 x\r\n")
    machine.timed_out()
    assert ended(machine).advice is Advice.NEXT_HOST


def test_a_long_reply_is_cut() -> None:
    [outcome] = tried(
        *HELLO, b"250\r\n", b"".join(b"550-%s\r\n" % (b"x" * 500) for _ in range(20)) + b"550 x\r\n"
    ).outcomes
    said = outcome.report.partition(b"Remote host said: ")[2].removesuffix(b"\nGiving up on 192.0.2.1.\n")
    assert len(said) == 5000


def test_reports_hold_no_nul_and_no_return() -> None:
    [outcome] = tried(*HELLO, b"250\r\n", b"550-a\0b\r\r\n550 c\r\n").outcomes
    assert b"550-a?b\n550 c\n" in outcome.report


# envelopes that need something


@pytest.mark.parametrize("address", [b"a\r\nDATA@b", b"a\n@b", b"a\0@b", b"a@b\r\nRSET"])
def test_an_address_cannot_break_out_of_its_line(address: bytes) -> None:
    for envelope in (Envelope(address, (b"joe@example.org",)), Envelope(b"", (address,))):
        connection = Connection()
        attempt = brought(order(envelope), connection, [])
        assert verdicts(attempt) == [NEVER]
        assert connection.world.done == []


def test_who_cannot_be_said_keeps_nobody_else_from_his_mail() -> None:
    connection = Connection()
    attempt = brought(order(Envelope(b"", (b"joe\n@example.org", b"amy@example.org"))), connection, [b"x\n"])
    assert [(outcome.verdict, outcome.status) for outcome in attempt.outcomes] == [
        (NEVER, Status(5, 1, 3)),
        (DONE, Status(2, 0, 0)),
    ]
    assert connection.world.queued[0][0].recipients == (b"amy@example.org",)


def test_without_smtputf8_only_ascii_addresses_are_served() -> None:
    envelope = Envelope(b"", ("jörg@y".encode(), b"x@y"))
    machine = sender(order(envelope))
    said = script(machine, *HELLO, b"250\r\n", b"250\r\n", b"354\r\n", b"250\r\n")
    assert b"RCPT TO:<x@y>\r\n" in said
    assert [(outcome.verdict, outcome.status) for outcome in ended(machine).outcomes] == [
        (NEVER, Status(5, 6, 7)),
        (DONE, Status(2, 0, 0)),
    ]
    machine = sender(order(Envelope("jörg@y".encode(), (b"x@y", b"z@y"))))
    assert script(machine, *HELLO)[1:] == [b"QUIT\r\n"]
    assert [outcome.status for outcome in ended(machine).outcomes] == [Status(5, 6, 7)] * 2


@pytest.mark.parametrize(("size", "goes"), [(1000, True), (1001, False)])
def test_what_is_too_large_is_not_brought(size: int, goes: bool) -> None:
    machine = sender(order(ONE, size=size))
    said = script(machine, b"220 x\r\n", b"250-x\r\n250 SIZE 1000\r\n")
    assert said[1] == (b"MAIL FROM:<> SIZE=1000\r\n" if goes else b"QUIT\r\n")
    if not goes:
        [outcome] = ended(machine).outcomes
        assert (outcome.verdict, outcome.status) == (NEVER, Status(5, 3, 4))
        assert outcome.report == CONNECTED + b"it takes no more than 1000 octets. (#5.3.4)\n"


def test_a_limit_of_zero_is_none() -> None:
    assert script(sender(order(ONE, size=1001)), b"220 x\r\n", b"250-x\r\n250 SIZE 0\r\n")[1].startswith(b"MAIL")


# several recipients


THREE = Envelope(b"", (b"a@y", b"b@y", b"c@y"))


@pytest.mark.parametrize("hello", [HELLO, PIPELINING])
def test_recipients_keep_their_own_outcomes(hello: tuple[bytes, ...]) -> None:
    replies = [b"250\r\n", b"550 5.1.1 no\r\n", b"250\r\n", b"450 4.2.1 wait\r\n", b"354\r\n"]
    group = replies if hello is HELLO else [b"".join(replies)]
    attempt = tried(*hello, *group, b"250 ok\r\n", to=order(THREE))
    assert [(outcome.verdict, outcome.status) for outcome in attempt.outcomes] == [
        (NEVER, Status(5, 1, 1)),
        (DONE, Status(2, 0, 0)),
        (LATER, Status(4, 2, 1)),
    ]
    assert attempt.outcomes[0].report == b"192.0.2.1 does not like recipient.\nRemote host said: 550 5.1.1 no\n"


def test_a_host_that_goes_away_between_recipients_leaves_the_others_to_the_next() -> None:
    attempt = tried(*HELLO, b"250\r\n", b"550 no\r\n", b"250\r\n", b"", to=order(THREE))
    assert verdicts(attempt) == [NEVER, LATER, LATER]
    assert (attempt.advice, attempt.unsettled) == (Advice.NEXT_HOST, (1, 2))


# The 421 is not about the recipient in whose place it stands, and he is not among those who were taken.
def test_421_in_the_place_of_a_recipient_is_about_the_host() -> None:
    machine = sender(order(THREE))
    said = script(machine, *PIPELINING, b"250\r\n250\r\n421 bye\r\n250\r\n354\r\n", b"250 ok\r\n")
    assert said[2:] == []
    attempt = ended(machine)
    assert verdicts(attempt) == [LATER, LATER, LATER]
    assert (attempt.advice, attempt.unsettled) == (Advice.NEXT_HOST, (0, 1, 2))


def test_too_many_recipients_is_no_reason_to_bounce_the_rest() -> None:
    envelope = Envelope(b"", (b"a@y", b"b@y", b"c@y", b"d@y"))
    replies = b"250\r\n552 too many\r\n250\r\n552 too many\r\n552 5.2.2 mailbox full\r\n354\r\n"
    attempt = tried(*PIPELINING, replies, b"250\r\n", to=order(envelope))
    assert verdicts(attempt) == [NEVER, DONE, LATER, NEVER]


def test_nobody_is_asked_when_the_sender_is_refused() -> None:
    machine = sender(order(THREE))
    said = script(machine, *HELLO, b"550 no\r\n")
    assert said[1:] == [b"MAIL FROM:<>\r\n", b"QUIT\r\n"]
    assert ended(machine).recipients == (None, None, None)
    assert verdicts(ended(machine)) == [NEVER] * 3


def test_with_pipelining_a_refused_sender_is_why_nobody_got_it() -> None:
    machine = sender(order(THREE))
    replies = b"450 4.7.1 greylisted\r\n" + b"503 5.5.1 MAIL first\r\n" * 4
    said = script(machine, *PIPELINING, replies)
    assert said[-1] == b"QUIT\r\n"
    assert {(outcome.verdict, outcome.status) for outcome in ended(machine).outcomes} == {(LATER, Status(4, 7, 1))}


def test_a_server_that_takes_data_after_refusing_the_sender_is_left_alone() -> None:
    machine = sender(order(ONE))
    said = script(machine, *PIPELINING, b"550 no\r\n250\r\n354\r\n")
    assert said[2:] == []
    assert machine.finished
    assert verdicts(ended(machine)) == [NEVER]


# RFC 2920 section 3.1
def test_data_that_was_taken_for_nobody_ends_with_a_dot_alone() -> None:
    machine = sender(order(THREE))
    said = script(machine, *PIPELINING, b"250\r\n550\r\n550\r\n550\r\n354\r\n", b"250 what\r\n")
    assert said[2:] == [b".\r\n", b"QUIT\r\n"]
    assert verdicts(ended(machine)) == [NEVER] * 3


def test_data_is_not_said_when_nobody_was_taken_and_it_had_to_wait() -> None:
    recipients = tuple(b"%d%s@y" % (number, b"x" * 1005) for number in range(4))
    machine = sender(order(Envelope(b"", recipients)))
    said = script(machine, *PIPELINING, b"250\r\n550\r\n550\r\n550\r\n550\r\n")
    assert LARGEST_GROUP - 6 < len(said[1]) <= LARGEST_GROUP
    assert said[2:] == [b"QUIT\r\n"]
    said = script(sender(order(Envelope(b"", recipients))), *PIPELINING, b"250\r\n550\r\n250\r\n550\r\n550\r\n")
    assert said[2:] == [b"DATA\r\n"]


def test_content_that_cannot_be_read_is_our_trouble_and_never_ends_with_a_dot() -> None:
    machine = sender(order(ONE))
    for reply in (*HELLO, b"250\r\n", b"250\r\n", b"354\r\n"):
        machine.receive(reply)
    machine.data_to_send()
    machine.content(b"x\n")
    machine.content_lost()
    assert (machine.finished, machine.data_to_send()) == (True, b"")
    [outcome] = ended(machine).outcomes
    assert (outcome.verdict, outcome.report) == (LATER, b"Unable to read message. (#4.3.0)\n")
    assert (ended(machine).advice, ended(machine).destination_failed) == (Advice.NOTHING, False)


def test_our_own_receiver_takes_mail_over_tls() -> None:
    connection = Connection(facts("smtp", starttls=True))
    assert verdicts(brought(order(), connection, [b"x\n"])) == [DONE, NEVER, DONE]
    assert b"with ESMTPS" in connection.world.queued[0][1]
    assert connection.world.queued[0][0].sender == ENVELOPE.sender


def test_a_line_brings_one_message_after_the_other() -> None:
    connection = Connection(facts("smtp", starttls=False))
    line = Line(order(Envelope(b"a@b.example", (b"joe@example.org",))))
    machine, said = line.sender, []
    machine.receive(connection.hear())
    for word in (b"one\n", b"two\n"):
        while not machine.idle:
            if machine.wants_content:
                machine.content(word)
                machine.end_of_content()
            said.append(machine.data_to_send())
            machine.receive(connection.send(said[-1]))
        assert verdicts(ended(machine))[-1] is DONE
        if word == b"one\n":
            line.go_on(order(Envelope(b"", (b"nobody@example.org", b"amy@example.org"))))
            said.append(machine.data_to_send())
            machine.receive(connection.send(said[-1]))
    assert said[3].startswith(b"MAIL FROM:<> ") and said[3].endswith(b"\r\nDATA\r\n")  # PIPELINING is remembered
    assert [(sent.recipients, body(content)) for sent, content in connection.world.queued] == [
        ((b"joe@example.org",), b"one\n"),
        ((b"amy@example.org",), b"two\n"),
    ]


def test_a_line_that_was_never_opened_has_nothing_to_go_on_with() -> None:
    line = Line(order(ONE))
    script(line.sender, b"554 go away\r\n", b"221\r\n")
    assert line.sender.finished
    assert ended(line.sender).advice is Advice.NEXT_HOST
