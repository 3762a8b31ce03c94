from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pillarbox.pop3 import reply as r
from pillarbox.pop3.commands import COMMANDS, State
from pillarbox.pop3.events import (
    Apop,
    Auth,
    AuthResponse,
    Capa,
    Dele,
    Event,
    List,
    Mechanisms,
    Noop,
    Pass,
    Quit,
    Retr,
    Stls,
    Top,
    Uidl,
    User,
    Utf8,
)
from pillarbox.pop3.manners import SERVE
from pillarbox.pop3.reply import Dialect, Kind, Reply
from pillarbox.pop3.server import Server

DIGEST = b"c4c9334bac560ecc979e58001b3e22fb"


def converse(server: Server, pieces: Sequence[bytes], answers: Sequence[Reply] = ()) -> list[Event | bytes]:
    """Everything that comes out, in order: events (answered in turn by `answers`, then by +OK) and what is sent."""
    given_ = iter(answers)
    happened: list[Event | bytes] = []

    def say() -> None:
        if sent := server.data_to_send():
            happened.append(sent)

    for piece in [b"", *pieces]:
        server.receive(piece)
        while (event := server.next_event()) is not None:
            say()
            happened.append(event)
            reply = next(given_, r.ok(b""))
            if reply.kind is Kind.MORE and not isinstance(event, Auth | AuthResponse):
                reply = r.ok(b"")
            server.answer(reply)
            say()
            if server.wants_tls:
                server.secured()
        say()
    return happened


def merged(happened: list[Event | bytes]) -> list[Event | bytes]:
    """With what is sent in a row joined: how it is cut is no promise."""
    joined: list[Event | bytes] = []
    for each in happened:
        last = joined[-1] if joined else None
        if isinstance(each, bytes) and isinstance(last, bytes):
            joined[-1] = last + each
        else:
            joined.append(each)
    return joined


def events(text: bytes, *, authorized: bool = False, answers: Sequence[Reply] = ()) -> list[Event]:
    happened = converse(Server(b"", authorized=authorized), [text], answers)
    return [each for each in happened if not isinstance(each, bytes)]


def said(text: bytes, *, authorized: bool = False) -> bytes:
    happened = converse(Server(b"", authorized=authorized), [text])
    return b"".join([each for each in happened if isinstance(each, bytes)])


def test_the_server_greets_first_and_shows_the_timestamp_only_when_it_has_one() -> None:
    server = Server(b"Pillarbox at mx.example.org")
    server.greet()
    assert server.data_to_send() == b"+OK Pillarbox at mx.example.org\r\n"
    assert server.data_to_send() == b""
    keyed = Server(b"Pillarbox", stamp=b"<1.2@mx>")
    keyed.greet()
    assert keyed.data_to_send() == b"+OK Pillarbox <1.2@mx>\r\n"


@pytest.mark.parametrize(
    ("line", "event"),
    [
        (b"USER joe", User(b"joe")),
        (b"uSeR joe", User(b"joe")),
        (b"USER  joe ", User(b"joe")),
        (b"USER joe@example.org", User(b"joe@example.org")),
        (b"USER jos\xc3\xa9", User(b"jos\xc3\xa9")),
        (b"APOP mrose " + DIGEST, Apop(b"mrose", DIGEST)),
        (b"APOP mrose " + DIGEST.upper(), Apop(b"mrose", DIGEST)),
        (b"AUTH", Mechanisms()),
        (b"AUTH ", Mechanisms()),
        (b"AUTH PLAIN", Auth(b"PLAIN", None)),
        (b"AUTH plain AGEAYg==", Auth(b"plain", b"AGEAYg==")),
        (b"AUTH PLAIN =", Auth(b"PLAIN", b"=")),
        (b"CAPA", Capa()),
        (b"STLS", Stls()),
        (b"UTF8", Utf8()),
        (b"NOOP", Noop()),
        (b"NOOP and more", Noop()),
        (b"QUIT", Quit()),
    ],
)
def test_a_line_before_the_login_is_its_event(line: bytes, event: Event) -> None:
    assert events(line + b"\r\n") == [event]
    assert events(line + b"\n") == [event]


