"""The machine by itself: each event is answered by the test."""

from __future__ import annotations

import pytest

from pillarbox.smtp import replies as r
from pillarbox.smtp.events import (
    Auth,
    AuthResponse,
    Chunk,
    Content,
    Data,
    EndOfChunk,
    EndOfData,
    Event,
    Hello,
    Mail,
    Quit,
    Rcpt,
    Reset,
    StartTls,
    Verify,
)
from pillarbox.smtp.offer import Limits, Offer
from pillarbox.smtp.receiver import Receiver
from pillarbox.smtp.reply import Dialect, Reply
from pillarbox.status import Status

ME = b"mx.example.org"
YES: dict[type, Reply] = {
    Hello: r.HELLO,
    StartTls: r.READY_FOR_TLS,
    Auth: r.auth_ok(b"joe"),
    AuthResponse: r.auth_ok(b"joe"),
    Mail: r.SENDER_OK,
    Rcpt: r.RECIPIENT_OK,
    Data: r.GO_AHEAD,
    EndOfData: r.accepted(b"1"),
    EndOfChunk: r.OK,
    Reset: r.FLUSHED,
    Verify: r.VERIFY,
    Quit: r.goodbye(b"mx.example.org"),
}
NO = Reply(451, Status(4, 3, 0), ("not now",))
TRANSACTION = (b"EHLO c", b"MAIL FROM:<a@b.example>", b"RCPT TO:<joe@example.org>")
TLS_OFFER = Offer(starttls=True)
AUTH_OFFER = Offer(mechanisms=(b"PLAIN", b"LOGIN"), cleartext=True)


class Client:
    """Sends lines, answers events as `answers` says, and keeps the events."""

    def __init__(self, *, dialect: Dialect = Dialect.MODERN, offer: Offer = Offer(), limits: Limits = Limits()) -> None:
        self.machine = Receiver(ME, dialect=dialect, offer=offer, limits=limits)
        self.answers = dict(YES)
        self.events: list[Event] = []

    def send(self, octets: bytes) -> bytes:
        self.machine.receive(octets)
        while (event := self.machine.next_event()) is not None:
            self.events.append(event)
            if not isinstance(event, Content | Chunk):
                self.machine.answer(self.answers[type(event)])
        return self.machine.data_to_send()

    def say(self, *lines: bytes) -> bytes:
        return self.send(b"".join(line + b"\r\n" for line in lines))

    def last(self, *lines: bytes) -> bytes:
        """Only the last reply line to these."""
        return self.say(*lines).split(b"\r\n")[-2]


def begun(*lines: bytes, offer: Offer = Offer()) -> Client:
    client = Client(offer=offer)
    client.say(*lines)
    client.events.clear()
    return client


# the connection


def test_the_greeting_names_the_host() -> None:
    machine = Receiver(ME)
    machine.greet()
    assert machine.data_to_send() == b"220 mx.example.org ESMTP\r\n"
    machine = Receiver(ME, greeting=b"mx.example.org no spam please")
    machine.greet()
    assert machine.data_to_send() == b"220 mx.example.org no spam please ESMTP\r\n"


def test_helo_is_answered_with_the_name_alone() -> None:
    client = Client(offer=Offer(size=100, starttls=True))
    assert client.say(b"HELO client.example") == b"250 mx.example.org\r\n"
    assert client.events == [Hello(b"client.example", extended=False)]


def test_ehlo_is_answered_with_the_extensions_in_order() -> None:
    client = Client(offer=Offer(size=1000, starttls=True, mechanisms=(b"PLAIN", b"LOGIN"), cleartext=True))
    assert client.say(b"ehlo client.example") == (
        b"250-mx.example.org\r\n"
        b"250-PIPELINING\r\n"
        b"250-SIZE 1000\r\n"
        b"250-8BITMIME\r\n"
        b"250-SMTPUTF8\r\n"
        b"250-CHUNKING\r\n"
        b"250-ENHANCEDSTATUSCODES\r\n"
        b"250-STARTTLS\r\n"
        b"250 AUTH PLAIN LOGIN\r\n"
    )
    assert client.events == [Hello(b"client.example", extended=True)]


