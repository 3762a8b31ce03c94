"""Content goes through the whole server unchanged: every octet, every way of sending, every size."""

from __future__ import annotations

import hashlib
import random
import re

import pytest

from tests.scenarios.wire import deliver, envelope, login, pop3, smtp, submit, token
from tests.server import SECRET, Server, until

EVERY_OCTET = bytes(range(256)).replace(b"\n", b"")  # a bare LF is refused, with CR it is a line's end
JOE = b"joe@example.org"
PASSWORD = SECRET.encode()
LARGE = 30 << 20  # octets


def fetched(server: Server, word: bytes) -> bytes:
    """The message of joe's that has `word` in its header, as POP3 sends it, without dots stuffed."""
    with login(server, JOE, PASSWORD) as wire:
        assert wire.tell(b"UIDL").startswith(b"+OK")
        for number in range(1, len(wire.listing()) + 1):
            wire.tell(b"RETR %d" % number)
            lines = [line[1:] if line.startswith(b".") else line for line in wire.listing()]
            if any(word in line for line in lines[:20]):
                wire.tell(b"QUIT")
                return b"".join(line + b"\r\n" for line in lines)
    raise AssertionError(f"no message with {word!r}")


@pytest.fixture
def empty_house(house: Server) -> Server:
    house.empty()
    return house


def test_every_octet_comes_back(empty_house: Server) -> None:
    word = token()
    head = b"Subject: %s\r\n\r\n" % word
    body = EVERY_OCTET + b"\r\n" + b"".join(b"%c at the start\r\nat the end %c\r\n" % (o, o) for o in EVERY_OCTET)
    stuffed = re.sub(rb"(?m)^\.", b"..", body.replace(b"\r\n", b"\n")).replace(b"\n", b"\r\n")
    deliver(empty_house, head + stuffed)
    stored = empty_house.await_delivered(word).read_bytes()
    assert stored.endswith(head.replace(b"\r\n", b"\n") + body.replace(b"\r\n", b"\n"))
    # Nothing that we send holds a bare CR: each is a line's end, alone or with the LF that is stored behind it.
    expected = re.sub(rb"\r\n|\r|\n", b"\r\n", body.replace(b"\r\n", b"\n"))
    assert fetched(empty_house, word).partition(b"\r\n\r\n")[2] == expected


def test_every_octet_comes_back_through_chunks_cut_anywhere(empty_house: Server) -> None:
    word = token()
    content = b"Subject: %s\r\n\r\n" % word + EVERY_OCTET + b"\r\n.\r\n..\r\n" + EVERY_OCTET[::-1] + b"\r\n"
    chance = random.Random(5321)
    with smtp(empty_house) as wire:
        envelope(wire, b"ann@example.net", JOE, parameters=b"BODY=8BITMIME")
        rest = content
        while rest:
            size = min(len(rest), chance.randrange(1, 40))
            chunk, rest = rest[:size], rest[size:]
            wire.send(b"BDAT %d\r\n%s" % (size, chunk))
            assert wire.reply().startswith(b"250 "), chunk
        assert wire.tell(b"BDAT 0 LAST").startswith(b"250 2.0.0 ok ")
    stored = empty_house.await_delivered(word).read_bytes()
    assert stored.endswith(content.replace(b"\r\n", b"\n"))


def test_a_last_line_without_its_end_gets_one(empty_house: Server) -> None:
    word = token()
    with smtp(empty_house) as wire:
        envelope(wire, b"", JOE)
        content = b"Subject: %s\r\n\r\nno end" % word
        wire.send(b"BDAT %d LAST\r\n%s" % (len(content), content))
        assert wire.reply().startswith(b"250 2.0.0 ok ")
    assert empty_house.await_delivered(word).read_bytes().endswith(b"\n\nno end\n")


def test_an_eight_bit_body_and_utf8_addresses_are_declared_and_kept(empty_house: Server) -> None:
    word = token()
    with smtp(empty_house) as wire:
        envelope(wire, "größe@exämple.net".encode(), JOE, parameters=b"BODY=8BITMIME SMTPUTF8")
        assert submit(wire, "Subject: %s\r\n\r\nÄ\r\n".encode() % word).startswith(b"250 ")
    stored = empty_house.await_delivered(word).read_bytes()
    assert stored.startswith('Return-Path: <"größe"@exämple.net>\n'.encode())
    assert b" with UTF8SMTP" in stored
    assert stored.endswith("Ä\n".encode())