@pytest.mark.parametrize(
    ("line", "event"),
    [
        (b"LIST", List(None)),
        (b"LIST ", List(None)),
        (b"LIST 3", List(3)),
        (b"LIST 0", List(0)),
        (b"UIDL", Uidl(None)),
        (b"UIDL 007", Uidl(7)),
        (b"RETR 99999999999999999999", Retr(99999999999999999999)),
        (b"DELE 1", Dele(1)),
        (b"TOP 1 0", Top(1, 0)),
        (b"TOP 1  10 ", Top(1, 10)),
        (b"TOP 1", Top(1, None)),
        (b"CAPA", Capa()),
        (b"NOOP", Noop()),
        (b"QUIT", Quit()),
    ],
)
def test_a_line_after_the_login_is_its_event(line: bytes, event: Event) -> None:
    assert events(line + b"\r\n", authorized=True) == [event]


@pytest.mark.parametrize(
    "line",
    [
        *(b"USER", b"USER ", b"USER j\0e", b"APOP joe", b"APOP " + DIGEST, b"APOP  " + DIGEST),
        *(b"APOP joe " + DIGEST[1:], b"APOP joe g" + DIGEST[1:], b"APOP j\0e " + DIGEST, b"APOP joe " + DIGEST + b"0"),
    ],
)
def test_a_bad_argument_before_the_login_is_a_syntax_error(line: bytes) -> None:
    assert events(line + b"\r\n") == []
    assert said(line + b"\r\n") == b"-ERR syntax error\r\n"


@pytest.mark.parametrize("argument", [b"x", b"-1", b"+1", b"1.0", b"1x", b"1 2", b"\xb2", b"1_0", b"0" * 21, b"1\0"])
@pytest.mark.parametrize("verb", [b"LIST", b"UIDL", b"RETR", b"DELE"])
def test_what_is_not_a_message_number_is_a_syntax_error(verb: bytes, argument: bytes) -> None:
    assert said(verb + b" " + argument + b"\r\n", authorized=True) == b"-ERR syntax error\r\n"


@pytest.mark.parametrize("line", [b"RETR", b"DELE", b"TOP", b"TOP x 1", b"TOP 1 x", b"TOP 1 2 3", b"TOP 1 -1"])
def test_a_missing_or_bad_number_is_a_syntax_error(line: bytes) -> None:
    assert said(line + b"\r\n", authorized=True) == b"-ERR syntax error\r\n"


@pytest.mark.parametrize(
    ("line", "password"),
    [(b"PASS secret", b"secret"), (b"PASS  a b ", b" a b "), (b"PASS \xff\r", b"\xff\r"), (b"pass \t", b"\t")],
)
def test_a_password_is_all_that_follows_one_space(line: bytes, password: bytes) -> None:
    assert events(b"USER joe\r\n" + line + b"\r\n") == [User(b"joe"), Pass(password)]


@pytest.mark.parametrize("line", [b"PASS", b"PASS ", b"PASS a\0b", b"PASS \0"])
def test_no_password_or_one_with_nul_is_a_syntax_error(line: bytes) -> None:
    assert events(b"USER joe\r\n" + line + b"\r\n") == [User(b"joe")]


ALLOWED = {
    State.AUTHORIZATION: "CAPA STLS UTF8 USER APOP AUTH NOOP QUIT",
    State.NAMED: "CAPA STLS UTF8 USER PASS APOP AUTH NOOP QUIT",
    State.TRANSACTION: "CAPA STAT LIST UIDL RETR TOP DELE LAST RSET NOOP QUIT",
}
ARGUMENT = {
    "USER": " joe",
    "PASS": " secret",
    "APOP": " joe " + DIGEST.decode(),
    "RETR": " 1",
    "TOP": " 1 1",
    "DELE": " 1",
}


