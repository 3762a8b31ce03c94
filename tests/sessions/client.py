"""The two ends of SMTP without a network: a sender against our own receiver, or against replies from a script."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pillarbox.attempt import Attempt
from pillarbox.envelope import Envelope
from pillarbox.sessions.relaying import Order, sender
from pillarbox.smtp.sender import Sender
from tests.smtp.connection import Connection

HOST = b"192.0.2.1"
ENVELOPE = Envelope(b"a@b.example", (b"joe@example.org", b"nobody@example.org", b"amy@example.org"))


def order(envelope: Envelope = ENVELOPE, **more: object) -> Order:
    return Order(b"client.example", HOST, envelope, **more)  # type: ignore[arg-type]  # fields of every type by name


def brought(order: Order, connection: Connection, content: Iterable[bytes], *, octet_by_octet: bool = False) -> Attempt:
    """Both sides talk until the sender is done; what became of it."""
    machine = sender(order)
    blocks = iter(content)
    hear(machine, connection.hear(), octet_by_octet)
    while not machine.finished:
        if said := machine.data_to_send():
            pieces = [said[at : at + 1] for at in range(len(said))] if octet_by_octet else [said]
            hear(machine, connection.send(*pieces), octet_by_octet)
        elif machine.wants_tls:
            connection.tls()
            machine.secured()
        else:
            assert machine.wants_content, machine.phase
            give(machine, blocks)
    assert machine.attempt is not None
    return machine.attempt


def hear(machine: Sender, heard: bytes, octet_by_octet: bool) -> None:
    for piece in [heard[at : at + 1] for at in range(len(heard))] if octet_by_octet else [heard]:
        machine.receive(piece)


def give(machine: Sender, blocks: Iterator[bytes]) -> None:
    block = next(blocks, None)
    if block is None:
        machine.end_of_content()
    else:
        machine.content(block)


def script(machine: Sender, *replies: bytes, content: Iterable[bytes] = (b"Subject: x\n\nhello\n",)) -> list[bytes]:
    """What the sender says to these replies, each given when it has said all that it had to say; b"" hangs up."""
    said = []
    blocks = iter(content)
    for reply in replies:
        while not machine.finished and (data := _turn(machine, blocks)):
            said.append(data)
        if reply:
            machine.receive(reply)
        else:
            machine.eof()
    if data := machine.data_to_send():
        said.append(data)
    return said


def _turn(machine: Sender, blocks: Iterator[bytes]) -> bytes:
    while not (data := machine.data_to_send()) and machine.wants_content:
        give(machine, blocks)
    return data
