"""Local delivery over real homes: which Maildir mail for an address reaches, and what stops it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pillarbox.delivery.local import Deliveries, Job
from pillarbox.mailbox import maildir
from pillarbox.outcome import Outcome, Verdict
from pillarbox.status import Failure, Status
from pillarbox.users.owner import Owner, Owners

UID = 4321
MESSAGE = b"Received: from there\nSubject: hello\n\nFirst line.\nSecond line.\n"


class House(Owners):
    """A resolver whose only user is joe, in a home of the test's."""

    def __init__(self, home: Path, uid: int = UID) -> None:
        self.home = os.fsencode(home)
        self.uid = uid

    def for_delivery(self, local: bytes) -> Owner:
        if local == b"trouble":
            raise Failure("Trouble reading users/cdb. (#4.3.0)")
        name, dash, extension = local.partition(b"-")
        assert name == b"joe"
        return Owner(b"joe", self.uid, self.uid, self.home, dash, extension)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "joe"
    home.mkdir(mode=0o755)
    maildir.make(bytes(home / "Maildir"))
    return home


def deliveries(home: Path, *, uid: int = UID, ours: int = UID) -> Deliveries:
    return Deliveries(House(home, uid), b"./Maildir/\n", b"mx.example.org", ours)


def job(**changes: object) -> Job:
    plain = Job(
        message=12,
        incarnation=b"0123abcd",
        number=1,
        born=1_700_000_000,
        again=False,
        sender=b"ann@example.net",
        local=b"joe",
        domain=b"example.org",
        recipient=b"joe@example.org",
        content=MESSAGE,
        size=len(MESSAGE),
    )
    return plain._replace(**changes)


def deliver(home: Path, *jobs: Job) -> list[Outcome]:
    return deliveries(home).deliver(jobs)


def messages(directory: Path) -> list[bytes]:
    return [file.read_bytes() for file in sorted((directory / "new").iterdir())]


def test_a_message_reaches_the_default_maildir_with_its_two_lines_ahead(home: Path) -> None:
    (outcome,) = deliver(home, job())
    assert outcome == Outcome(Verdict.DONE, b"did 1+0+0\n", Status(2, 0, 0))
    assert messages(home / "Maildir") == [b"Return-Path: <ann@example.net>\nDelivered-To: joe@example.org\n" + MESSAGE]
