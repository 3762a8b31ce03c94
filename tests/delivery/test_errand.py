"""Errands over a real home: instructions in their order, what stops them, and what is left of them then."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pillarbox.delivery.errand import Result, Surroundings, carry_out, conclusion
from pillarbox.delivery.job import Errand, Forwarding, Job
from pillarbox.outcome import Outcome, Verdict
from pillarbox.status import Status
from tests.delivery.conftest import LINES, MESSAGE, Joe, job

MOMENT = 1_795_352_635  # 22 Nov 2026 13:03:55 UTC


def no_wait(_seconds: float) -> None:
    raise AssertionError("nothing is locked here")


def carry(joe: Joe, text: bytes, one: Job | None = None) -> tuple[Errand, Result]:
    joe.instruct(".qmail-x", text)
    errand = joe.errand(one or job(local=b"joe-x"))
    return errand, carry_out(errand, Surroundings(b"mx.example.org", {b"PATH": b"/usr/bin:/bin"}, MOMENT, no_wait))


def concluded(joe: Joe, text: bytes, said: bytes = b"") -> Outcome | Forwarding:
    errand, result = carry(joe, text)
    return conclusion(errand, result, said)


def order(joe: Joe) -> Sequence[str]:
    return (joe.home / "order").read_text().split() if (joe.home / "order").exists() else []


def test_an_mbox_gets_the_lines_in_qmails_order(joe: Joe) -> None:
    assert concluded(joe, b"./Mailbox\n") == Outcome.done(b"did 1+0+0\n")
    head = b"From ann@example.net Sun Nov 22 13:03:55 2026\nReturn-Path: <ann@example.net>\n"
    assert (joe.home / "Mailbox").read_bytes() == head + b"Delivered-To: joe-x@example.org\n" + MESSAGE + b"\n"


def test_instructions_are_followed_in_the_order_of_the_file(joe: Joe) -> None:
    first = b"|echo first >> order\n./Mailbox\n|test -s Mailbox && echo second >> order\n"
    text = first + b"./Maildir/\n|ls Maildir/new >> order\n"
    assert concluded(joe, text) == Outcome.done(b"did 2+0+3\n")
    assert order(joe)[:2] == ["first", "second"]
    assert len(order(joe)) == 3
    assert joe.messages() == [LINES.replace(b"joe@", b"joe-x@") + MESSAGE]


def test_what_programs_said_is_the_beginning_of_the_report(joe: Joe) -> None:
    assert concluded(joe, b"|true\n", b"hello\n") == Outcome.done(b"hello\ndid 0+0+1\n")


def test_the_first_failure_stops_what_follows_and_all_forwards(joe: Joe) -> None:
    text = b"bob@example.net\n|echo one >> order\n|exit 100\n|echo two >> order\n./Maildir/\n"
    assert concluded(joe, text, b"no such list\n") == Outcome.never(b"no such list\n", Status(5, 3, 0))
    assert order(joe) == ["one"]
    assert joe.everything() == []


def test_a_temporary_failure_keeps_the_mail(joe: Joe) -> None:
    assert concluded(joe, b"|exit 111\n", b"later\n") == Outcome.later(b"later\n")
    assert concluded(joe, b"|kill -9 $$\n") == Outcome.later(b"Aack, child crashed. (#4.3.0)\n")
    gone = Outcome.later(b"Unable to chdir to maildir. (#4.2.1)\n", Status(4, 2, 1))
    assert concluded(joe, b"|true\n./gone/\n") == gone
    unwritable = Outcome.later(b"Unable to open ./gone/Mailbox: No such file or directory. (#4.3.0)\n")
    assert concluded(joe, b"./gone/Mailbox\n") == unwritable


def test_status_99_is_success_without_the_lines_that_follow(joe: Joe) -> None:
    step = concluded(joe, b"bob@example.net\n|exit 99\nann@example.com\n./Maildir/\n")
    assert isinstance(step, Forwarding)
    assert step.recipients == (b"bob@example.net",)
    assert step.report == b"did 0+1+1\n"
    assert joe.everything() == []
    assert concluded(joe, b"|exit 99\nann@example.com\n") == Outcome.done(b"did 0+0+1\n")


def test_forwards_come_last_all_in_one(joe: Joe) -> None:
    step = concluded(joe, b"bob@example.net\n|echo one >> order\n&ann@example.com\n")
    assert isinstance(step, Forwarding)
    assert step.recipients == (b"bob@example.net", b"ann@example.com")
    assert step.report == b"did 0+2+1\n"
    assert order(joe) == ["one"]


def test_a_program_knows_the_sender_of_forwards(joe: Joe) -> None:
    joe.instruct(".qmail-x-owner", b"ann@example.net\n")
    concluded(joe, b'|echo "$NEWSENDER $EXT $RECIPIENT" > order\n')
    assert order(joe) == ["joe-x-owner@example.org", "x", "joe-x@example.org"]


@pytest.mark.parametrize("instruction", [b"|cat > out\n", b"./out\n"])
def test_a_message_that_cannot_be_read_is_tried_later(joe: Joe, instruction: bytes) -> None:
    joe.instruct(".qmail-x", instruction)
    errand = joe.errand(job(local=b"joe-x"))
    broken = errand._replace(job=errand.job._replace(content=-1))
    result = carry_out(broken, Surroundings(b"mx", {}, MOMENT, no_wait))
    assert conclusion(broken, result, b"") == Outcome.later(b"Unable to read message. (#4.3.0)\n")
    assert not (joe.home / "out").exists() or (joe.home / "out").read_bytes() == b""


@pytest.mark.parametrize("more", [-1, 1])
def test_a_message_of_another_length_than_it_should_have_is_tried_later(joe: Joe, more: int) -> None:
    joe.instruct(".qmail-x", b"./Mailbox\n")
    errand = joe.errand(job(local=b"joe-x"))
    broken = errand._replace(job=errand.job._replace(size=len(MESSAGE) + more))
    result = carry_out(broken, Surroundings(b"mx", {}, MOMENT, no_wait))
    assert conclusion(broken, result, b"") == Outcome.later(b"Unable to read message. (#4.3.0)\n")
    assert (joe.home / "Mailbox").read_bytes() == b""


def test_a_repeated_errand_finds_its_copy_in_the_maildir_and_tells_programs_again(joe: Joe) -> None:
    text = b"|echo run >> order\n./Maildir/\n"
    carry(joe, text)
    _errand, result = carry(joe, text, job(local=b"joe-x", again=True))
    assert result.verdict is Verdict.DONE
    assert order(joe) == ["run", "run"]
    assert len(joe.messages()) == 1
