"""`pillarbox queue`: asks the queue role of a running server over HOME/run/queue, or opens the queue itself.

Either way the same requests get the same answers (pillarbox.queue.inquiry): one JSON line each.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from pillarbox.cli.home import Lock, require
from pillarbox.cli.layout import settings_of, users_of
from pillarbox.cli.output import complain, printable, table
from pillarbox.queue import inquiry
from pillarbox.queue.inquiry import Json
from pillarbox.status import Failure, Status
from pillarbox.users.roles import User

SOCKET = "queue"
TIMEOUT = 60.0  # seconds for one request
LONGEST_LINE = 1 << 20  # octets of one answer
_HEADINGS = ("number", "queued", "octets", "from", "to", "state", "next try", "reason")
_RECIPIENT_HEADINGS = ("recipient", "state", "tries", "next try", "reason")

Ask = Callable[[Mapping[str, object]], Iterator[Json]]


class NotAsked(Failure):
    """The queue's answer is an error, or no answer of ours."""

    status = Status(5, 5, 4)


class CutOff(Failure):
    """The server ended in the middle of an answer."""

    status = Status(4, 3, 0)


def queue(home: Path, verb: str, ids: tuple[int, ...], to: str | None, sender: str | None) -> int:
    """Carry out one of inquiry's verbs and show what it says; the exit status. Raises Failure."""
    require(home)
    request: dict[str, object] = {"verb": verb}
    if to is not None:
        request["to"] = to
    if sender is not None:
        request["from"] = "" if sender == "<>" else sender
    with _Asking(home) as asking:
        return _SHOW[verb](_all(asking, request, ids))


def messages(home: Path) -> Iterator[tuple[Json, list[Json]]]:
    """Every message with all its recipients, as inquiry's `show` has them. Raises Failure."""
    require(home)
    with _Asking(home) as ask:
        for head in _all(ask, {"verb": "list"}, ()):
            found = list(_all(ask, {"verb": "show"}, (int(str(head["id"])),)))
            if "absent" not in found[0]:  # it has ended meanwhile
                yield found[0], found[1:]


def _all(ask: Ask, request: Mapping[str, object], ids: tuple[int, ...]) -> Iterator[Json]:
    """All answers, asked for page by page."""
    if ids:
        for first in range(0, len(ids), inquiry.PAGE):
            yield from _one(ask, {**request, "ids": list(ids[first : first + inquiry.PAGE])}, [])
        return
    after: list[object] = [0]
    while after:
        yield from _one(ask, {**request, "after": after.pop()}, after)


def _one(ask: Ask, request: Mapping[str, object], after: list[object]) -> Iterator[Json]:
    """The answers to one request; `after` gets the number to go on behind, if there is more."""
    for answer in ask(request):
        if "error" in answer:
            raise NotAsked(f"queue: {answer['error']}")
        if "end" in answer:
            after.extend([answer["after"]] if "after" in answer else [])
            return
        yield answer
    raise CutOff("the server ended before its answer was complete; try again")