def test_without_a_limit_size_is_offered_without_a_number() -> None:
    assert b"250-SIZE\r\n" in Client().say(b"EHLO c")


def test_auth_is_offered_only_when_it_is_allowed_now() -> None:
    client = Client(offer=Offer(starttls=True, mechanisms=(b"PLAIN",)))
    assert b"AUTH" not in client.say(b"EHLO c")
    client.machine.secured()
    assert b"AUTH PLAIN" in client.say(b"EHLO c")
    assert b"235" in client.say(b"AUTH PLAIN x")
    assert b"AUTH" not in client.say(b"EHLO c")


def test_a_refused_hello_is_said_as_it_is() -> None:
    client = Client()
    client.answers[Hello] = NO
    assert client.say(b"EHLO c", b"MAIL FROM:<>") == NO.encode(Dialect.MODERN) + r.HELLO_FIRST.encode(Dialect.MODERN)


@pytest.mark.parametrize("line", [b"HELO", b"EHLO ", b"EHLO a\tb", b"EHLO a\0b", b"HELO a\x7f", b"EHLO a\rb"])
def test_a_client_must_say_a_name_without_control_bytes(line: bytes) -> None:
    assert Client().say(line) == b"501 5.5.4 say your name\r\n"


def test_quit_is_answered_and_then_nothing_is_read_any_more() -> None:
    client = Client()
    assert client.say(b"QUIT", b"NOOP", b"EHLO c") == b"221 2.0.0 mx.example.org\r\n"
    assert client.machine.closing
    assert client.send(b"NOOP\r\n") == b""
    assert client.events == [Quit()]


def test_what_needs_no_policy_the_machine_answers_itself() -> None:
    client = Client()
    heard = client.say(b"NOOP", b"noop whatever", b"HELP", b"HELP MAIL", b"EXPN list", b"XYZZY", b"\x16\x03\x01")
    assert [line[:3] for line in heard.split(b"\r\n")[:-1]] == [b"250", b"250", b"214", b"214", b"502", b"502", b"500"]
    assert client.events == []


def test_verify_and_reset_are_questions() -> None:
    client = Client()
    assert client.say(b"VRFY joe", b"RSET") == b"252 2.0.0 send some mail, i'll try my best\r\n250 2.0.0 flushed\r\n"
    assert client.events == [Verify(b"joe"), Reset()]


def test_blanks_behind_a_command_do_not_matter() -> None:
    assert (
        Client().last(b"EHLO c ", b"MAIL FROM:<a@b.example>  ", b"RCPT TO:<joe@b.example> ", b"DATA ")
        == b"354 go ahead"
    )


def test_a_name_in_the_machine_is_masked_not_raised() -> None:
    machine = Receiver(b"m\xffx")
    machine.greet()
    assert machine.data_to_send() == b"220 m?x ESMTP\r\n"


# the order of commands

