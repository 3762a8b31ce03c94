"""What `pillarbox queue` may ask and do, carried out on any engine: requests and answers are plain JSON values.

A request is an object: `verb` (list, show, retry, remove, bounce), and which messages it is about: `ids` (list of
integers), or `to` (a recipient or his domain) and `from` (a sender, "" for the null one, or his domain); without `ids`
the queue is looked through. The rule that must stay true: one request looks at no more than a hundred messages, because
the queue role does nothing else meanwhile. The last answer says where to go on:

    {"verb": "list", "after": 0}  ->  {"id": 457, ...} ... {"end": true, "after": 512}    and without `after`: all seen
    anything wrong                ->  {"error": "one line"}

Addresses and reasons are bytes outside and text here: UTF-8, with other bytes as lone surrogates (PEP 383).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeGuard

from pillarbox.address import split
from pillarbox.queue.bounce import last_words
from pillarbox.queue.engine import Engine, Entry, Mark, Message, QueueFull, Recipient, State
from pillarbox.status import Failure, Status

PAGE = 100
REASON_SHOWN = 500  # octets of a reason in a list; `show` has it whole

GIVEN_UP = b"The postmaster of this host has given this message up. (#5.0.0)\n"

Json = dict[str, object]


class BadRequest(Failure):
    """The request is not one of ours, or names no messages where it must."""

    status = Status(5, 5, 4)


@dataclass(frozen=True, slots=True)
class Request:
    """A request that was checked. `ids` is None to look through the queue behind id `after`."""

    verb: str
    ids: tuple[int, ...] | None
    to: bytes | None
    sender: bytes | None
    after: int

    @property
    def chooses(self) -> bool:
        """Whether it says which messages it means."""
        return self.ids is not None or self.to is not None or self.sender is not None


def answer(engine: Engine, request: Mapping[str, object], now: int) -> Iterator[Json]:
    """Carry out one request at `now` (seconds since 1970). The last value is {"end": true...} or {"error": ...}; raises
    QueueBroken only, with the engine's own meaning."""
    try:
        asked = parse(request)
        entries = list(_entries(engine, asked))
        chosen = [entry for entry in entries if _matches(entry, asked)]
        yield from _VERBS[asked.verb](engine, asked, chosen, now)
    except (BadRequest, QueueFull) as failure:
        yield {"error": failure.text}
        return
    more = asked.ids is None and len(entries) == PAGE
    yield {"end": True, "after": entries[-1][0].id} if more else {"end": True}


def parse(request: Mapping[str, object]) -> Request:
    """Raises BadRequest."""
    verb, after = request.get("verb"), request.get("after", 0)
    if not isinstance(verb, str) or verb not in _VERBS:
        raise BadRequest(f"unknown verb; there are {', '.join(_VERBS)}")
    if not _is_number(after):
        raise BadRequest("after: not a message number")
    to, sender = (_octets(request.get(name), name) for name in ("to", "from"))
    asked = Request(verb, _numbers(request.get("ids")), to, sender, after)
    if verb != "list" and not asked.chooses:
        raise BadRequest(f"{verb}: say which messages")
    if verb == "show" and asked.ids is None:
        raise BadRequest("show: say the message's number")
    return asked


def text(octets: bytes) -> str:
    """Bytes as JSON can carry them; `octets` of the result gives them back."""
    return octets.decode("utf-8", "surrogateescape")


def octets(text: str) -> bytes:
    """The bytes that `text` was made from."""
    return text.encode("utf-8", "surrogateescape")


