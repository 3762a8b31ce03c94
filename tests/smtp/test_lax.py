"""How qmail-smtpd reads addresses: nearly everything is one."""

from __future__ import annotations

import pytest

from pillarbox.smtp.events import Auth, Mail, Rcpt
from pillarbox.smtp.lax import auth, mail, path, rcpt
from pillarbox.smtp.replies import MAIL_SYNTAX, RCPT_SYNTAX


def renamed(host: bytes) -> bytes:
    return b"here.example" if host == b"[192.0.2.7]" else host


# row: smtpd-paths, smtpd-source-route, smtpd-quoted, smtpd-localiphost
@pytest.mark.parametrize(
    ("argument", "address"),
    [
        (b"TO:<joe@h>", b"joe@h"),
        (b"TO:<joe@h> NOTIFY=NEVER", b"joe@h"),
        (b"FROM:<joe@h>SIZE=1", b"joe@h"),
        (b"anything <joe@h>", b"joe@h"),
        (b"TO:<joe@h", b"joe@h"),
        (b"TO:joe@h", b"joe@h"),
        (b"TO:   joe@h junk", b"joe@h"),
        (b"TO: joe", b"joe"),
        (b"TO:<>", b""),
        (b"TO:", b""),
        (b"joe@h", b""),
        (b"", b""),
        (b"TO:<@a,@b:joe@h>", b"joe@h"),
        (b"TO:@a:joe@h", b"joe@h"),
        (b"TO:<@a>", b""),
        (b'TO:<"joe doe"@h>', b"joe doe@h"),
        (b'TO:<"joe>doe"@h>', b"joe>doe@h"),
        (b'TO:<"joe\\"doe"@h>', b'joe"doe@h'),
        (b"TO:<joe\\>doe@h>", b"joe>doe@h"),
        (b"TO:joe\\ doe@h x", b"joe doe@h"),
        (b'TO:"joe doe"@h x', b"joe doe@h"),
        (b"TO:<joe\\\\@h>", b"joe\\@h"),
        (b"TO:<joe@h\\", b"joe@h"),
        (b'TO:<"joe@h> x', b"joe@h> x"),
        (b"TO:<a@b@c>", b"a@b@c"),
        (b"TO:<jo\tb\r\xff@h>", b"jo\tb\r\xff@h"),
        (b"TO:<joe@[192.0.2.7]>", b"joe@here.example"),
        (b"TO:<joe@[192.0.2.8]>", b"joe@[192.0.2.8]"),
        (b"TO:<[192.0.2.7]>", b"[192.0.2.7]"),
        (b"TO:<a@[192.0.2.7]@b>", b"a@[192.0.2.7]@b"),
    ],
)
def test_an_address_is_what_qmail_makes_of_it(argument: bytes, address: bytes) -> None:
    assert path(argument, renamed) == address


# row: smtpd-long-path
def test_899_octets_are_an_address_and_900_are_none() -> None:
    longest = b"x" * 897 + b"@h"
    assert mail(b"FROM:<" + longest + b">", bytes) == Mail(longest)
    assert mail(b"FROM:<x" + longest + b">", bytes) == MAIL_SYNTAX
    assert rcpt(b"TO:<" + longest + b">", bytes) == Rcpt(longest)
    assert rcpt(b"TO:<x" + longest + b">", bytes) == RCPT_SYNTAX


def test_what_stands_for_an_address_in_brackets_counts_for_the_length() -> None:
    assert path(b"<" + b"x" * 880 + b"@[192.0.2.7]>", renamed) is not None
    assert path(b"<" + b"x" * 887 + b"@[192.0.2.7]>", renamed) is None


def test_auth_takes_any_word_for_a_mechanism_and_nothing_behind_it_for_nothing() -> None:
    assert auth(b"login") == Auth(b"LOGIN", None)
    assert auth(b"LOGIN  ") == Auth(b"LOGIN", None)
    assert auth(b"Plain   AGpv") == Auth(b"PLAIN", b"AGpv")
    assert auth(b"") == Auth(b"", None)