ORDER = [
    # said before                                   a command              its answer
    ((), b"MAIL FROM:<>", b"503 5.5.1 HELO or EHLO first"),
    ((), b"RCPT TO:<a@b>", b"503 5.5.1 MAIL first"),
    ((), b"DATA", b"503 5.5.1 MAIL first"),
    ((), b"BDAT 0 LAST", b"503 5.5.1 MAIL first"),
    ((), b"AUTH PLAIN", b"503 5.5.1 HELO or EHLO first"),
    ((), b"RSET", b"250 2.0.0 flushed"),
    ((b"RSET",), b"MAIL FROM:<>", b"503 5.5.1 HELO or EHLO first"),
    (TRANSACTION[:1], b"MAIL FROM:<>", b"250 2.1.0 ok"),
    (TRANSACTION[:1], b"RCPT TO:<a@b>", b"503 5.5.1 MAIL first"),
    (TRANSACTION[:1], b"DATA", b"503 5.5.1 MAIL first"),
    (TRANSACTION[:1], b"BDAT 0", b"503 5.5.1 MAIL first"),
    (TRANSACTION[:2], b"MAIL FROM:<>", b"503 5.5.1 one MAIL at a time"),
    (TRANSACTION[:2], b"RCPT TO:<a@b>", b"250 2.1.5 ok"),
    (TRANSACTION[:2], b"DATA", b"503 5.5.1 RCPT first"),
    (TRANSACTION[:2], b"BDAT 0 LAST", b"503 5.5.1 RCPT first"),
    (TRANSACTION[:2], b"AUTH PLAIN", b"503 5.5.1 no auth during mail transaction"),
    (TRANSACTION[:2], b"STARTTLS", b"503 5.5.1 not during a mail transaction"),
    (TRANSACTION, b"MAIL FROM:<>", b"503 5.5.1 one MAIL at a time"),
    (TRANSACTION, b"RCPT TO:<a@b>", b"250 2.1.5 ok"),
    (TRANSACTION, b"DATA", b"354 go ahead"),
    (TRANSACTION, b"BDAT 0", b"250 2.0.0 ok"),
    (TRANSACTION, b"AUTH PLAIN", b"503 5.5.1 no auth during mail transaction"),
    (TRANSACTION, b"STARTTLS", b"503 5.5.1 not during a mail transaction"),
    ((*TRANSACTION, b"BDAT 0"), b"MAIL FROM:<>", b"503 5.5.1 one MAIL at a time"),
    ((*TRANSACTION, b"BDAT 0"), b"RCPT TO:<a@b>", b"503 5.5.1 the message has begun with BDAT"),
    ((*TRANSACTION, b"BDAT 0"), b"DATA", b"503 5.5.1 the message has begun with BDAT"),
    ((*TRANSACTION, b"BDAT 0"), b"BDAT 0", b"250 2.0.0 ok"),
    ((*TRANSACTION, b"BDAT 0"), b"STARTTLS", b"503 5.5.1 not during a mail transaction"),
    ((*TRANSACTION, b"BDAT 0"), b"NOOP", b"250 2.0.0 ok"),
    ((*TRANSACTION, b"BDAT 0", b"RSET"), b"MAIL FROM:<>", b"250 2.1.0 ok"),
    ((*TRANSACTION, b"BDAT 0 LAST"), b"MAIL FROM:<>", b"250 2.1.0 ok"),
    ((*TRANSACTION, b"BDAT 0 LAST"), b"BDAT 0 LAST", b"503 5.5.1 MAIL first"),
    ((*TRANSACTION, b"RSET"), b"DATA", b"503 5.5.1 MAIL first"),
    ((*TRANSACTION, b"RSET"), b"MAIL FROM:<>", b"250 2.1.0 ok"),
    ((*TRANSACTION, b"EHLO d"), b"DATA", b"503 5.5.1 MAIL first"),
    ((*TRANSACTION, b"HELO d"), b"MAIL FROM:<>", b"250 2.1.0 ok"),
    ((*TRANSACTION, b"DATA", b"."), b"MAIL FROM:<>", b"250 2.1.0 ok"),
    ((*TRANSACTION, b"DATA", b"."), b"DATA", b"503 5.5.1 MAIL first"),
    ((*TRANSACTION, b"DATA", b"."), b"RCPT TO:<a@b>", b"503 5.5.1 MAIL first"),
]


@pytest.mark.parametrize(("before", "command", "answer"), ORDER)
def test_commands_have_an_order(before: tuple[bytes, ...], command: bytes, answer: bytes) -> None:
    client = begun(*before, offer=Offer(starttls=True, mechanisms=(b"PLAIN",), cleartext=True))
    assert client.last(command) == answer


def test_a_refused_command_does_not_advance() -> None:
    client = Client()
    client.say(b"EHLO c")
    client.answers[Mail] = NO
    assert client.last(b"MAIL FROM:<>", b"RCPT TO:<a@b>") == b"503 5.5.1 MAIL first"
    client.answers |= {Mail: r.SENDER_OK, Rcpt: NO}
    assert client.last(b"MAIL FROM:<>", b"RCPT TO:<a@b>", b"DATA") == b"503 5.5.1 RCPT first"


