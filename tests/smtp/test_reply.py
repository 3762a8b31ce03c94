from __future__ import annotations

import pytest

from pillarbox.smtp import replies as r
from pillarbox.smtp.reply import Dialect, Reply
from pillarbox.status import Refusal, Status

MODERN, QMAIL = Dialect.MODERN, Dialect.QMAIL

# What an existing qmail says: its reference's replies, byte for byte.
SPELLINGS = [
    (r.greeting(b"mx.example.org"), b"220 mx.example.org ESMTP\r\n", b"220 mx.example.org ESMTP\r\n"),
    (r.goodbye(b"mx.example.org"), b"221 2.0.0 mx.example.org\r\n", b"221 mx.example.org\r\n"),
    (r.SENDER_OK, b"250 2.1.0 ok\r\n", b"250 ok\r\n"),
    (r.RECIPIENT_OK, b"250 2.1.5 ok\r\n", b"250 ok\r\n"),
    (r.OK, b"250 2.0.0 ok\r\n", b"250 ok\r\n"),
    (r.FLUSHED, b"250 2.0.0 flushed\r\n", b"250 flushed\r\n"),
    (r.GO_AHEAD, b"354 go ahead\r\n", b"354 go ahead\r\n"),
    (r.accepted(b"17"), b"250 2.0.0 ok 17\r\n", b"250 ok 17\r\n"),
    (r.MAIL_FIRST, b"503 5.5.1 MAIL first\r\n", b"503 MAIL first (#5.5.1)\r\n"),
    (r.RCPT_FIRST, b"503 5.5.1 RCPT first\r\n", b"503 RCPT first (#5.5.1)\r\n"),
    (r.UNIMPLEMENTED, b"502 5.5.1 unimplemented\r\n", b"502 unimplemented (#5.5.1)\r\n"),
    (
        r.VERIFY,
        b"252 2.0.0 send some mail, i'll try my best\r\n",
        b"252 send some mail, i'll try my best\r\n",
    ),
    (
        r.HELP,
        b"214 2.0.0 this is Pillarbox; it speaks SMTP as in RFC 5321\r\n",
        b"214 qmail home page: http://pobox.com/~djb/qmail.html\r\n",
    ),
    (
        r.BARE_NEWLINE,
        b"550 5.5.2 lines end with CR LF, both, always\r\n",
        b"451 See http://pobox.com/~djb/docs/smtplf.html.\r\n",
    ),
    (r.TIMEOUT, b"421 4.4.2 timeout\r\n", b"451 timeout (#4.4.2)\r\n"),
    (r.MAIL_SYNTAX, b"501 5.5.4 syntax is MAIL FROM:<address>\r\n", b"555 syntax error (#5.5.4)\r\n"),
    (r.auth_ok(b"tomclegg"), b"235 2.7.0 ok, go ahead\r\n", b"235 ok, tomclegg, go ahead (#2.0.0)\r\n"),
    (r.auth_ok(b"a b\r\nc\xff%"), b"235 2.7.0 ok, go ahead\r\n", b"235 ok, a?b??c?%, go ahead (#2.0.0)\r\n"),
    (r.AUTH_FAILED, b"535 5.7.8 authorization failed\r\n", b"535 authorization failed (#5.7.0)\r\n"),
    (r.AUTH_CANCELLED, b"501 5.0.0 auth exchange cancelled\r\n", b"501 auth exchange cancelled (#5.0.0)\r\n"),
    (r.AUTH_MALFORMED, b"501 5.5.2 malformed auth input\r\n", b"501 malformed auth input (#5.5.4)\r\n"),
    (r.AUTH_TYPE, b"504 5.5.4 auth type unimplemented\r\n", b"504 auth type unimplemented (#5.5.1)\r\n"),
    (r.AUTH_UNAVAILABLE, b"503 5.5.1 auth not available\r\n", b"503 auth not available (#5.3.3)\r\n"),
    (r.AUTH_ALREADY, b"503 5.5.1 you're already authenticated\r\n", b"503 you're already authenticated (#5.5.0)\r\n"),
    (
        r.AUTH_IN_MAIL,
        b"503 5.5.1 no auth during mail transaction\r\n",
        b"503 no auth during mail transaction (#5.5.0)\r\n",
    ),
    (r.challenge(b"VXNlcm5hbWU6"), b"334 VXNlcm5hbWU6\r\n", b"334 VXNlcm5hbWU6\r\n"),
    (r.challenge(b""), b"334 \r\n", b"334 \r\n"),
]


