from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from pillarbox.envelope import Envelope
from pillarbox.queue import inquiry
from pillarbox.queue.engine import Draft, Engine, Mark, QueueFull, State
from pillarbox.queue.inquiry import Json
from pillarbox.queue.sqlite import SqliteEngine

NOW = 1_800_000_000


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[SqliteEngine]:
    tmp_path.chmod(0o700)
    opened = SqliteEngine.open(tmp_path, lambda: 0.0)
    yield opened
    opened.close()


def put(engine: Engine, sender: bytes, *recipients: bytes) -> int:
    draft = Draft(os.urandom(16), Envelope(sender, recipients), NOW - 100, 7, 8, 5, b"body\n")
    return engine.commit([draft], []).accepted[0]


def ask(engine: Engine, verb: str, **request: object) -> list[Json]:
    """The answers without the last, which is a plain end. As they come out of JSON."""
    answers = [json.loads(json.dumps(one)) for one in inquiry.answer(engine, {"verb": verb, **request}, NOW)]
    assert answers[-1] == {"end": True}
    return answers[:-1]


def error(engine: Engine, request: dict[str, object]) -> str:
    (answer,) = inquiry.answer(engine, request, NOW)
    return str(answer["error"])


def states(engine: Engine, message: int) -> Sequence[State] | None:
    entry = engine.show(message)
    return None if entry is None else [recipient.state for recipient in entry[1]]


def test_a_list_says_of_each_message_where_it_stands(engine: SqliteEngine) -> None:
    number = put(engine, b"ann@example.org", b"joe@example.net", b"sue@example.com", b"bob@example.com", b"x@x")
    marks = [Mark.held(number, 0, b"no"), Mark.later(number, 1, NOW + 60, b"x" * 900), Mark.done(number, 2)]
    marks.append(Mark.failed(number, 3, b"never"))
    engine.commit([], marks)
    assert ask(engine, "list") == [
        {
            "id": number,
            "born": NOW - 100,
            "size": 5,
            "sender": "ann@example.org",
            "recipients": 4,
            "waiting": 1,
            "held": 1,
            "failed": 1,
            "to": "joe@example.net",
            "due": NOW + 60,
            "reason": "no",
        }
    ]


def test_a_long_reason_is_cut_in_a_list_and_whole_when_shown(engine: SqliteEngine) -> None:
    number = put(engine, b"", b"joe@example.net")
    engine.commit([], [Mark.held(number, 0, b"x" * 900)])
    assert ask(engine, "list")[0]["reason"] == "x" * 500
    shown = ask(engine, "show", ids=[number])
    assert shown[1]["reason"] == "x" * 900
    assert shown[1]["due"] is None


def test_a_message_is_shown_with_every_recipient(engine: SqliteEngine) -> None:
    number = put(engine, b"ann@example.org", b"joe@example.net", b"sue@example.com")
    head, joe, sue = ask(engine, "show", ids=[number])
    assert (head["uid"], head["pid"], head["incarnation"]) == (7, 8, engine.incarnation.decode())
    assert [joe["recipient"], sue["recipient"]] == ["joe@example.net", "sue@example.com"]
    assert (joe["state"], joe["attempts"], joe["due"]) == ("waiting", 0, NOW - 100)


def test_what_is_not_there_is_said(engine: SqliteEngine) -> None:
    number = put(engine, b"", b"joe@example.net")
    for verb in ("show", "retry", "remove"):
        assert ask(engine, verb, ids=[999, number])[0] == {"id": 999, "absent": True}


@pytest.mark.parametrize(
    ("chosen", "meant"),
    [
        ({"to": "example.net"}, {0, 1}),
        ({"to": "@EXAMPLE.net"}, {0, 1}),
        ({"to": "joe@example.NET"}, {0}),
        ({"to": "ample.net"}, set()),
        ({"from": "ann@example.org"}, {0, 2}),
        ({"from": "example.org"}, {0, 2}),
        ({"from": ""}, {1}),
        ({"from": "ann@example.org", "to": "example.com"}, {2}),
    ],
)
def test_messages_are_chosen_by_address_or_domain_in_any_case(
    engine: SqliteEngine, chosen: dict[str, str], meant: set[int]
) -> None:
    numbers = [
        put(engine, b"ann@example.org", b"Joe@Example.net"),
        put(engine, b"", b"sue@example.net"),
        put(engine, b"ann@example.org", b"bob@example.com"),
    ]
    assert {answer["id"] for answer in ask(engine, "list", **chosen)} == {numbers[at] for at in meant}


def test_a_recipient_who_has_it_already_is_not_what_to_means(engine: SqliteEngine) -> None:
    number = put(engine, b"", b"joe@example.net", b"sue@example.com")
    engine.commit([], [Mark.done(number, 0)])
    assert ask(engine, "list", to="example.net") == []


def test_retry_makes_even_the_held_due_now(engine: SqliteEngine) -> None:
    number = put(engine, b"", b"joe@example.net")
    engine.commit([], [Mark.held(number, 0, b"no")])
    assert ask(engine, "retry", ids=[number]) == [{"id": number, "done": "retry"}]
    ((_message, (recipient,)),) = engine.claim()
    assert recipient.due == NOW