@pytest.mark.parametrize("state", ALLOWED)
@pytest.mark.parametrize("verb", [verb.decode() for verb in COMMANDS])
def test_every_command_comes_through_in_its_states_and_no_other(state: State, verb: str) -> None:
    server = Server(b"", authorized=state is State.TRANSACTION)
    before = [b"USER joe\r\n"] if state is State.NAMED else []
    happened = converse(server, [*before, (verb + ARGUMENT.get(verb, "") + "\r\n").encode()])
    came = len([each for each in happened if not isinstance(each, bytes)]) == len(before) + 1
    assert came == (verb in ALLOWED[state].split())
    if not came:
        expected = b"-ERR authorized already\r\n" if state is State.TRANSACTION else b"-ERR authorization first\r\n"
        assert happened[-1] == (b"-ERR USER first\r\n" if (verb, state) == ("PASS", State.AUTHORIZATION) else expected)


def test_a_refused_user_leaves_no_name_behind() -> None:
    text = b"USER joe\r\nUSER ann\r\nPASS secret\r\n"
    assert events(text, answers=[r.ok(b""), r.STLS_FIRST]) == [User(b"joe"), User(b"ann")]


def test_a_refused_password_needs_the_name_again() -> None:
    text = b"USER joe\r\nPASS one\r\nPASS two\r\n"
    assert events(text, answers=[r.ok(b""), r.AUTHORIZATION_FAILED]) == [User(b"joe"), Pass(b"one")]


@pytest.mark.parametrize("line", [b"APOP ann " + DIGEST, b"AUTH PLAIN AGEAYg=="])
def test_a_name_given_before_another_way_in_was_refused_is_gone(line: bytes) -> None:
    text = b"USER joe\r\n" + line + b"\r\nPASS two\r\n"
    assert Pass(b"two") not in events(text, answers=[r.ok(b""), r.AUTHORIZATION_FAILED])


@pytest.mark.parametrize(
    "text", [b"USER joe\r\nPASS secret\r\n", b"APOP joe " + DIGEST + b"\r\n", b"AUTH PLAIN AGEAYg==\r\n"]
)
def test_a_login_leads_into_the_transaction_state(text: bytes) -> None:
    assert events(text + b"RETR 1\r\n")[-1] == Retr(1)


def test_a_list_of_mechanisms_is_no_login() -> None:
    assert events(b"AUTH\r\nRETR 1\r\n") == [Mechanisms()]


def test_after_a_challenge_every_line_is_a_response_whatever_it_looks_like() -> None:
    answers = [r.challenge(b""), r.challenge(b"YQ=="), r.AUTH_CANCELLED]
    text = b"AUTH LOGIN\r\nQUIT\r\n\r\nUSER joe\r\n"
    assert events(text, answers=answers) == [
        Auth(b"LOGIN", None),
        AuthResponse(b"QUIT"),
        AuthResponse(b""),
        User(b"joe"),
    ]


def test_a_failed_exchange_returns_to_before_the_login() -> None:
    answers = [r.challenge(b""), r.AUTHORIZATION_FAILED]
    assert said(b"AUTH PLAIN\r\nx\r\nRETR 1\r\n") != b""
    assert events(b"AUTH PLAIN\r\nx\r\nRETR 1\r\n", answers=answers) == [Auth(b"PLAIN", None), AuthResponse(b"x")]


def test_a_response_may_be_as_long_as_rfc_5034_says() -> None:
    line = b"A" * (SERVE.longest_auth - 1)
    text = b"AUTH PLAIN\r\n" + line + b"\r\n"
    assert events(text, answers=[r.challenge(b"")]) == [Auth(b"PLAIN", None), AuthResponse(line)]


def test_a_response_that_is_too_long_ends_the_exchange_and_is_not_kept() -> None:
    server = Server(b"")
    server.receive(b"AUTH PLAIN\r\n")
    assert server.next_event() == Auth(b"PLAIN", None)
    server.answer(r.challenge(b""))
    for _ in range(100):
        server.receive(b"A" * 1000)
        assert server.next_event() is None
        assert server.buffered <= SERVE.longest_auth
    server.receive(b"\r\n")
    assert server.next_event() == AuthResponse(b"")


