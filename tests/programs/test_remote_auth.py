"""qmail-remote with a login in control/smtproutes: what goes over the wire, and what is reported, octet for octet.

The host is a stand-in that says what servers say to the AUTH patch of qmail-remote.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pillarbox.cli.certificate import new_key, self_signed
from tests.nameserver import nameserver
from tests.programs.remotely import WIRE, bring, control, home, run
from tests.roles.hosts import Talk, dictated, hosts

__all__ = ["home"]

GREETING = b"220 host.example ESMTP\r\n"
USERNAME, PASSWORD = b"334 VXNlcm5hbWU6\r\n", b"334 UGFzc3dvcmQ6\r\n"
WELCOME = b"235 ok, go ahead (#2.0.0)\r\n"
ENVELOPE = (b"250 ok\r\n", b"250 ok\r\n", b"354 go ahead\r\n", b"250 ok 1 qp 2\r\n")
TAKEN = b"r\0K127.0.0.2 accepted message.\nRemote host said: 250 ok 1 qp 2\n\0"
EHLO = b"EHLO helo.example.org\r\n"
MAIL = [b"MAIL FROM:<me@example.org>\r\n", b"RCPT TO:<joe@far.example>\r\n", b"DATA\r\n", WIRE, b"QUIT\r\n"]
MAIL_8BIT = [b"MAIL FROM:<me@example.org> BODY=8BITMIME\r\n", *MAIL[1:]]


def offers(*lines: bytes) -> bytes:
    """The reply to EHLO."""
    *first, last = (b"host.example", *lines)
    return b"".join(b"250-" + line + b"\r\n" for line in first) + b"250 " + last + b"\r\n"


# row: remote-auth-login, remote-auth-page
def test_the_login_of_the_patches_page_goes_out_ahead_of_the_sender(home: Path) -> None:
    said: list[bytes] = []
    host = dictated(said, GREETING, offers(b"AUTH LOGIN CRAM-MD5 PLAIN", b"8BITMIME"), USERNAME, PASSWORD, WELCOME,
                    *ENVELOPE)  # fmt: skip
    assert bring(home, host, login="foo bar") == TAKEN
    assert said == [EHLO, b"AUTH LOGIN\r\n", b"Zm9v\r\n", b"YmFy\r\n", *MAIL_8BIT]


# row: remote-ehlo
def test_a_host_that_knows_no_ehlo_is_told_helo_and_the_login(home: Path) -> None:
    said: list[bytes] = []
    host = dictated(said, GREETING, b"502 unimplemented (#5.5.1)\r\n", b"250 host.example\r\n", USERNAME, PASSWORD,
                    WELCOME, *ENVELOPE)  # fmt: skip
    assert bring(home, host, login="foo bar") == TAKEN
    assert said == [EHLO, b"HELO helo.example.org\r\n", b"AUTH LOGIN\r\n", b"Zm9v\r\n", b"YmFy\r\n", *MAIL]


def test_a_host_that_gives_no_list_is_told_the_login_all_the_same(home: Path) -> None:
    said: list[bytes] = []
    assert bring(home, dictated(said, GREETING, offers(), USERNAME, PASSWORD, WELCOME, *ENVELOPE), login="foo bar")
    assert said[1:4] == [b"AUTH LOGIN\r\n", b"Zm9v\r\n", b"YmFy\r\n"]


def test_the_list_may_be_in_the_old_spelling(home: Path) -> None:
    said: list[bytes] = []
    bring(
        home, dictated(said, GREETING, offers(b"AUTH=LOGIN"), USERNAME, PASSWORD, WELCOME, *ENVELOPE), login="foo bar"
    )
    assert said[1:4] == [b"AUTH LOGIN\r\n", b"Zm9v\r\n", b"YmFy\r\n"]


# row: remote-auth-others
def test_plain_where_that_is_all_a_host_offers(home: Path) -> None:
    said: list[bytes] = []
    assert bring(home, dictated(said, GREETING, offers(b"AUTH PLAIN"), WELCOME, *ENVELOPE), login="foo bar") == TAKEN
    assert said == [EHLO, b"AUTH PLAIN AGZvbwBiYXI=\r\n", *MAIL]


# row: remote-auth-others
def test_cram_md5_where_that_is_all_a_host_offers(home: Path) -> None:
    """The example of RFC 2195."""
    said: list[bytes] = []
    challenge = b"334 PDE4OTYuNjk3MTcwOTUyQHBvc3RvZmZpY2UucmVzdG9uLm1jaS5uZXQ+\r\n"
    host = dictated(said, GREETING, offers(b"AUTH CRAM-MD5"), challenge, WELCOME, *ENVELOPE)
    assert bring(home, host, login="tim tanstaaftanstaaf") == TAKEN
    assert said[1:3] == [b"AUTH CRAM-MD5\r\n", b"dGltIGI5MTNhNjAyYzdlZGE3YTQ5NWI0ZTZlNzMzNGQzODkw\r\n"]


# row: remote-auth-password
def test_a_password_may_hold_colons_and_blanks(home: Path) -> None:
    said: list[bytes] = []
    host = dictated(said, GREETING, offers(b"AUTH PLAIN"), WELCOME, *ENVELOPE)
    assert bring(home, host, login="foo b:a  r:25") == TAKEN
    assert said[1] == b"AUTH PLAIN AGZvbwBiOmEgIHI6MjU=\r\n"


# row: remote-auth-one-word
def test_one_word_behind_the_relay_is_no_login(home: Path) -> None:
    said: list[bytes] = []
    bring(home, dictated(said, GREETING, offers(b"AUTH LOGIN"), *ENVELOPE), login="foo")
    assert said == [EHLO, *MAIL]


# refusals


# row: remote-auth-refused
@pytest.mark.parametrize(
    ("replies", "step", "said_last"),
    [
        ((b"504 auth type unimplemented (#5.5.1)\r\n",), b"AUTH LOGIN", b"AUTH LOGIN\r\n"),
        ((b"503 auth not available (#5.3.3)\r\n",), b"AUTH LOGIN", b"AUTH LOGIN\r\n"),
        ((USERNAME, b"501 malformed auth input (#5.5.4)\r\n"), b"username", b"Zm9v\r\n"),
        ((USERNAME, PASSWORD, b"535 authorization failed (#5.7.0)\r\n"), b"password", b"YmFy\r\n"),
        ((USERNAME, PASSWORD, b"454 oops, child won't start and I can't auth (#4.3.0)\r\n"), b"password", b"YmFy\r\n"),
    ],
)
def test_a_refused_login_is_temporary_at_every_step(
    home: Path, replies: tuple[bytes, ...], step: bytes, said_last: bytes
) -> None:
    said: list[bytes] = []
    report = bring(home, dictated(said, GREETING, offers(b"AUTH LOGIN"), *replies), login="foo bar")
    assert report == (
        b"ZConnected to 127.0.0.2 but authentication was rejected (%s).\nRemote host said: %s\n\0"
        % (step, replies[-1].removesuffix(b"\r\n"))
    )
    assert said[-2:] == [said_last, b"QUIT\r\n"]


def test_a_host_that_repeats_the_password_does_not_get_it_into_the_report(home: Path) -> None:
    host = dictated([], GREETING, offers(b"AUTH LOGIN"), USERNAME, PASSWORD, b"535 foo may not say bar or YmFy\r\n")
    assert bring(home, host, login="foo bar") == (
        b"ZConnected to 127.0.0.2 but authentication was rejected (password).\n"
        b"Remote host said: 535 foo may not say * or *\n\0"
    )


def test_a_host_that_dies_amid_the_login_is_temporary(home: Path) -> None:
    host = dictated([], GREETING, offers(b"AUTH LOGIN"), USERNAME)
    assert bring(home, host, login="foo bar") == b"ZConnected to 127.0.0.2 but connection died. (#4.4.2)\n\0"


def test_a_host_that_offers_no_way_that_is_known_here_is_temporary(home: Path) -> None:
    said: list[bytes] = []
    report = bring(home, dictated(said, GREETING, offers(b"AUTH GSSAPI")), login="foo bar")
    assert report == (b"ZConnected to 127.0.0.2 but it offers no way to log in that is known here. (#4.7.4)\n\0")
    assert said == [EHLO, b"QUIT\r\n"]


# TLS


# row: remote-starttls
def test_the_login_goes_over_tls_where_the_host_offers_it_whoever_signed_for_it(home: Path, tmp_path: Path) -> None:
    said: list[bytes] = []
    key = new_key()
    certificate = tmp_path / "cert.pem"
    certificate.write_bytes(key + self_signed(key, "relay.example", datetime.now(UTC)))

    async def script(talk: Talk) -> None:
        await dictated(said, GREETING, offers(b"STARTTLS", b"AUTH LOGIN"))(talk)
        await talk.say(b"220 go\r\n")
        await talk.secure(certificate)
        said.append(await talk.hear())
        await dictated(said, offers(b"AUTH LOGIN"), USERNAME, PASSWORD, WELCOME, *ENVELOPE)(talk)

    assert bring(home, script, login="foo bar") == TAKEN
    assert said == [EHLO, b"STARTTLS\r\n", EHLO, b"AUTH LOGIN\r\n", b"Zm9v\r\n", b"YmFy\r\n", *MAIL]


def test_a_relay_by_name_gets_the_password_in_clear_as_it_did_from_the_patched_program(home: Path) -> None:
    said: list[bytes] = []

    async def brought() -> bytes:
        host = dictated(said, GREETING, offers(b"AUTH LOGIN"), USERNAME, PASSWORD, WELCOME, *ENVELOPE)
        with nameserver("relay.example. A 127.0.0.2\n") as names:
            async with hosts(host) as (port, _names):
                route = f"far.example:relay.example:{port} foo bar\n"
                control(home, smtproutes=route, resolvers=f"127.0.0.1:{names}\n")
                return await run(home, "far.example", "me@example.org", "joe@far.example")

    assert asyncio.run(brought()) == TAKEN
    assert said[1:4] == [b"AUTH LOGIN\r\n", b"Zm9v\r\n", b"YmFy\r\n"]


# slips in the file


# row: remote-auth-no-relay
@pytest.mark.parametrize(("domain", "line"), [("example.com", "example.com:"), ("example.net", ":")])
def test_the_examples_of_the_patches_page_without_a_relay_are_temporary_and_name_file_and_line(
    home: Path, domain: str, line: str
) -> None:
    control(home, smtproutes="example.com: foo bar\n: foo bar\n")
    report = asyncio.run(run(home, domain, "me@example.org", f"joe@{domain}"))
    assert (
        report
        == (
            f"Zcontrol/smtproutes: the line '{line}' has a login but no relay: "
            "write HOST:RELAY[:PORT] [USER PASSWORD]\n\0"
        ).encode()
    )
