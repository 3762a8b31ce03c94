from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pillarbox.cli.create import create
from pillarbox.cli.home import Lock
from pillarbox.cli.layout import settings_of, users_of
from pillarbox.cli.main import status
from pillarbox.cli.queue import _acting_as as acting_as
from pillarbox.envelope import Envelope
from pillarbox.queue.engine import Draft, Mark
from pillarbox.queue.sqlite import SqliteEngine

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def made(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    create(home, "mx.example.org")
    monkeypatch.setenv("PILLARBOX_HOME", str(home))
    return home


def fill(home: Path, count: int = 1) -> list[int]:
    """Put messages into the queue of a home whose server is down: the first recipient is held, the second waits."""
    with acting_as(users_of(settings_of(home))["queue"]):
        engine = SqliteEngine.open(home / "queue", time.monotonic)
        envelope = Envelope(b"ann\x1b[2J@example.org", (b"joe@example.net", b"sue@example.com"))
        drafts = [Draft(os.urandom(16), envelope, 1_800_000_000, 7, 8, 5, b"body\n") for _ in range(count)]
        numbers = engine.commit(drafts, []).accepted
        engine.commit([], [Mark.held(number, 0, b"no\nmailbox") for number in numbers])
        engine.close()
    return numbers


def test_an_empty_queue_is_an_empty_list(made: Path, capsys: Captured) -> None:
    assert status(["queue", "list"]) == 0
    assert capsys.readouterr() == ("", "")


def test_with_the_server_down_the_queue_is_listed_and_shown(made: Path, capsys: Captured) -> None:
    (number,) = fill(made)
    assert status(["queue", "list"]) == 0
    moment = "2027-01-15 08:00:00Z"
    assert capsys.readouterr().out.rstrip("\n").split("\t") == [
        str(number), moment, "5", r"<ann\x1b[2J@example.org>", "joe@example.net and 1 more", "1 waiting 1 held", moment,
        "no mailbox",
    ]  # fmt: skip
    assert status(["queue", "show", str(number)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        rf"message {number} from <ann\x1b[2J@example.org>, queued {moment}, 5 octets, uid 7, pid 8",
        "joe@example.net\theld\t1\t\tno mailbox",
        f"sue@example.com\twaiting\t0\t{moment}\t",
    ]


def test_a_long_queue_is_listed_whole(made: Path, capsys: Captured) -> None:
    numbers = fill(made, 230)
    assert status(["queue", "list"]) == 0
    assert [int(line.split("\t")[0]) for line in capsys.readouterr().out.splitlines()] == numbers


def test_messages_are_retried_and_removed(made: Path, capsys: Captured) -> None:
    first, second, third = fill(made, 3)
    assert status(["queue", "retry", str(first)]) == 0
    assert status(["queue", "remove", "--to", "example.net", str(first), str(second)]) == 0
    assert status(["queue", "remove", str(third)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"message {first}: is tried now",
        f"message {first}: recipients removed: 1",
        f"message {second}: recipients removed: 1",
        f"message {third}: removed",
    ]
    assert status(["queue", "remove", "--from", "<>"]) == 0
    assert status(["queue", "list"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


@pytest.mark.parametrize("verb", ["show", "retry", "remove"])
def test_a_message_that_is_not_there_is_said_and_is_100(made: Path, verb: str, capsys: Captured) -> None:
    assert status(["queue", verb, "999"]) == 100
    assert capsys.readouterr().err == "pillarbox: there is no message 999 in the queue\n"


def test_without_a_choice_nothing_is_removed(made: Path, capsys: Captured) -> None:
    fill(made)
    assert status(["queue", "remove"]) == 100
    assert capsys.readouterr().err == "pillarbox: queue: remove: say which messages\n"
    assert status(["queue", "list"]) == 0
    assert capsys.readouterr().out != ""


@pytest.mark.skipif(os.getuid() != 0, reason="needs root")
def test_what_root_does_leaves_a_queue_that_the_server_can_open(made: Path) -> None:
    """A log or journal that belongs to root would keep the queue role out."""
    status(["queue", "list"])
    files = list((made / "queue").rglob("*"))
    assert {file.stat().st_uid for file in files} == {users_of(settings_of(made))["queue"].uid}
    assert os.geteuid() == 0


def test_a_server_that_is_only_starting_is_not_disturbed(made: Path, capsys: Captured) -> None:
    with Lock(made):
        assert status(["queue", "list"]) == 111
    assert "in use by process" in capsys.readouterr().err


@contextmanager
def serving(home: Path, answers: list[bytes], listen: bool = True) -> Iterator[list[dict[str, object]]]:
    """Stands for the queue role's socket: gives these answers, one a connection, and keeps the requests. The first
    connection only looks whether somebody is there."""
    asked: list[dict[str, object]] = []
    public = socket.socket(socket.AF_UNIX)
    here = os.getcwd()
    os.chdir(home / "run")
    public.bind("queue")
    os.chdir(here)
    public.listen()
    public.settimeout(10)  # a command that never comes fails the test and does not hang it

    def role() -> None:
        public.accept()[0].close()
        for answer in answers:
            connection = public.accept()[0]
            with connection, connection.makefile("rb") as lines:
                asked.append(json.loads(lines.readline()))
                connection.sendall(answer)

    thread = threading.Thread(target=role)
    if listen:
        thread.start()
    else:
        public.close()
    try:
        yield asked
    finally:
        if listen:
            thread.join()
        public.close()


def lines(*answers: dict[str, object]) -> bytes:
    return b"".join(json.dumps(answer).encode() + b"\n" for answer in answers)


def test_a_running_server_is_asked_page_by_page(made: Path, capsys: Captured) -> None:
    first = lines({"id": 5, "done": "remove"}, {"end": True, "after": 100})
    last = lines({"id": 101, "done": "remove"}, {"end": True})
    with Lock(made), serving(made, [first, last]) as asked:
        assert status(["queue", "remove", "--to", "example.net"]) == 0
    assert asked == [
        {"verb": "remove", "to": "example.net", "after": 0},
        {"verb": "remove", "to": "example.net", "after": 100},
    ]
    assert capsys.readouterr().out == "message 5: removed\nmessage 101: removed\n"


def test_many_numbers_go_in_several_requests(made: Path) -> None:
    with serving(made, [lines({"end": True})] * 2) as asked:
        assert status(["queue", "retry", *map(str, range(150))]) == 0
    assert [request["ids"] for request in asked] == [list(range(100)), list(range(100, 150))]


@pytest.mark.parametrize(
    ("answer", "line", "expected"),
    [
        (lines({"error": "no\x1broom"}), r"queue: no\x1broom", 100),
        (lines({"id": 5, "done": "remove"}), "the server ended before its answer was complete; try again", 111),
        (b"", "the server ended before its answer was complete; try again", 111),
        (b'{"id": 5, "do', "the server's answer is not complete; try again", 111),
        (b"[]\n", "the server's answer is not complete; try again", 111),
    ],
)
def test_an_answer_that_is_none_is_one_line(
    made: Path, answer: bytes, line: str, expected: int, capsys: Captured
) -> None:
    with serving(made, [answer]):
        assert status(["queue", "remove", "5"]) == expected
    assert capsys.readouterr().err == f"pillarbox: {line}\n"


def test_a_socket_that_a_killed_server_left_is_no_server(made: Path, capsys: Captured) -> None:
    with serving(made, [], listen=False):
        assert (made / "run" / "queue").is_socket()
        assert status(["queue", "list"]) == 0
    assert capsys.readouterr() == ("", "")


def test_a_home_with_a_very_long_path_can_be_asked(home: Path, capsys: Captured) -> None:
    """A Unix socket's address ends at 108 bytes."""
    long = home / ("x" * 100) / ("y" * 100)
    create(long, "mx.example.org")
    with serving(long, [lines({"end": True})]) as asked:
        assert status(["queue", "list", "--home", str(long)]) == 0
    assert len(asked) == 1


def test_qmails_own_programs_show_the_queue(made: Path, capsys: Captured) -> None:
    first, second = fill(made, 2)
    assert status(["run", "qmail-qread"]) == 0
    shown = "15 Jan 2027 08:00:00 GMT  #{}  5  <ann\\x1b[2J@example.org> \n"
    shown += "\tremote\tjoe@example.net\n\tremote\tsue@example.com\n"
    assert capsys.readouterr().out == shown.format(first) + shown.format(second)
    with acting_as(users_of(settings_of(made))["queue"]):
        engine = SqliteEngine.open(made / "queue", time.monotonic)
        engine.commit([], [Mark.done(first, 1)])
        engine.close()
    (made / "control" / "locals").write_text("example.net\n")
    assert status(["run", "sendmail", "-bp"]) == 0
    listed = capsys.readouterr().out
    assert (
        f"#{first}  5  <ann\\x1b[2J@example.org> \n\tlocal\tjoe@example.net\n  done\tremote\tsue@example.com\n"
        in listed
    )
    assert status(["run", "qmail-qstat"]) == 0
    assert capsys.readouterr().out == "messages in queue: 2\nmessages in queue but not yet preprocessed: 0\n"