def test_a_refused_recipient_does_not_disturb_a_good_one() -> None:
    client = begun(*TRANSACTION)
    client.answers[Rcpt] = NO
    assert client.last(b"RCPT TO:<b@b>", b"DATA") == b"354 go ahead"


def test_a_refused_message_ends_the_transaction() -> None:
    client = begun(*TRANSACTION)
    client.answers[EndOfData] = NO
    assert client.last(b"DATA", b".") == b"451 4.3.0 not now"
    assert client.last(b"DATA") == b"503 5.5.1 MAIL first"
    assert client.last(b"MAIL FROM:<>") == b"250 2.1.0 ok"


def test_qmails_dialect_wants_no_helo_and_begins_anew_with_every_mail() -> None:
    client = Client(dialect=Dialect.QMAIL)
    heard = client.say(b"MAIL FROM:<>", b"RCPT TO:<a@b>", b"MAIL FROM:<>", b"BDAT 3", b"DATA", b"HELO", b"EHLO c")
    assert heard == (
        b"250 ok\r\n250 ok\r\n250 ok\r\n502 unimplemented (#5.5.1)\r\n503 RCPT first (#5.5.1)\r\n"
        b"250 mx.example.org\r\n250-mx.example.org\r\n250-PIPELINING\r\n250 8BITMIME\r\n"
    )


# questions and answers


def test_while_a_question_is_open_there_is_no_other() -> None:
    machine = Receiver(ME)
    machine.receive(b"EHLO c\r\nMAIL FROM:<a@b.example>\r\nNOOP\r\n")
    assert machine.next_event() == Hello(b"c", extended=True)
    assert machine.next_event() is None
    machine.receive(b"NOOP\r\n")
    assert machine.next_event() is None
    assert machine.data_to_send() == b""
    assert machine.buffered == len(b"MAIL FROM:<a@b.example>\r\nNOOP\r\nNOOP\r\n")
    machine.answer(r.HELLO)
    assert machine.next_event() == Mail(b"a@b.example")
    machine.data_to_send()
    machine.answer(r.SENDER_OK)
    assert machine.next_event() is None
    assert machine.data_to_send() == b"250 2.1.0 ok\r\n250 2.0.0 ok\r\n250 2.0.0 ok\r\n"
    assert machine.buffered == 0


def test_an_answer_that_nobody_asked_for_is_a_mistake_of_ours() -> None:
    with pytest.raises(AssertionError):
        Receiver(ME).answer(r.OK)


def test_a_whole_session_may_come_in_one_piece() -> None:
    client = Client()
    heard = client.say(*TRANSACTION, b"DATA", b"Subject: x", b"", b"body", b".", b"QUIT")
    assert heard.split(b"\r\n")[-6:] == [
        b"250 2.1.0 ok",
        b"250 2.1.5 ok",
        b"354 go ahead",
        b"250 2.0.0 ok 1",
        b"221 2.0.0 mx.example.org",
        b"",
    ]
    assert client.events == [
        Hello(b"c", extended=True),
        Mail(b"a@b.example"),
        Rcpt(b"joe@example.org"),
        Data(),
        Content(b"Subject: x\n\nbody\n"),
        EndOfData(),
        Quit(),
    ]


def test_smtputf8_of_mail_holds_for_its_recipients_only() -> None:
    client = begun(b"EHLO c", b"MAIL FROM:<a@b.example> SMTPUTF8")
    assert client.last("RCPT TO:<jörg@example.org>".encode()) == b"250 2.1.5 ok"
    client.say(b"RSET", b"MAIL FROM:<a@b.example>")
    assert client.last("RCPT TO:<jörg@example.org>".encode()) == b"553 5.6.7 that address needs SMTPUTF8"


def test_the_driver_may_dismiss_a_client_at_any_time() -> None:
    client = begun(b"EHLO c")
    client.machine.dismiss(r.SHUTTING_DOWN)
    assert client.machine.data_to_send() == b"421 4.3.2 going down, come back later\r\n"
    assert client.machine.closing
    client.machine.dismiss(r.SHUTTING_DOWN)
    assert client.machine.data_to_send() == b""


