"""Log lines: safe, whole, and in two formats."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest

from pillarbox.roles import log as module
from pillarbox.roles.log import LINE_LIMIT, NEW, Log, safe


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    reading, writing = os.pipe()
    monkeypatch.setattr(module, "STANDARD_ERROR", writing)
    yield reading
    os.close(reading)
    os.close(writing)


def test_bytes_from_the_network_cannot_forge_a_line() -> None:
    assert safe(b"joe\nend msg 1") == "joe/end_msg_1"
    assert safe(bytes(range(256))).isascii()
    assert "\n" not in safe(bytes(range(256))) and "\r" not in safe(b"\r\x1b[2J") and safe(b"%s") == "_s"


def test_facts_of_a_round_leave_together_in_their_order(written: int) -> None:
    log = Log("queue", as_json=False)
    log.fact("new msg 1", "new", msg=1)
    log.fact("end msg 1", "end", msg=1)
    log.flush()
    assert os.read(written, 1000) == b"new msg 1\nend msg 1\n"


def test_as_json_each_line_is_an_object_with_time_role_and_event(written: int) -> None:
    log = Log("queue", as_json=True)
    log.say("new msg 1", "new", msg=1, sender='a"b')
    fact = json.loads(os.read(written, 1000))
    assert fact.pop("time") > 1e9
    assert fact == {"role": "queue", "event": "new", "msg": 1, "sender": 'a"b'}


def test_a_long_fact_is_cut_and_its_line_is_still_an_object(written: int) -> None:
    Log("queue", as_json=True).say("", "long", why='"' * 100_000, more="é" * 5000, msg=7)
    fact = json.loads(os.read(written, 1 << 20))
    assert fact["why"] == '"' * len(fact["why"]) and fact["msg"] == 7


def test_a_line_is_bounded(written: int) -> None:
    Log("queue", as_json=False).say("x" * 100_000, "long")
    assert len(os.read(written, 1 << 20)) == LINE_LIMIT + 1


def test_a_log_that_nobody_reads_does_not_stop_the_role(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    monkeypatch.setattr(module, "STANDARD_ERROR", writing)
    Log("queue", as_json=False).say("gone", "gone")
    os.close(writing)


@pytest.mark.parametrize(("as_json", "line"), [(False, b"new msg 7"), (True, b'"event": "new", "msg": 7, "uid": 5}')])
def test_an_event_is_written_in_the_format_of_the_log(written: int, as_json: bool, line: bytes) -> None:
    log = Log("queue", as_json)
    log.note(NEW, 7, uid=5)
    log.flush()
    assert os.read(written, 1000).endswith(line + b"\n")