def test_while_an_event_is_unanswered_there_is_no_further_one() -> None:
    server = Server(b"")
    server.receive(b"NOOP\r\nQUIT\r\nbad\r\n")
    assert server.next_event() == Noop()
    assert server.next_event() is None
    assert server.data_to_send() == b""
    server.answer(r.ok(b"noop"))
    assert server.next_event() == Quit()
    server.answer(r.ok(b"quit"))
    assert server.next_event() is None and server.closing
    assert server.data_to_send() == b"+OK noop\r\n+OK quit\r\n"


def test_an_answer_without_a_question_is_our_own_mistake() -> None:
    with pytest.raises(AssertionError):
        Server(b"").answer(r.ok(b""))


@pytest.mark.parametrize("reply", [r.GOODBYE, r.err(b"unable to unlink all deleted messages")])
def test_quit_ends_the_session_however_it_is_answered(reply: Reply) -> None:
    server = Server(b"", authorized=True)
    assert converse(server, [b"QUIT\r\nNOOP\r\n"], [reply]) == [Quit(), reply.encode(Dialect.MODERN)]
    assert server.closing


def test_a_closing_reply_ends_the_session() -> None:
    server = Server(b"")
    converse(server, [b"USER joe\r\nPASS x\r\nNOOP\r\n"], [r.ok(b""), r.AUTHORIZATION_FAILED_GOODBYE])
    assert server.closing and server.data_to_send() == b""


def test_nothing_said_before_tls_is_acted_on_after_it() -> None:
    server = Server(b"")
    server.receive(b"USER joe\r\nSTLS\r\nUSER eve\r\nCAPA\r\nPAS")
    assert server.next_event() == User(b"joe")
    server.answer(r.ok(b""))
    assert server.next_event() == Stls()
    assert not server.wants_tls
    server.answer(r.BEGIN_TLS)
    assert server.wants_tls and server.next_event() is None
    server.secured()
    assert not server.wants_tls and server.buffered == 0
    server.data_to_send()
    server.receive(b"S secret\r\n")
    assert server.next_event() is None
    server.receive(b"PASS secret\r\n")
    assert server.next_event() is None
    assert server.data_to_send() == b"-ERR unimplemented\r\n-ERR USER first\r\n"


def test_an_overlong_line_before_tls_does_not_swallow_the_first_after_it() -> None:
    server = Server(b"")
    server.receive(b"STLS\r\n" + b"x" * 5000)
    assert server.next_event() == Stls()
    server.answer(r.BEGIN_TLS)
    assert server.next_event() is None
    server.secured()
    server.receive(b"CAPA\r\n")
    assert server.next_event() == Capa()


def test_a_refused_stls_changes_nothing() -> None:
    assert events(b"USER joe\r\nSTLS\r\nPASS x\r\n", answers=[r.ok(b""), r.NO_TLS])[-1] == Pass(b"x")


@pytest.mark.parametrize(("before", "longest"), [(b"USER ", SERVE.longest), (b"auth ", SERVE.longest_auth)])
def test_a_line_may_have_its_full_length_and_not_an_octet_more(before: bytes, longest: int) -> None:
    line = before + b"a" * (longest - len(before) - 1)
    assert len(events(line + b"\r\n")) == 1
    assert said(line + b"a\r\n") == b"-ERR line too long\r\n"


def test_a_line_without_end_is_not_kept() -> None:
    server = Server(b"")
    for _ in range(1000):
        server.receive(b"a" * 1000)
        assert server.next_event() is None
        assert server.buffered <= SERVE.longest
    assert server.data_to_send() == b""
    server.receive(b"\r\nQUIT\r\n")
    assert server.next_event() == Quit()
    assert server.data_to_send() == b"-ERR line too long\r\n"