def test_a_client_that_is_owed_an_answer_gets_it_before_it_is_dismissed() -> None:
    machine = Receiver(ME)
    machine.receive(b"EHLO c\r\nNOOP\r\n")
    machine.next_event()
    machine.dismiss(r.TIMEOUT)
    assert not machine.closing
    machine.answer(NO)
    assert machine.data_to_send() == b"451 4.3.0 not now\r\n421 4.4.2 timeout\r\n"
    assert machine.closing
    assert machine.next_event() is None


def test_a_421_closes() -> None:
    client = Client()
    client.answers[Hello] = r.BUSY
    client.say(b"EHLO c", b"NOOP")
    assert client.machine.closing


def test_half_a_command_is_none() -> None:
    client = Client()
    assert client.send(b"QUIT") == b""
    client.machine.eof()
    assert client.send(b"") == b""
    assert client.events == []


# bounds


def test_a_command_line_has_at_most_4096_octets() -> None:
    client = Client()
    fits = b"NOOP " + b"x" * (4096 - 7)
    assert client.say(fits) == b"250 2.0.0 ok\r\n"
    assert client.say(fits + b"x") == b"500 5.5.2 line too long\r\n"
    assert client.say(b"NOOP") == b"250 2.0.0 ok\r\n"


def test_a_line_without_end_is_dropped_as_it_comes() -> None:
    client = Client()
    for _ in range(64):
        assert client.send(b"NOOP " * 1000) == b""
        assert client.machine.buffered < 12300
    assert client.send(b"\r\nNOOP\r\n") == b"500 5.5.2 line too long\r\n250 2.0.0 ok\r\n"


def test_auth_may_be_longer() -> None:
    client = begun(b"EHLO c", offer=AUTH_OFFER)
    fits = b"AUTH PLAIN " + b"x" * (12288 - 13)
    assert client.last(fits) == b"235 2.7.0 ok, go ahead"
    client = begun(b"EHLO c", offer=AUTH_OFFER)
    assert client.last(fits + b"x") == b"500 5.5.2 line too long"


def test_an_auth_response_may_be_as_long_and_a_longer_one_ends_the_exchange() -> None:
    client = begun(b"EHLO c", offer=AUTH_OFFER)
    client.answers[Auth] = r.challenge(b"")
    assert client.last(b"AUTH PLAIN", b"x" * 12286) == b"235 2.7.0 ok, go ahead"
    client = begun(b"EHLO c", offer=AUTH_OFFER)
    client.answers[Auth] = r.challenge(b"")
    assert client.last(b"AUTH PLAIN", b"x" * 12287) == b"500 5.5.6 line too long"
    assert client.last(b"NOOP") == b"250 2.0.0 ok"


# row: known-limits
def test_ten_bad_commands_in_a_row_are_enough() -> None:
    client = Client()
    assert client.say(*[b"XYZZY"] * 9).count(b"502") == 9
    assert client.say(b"XYZZY", b"NOOP") == b"502 5.5.1 unimplemented\r\n421 4.7.0 too many errors\r\n"
    assert client.machine.closing


@pytest.mark.parametrize("bad", [b"DATA", b"MAIL FROM:x", b"HELO", b"x" * 5000, b"\xff", b"BDAT 0 LAST", b"MAIL"])
def test_every_kind_of_bad_command_counts(bad: bytes) -> None:
    client = Client(limits=Limits(bad_commands=2))
    client.say(b"XYZZY", bad)
    assert client.machine.closing


def test_a_good_command_between_bad_ones_forgives_them_but_noop_does_not() -> None:
    client = Client(limits=Limits(bad_commands=2))
    client.say(b"XYZZY", b"EHLO c", b"XYZZY", b"RSET", b"XYZZY")
    assert not client.machine.closing
    client.say(b"NOOP", b"HELP", b"XYZZY")
    assert client.machine.closing


def test_refused_recipients_are_not_bad_commands() -> None:
    client = begun(*TRANSACTION[:2])
    client.answers[Rcpt] = NO
    client.say(*[b"RCPT TO:<x@b.example>"] * 50)
    assert not client.machine.closing