def _is_number(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63


def _numbers(value: object) -> tuple[int, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or len(value) > PAGE or not all(map(_is_number, value)):
        raise BadRequest(f"ids: not a list of at most {PAGE} message numbers")
    return tuple(value)


def _octets(value: object, name: str) -> bytes | None:
    if value is None:
        return None
    try:
        if isinstance(value, str):
            return octets(value)
    except UnicodeEncodeError:
        pass  # a surrogate that no byte has
    raise BadRequest(f"{name}: not an address")


def _entries(engine: Engine, asked: Request) -> Iterable[Entry]:
    if asked.ids is None:
        return engine.listing(asked.after, PAGE)
    shown = map(engine.show, dict.fromkeys(asked.ids))
    return [entry for entry in shown if entry is not None]


def _matches(entry: Entry, asked: Request) -> bool:
    message, recipients = entry
    if asked.sender is not None and not _is(message.sender, asked.sender):
        return False
    return asked.to is None or any(_is_meant(recipient, asked.to) for recipient in recipients)


def _is_meant(recipient: Recipient, to: bytes) -> bool:
    return recipient.state is not State.DONE and _is(recipient.address, to)


def _is(address: bytes, wanted: bytes) -> bool:
    """Whether `wanted` is this address, or its domain (with or without @), in any case."""
    address, wanted = address.lower(), wanted.lower()
    if address == wanted:
        return True
    domain = split(address)[1]
    return domain != b"" and domain == wanted.removeprefix(b"@")


def _list(engine: Engine, asked: Request, chosen: list[Entry], now: int) -> Iterator[Json]:
    for message, recipients in chosen:
        open_ones = [recipient for recipient in recipients if recipient.state is not State.DONE]
        waiting = [recipient.due for recipient in open_ones if recipient.state is State.WAITING]
        failed = sum(recipient.state is State.FAILED for recipient in open_ones)
        reason = next((recipient.reason for recipient in open_ones if recipient.reason), b"")
        yield _head(message) | {
            "recipients": len(recipients),
            "waiting": len(waiting),
            "held": len(open_ones) - len(waiting) - failed,
            "failed": failed,
            "to": text(open_ones[0].address) if open_ones else "",
            "due": min(waiting, default=None),
            "reason": text(reason[:REASON_SHOWN]),
        }


def _show(engine: Engine, asked: Request, chosen: list[Entry], now: int) -> Iterator[Json]:
    yield from _absent(asked, chosen)
    for message, recipients in chosen:
        yield _head(message) | {"uid": message.uid, "pid": message.pid, "incarnation": text(message.incarnation)}
        yield from (_tail(message, recipient) for recipient in recipients)


def _retry(engine: Engine, asked: Request, chosen: list[Entry], now: int) -> Iterator[Json]:
    yield from _absent(asked, chosen)
    if chosen:
        yield from _done("retry", engine.retry([message.id for message, _ in chosen], now))


def _remove(engine: Engine, asked: Request, chosen: list[Entry], now: int) -> Iterator[Json]:
    """With `to` only those recipients go: the message stays for the others."""
    yield from _absent(asked, chosen)
    if not chosen:
        return
    if asked.to is None:
        yield from _done("remove", engine.remove([message.id for message, _ in chosen]))
        return
    marks: list[Mark] = []
    answers: list[Json] = []
    for message, recipients in chosen:
        gone = [recipient for recipient in recipients if _is_meant(recipient, asked.to)]
        marks.extend(Mark.done(message.id, recipient.number) for recipient in gone)
        answers.append({"id": message.id, "done": "remove", "recipients": len(gone)})
    engine.commit([], marks)
    yield from answers


def _bounce(engine: Engine, asked: Request, chosen: list[Entry], now: int) -> Iterator[Json]:
    """Give up what waits or is held, as if it had waited too long: the senders are told. With `to` only those
    recipients."""
    yield from _absent(asked, chosen)
    marks: list[Mark] = []
    answers: list[Json] = []
    for message, recipients in chosen:
        to_try = [recipient for recipient in recipients if recipient.state in (State.WAITING, State.HELD)]
        given_up = [one for one in to_try if asked.to is None or _is(one.address, asked.to)]
        marks += [Mark.failed(message.id, one.number, last_words(one.reason, GIVEN_UP)) for one in given_up]
        if given_up:
            answers.append({"id": message.id, "done": "bounce", "recipients": len(given_up)})
    engine.commit([], marks)
    yield from answers


def _done(verb: str, ids: Iterable[int]) -> Iterator[Json]:
    for id in ids:
        yield {"id": id, "done": verb}


def _absent(asked: Request, chosen: list[Entry]) -> Iterator[Json]:
    there = {message.id for message, _ in chosen}
    for id in asked.ids or ():
        if id not in there:
            yield {"id": id, "absent": True}


def _head(message: Message) -> Json:
    return {"id": message.id, "born": message.born, "size": message.size, "sender": text(message.sender)}


def _tail(message: Message, recipient: Recipient) -> Json:
    return {
        "id": message.id,
        "recipient": text(recipient.address),
        "state": recipient.state.name.lower(),
        "attempts": recipient.attempts,
        "due": recipient.due if recipient.state is State.WAITING else None,
        "reason": text(recipient.reason),
    }


_VERBS: Mapping[str, Callable[[Engine, Request, list[Entry], int], Iterator[Json]]] = {
    "list": _list,
    "show": _show,
    "retry": _retry,
    "remove": _remove,
    "bounce": _bounce,
}
