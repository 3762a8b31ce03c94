from __future__ import annotations

import pytest

from pillarbox.attempt import Advice, Attempt
from pillarbox.outcome import Outcome, Verdict
from pillarbox.status import Status

TAKEN = Outcome.done(b"")
DONE = Outcome.done(b"1.2.3.4 accepted message.\n")
LATER = Outcome.later(b"1.2.3.4 does not like recipient.\n", Status(4, 2, 2))
NEVER = Outcome.never(b"1.2.3.4 does not like recipient.\n", Status(5, 1, 1))
GIVING_UP = Outcome.never(b"Giving up on 1.2.3.4.\n")
DIED = Outcome.later(b"Connected to 1.2.3.4 but connection died. (#4.4.2)\n", Status(4, 4, 2))


def test_the_message_is_the_outcome_of_those_who_were_taken_only() -> None:
    attempt = Attempt((TAKEN, LATER, NEVER), DONE)
    assert attempt.outcomes == (DONE, LATER, NEVER)


def test_who_was_refused_alone_is_told_that_the_host_was_given_up() -> None:
    [outcome] = Attempt((LATER,), GIVING_UP).outcomes
    assert (outcome.verdict, outcome.status) == (Verdict.LATER, Status(4, 2, 2))
    assert outcome.report == b"1.2.3.4 does not like recipient.\nGiving up on 1.2.3.4.\n"


def test_trouble_before_anybody_was_asked_is_everybodys() -> None:
    assert Attempt((None, None), DIED).outcomes == (DIED, DIED)


def test_whom_the_host_was_never_told_of_does_not_share_in_the_success_of_others() -> None:
    assert [outcome.verdict for outcome in Attempt((TAKEN, None), DONE).outcomes] == [Verdict.DONE, Verdict.LATER]


@pytest.mark.parametrize("advice", [Advice.NEXT_HOST, Advice.WITHOUT_TLS, Advice.WITHOUT_EHLO])
def test_the_next_attempt_is_for_those_whom_the_host_did_not_refuse(advice: Advice) -> None:
    assert Attempt((TAKEN, LATER, None, NEVER), DIED, advice).unsettled == (0, 2)


def test_when_nothing_is_to_be_tried_everybody_is_settled() -> None:
    assert Attempt((TAKEN, None), DIED).unsettled == ()
