from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pillarbox.smtp import commands
from pillarbox.smtp import replies as r
from pillarbox.smtp.commands import COMMANDS
from pillarbox.smtp.events import Auth, Chunk, Mail, Rcpt
from pillarbox.smtp.reply import Reply


@pytest.mark.parametrize(
    ("argument", "event"),
    [
        (b"FROM:<>", Mail(b"")),
        (b"from:<a@b.example>", Mail(b"a@b.example")),
        (b"FROM: <a@b.example>", Mail(b"a@b.example")),
        (b"FROM:<a@b.example> SIZE=12345", Mail(b"a@b.example", size=12345)),
        (b"FROM:<a@b.example>  size=0  BODY=8bitmime", Mail(b"a@b.example", size=0, body=b"8BITMIME")),
        (b"FROM:<a@b.example> BODY=7BIT", Mail(b"a@b.example", body=b"7BIT")),
        (b"FROM:<a@b.example> AUTH=<>", Mail(b"a@b.example", auth=b"<>")),
        (b"FROM:<a@b.example> AUTH=e+3Dmc2@example.com", Mail(b"a@b.example", auth=b"e+3Dmc2@example.com")),
        ("FROM:<jörg@b.example> SMTPUTF8".encode(), Mail("jörg@b.example".encode(), smtputf8=True)),
        (b"FROM:<a@b.example> SIZE=" + b"9" * 20, Mail(b"a@b.example", size=int("9" * 20))),
    ],
)
def test_mail_is_a_sender_and_parameters(argument: bytes, event: Mail) -> None:
    assert commands.mail(argument) == event


@pytest.mark.parametrize(
    ("argument", "code", "status"),
    [
        (b"", 501, "5.5.4"),
        (b"<a@b.example>", 501, "5.5.4"),
        (b"TO:<a@b.example>", 501, "5.5.4"),
        (b"FROM:a@b.example", 501, "5.1.7"),
        (b"FROM:<a@b@c>", 501, "5.1.7"),
        (b"FROM:<a@b.example> FOO=bar", 555, "5.5.4"),
        (b"FROM:<a@b.example> FOO", 555, "5.5.4"),
        (b"FROM:<a@b.example> BODY=BINARYMIME", 501, "5.5.4"),
        (b"FROM:<a@b.example> SIZE=", 501, "5.5.4"),
        (b"FROM:<a@b.example> SIZE", 501, "5.5.4"),
        (b"FROM:<a@b.example> SIZE=-1", 501, "5.5.4"),
        (b"FROM:<a@b.example> SIZE=1_0", 501, "5.5.4"),
        (b"FROM:<a@b.example> SIZE=" + b"9" * 21, 501, "5.5.4"),
        ("FROM:<a@b.example> SIZE=٣".encode(), 501, "5.5.4"),
        (b"FROM:<a@b.example> SIZE=1 SIZE=2", 501, "5.5.4"),
        (b"FROM:<a@b.example> SMTPUTF8=1", 501, "5.5.4"),
        (b"FROM:<a@b.example> AUTH=a+3d", 501, "5.5.4"),
        (b"FROM:<a@b.example> AUTH=", 501, "5.5.4"),
        ("FROM:<jörg@b.example>".encode(), 553, "5.6.7"),
        ("FROM:<jörg@b.example> SIZE=1".encode(), 553, "5.6.7"),
        (b"FROM:<j\xf6rg@b.example> SMTPUTF8", 501, "5.1.7"),
    ],
)
def test_a_bad_mail_is_refused_with_its_reason(argument: bytes, code: int, status: str) -> None:
    reply = commands.mail(argument)
    assert isinstance(reply, Reply)
    assert (reply.code, str(reply.status)) == (code, status)


def test_rcpt_is_a_recipient() -> None:
    assert commands.rcpt(b"TO:<joe@example.org>", utf8=False) == Rcpt(b"joe@example.org")
    assert commands.rcpt(b"to: <postmaster> ", utf8=False) == Rcpt(b"postmaster")
    assert commands.rcpt("TO:<jörg@b.example>".encode(), utf8=True) == Rcpt("jörg@b.example".encode())