def test_remove_ends_whole_messages(engine: SqliteEngine) -> None:
    number, other = put(engine, b"", b"joe@example.net"), put(engine, b"", b"joe@example.net")
    assert ask(engine, "remove", ids=[number]) == [{"id": number, "done": "remove"}]
    assert engine.show(number) is None
    assert engine.show(other) is not None


def test_bounce_gives_up_what_waits_and_what_is_held_and_says_why(engine: SqliteEngine) -> None:
    number = put(engine, b"ann@example.org", b"joe@example.net", b"sue@example.com", b"bob@example.com", b"eve@x")
    engine.commit([], [Mark.held(number, 0, b"held"), Mark.done(number, 2), Mark.failed(number, 3, b"failed\n")])
    assert ask(engine, "bounce", ids=[999, number]) == [
        {"id": 999, "absent": True},
        {"id": number, "done": "bounce", "recipients": 2},
    ]
    assert states(engine, number) == [State.FAILED, State.FAILED, State.DONE, State.FAILED]
    assert [message.id for message in engine.failed()] == [number]
    reasons = [recipient.reason for recipient in engine.failures(number)]
    assert reasons == [b"held\n" + inquiry.GIVEN_UP, inquiry.GIVEN_UP, b"failed\n"]
    assert ask(engine, "bounce", ids=[number]) == []


def test_bounce_to_a_domain_goes_on_trying_the_others(engine: SqliteEngine) -> None:
    number = put(engine, b"ann@example.org", b"joe@example.net", b"sue@example.com")
    assert ask(engine, "bounce", to="example.net") == [{"id": number, "done": "bounce", "recipients": 1}]
    assert states(engine, number) == [State.FAILED, State.WAITING]


def test_remove_to_a_domain_leaves_the_other_recipients_alone(engine: SqliteEngine) -> None:
    number = put(engine, b"", b"joe@example.net", b"sue@example.com")
    only = put(engine, b"", b"joe@example.net")
    assert ask(engine, "remove", to="example.net") == [
        {"id": number, "done": "remove", "recipients": 1},
        {"id": only, "done": "remove", "recipients": 1},
    ]
    assert states(engine, number) == [State.DONE, State.WAITING]
    assert states(engine, only) is None


def test_one_request_looks_at_a_hundred_messages_and_says_where_to_go_on(engine: SqliteEngine) -> None:
    numbers = [put(engine, b"", b"joe@example.net") for _ in range(205)]
    seen: list[object] = []
    after: object = 0
    requests = 0
    while after is not None:
        *answers, end = inquiry.answer(engine, {"verb": "list", "after": after}, NOW)
        assert len(answers) <= inquiry.PAGE
        seen += [answer["id"] for answer in answers]
        after = end.get("after")
        requests += 1
    assert seen == numbers
    assert requests == 3


def test_a_page_in_which_nothing_matches_does_not_end_the_search(engine: SqliteEngine) -> None:
    for _ in range(inquiry.PAGE):
        put(engine, b"", b"joe@example.net")
    wanted = put(engine, b"", b"joe@example.com")
    (end,) = inquiry.answer(engine, {"verb": "list", "to": "example.com"}, NOW)
    assert end["after"] == wanted - 1
    assert [a["id"] for a in ask(engine, "list", to="example.com", after=end["after"])] == [wanted]


@pytest.mark.parametrize("verb", ["show", "retry", "remove", "bounce"])
def test_no_choice_is_never_everything(engine: SqliteEngine, verb: str) -> None:
    number = put(engine, b"", b"joe@example.net")
    assert error(engine, {"verb": verb}) == f"{verb}: say which messages"
    assert states(engine, number) == [State.WAITING]


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"verb": "format"},
        {"verb": 1},
        {"verb": ["list"]},
        {"verb": "list", "after": -1},
        {"verb": "list", "after": "1"},
        {"verb": "list", "after": True},
        {"verb": "list", "after": 1 << 63},
        {"verb": "show", "ids": "1"},
        {"verb": "show", "ids": ["1"]},
        {"verb": "show", "ids": [1.0]},
        {"verb": "show", "ids": [-1]},
        {"verb": "show", "ids": list(range(101))},
        {"verb": "show", "to": "example.org"},
        {"verb": "remove", "to": 1},
        {"verb": "remove", "to": "\ud800"},
        {"verb": "remove", "from": {}},
    ],
)
def test_nonsense_is_answered_with_one_line_and_changes_nothing(
    engine: SqliteEngine, request_: dict[str, object]
) -> None:
    number = put(engine, b"", b"joe@example.net")
    line = error(engine, request_)
    assert line.isprintable()
    assert states(engine, number) == [State.WAITING]


def test_bytes_that_are_no_text_come_through_and_back(engine: SqliteEngine) -> None:
    put(engine, b"\xff\xc3\xa4@example.org", b"joe@example.net")
    (answer,) = ask(engine, "list")
    assert inquiry.octets(str(answer["sender"])) == b"\xff\xc3\xa4@example.org"
    assert len(ask(engine, "list", **{"from": answer["sender"]})) == 1


def test_a_full_disk_is_an_answer_and_not_the_end_of_the_queue(
    engine: SqliteEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = put(engine, b"", b"joe@example.net")

    def full(*_: object) -> None:
        raise QueueFull("no room")

    monkeypatch.setattr(SqliteEngine, "remove", full)
    assert error(engine, {"verb": "remove", "ids": [number]}) == "no room"