def test_ten_bad_commands_in_a_row_end_the_session() -> None:
    server = Server(b"")
    happened = converse(server, [b"bad\r\n" * 9 + b"NOOP\r\n" + b"bad\r\n" * 9])
    assert not server.closing
    server.receive(b"worse\r\nNOOP\r\n")
    assert server.next_event() is None
    assert server.closing
    assert server.data_to_send() == b"-ERR too many bad commands\r\n"
    assert [each for each in happened if not isinstance(each, bytes)] == [Noop()]


@pytest.mark.parametrize("verb", [b"GET", b"POST", b"put", b"OPTIONS", b"CONNECT"])
def test_a_browser_gets_no_second_line(verb: bytes) -> None:
    server = Server(b"")
    assert converse(server, [verb + b" / HTTP/1.1\r\nUSER joe\r\n"]) == [b"-ERR this is not HTTP\r\n"]
    assert server.closing


def test_whole_lines_are_served_after_the_client_has_ended_and_half_a_line_never() -> None:
    server = Server(b"", authorized=True)
    server.receive(b"DELE 1\r\nDELE 1")
    server.eof()
    assert server.next_event() == Dele(1)
    assert not server.closing
    server.answer(r.ok(b""))
    assert server.next_event() is None
    assert server.closing


def test_a_client_that_ends_instead_of_the_handshake_is_gone() -> None:
    server = Server(b"")
    server.receive(b"STLS\r\nQUIT\r\n")
    assert server.next_event() == Stls()
    server.answer(r.BEGIN_TLS)
    server.eof()
    assert server.next_event() is None
    assert server.closing


def test_no_event_shows_a_secret() -> None:
    secrets = [Pass(b"hush"), Apop(b"joe", b"hush"), Auth(b"PLAIN", b"hush"), AuthResponse(b"hush")]
    assert "hush" not in repr(secrets)


LINES = [
    *(b"USER joe", b"PASS secret", b"AUTH PLAIN", b"AUTH LOGIN abc", b"APOP joe " + DIGEST, b"CAPA", b"STLS", b"UTF8"),
    *(b"STAT", b"LIST", b"LIST 1", b"UIDL", b"RETR 1", b"TOP 1 2", b"DELE 1", b"RSET", b"NOOP", b"QUIT", b"*", b""),
    *(b"x" * 5000, b"AUTH PLAIN " + b"A" * 12300, b"AUTH LOGIN " + b"A" * 8000, b"GET / HTTP/1.0", b"\0", b"PASS a\0"),
]
text = st.lists(
    st.tuples(st.sampled_from(LINES) | st.binary(max_size=12), st.sampled_from([b"\r\n", b"\r\n", b"\n", b"\r", b""]))
).map(lambda lines: b"".join([line + end for line, end in lines]))
replies = st.lists(
    st.sampled_from([r.ok(b""), r.ok(b"", [b"x"]), r.err(b"no"), r.err(b"no", closing=True), r.SENT, r.challenge(b"")]),
    max_size=8,
)


@settings(deadline=None)
@given(text=text, answers=replies, cuts=st.lists(st.integers(0, 20000)), authorized=st.booleans())
def test_how_the_octets_are_cut_changes_nothing(
    text: bytes, answers: list[Reply], cuts: list[int], authorized: bool
) -> None:
    def run(pieces: list[bytes]) -> tuple[list[Event | bytes], bool]:
        server = Server(b"", authorized=authorized)
        happened = converse(server, pieces, answers)
        server.eof()
        return merged(happened + converse(server, [])), server.closing

    edges = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    pieces = [text[start:end] for start, end in pairwise(edges)]
    # What came ahead of the handshake in the same piece is forgotten, so there the cut does matter.
    if b"STLS" not in text.upper():
        assert run(pieces) == run([text])
        if len(text) < 2000:
            assert run([text[at : at + 1] for at in range(len(text))]) == run([text])
    else:
        run(pieces)