@pytest.mark.parametrize(
    ("argument", "code", "status"),
    [
        (b"", 501, "5.5.4"),
        (b"FROM:<a@b.example>", 501, "5.5.4"),
        (b"TO:joe@example.org", 501, "5.1.3"),
        (b"TO:<>", 501, "5.1.3"),
        (b"TO:<joe@example.org> NOTIFY=NEVER", 555, "5.5.4"),
        ("TO:<jörg@b.example>".encode(), 553, "5.6.7"),
    ],
)
def test_a_bad_rcpt_is_refused_with_its_reason(argument: bytes, code: int, status: str) -> None:
    reply = commands.rcpt(argument, utf8=False)
    assert isinstance(reply, Reply)
    assert (reply.code, str(reply.status)) == (code, status)


def test_bdat_is_a_size_and_perhaps_the_last() -> None:
    assert commands.bdat(b"0 LAST") == Chunk(0, last=True)
    assert commands.bdat(b"86") == Chunk(86, last=False)
    assert commands.bdat(b"86  last ") == Chunk(86, last=True)


@pytest.mark.parametrize(
    "argument", [b"", b"LAST", b"-1", b"+1", b"1x", b"0x10", b"1 LASTS", b"9" * 21, b"\xb2", b"1,5"]
)
def test_a_bad_bdat_is_refused(argument: bytes) -> None:
    assert commands.bdat(argument) is r.BDAT_SYNTAX


def test_auth_is_a_mechanism_and_perhaps_a_first_response() -> None:
    assert commands.auth(b"plain") == Auth(b"PLAIN", None)
    assert commands.auth(b"PLAIN =") == Auth(b"PLAIN", b"=")
    assert commands.auth(b"Cram-MD5 ab c") == Auth(b"CRAM-MD5", b"ab c")
    assert commands.auth(b"") is r.AUTH_TYPE
    assert commands.auth(b"PL\tAIN") is r.AUTH_TYPE
    assert commands.auth(b"X" * 21) is r.AUTH_TYPE


def test_no_secret_is_shown_in_an_event() -> None:
    assert "AGpvZQBzZWNyZXQ=" not in repr(commands.auth(b"PLAIN AGpvZQBzZWNyZXQ="))


@given(st.binary(max_size=80), st.booleans())
def test_any_argument_gives_an_event_or_a_reply(argument: bytes, utf8: bool) -> None:
    assert isinstance(commands.mail(b"FROM:" + argument), Mail | Reply)
    assert isinstance(commands.mail(b"FROM:<> " + argument), Mail | Reply)
    assert isinstance(commands.rcpt(b"TO:" + argument, utf8=utf8), Rcpt | Reply)
    assert isinstance(commands.bdat(argument), Chunk | Reply)
    assert isinstance(commands.auth(argument), Auth | Reply)


@pytest.mark.parametrize("line", [b"AUTH PLAIN AGpvZQBzZWNyZXQ=", b"auth plain AGpvZQBzZWNyZXQ=", b"AGpvZQBzZWNyZXQ="])
def test_what_may_be_a_password_is_not_remembered(line: bytes) -> None:
    assert COMMANDS[line].read is None
    assert line not in COMMANDS


def test_commands_are_remembered_within_bounds() -> None:
    for number in range(10_000):
        line = b"RCPT TO:<%d@example.org>" % number
        assert COMMANDS[line].read == Rcpt(b"%d@example.org" % number)
        assert COMMANDS[line] is COMMANDS[line]
    assert len(COMMANDS) <= commands._KNOWN
    long = b"RCPT TO:<" + b"x" * 100 + b"@example.org>"
    assert COMMANDS[long].read == Rcpt(long[9:-1]) and long not in COMMANDS


def test_an_address_that_needs_smtputf8_is_read_when_that_is_known() -> None:
    assert COMMANDS["RCPT TO:<jörg@b.example>".encode()].read is None
