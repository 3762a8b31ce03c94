"""rblsmtpd's rules: what the lists are asked, and what comes of their answers."""

from __future__ import annotations

import pytest

from pillarbox.blocklists import Answer, Kind, Question, Source, announced, judge, parse, reversed_name
from pillarbox.control.reading import Fault
from pillarbox.status import Refusal, Status

BLOCKED = Source(Kind.BLOCKS, b"bl.test")
BOUNCED = Source(Kind.BLOCKS, b"bounce.test", bounce=True)
CLOSED = Source(Kind.BLOCKS, b"closed.test", closed=True)
FRIENDS = Source(Kind.ALLOWS, b"wl.test")
CLOSED_FRIENDS = Source(Kind.ALLOWS, b"wl.test", closed=True)

TEMPORARY = Refusal(Status(4, 7, 1), "listed")
PERMANENT = Refusal(Status(5, 7, 1), "listed")
NO_ANSWER = Refusal(Status(4, 7, 1), "temporary RBL lookup error")


def judged(sources: tuple[Source, ...], *answers: Answer, address: str = "192.0.2.1") -> tuple[Refusal | None, int]:
    """What comes of these answers, and how many questions were asked."""
    judging = judge(sources, address)
    asked = 0
    try:
        next(judging)
        for answer in answers:
            asked += 1
            judging.send(answer)
    except StopIteration as decision:
        return decision.value, asked
    raise AssertionError("more is asked")


def test_the_lists_are_asked_for_the_reversed_address() -> None:
    judging = judge((FRIENDS, BLOCKED), "192.0.2.1")
    assert next(judging) == Question(Kind.ALLOWS, b"1.2.0.192.wl.test")
    assert judging.send(b"") == Question(Kind.BLOCKS, b"1.2.0.192.bl.test")


def test_an_ipv6_address_is_reversed_by_digits() -> None:
    """RFC 5782 section 2.4."""
    digits = b"1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2."
    assert reversed_name("2001:db8::1") == digits
    assert reversed_name("2001:db8::1%eth0") == digits


def test_who_has_no_address_is_on_no_list() -> None:
    assert judged((CLOSED,), address="unknown") == (None, 0)


# row: rbl-listed, rbl-trouble
@pytest.mark.parametrize(
    ("sources", "answers", "decision"),
    [
        ((), (), None),
        ((BLOCKED,), (b"",), None),
        ((BLOCKED,), (b"listed",), TEMPORARY),
        ((BOUNCED,), (b"listed",), PERMANENT),
        ((BLOCKED, BOUNCED), (b"", b"listed"), PERMANENT),
        ((BLOCKED, BOUNCED), (b"listed",), TEMPORARY),
        ((FRIENDS, BLOCKED), (b"127.0.0.2",), None),
        ((FRIENDS, BLOCKED), (b"", b"listed"), TEMPORARY),
        ((BLOCKED, FRIENDS), (b"listed",), TEMPORARY),
        # trouble of DNS lets in ...
        ((BLOCKED,), (None,), None),
        ((FRIENDS, BLOCKED), (None,), None),
        # ... but the other lists are asked on, and then nothing is for good
        ((BLOCKED, BLOCKED), (None, b"listed"), TEMPORARY),
        ((BLOCKED, BOUNCED), (None, b"listed"), TEMPORARY),
        ((BOUNCED, FRIENDS, BOUNCED), (None, b"", b"listed"), TEMPORARY),
        # behind -c
        ((CLOSED,), (None,), NO_ANSWER),
        ((CLOSED_FRIENDS, BLOCKED), (None, b""), None),
        ((CLOSED_FRIENDS, BOUNCED), (None, b"listed"), TEMPORARY),
    ],
)
def test_the_first_list_that_decides_does(
    sources: tuple[Source, ...], answers: tuple[Answer, ...], decision: Refusal | None
) -> None:
    assert judged(sources, *answers) == (decision, len(answers))


def test_a_text_is_cut_and_made_printable() -> None:
    said, _ = judged((BLOCKED,), b"see\r\n250 ok\xff " + b"x" * 300)
    assert said == Refusal(Status(4, 7, 1), "see??250 ok? " + "x" * 187)


# row: rbl-variable
@pytest.mark.parametrize(
    ("variable", "refusal"),
    [
        (b"", None),
        (b"-", Refusal(Status(5, 7, 1), "")),
        (b"-go away", Refusal(Status(5, 7, 1), "go away")),
        (b"not now", Refusal(Status(4, 7, 1), "not now")),
        (b"-a\nb\0" + b"c" * 300, Refusal(Status(5, 7, 1), "a?b?" + "c" * 196)),
    ],
)
def test_the_variable_decides_for_itself(variable: bytes, refusal: Refusal | None) -> None:
    assert announced(variable) == refusal


@pytest.mark.parametrize(
    ("text", "sources"),
    [
        (b"", ()),
        (b"# none\n", ()),
        (b"bl.test\n", (BLOCKED,)),
        (b"-r bl.test\n-a wl.test", (BLOCKED, FRIENDS)),
        (b"-rbl.test -awl.test\n", (BLOCKED, FRIENDS)),
        (b"-b\n-r bounce.test\n-B\n-r bl.test.\n", (BOUNCED, BLOCKED)),
        (b"-cr closed.test -Ca wl.test", (CLOSED, FRIENDS)),
        (b"-b -c bl.test", (Source(Kind.BLOCKS, b"bl.test", bounce=True, closed=True),)),
    ],
)
def test_the_file_holds_rblsmtpd_s_options(text: bytes, sources: tuple[Source, ...]) -> None:
    assert parse(text).value == sources
    assert parse(text).fault is None


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (b"bl.test\n-t 60\n", Fault(2, "unknown option '-t'")),
        (b"-\n", Fault(1, "unknown option '-'")),
        (b"-r\nbl.test\n", Fault(1, "no DNS list: ''")),
        (b"-a b@d", Fault(1, "no DNS list: 'b@d'")),
        (b"-\xff", Fault(1, r"unknown option '-\xff'")),
    ],
)
def test_nonsense_is_named(text: bytes, fault: Fault) -> None:
    assert parse(text).value is None
    assert parse(text).fault == fault
