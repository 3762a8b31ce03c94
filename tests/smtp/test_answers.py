from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pillarbox.smtp.answers import LONGEST_LINE, MOST_OCTETS, Answer, Answers, Offers
from pillarbox.status import Status


def heard(*pieces: bytes) -> tuple[list[Answer], bool]:
    """The replies in these octets, and whether they were spoilt."""
    answers = Answers()
    found = []
    for piece in pieces:
        answers.add(piece)
        while (answer := answers.next()) is not None:
            found.append(answer)
    return found, answers.spoilt


def test_a_reply_keeps_its_lines_as_they_came() -> None:
    [answer], spoilt = heard(b"250-mx.example.org\r\n250-a\0\xff\r\r\n250\r\n")
    assert answer == Answer(250, (b"250-mx.example.org", b"250-a\0\xff\r", b"250"))
    assert answer.texts == (b"mx.example.org", b"a\0\xff\r", b"")
    assert answer.whole == b"250-mx.example.org\n250-a\0\xff\r\n250"
    assert not spoilt


def test_lines_may_end_with_a_bare_newline() -> None:
    assert heard(b"220 x\n250-y\n250 z\r\n")[0] == [Answer(220, (b"220 x",)), Answer(250, (b"250-y", b"250 z"))]


@pytest.mark.parametrize(
    "octets",
    [
        b"hello\r\n",
        b"\r\n",
        b"99 x\r\n",
        b"+OK\r\n",
        b"220x\r\n",
        b"2200\r\n",
        b"\xb2\xb2\xb2 x\r\n",
        b"190 x\r\n",
        b"600 x\r\n",
        b" 250 x\r\n",
        b"250-taken\r\n550 or not\r\n",
        b"550-refused\r\n250 or not\r\n",
        b"x" * (LONGEST_LINE + 1),
        b"250 " + b"x" * LONGEST_LINE + b"\r\n",
        (b"250-" + b"x" * 4000 + b"\r\n") * (MOST_OCTETS // 4000 + 1),
        b"250-\r\n" * (MOST_OCTETS // 4 + 1),
    ],
    ids=lambda octets: repr(octets[:30]),
)
def test_what_is_no_reply_spoils_it_all(octets: bytes) -> None:
    assert heard(octets) == ([], True)
    assert heard(octets, b"250 ok\r\n") == ([], True)


def test_how_nonsense_begins_is_kept_and_no_more() -> None:
    answers = Answers()
    answers.add(b"220 hello\r\nHTTP/1.1 400 Bad Request" + b"!" * 3000 + b"\r\n250 ok\r\n")
    assert answers.next() == Answer(220, (b"220 hello",))
    assert answers.next() is None
    assert answers.nonsense.startswith(b"HTTP/1.1 400 Bad Request!")
    assert len(answers.nonsense) == 200
    assert answers.empty


@given(st.lists(st.sampled_from([b"250 x\r\n", b"250-x\r\n", b"550 y\n", b"354\r\n", b"no", b"\r", b"\n"]), max_size=8))
def test_pieces_of_one_octet_give_the_same_replies(parts: list[bytes]) -> None:
    octets = b"".join(parts)
    assert heard(octets) == heard(*[octets[at : at + 1] for at in range(len(octets))])


def test_nothing_is_waiting_once_all_was_given_out() -> None:
    answers = Answers()
    assert answers.empty
    answers.add(b"250-x\r\n")
    assert answers.next() is None
    assert not answers.empty
    answers.add(b"250 x\r\n2")
    assert answers.next() is not None
    assert not answers.empty


@pytest.mark.parametrize(
    ("line", "kind", "status"),
    [
        (b"550 5.1.1 no such user", 5, Status(5, 1, 1)),
        (b"550 5.7.509 denied", 5, Status(5, 7, 509)),
        (b"550 5.1.1", 5, Status(5, 1, 1)),
        (b"550 4.1.1 what now", 5, Status(5, 0, 0)),
        (b"550 no", 5, Status(5, 0, 0)),
        (b"550 5.1.1no", 5, Status(5, 0, 0)),
        (b"550 5.1.1234 no", 5, Status(5, 0, 0)),
        (b"451 4.7.1 greylisted", 4, Status(4, 7, 1)),
        (b"450", 4, Status(4, 0, 0)),
    ],
)
def test_a_status_counts_when_it_agrees_with_what_was_decided(line: bytes, kind: int, status: Status) -> None:
    assert Answer(int(line[:3]), (line,)).status(kind) == status


def test_offers_of_a_modern_server() -> None:
    lines = (b"250-mx PIPELINING", b"250-Pipelining", b"250-SIZE 35882577", b"250-8BITMIME", b"250-starttls",
             b"250-AUTH PLAIN login", b"250-AUTH=CRAM-MD5", b"250-", b"250 SMTPUTF8")  # fmt: skip
    assert Offers.of(Answer(250, lines)) == Offers(
        pipelining=True,
        eight_bit=True,
        starttls=True,
        utf8=True,
        size=35882577,
        mechanisms=(b"PLAIN", b"LOGIN", b"CRAM-MD5"),
    )


def test_the_first_line_offers_nothing() -> None:
    assert Offers.of(Answer(250, (b"250 STARTTLS",))) == Offers()


@pytest.mark.parametrize(
    ("line", "size"),
    [(b"SIZE", 0), (b"SIZE 0", 0), (b"SIZE 1000", 1000), (b"SIZE -1", 0), (b"SIZE \xb2", 0), (b"SIZE " + b"9" * 30, 0)],
)
def test_a_limit_that_is_none_limits_nothing(line: bytes, size: int) -> None:
    assert Offers.of(Answer(250, (b"250-mx", b"250 " + line))).size == size


def test_an_empty_list_of_mechanisms_is_a_list() -> None:
    assert Offers.of(Answer(250, (b"250-mx", b"250 AUTH"))).mechanisms == ()