def test_an_address_beyond_ascii_needs_smtputf8(house: Server) -> None:
    with smtp(house) as wire:
        assert wire.tell("MAIL FROM:<größe@example.net>".encode()).startswith((b"550 5.6.7", b"553 5.6.7"))


def test_a_whole_session_in_one_write(empty_house: Server) -> None:
    word = token()
    with smtp(empty_house) as wire:
        wire.send(
            b"MAIL FROM:<a@example.net>\r\nRCPT TO:<joe@example.org>\r\nRCPT TO:<nobody@example.org>\r\nDATA\r\n"
            b"Subject: %s one\r\n\r\nbody\r\n.\r\n"
            b"MAIL FROM:<>\r\nRCPT TO:<joe@example.org>\r\nBDAT 37\r\nSubject: %s"
            % (word, word)
            + b" x\r\n\r\nBDAT 2 LAST\r\n\r\nNOOP\r\nQUIT\r\nMAIL FROM:<x@example.net>\r\n"
        )
        replies = [wire.reply() for _ in range(11)]
        assert [reply[:3] for reply in replies] == [
            b"250", b"250", b"550", b"354", b"250", b"250", b"250", b"250", b"250", b"250", b"221"
        ]  # fmt: skip
        assert wire.closed()
    until(lambda: len(empty_house.holding(word)) == 2, "both messages")


def test_a_pop3_session_in_one_write(empty_house: Server) -> None:
    words = [token(), token()]
    for number, word in enumerate(words, 1):
        deliver(empty_house, b"Subject: %s\r\n\r\n..\r\n" % word)
        until(lambda n=number: len(empty_house.delivered()) == n, "the message")
    with pop3(empty_house) as wire:
        wire.send(
            b"CAPA\r\nUSER %s\r\nPASS %s\r\nSTAT\r\nRETR 1\r\nTOP 2 0\r\nDELE 1\r\nRETR 1\r\nNOOP\r\nQUIT\r\n"
            % (JOE, PASSWORD)
        )
        assert wire.line().startswith(b"+OK")
        wire.listing()
        assert [wire.line()[:3] for _ in range(4)] == [b"+OK"] * 4
        assert b"Subject: " + words[0] in wire.listing()
        assert wire.line().startswith(b"+OK")
        assert b"Subject: " + words[1] in wire.listing()
        assert [wire.line()[:4] for _ in range(4)] == [b"+OK ", b"-ERR", b"+OK ", b"+OK "]
        assert wire.closed()
    assert [words[1] in file.read_bytes() for file in empty_house.delivered()] == [True]


def test_a_large_message_goes_in_and_out(empty_house: Server) -> None:
    word = token()
    chance = random.Random(1870)
    lines = [chance.randbytes(900).translate(None, b"\r\n") for _ in range(64)]
    block = b"".join(b"%s\r\n" % line.lstrip(b".") for line in lines)
    body = block * (LARGE // len(block))
    head = b"Subject: %s\r\n\r\n" % word
    with smtp(empty_house) as wire:
        envelope(wire, b"ann@example.net", JOE, parameters=b"SIZE=%d" % (len(head) + len(body)))
        assert submit(wire, head + body).startswith(b"250 2.0.0 ok ")
    empty_house.await_delivered(word)
    with login(empty_house, JOE, PASSWORD) as wire:
        octets = int(wire.tell(b"LIST 1").split()[2])
        wire.tell(b"RETR 1")
        received = b"\r\n".join(wire.listing()) + b"\r\n"
        assert len(received) - octets <= received.count(b"\n.")  # but for stuffed dots
        start = received.index(b"\r\n\r\n") + 4
        assert hashlib.sha256(received[start:].replace(b"\n..", b"\n.")).digest() == hashlib.sha256(body).digest()
        assert wire.tell(b"DELE 1").startswith(b"+OK")
        assert wire.tell(b"QUIT").startswith(b"+OK")
    assert empty_house.delivered() == []