# attacks


@pytest.mark.parametrize("verb", [b"GET", b"POST", b"HEAD", b"PUT", b"OPTIONS", b"CONNECT", b"PRI", b"post"])
def test_a_browser_is_cut_off_before_its_body_is_read(verb: bytes) -> None:
    client = Client()
    heard = client.say(verb + b" / HTTP/1.1", b"Host: mx", b"", b"EHLO c", b"MAIL FROM:<a@b.example>")
    assert heard == b"421 4.7.0 this is a mail server, not the web\r\n"
    assert client.machine.closing
    assert client.events == []


@pytest.mark.parametrize("command", [b"NOOP\n", b"EHLO c\r\nNOOP\n", b"x" * 5000 + b"\n", b"x" * 50000 + b"\n", b"\n"])
def test_a_line_feed_alone_ends_the_conversation(command: bytes) -> None:
    client = Client()
    assert client.send(command + b"EHLO d\r\n").endswith(b"550 5.5.2 lines end with CR LF, both, always\r\n")
    assert client.machine.closing
    assert Hello(b"d", extended=True) not in client.events


def test_qmails_dialect_takes_a_line_feed_alone_in_commands() -> None:
    client = Client(dialect=Dialect.QMAIL)
    assert client.send(b"NOOP\nNOOP\r\n") == b"250 ok\r\n250 ok\r\n"


@pytest.mark.parametrize(
    "command", [b"MAIL FROM:<a@b.example>\rRCPT TO:<x@y>", b"MAIL FROM:<a\0@b.example>", b"NO\0OP"]
)
def test_a_command_with_control_bytes_is_refused(command: bytes) -> None:
    client = begun(b"EHLO c")
    assert client.last(command)[:2] == b"50"
    assert client.events == []


def test_a_message_sent_behind_a_refused_data_is_not_read_as_commands() -> None:
    client = begun(b"EHLO c", b"MAIL FROM:<a@b.example>")
    heard = client.say(b"DATA", b"Subject: x", b"MAIL FROM:<a@b.example>", b"RSET")
    assert heard == b"503 5.5.1 RCPT first\r\n421 4.7.0 that was a message where commands belong\r\n"
    client = begun(*TRANSACTION)
    client.answers[Data] = NO
    assert client.last(b"DATA", b"Subject: x", b"RSET") == b"421 4.7.0 that was a message where commands belong"
    assert client.machine.closing


def test_after_a_refused_data_commands_go_on() -> None:
    client = begun(*TRANSACTION)
    client.answers[Data] = NO
    assert client.last(b"DATA", b"RSET", b"XYZZY") == b"502 5.5.1 unimplemented"
    assert client.last(b"MAIL FROM:<>") == b"250 2.1.0 ok"


def test_data_with_an_argument_is_refused_and_its_message_is_not_read_either() -> None:
    client = begun(*TRANSACTION)
    assert client.say(b"DATA now", b"Subject: x").endswith(b"421 4.7.0 that was a message where commands belong\r\n")


# STARTTLS


def test_after_starttls_nothing_happens_until_the_handshake() -> None:
    client = Client(offer=TLS_OFFER)
    client.say(b"EHLO c")
    assert client.say(b"STARTTLS") == b"220 2.0.0 ready for TLS\r\n"
    assert client.machine.wants_tls
    assert client.say(b"NOOP") == b""
    client.machine.secured()
    assert not client.machine.wants_tls
    assert client.say(b"NOOP") == b"250 2.0.0 ok\r\n"


def test_what_came_in_clear_behind_starttls_is_forgotten() -> None:
    # EHLO: any other command would be refused anyway, by order, and prove nothing.
    client = Client(offer=TLS_OFFER)
    client.say(b"EHLO c")
    client.events.clear()
    client.say(b"STARTTLS", b"EHLO injected")
    client.send(b"EHLO injec")
    client.machine.secured()
    assert client.send(b"") == b""
    assert client.send(b"ted2\r\n") == b"502 5.5.1 unimplemented\r\n"
    assert client.events == [StartTls()]


