"""What the queue's tests put in: numbered drafts that can be told apart, and a clock that stands until it is moved."""

from __future__ import annotations

from pillarbox.envelope import Envelope
from pillarbox.queue.engine import Draft, Engine, Mark

BIRTH = 1_700_000_000


class Clock:
    """Seconds from anywhere; `now` is set by the test."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def key(number: int) -> bytes:
    return b"key" + number.to_bytes(13, "big")


def content(number: int) -> bytes:
    return b"Subject: %d\n\n" % number + bytes(range(256)) * (number % 5)


def draft(number: int, recipients: int = 1, born: int = BIRTH) -> Draft:
    """Draft `number`, with its own key, sender, recipients and body, all told by the number."""
    addresses = tuple(b"recipient%d@host%d.example" % (number, n) for n in range(recipients))
    body = content(number)
    envelope = Envelope(b"sender%d@example.org" % number, addresses)
    return Draft(key(number), envelope, born, 1000, 2000 + number, len(body), body)


def spooled(engine: Engine, number: int, recipients: int = 1, born: int = BIRTH) -> Draft:
    """The same with the body in a spool file."""
    plain = draft(number, recipients, born)
    assert plain.body is not None
    file = engine.spool()
    file.write(plain.body[:7])
    file.write(plain.body[7:])
    file.sync()
    return Draft(plain.key, plain.envelope, born, plain.uid, plain.pid, file.size, None, file.name)


def accept(engine: Engine, *drafts: Draft) -> list[int]:
    return engine.commit(drafts, ()).accepted


def settle(engine: Engine, *marks: Mark) -> list[int]:
    return engine.commit((), marks).ended
