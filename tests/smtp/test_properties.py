"""How octets are cut into pieces changes nothing: not the events, not the replies, not what is queued."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from pillarbox.admission import QmailAdmission
from pillarbox.sessions.effects import Effect, WriteBlock
from pillarbox.sessions.reception import Qmail
from pillarbox.smtp.events import Content, Event
from pillarbox.smtp.offer import Limits
from pillarbox.smtp.reply import Dialect
from tests.smtp.connection import Connection, World, facts
from tests.smtp.connection import settings as control

LINES = [
    b"EHLO client.example",
    b"HELO c",
    b"MAIL FROM:<a@b.example>",
    b"MAIL FROM:<joe@example.org> SIZE=30 BODY=8BITMIME",
    "MAIL FROM:<jörg@b.example> SMTPUTF8".encode(),
    b"MAIL FROM:<a@b.example> SIZE=99999",
    b"RCPT TO:<joe@example.org>",
    b"RCPT TO:<postmaster>",
    b"RCPT TO:<nobody@example.org>",
    b"RCPT TO:<x@far.example>",
    b"DATA",
    b"DATA x",
    b".",
    b"..",
    b"Subject: x",
    b"Received: x",
    b"",
    b"BDAT 0",
    b"BDAT 5",
    b"BDAT 12 LAST",
    b"BDAT 7 LAST",
    b"BDAT",
    b"RSET",
    b"NOOP",
    b"VRFY joe",
    b"STARTTLS",
    b"AUTH PLAIN",
    b"AUTH PLAIN AGpvZQBzZWNyZXQ=",
    b"AUTH PLAIN AGpvZQB4",
    b"AUTH LOGIN",
    b"am9l",
    b"c2VjcmV0",
    b"*",
    b"QUIT",
    b"XYZZY",
    b"GET / HTTP/1.1",
    b"NOOP " + b"x" * 57,
    b"NOOP " + b"x" * 58,
    b"AUTH PLAIN " + b"A" * 115,
    b"AUTH PLAIN " + b"A" * 116,
    b"x" * 126,
    b"x" * 127,
    b"x" * 300,
]
LIMITS = Limits(command_line=64, auth_line=128, bad_commands=5)
# Mostly whole sessions, or nothing beyond the order of commands would ever be reached.
GOOD_STARTS = st.sampled_from(
    [
        b"",
        b"EHLO c\r\n",
        b"EHLO c\r\nAUTH PLAIN AGpvZQBzZWNyZXQ=\r\n",
        b"EHLO c\r\nAUTH PLAIN AGpvZQBzZWNyZXQ=\r\nMAIL FROM:<joe@example.org>\r\nRCPT TO:<joe@example.org>\r\n",
        b"EHLO c\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<joe@example.org>\r\n",
        b"EHLO c\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<joe@example.org>\r\nDATA\r\n",
    ]
)
# A bare LF and a session that ends early are rare among the fragments, so that most sessions go far.
FRAGMENTS = st.one_of(
    st.sampled_from(LINES).map(lambda line: line + b"\r\n"),
    st.sampled_from([b"\r\n", b"\r", b".\r\n", b"\r\n.\r\n", b"a", b".", b"\r\n..", b"bcd\r\n"]),
    st.sampled_from([*LINES, b"\n", b"\n.\r\n"]),
)
SESSIONS = st.tuples(GOOD_STARTS, st.lists(FRAGMENTS, max_size=14)).map(lambda parts: parts[0] + b"".join(parts[1]))
CUTS = st.lists(st.integers(0, 100_000), max_size=10)

Outcome = tuple[bytes, list[Event], list[Effect], list[object], bool]


def outcome(service: str, pieces: list[bytes], dialect: Dialect = Dialect.MODERN) -> Outcome:
    """All that can be seen of a session, its content joined."""
    exchange = facts(service, policy=control(databytes=60, maxrecipients=2), cleartext=service == "submission")
    connection = Connection(exchange, World(), dialect=dialect, limits=LIMITS)
    heard = connection.hear()
    for piece in pieces:
        heard += connection.send(piece)
        if connection.machine.wants_tls:
            break  # what lies behind STARTTLS is forgotten; the handshake is not this test's
        assert connection.machine.buffered < LIMITS.auth_line
    events = merged(connection.events)
    if connection.machine.closing:
        connection.hang_up()
        if events and isinstance(events[-1], Content):
            events.pop()  # of a message that was cut off by a bare LF nothing counts, however much was seen
    effects: list[Effect] = [effect for effect in connection.world.done if not isinstance(effect, WriteBlock)]
    return heard, events, effects, list(connection.world.queued), connection.machine.closing


def merged(events: list[Event]) -> list[Event]:
    together: list[Event] = []
    for event in events:
        if isinstance(event, Content) and together and isinstance(together[-1], Content):
            event = Content(together.pop().block + event.block)  # type: ignore[union-attr]  # a Content, as tested
        together.append(event)
    return together


def cut(octets: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(octets), *(at % (len(octets) + 1) for at in cuts)})
    return [octets[start:end] for start, end in pairwise(edges)]


@settings(max_examples=300, deadline=None)
@given(SESSIONS, CUTS, st.sampled_from(["smtp", "submission", "submissions"]))
def test_pieces_of_any_size_give_the_same_session(octets: bytes, cuts: list[int], service: str) -> None:
    whole = outcome(service, [octets])
    assert outcome(service, cut(octets, cuts)) == whole


@settings(max_examples=150, deadline=None)
@given(SESSIONS, st.sampled_from(["smtp", "submission"]), st.sampled_from(Dialect))
def test_one_octet_at_a_time_gives_the_same_session(octets: bytes, service: str, dialect: Dialect) -> None:
    whole = outcome(service, [octets], dialect)
    assert outcome(service, [octets[at : at + 1] for at in range(len(octets))], dialect) == whole


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300), st.sampled_from(["smtp", "submission"]))
def test_any_octets_give_replies_and_nothing_else(octets: bytes, service: str) -> None:
    heard, *_ = outcome(service, [b"EHLO c\r\n" + octets])
    for line in heard.split(b"\r\n")[:-1]:
        assert line[:3].isdigit() and line[3:4] in (b" ", b"-")
        assert line.isascii() and line.decode().isprintable()


QMAIL = Qmail(b"mx.example.org", b"client.example", None, b"mx.example.org")
QMAIL_FACTS = replace(
    facts(), admission=QmailAdmission(frozenset((b"@bad.ex",)), frozenset((b"example.org",)), databytes=60),
    mechanisms=(b"LOGIN", b"CRAM-MD5", b"PLAIN"), cleartext=True, failures=2, relayclient=None, qmail=QMAIL,
)  # fmt: skip
QMAIL_FRAGMENTS = st.one_of(
    st.sampled_from(
        [
            b"AUTH LOGIN\r\n", b"AUTH PLAIN AGpvZQBzZWNyZXQ=\r\n", b"AUTH CRAM-MD5\r\n", b"am9l\r\n", b"*\r\n",
            b"MAIL FROM:<a@bad.ex>\r\n", b"MAIL\r\n", b"RCPT TO:<joe@example.org\r\n", b"RCPT x\\>:\"\r\n", b"DATA\r\n",
            b".\r\n", b"\r\n", b"HELO\r\n", b"NOOP\0\r\n", b"RCPT TO:<x@[192.0.2.1]>\r\n",
        ]
    ),
    st.binary(max_size=20),
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(QMAIL_FRAGMENTS, max_size=12).map(b"".join), CUTS)
def test_any_octets_give_a_session_of_qmail_smtpd_whole_lines_however_they_are_cut(
    octets: bytes, cuts: list[int]
) -> None:
    heard = qmail_session([octets])
    assert qmail_session(cut(octets, cuts)) == heard
    for line in heard.split(b"\r\n")[:-1]:
        assert line[:3].isdigit() and line[3:4] in (b" ", b"-")
        assert line.isascii() and line.decode().isprintable()


def qmail_session(pieces: list[bytes]) -> bytes:
    connection = Connection(QMAIL_FACTS, World(), dialect=Dialect.QMAIL)
    heard = connection.hear() + b"".join(connection.send(piece) for piece in pieces)
    return re.sub(rb"334 PHRva2Vu[A-Za-z0-9+/=]*", b"334 challenge", heard)
