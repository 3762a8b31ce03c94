"""qmail-remote's reports and its dialogue, octet for octet as qmail-remote(8) and qmail-rspawn know them.

The hosts are stand-ins that say what a test tells them.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.nameserver import nameserver
from tests.programs.remotely import WIRE, bring, control, home, run
from tests.roles.hosts import Talk, dictated, hosts, unanswering

__all__ = ["home"]

HELLO = (b"220 host.example ESMTP\r\n", b"250 host.example\r\n")
OK = b"250 ok\r\n"
GO = b"354 go ahead\r\n"
QUEUED = b"250 queued\r\n"


# row: remote-texts, remote-connection-died, remote-transcripts
@pytest.mark.parametrize(
    ("replies", "report"),
    [
        ((b"554 no\r\n",), b"ZConnected to 127.0.0.2 but greeting failed.\nRemote host said: 554 no\n\0"),
        ((b"421 later\r\n",), b"ZConnected to 127.0.0.2 but greeting failed.\nRemote host said: 421 later\n\0"),
        ((b"250 hm\r\n",), b"ZConnected to 127.0.0.2 but greeting failed.\nRemote host said: 250 hm\n\0"),
        (
            (HELLO[0], b"550 who?\r\n", b"550 no\r\n"),
            b"ZConnected to 127.0.0.2 but my name was rejected.\nRemote host said: 550 no\n\0",
        ),
        (
            (HELLO[0], b"451 busy\r\n"),
            b"ZConnected to 127.0.0.2 but my name was rejected.\nRemote host said: 451 busy\n\0",
        ),
        (
            (*HELLO, b"553 not you\r\n"),
            b"DConnected to 127.0.0.2 but sender was rejected.\nRemote host said: 553 not you\n\0",
        ),
        (
            (*HELLO, b"450 not now\r\n"),
            b"ZConnected to 127.0.0.2 but sender was rejected.\nRemote host said: 450 not now\n\0",
        ),
        (
            (*HELLO, OK, b"550 no\r\n"),
            b"h127.0.0.2 does not like recipient.\nRemote host said: 550 no\n\0DGiving up on 127.0.0.2.\n\0",
        ),
        (
            (*HELLO, OK, b"450 full\r\n"),
            b"s127.0.0.2 does not like recipient.\nRemote host said: 450 full\n\0DGiving up on 127.0.0.2.\n\0",
        ),
        (
            (*HELLO, OK, OK, b"554 no data\r\n"),
            b"r\0D127.0.0.2 failed on DATA command.\nRemote host said: 554 no data\n\0",
        ),
        (
            (*HELLO, OK, OK, b"451 later\r\n"),
            b"r\0Z127.0.0.2 failed on DATA command.\nRemote host said: 451 later\n\0",
        ),
        (
            (*HELLO, OK, OK, GO, b"554 spam\r\n"),
            b"r\0D127.0.0.2 failed after I sent the message.\nRemote host said: 554 spam\n\0",
        ),
        (
            (*HELLO, OK, OK, GO, b"451 disk\r\n"),
            b"r\0Z127.0.0.2 failed after I sent the message.\nRemote host said: 451 disk\n\0",
        ),
        (
            (*HELLO, OK, OK, GO, QUEUED),
            b"r\0K127.0.0.2 accepted message.\nRemote host said: 250 queued\n\0",
        ),
        ((*HELLO, OK), b"ZConnected to 127.0.0.2 but connection died. (#4.4.2)\n\0"),
        (
            (*HELLO, OK, OK, GO),
            b"r\0ZConnected to 127.0.0.2 but connection died. Possible duplicate! (#4.4.2)\n\0",
        ),
    ],
)
def test_every_end_has_qmails_words(home: Path, replies: tuple[bytes, ...], report: bytes) -> None:
    assert bring(home, dictated([], *replies)) == report


# row: remote-remote-host-said
def test_a_reply_of_several_lines_is_told_whole_without_returns_and_nul(home: Path) -> None:
    refused = b"550-no\r\n550-\x00 never\r\n550 \xff\r\n"
    assert bring(home, dictated([], *HELLO, OK, refused)) == (
        b"h127.0.0.2 does not like recipient.\nRemote host said: 550-no\n550-? never\n550 \xff\n\0"
        b"DGiving up on 127.0.0.2.\n\0"
    )


# row: remote-remote-host-said
def test_five_thousand_octets_of_a_reply_are_told(home: Path) -> None:
    refused = b"".join(b"550-" + b"x" * 1000 + b"\r\n" for _ in range(6)) + b"550 end\r\n"
    report = bring(home, dictated([], *HELLO, b"250 ok\r\n", refused))
    told = (b"550-" + b"x" * 1000 + b"\n") * 6
    assert report == (
        b"h127.0.0.2 does not like recipient.\nRemote host said: " + told[:5000] + b"\n\0DGiving up on 127.0.0.2.\n\0"
    )


# row: remote-chunks
def test_recipients_have_their_chunks_in_the_order_of_the_arguments_and_the_message_the_last(home: Path) -> None:
    host = dictated([], *HELLO, OK, b"550 gone\r\n", OK, b"451 full\r\n", OK, GO, QUEUED)
    report = bring(home, host, recipients=("a@far.example", "b@far.example", "c@far.example", "d@far.example"))
    assert report == (
        b"h127.0.0.2 does not like recipient.\nRemote host said: 550 gone\n\0"
        b"r\0"
        b"s127.0.0.2 does not like recipient.\nRemote host said: 451 full\n\0"
        b"r\0"
        b"K127.0.0.2 accepted message.\nRemote host said: 250 queued\n\0"
    )


def said_of(
    home: Path, message: bytes, recipient: str = "joe@far.example", sender: str = "me@x.example"
) -> list[bytes]:
    """What a plain host hears of this message."""
    said: list[bytes] = []

    async def brought() -> None:
        async with hosts(dictated(said, *HELLO, OK, OK, GO, QUEUED)) as (port, _names):
            control(home, smtproutes=f":127.0.0.2:{port}\n")
            assert (await run(home, "far.example", sender, recipient, message=message)).startswith(b"r\0K")

    asyncio.run(brought())
    return said


# row: remote-dialogue
def test_the_dialogue_with_a_plain_host(home: Path) -> None:
    assert said_of(home, b"Subject: hello\n\n.dot\nend\n") == [
        b"EHLO helo.example.org\r\n",
        b"MAIL FROM:<me@x.example>\r\n",
        b"RCPT TO:<joe@far.example>\r\n",
        b"DATA\r\n",
        WIRE,
        b"QUIT\r\n",
    ]


# row: remote-dialogue
def test_data_is_not_said_when_nobody_was_taken(home: Path) -> None:
    said: list[bytes] = []
    bring(home, dictated(said, *HELLO, OK, b"550 no\r\n", b"250 bye\r\n"))
    assert said[2:] == [b"RCPT TO:<joe@far.example>\r\n", b"QUIT\r\n"]


# row: remote-dialogue
def test_the_answer_to_quit_is_not_waited_for(home: Path) -> None:
    async def silent_at_the_end(talk: Talk) -> None:
        await dictated([], *HELLO, OK, OK, GO, QUEUED)(talk)
        await asyncio.sleep(600)  # longer than anybody waits for the program

    assert bring(home, silent_at_the_end).startswith(b"r\0K")


# row: remote-ehlo
def test_a_host_that_knows_no_ehlo_hears_helo(home: Path) -> None:
    said: list[bytes] = []
    bring(home, dictated(said, HELLO[0], b"502 unimplemented (#5.5.1)\r\n", HELLO[1], OK, OK, GO, QUEUED))
    assert said[:3] == [b"EHLO helo.example.org\r\n", b"HELO helo.example.org\r\n", b"MAIL FROM:<me@example.org>\r\n"]


# row: remote-dots, remote-line-ends
@pytest.mark.parametrize(
    ("message", "wire"),
    [
        (b"", b".\r\n"),
        (b".\n", b"..\r\n.\r\n"),
        (b"..\n.x\n", b"...\r\n..x\r\n.\r\n"),
        (b"a\r\nb\n", b"a\r\nb\r\n.\r\n"),
        (b"a\rb\n", b"a\r\nb\r\n.\r\n"),
        (b"\xff\x00\n", b"\xff\x00\r\n.\r\n"),
    ],
)
def test_a_body_goes_out_with_its_dots_doubled_and_no_bare_line_ends(home: Path, message: bytes, wire: bytes) -> None:
    assert said_of(home, message)[4] == wire


# row: remote-quoting
@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("a b@x.example", b'"a b"@x.example'),
        ('a"b@x.example', b'"a\\"b"@x.example'),
        ("a@b@x.example", b'"a@b"@x.example'),
        ("joe-ext+=_@x.example", b"joe-ext+=_@x.example"),
        ("", b""),
    ],
)
def test_local_parts_are_quoted_where_they_must(home: Path, address: str, said: bytes) -> None:
    recipient = address or "joe@x.example"
    heard = said_of(home, b"x\n", recipient, address)
    assert heard[1] == b"MAIL FROM:<" + said + b">\r\n"
    assert heard[2] == b"RCPT TO:<" + (said or b"joe@x.example") + b">\r\n"


# row: smtproutes-keys, smtproutes-relay
def test_the_route_is_the_one_of_the_host_then_of_its_suffixes_then_of_all(home: Path) -> None:
    async def reports(port: int) -> list[bytes]:
        control(
            home,
            smtproutes=(
                f"A.example:127.0.0.2:{port}\n.a.example:[127.0.0.3]:{port}\n:127.0.0.4:{port}\n"
                "x.a.example:\nliteral.example:127.0.0.9:1\n"
            ),
        )
        domains = ("a.EXAMPLE", "b.a.example", "c.b.a.example", "other.example", "literal.example")
        return [await run(home, domain, "", "joe@a.example") for domain in domains]

    async def asked() -> list[bytes]:
        scripts = [dictated([], b"554 go away\r\n") for _ in range(3)]
        async with hosts(*scripts) as (port, _names):
            return await reports(port)

    nobody = b"ZSorry, I wasn't able to establish an SMTP connection. (#4.4.1)\n\0"
    told = [
        b"ZConnected to 127.0.0.%d but greeting failed.\nRemote host said: 554 go away\n\0" % at for at in (2, 3, 3, 4)
    ]
    assert asyncio.run(asked()) == [*told, nobody]


# row: smtproutes-keys, smtproutes-relay
def test_an_empty_relay_is_an_exception_to_a_wildcard(home: Path) -> None:
    with nameserver("b.example. MX 10 gone.example.\n") as port:
        control(home, resolvers=f"127.0.0.1:{port}\n", smtproutes=":127.0.0.9:1\na.example:\nb.example:\n")
        assert asyncio.run(run(home, "a.example", "", "joe@a.example")) == (
            b"DSorry, I couldn't find any host named a.example. (#5.1.2)\n\0"
        )


# row: remote-texts
@pytest.mark.parametrize(
    ("domain", "report"),
    [
        ("Gone.EXAMPLE", b"DSorry, I couldn't find any host named Gone.EXAMPLE. (#5.1.2)\n\0"),
        ("go ne\x01.example", b"DSorry, I couldn't find any host named go?ne?.example. (#5.1.2)\n\0"),
        ("empty.example", b"DSorry, I couldn't find a mail exchanger or IP address. (#5.4.4)\n\0"),
        ("a.broken", b"ZSorry, I couldn't find any host by that name. (#4.1.2)\n\0"),
        (
            "ours.example",
            b"DSorry. Although I'm listed as a best-preference MX or A for that host,\n"
            b"it isn't in my control/locals file, so I don't treat it as local. (#5.4.6)\n\0",
        ),
        (
            "[127.0.0.1]",
            b"DSorry. Although I'm listed as a best-preference MX or A for that host,\n"
            b"it isn't in my control/locals file, so I don't treat it as local. (#5.4.6)\n\0",
        ),
    ],
)
def test_what_names_come_to(home: Path, domain: str, report: bytes) -> None:
    records = "empty.example. MX 10 gone.example.\nours.example. MX 10 ours.example.\nours.example. A 127.0.0.1\n"
    with nameserver(records) as port:
        control(home, resolvers=f"127.0.0.1:{port}\n")
        assert asyncio.run(run(home, domain, "", "joe@far.example")) == report


# row: remote-texts
def test_a_host_that_does_not_answer_in_time_is_no_connection(home: Path) -> None:
    control(home, timeoutconnect="1\n")
    with unanswering() as port:
        control(home, smtproutes=f":127.0.0.2:{port}\n")
        assert asyncio.run(run(home, "far.example", "", "joe@far.example")) == (
            b"ZSorry, I wasn't able to establish an SMTP connection. (#4.4.1)\n\0"
        )


# row: remote-connection-died
def test_a_host_that_says_nothing_more_in_time_died(home: Path) -> None:
    control(home, timeoutremote="1\n")

    async def mute(talk: Talk) -> None:
        await dictated([], *HELLO)(talk)
        await asyncio.sleep(30)

    assert bring(home, mute) == b"ZConnected to 127.0.0.2 but connection died. (#4.4.2)\n\0"