@pytest.mark.parametrize(("reply", "modern", "qmail"), SPELLINGS, ids=lambda value: str(value)[:24])
def test_a_reply_has_two_spellings(reply: Reply, modern: bytes, qmail: bytes) -> None:
    assert reply.encode(MODERN) == modern
    assert reply.encode(QMAIL) == qmail


def test_every_line_of_a_reply_has_code_and_status() -> None:
    reply = Reply(550, Status(5, 7, 1), ("one", "two"))
    assert reply.encode(MODERN) == b"550-5.7.1 one\r\n550 5.7.1 two\r\n"
    assert Reply(250, None, ("me", "SIZE")).encode(MODERN) == b"250-me\r\n250 SIZE\r\n"


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (Status(5, 1, 1), 550),
        (Status(5, 7, 1), 550),
        (Status(5, 3, 4), 552),
        (Status(5, 4, 6), 554),
        (Status(5, 6, 7), 553),
        (Status(5, 7, 0), 530),
        (Status(5, 7, 8), 535),
        (Status(5, 7, 11), 538),
        (Status(5, 9, 9), 550),
        (Status(4, 3, 0), 451),
        (Status(4, 3, 1), 452),
        (Status(4, 5, 3), 452),
        (Status(4, 7, 0), 454),
        (Status(4, 9, 9), 451),
    ],
)
def test_a_refusal_becomes_a_reply(status: Status, code: int) -> None:
    reply = Reply.of(Refusal(status, "no"))
    assert (reply.code, reply.status, reply.text) == (code, status, ("no",))
    assert reply.code // 100 == status.kind


def test_in_qmails_spelling_policy_is_553() -> None:
    reply = Reply.of(Refusal(Status(5, 7, 1), "sorry, that domain isn't in my list of allowed rcpthosts"))
    assert reply.encode(QMAIL) == b"553 sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)\r\n"
    assert reply.encode(MODERN) == b"550 5.7.1 sorry, that domain isn't in my list of allowed rcpthosts\r\n"


def test_no_text_can_break_a_reply() -> None:
    evil = Reply.of(Refusal(Status(4, 3, 0), "a\r\n250 ok\0\x7f\u00e9\U0001f4ee" + "x" * 9000))
    for wire in (evil.encode(MODERN), evil.encode(QMAIL), r.accepted(b"1\r\n250\xff").encode(MODERN)):
        assert wire.endswith(b"\r\n")
        assert wire.count(b"\r") == wire.count(b"\n") == 1
        assert all(32 <= byte < 127 for byte in wire[:-2])
        assert len(wire) <= 512


def test_every_reply_of_the_catalogue_is_printable_and_short_in_both_spellings() -> None:
    catalogue = [value for value in vars(r).values() if isinstance(value, Reply)]
    assert len(catalogue) > 40
    for reply in catalogue:
        for dialect in Dialect:
            for line in reply.encode(dialect).split(b"\r\n")[:-1]:
                assert line.isascii() and line.decode().isprintable() and len(line) < 510
        if reply.status is not None:
            assert reply.code // 100 == reply.status.kind


def test_the_last_failed_login_is_told_and_then_the_end() -> None:
    assert (
        r.AUTH_FAILED_LAST.encode(MODERN) == b"535 5.7.8 authorization failed\r\n421 4.7.0 too many failed logins\r\n"
    )
    assert r.AUTH_FAILED_LAST.final
    assert not r.AUTH_FAILED.final
    assert r.TIMEOUT.final


def test_trouble_with_a_login_is_454_whatever_it_is() -> None:
    assert r.auth_trouble(Refusal(Status(4, 3, 1), "full")).encode(MODERN) == b"454 4.7.0 full\r\n"