class _Asking:
    """A way to the queue, as `with` and then as a function: the server's socket, else our own engine under the lock."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._lock: Lock | None = None
        self._ask: Ask | None = None
        self._close: Callable[[], None] = lambda: None

    def __enter__(self) -> Ask:
        probe = _connect(self._home / "run")
        if probe is not None:
            probe.close()
            return self._over_socket
        self._lock = Lock(self._home)
        self._lock.take()
        return self._open()

    def __exit__(self, *_: object) -> None:
        self._close()
        if self._lock is not None:
            self._lock.release()

    def _over_socket(self, request: Mapping[str, object]) -> Iterator[Json]:
        connection = _connect(self._home / "run")
        if connection is None:
            raise CutOff("the server ended; try again")
        with connection, connection.makefile("rb") as answers:
            connection.sendall(json.dumps(request).encode() + b"\n")
            while line := answers.readline(LONGEST_LINE):
                yield _read(line)

    def _open(self) -> Ask:
        from pillarbox.queue.sqlite import SqliteEngine

        user = users_of(settings_of(self._home))["queue"]
        with _acting_as(user):
            engine = SqliteEngine.open(self._home / "queue", time.monotonic)

        def ask(request: Mapping[str, object]) -> Iterator[Json]:
            with _acting_as(user):
                answers = list(inquiry.answer(engine, request, int(time.time())))
            return iter(answers)

        def close() -> None:
            with _acting_as(user):
                engine.close()

        self._close = close
        return ask


def _connect(run: Path) -> socket.socket | None:
    """To run/queue; None when nobody listens there. By way of a descriptor: a socket's path ends at 108 bytes."""
    try:
        directory = os.open(run, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(TIMEOUT)
    try:
        connection.connect(f"/proc/self/fd/{directory}/{SOCKET}")
    except (FileNotFoundError, ConnectionRefusedError):
        connection.close()
        return None
    except BaseException:
        connection.close()
        raise
    finally:
        os.close(directory)
    return connection


@contextmanager
def _acting_as(user: User) -> Iterator[None]:
    """As root, act as this user for the moment: what root would write into the queue the server could not open. Only
    for the moment, because that user may not be able to read where our modules are."""
    if os.getuid() != 0:
        yield
        return
    os.setegid(user.gid)
    os.seteuid(user.uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


def _read(line: bytes) -> Json:
    try:
        answer = json.loads(line)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise CutOff("the server's answer is not complete; try again")
    return answer


def _show_list(answers: Iterator[Json]) -> int:
    table(_HEADINGS, map(_row, answers))
    return 0


def _row(answer: Json) -> list[str]:
    counts = {word: int(str(answer[word])) for word in ("waiting", "held", "failed")}
    left = sum(counts.values())
    counts["done"] = int(str(answer["recipients"])) - left
    to = str(answer["to"]) + (f" and {left - 1} more" if left > 1 else "")
    return [
        str(answer["id"]),
        _moment(answer["born"]),
        str(answer["size"]),
        f"<{answer['sender']}>",
        to,
        " ".join(f"{number} {word}" for word, number in counts.items() if number),
        _moment(answer["due"]),
        _line(answer["reason"]),
    ]


def _show_message(answers: Iterator[Json]) -> int:
    status, rows = 0, []
    for answer in answers:
        if "absent" in answer:
            status = _absent(answer)
        elif "recipient" in answer:
            tries, due = str(answer["attempts"]), _moment(answer["due"])
            rows.append([str(answer["recipient"]), str(answer["state"]), tries, due, _line(answer["reason"])])
        else:
            _flush(rows)
            facts = (
                f"queued {_moment(answer['born'])}, {answer['size']} octets, uid {answer['uid']}, pid {answer['pid']}"
            )
            print(printable(f"message {answer['id']} from <{answer['sender']}>, {facts}"))
    _flush(rows)
    return status


def _flush(rows: list[list[str]]) -> None:
    if rows:
        table(_RECIPIENT_HEADINGS, rows)
        rows.clear()


def _show_done(answers: Iterator[Json]) -> int:
    status = 0
    for answer in answers:
        if "absent" in answer:
            status = _absent(answer)
        else:
            print(f"message {answer['id']}: {_deed(answer)}")
    return status


def _deed(answer: Json) -> str:
    if answer["done"] == "retry":
        return "is tried now"
    if answer["done"] == "bounce":
        return f"recipients given up: {answer['recipients']}"
    return "removed" if "recipients" not in answer else f"recipients removed: {answer['recipients']}"


def _absent(answer: Json) -> int:
    complain(f"there is no message {answer['id']} in the queue")
    return 100


def _line(reason: object) -> str:
    """A report of several lines on one."""
    return " ".join(str(reason).split())


def _moment(seconds: object) -> str:
    """UTC, as qmail's dates are; empty for none."""
    return datetime.fromtimestamp(int(str(seconds)), UTC).strftime("%Y-%m-%d %H:%M:%SZ") if seconds is not None else ""


_SHOW = {"list": _show_list, "show": _show_message, "retry": _show_done, "remove": _show_done, "bounce": _show_done}