def test_what_was_said_in_clear_is_forgotten() -> None:
    client = Client(offer=Offer(starttls=True, mechanisms=(b"PLAIN",), cleartext=True))
    client.say(b"EHLO c", b"AUTH PLAIN x", b"STARTTLS")
    client.machine.secured()
    assert client.last(b"MAIL FROM:<>") == b"503 5.5.1 HELO or EHLO first"
    assert b"AUTH PLAIN" in client.say(b"EHLO c")
    assert client.last(b"AUTH PLAIN x") == b"235 2.7.0 ok, go ahead"


def test_starttls_is_refused_where_it_makes_no_sense() -> None:
    assert begun(b"EHLO c").last(b"STARTTLS") == b"502 5.5.1 unimplemented"
    client = begun(b"EHLO c", offer=TLS_OFFER)
    assert client.last(b"STARTTLS now") == b"501 5.5.4 that command has no argument"
    client.machine.secured()
    assert b"STARTTLS" not in client.say(b"EHLO c")
    assert client.last(b"STARTTLS") == b"503 5.5.1 TLS is on already"


def test_a_refused_starttls_changes_nothing() -> None:
    client = begun(b"EHLO c", offer=TLS_OFFER)
    client.answers[StartTls] = NO
    assert client.last(b"STARTTLS", b"MAIL FROM:<>") == b"250 2.1.0 ok"


# AUTH


def test_a_login_is_a_dialogue_of_responses() -> None:
    client = begun(b"EHLO c", offer=AUTH_OFFER)
    client.answers |= {Auth: r.challenge(b"VXNlcm5hbWU6"), AuthResponse: r.challenge(b"UGFzc3dvcmQ6")}
    assert client.say(b"AUTH login", b"am9l") == b"334 VXNlcm5hbWU6\r\n334 UGFzc3dvcmQ6\r\n"
    client.answers[AuthResponse] = r.auth_ok(b"joe")
    assert client.say(b"c2VjcmV0", b"NOOP") == b"235 2.7.0 ok, go ahead\r\n250 2.0.0 ok\r\n"
    assert client.events == [Auth(b"LOGIN", None), AuthResponse(b"am9l"), AuthResponse(b"c2VjcmV0")]


def test_after_a_failed_login_commands_go_on() -> None:
    client = begun(b"EHLO c", offer=AUTH_OFFER)
    client.answers |= {Auth: r.challenge(b""), AuthResponse: r.AUTH_FAILED}
    assert client.last(b"AUTH PLAIN", b"AGpvZQB4", b"NOOP") == b"250 2.0.0 ok"
    client.answers[Auth] = r.auth_ok(b"joe")
    assert client.last(b"AUTH PLAIN x") == b"235 2.7.0 ok, go ahead"


def test_auth_is_refused_where_it_makes_no_sense() -> None:
    assert begun(b"EHLO c").last(b"AUTH PLAIN") == b"503 5.5.1 auth not available"
    in_clear = begun(b"EHLO c", offer=Offer(mechanisms=(b"PLAIN",)))
    assert in_clear.last(b"AUTH PLAIN") == b"538 5.7.11 encryption required: STARTTLS first"
    client = begun(b"EHLO c", b"AUTH PLAIN x", offer=AUTH_OFFER)
    assert client.last(b"AUTH PLAIN x") == b"503 5.5.1 you're already authenticated"
    assert client.last(b"RSET", b"EHLO d", b"AUTH PLAIN x") == b"503 5.5.1 you're already authenticated"
    assert begun(b"EHLO c", offer=AUTH_OFFER).last(b"AUTH") == b"504 5.5.4 auth type unimplemented"


def test_the_last_failed_login_closes() -> None:
    client = begun(b"EHLO c", offer=AUTH_OFFER)
    client.answers[Auth] = r.AUTH_FAILED_LAST
    assert client.say(b"AUTH PLAIN x", b"NOOP").endswith(b"421 4.7.0 too many failed logins\r\n")
    assert client.machine.closing
