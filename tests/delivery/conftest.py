"""A home for joe, and deliveries to it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pillarbox.delivery.aliases import Table
from pillarbox.delivery.job import Errand, Job
from pillarbox.delivery.local import Deliveries, Step
from pillarbox.mailbox import maildir
from pillarbox.outcome import Outcome
from pillarbox.status import Failure
from pillarbox.users.owner import Owner, Owners

UID = 4321
MESSAGE = b"Received: from there\nSubject: hello\n\nFirst line.\nSecond line.\n"
LINES = b"Return-Path: <ann@example.net>\nDelivered-To: joe@example.org\n"


class OneUser(Owners):
    """A resolver that knows joe, whose home is a test's."""

    def __init__(self, home: Path, uid: int = UID, user: bytes = b"joe") -> None:
        self.home = os.fsencode(home)
        self.uid = uid
        self.user = user
        self.alias = b"alias"

    def for_delivery(self, local: bytes) -> Owner:
        name, dash, extension = local.partition(b"-")
        if name != b"joe":
            raise Failure("cannot read users/cdb: Input/output error")
        return Owner(self.user, self.uid, self.uid, self.home, dash, extension)


class Joe:
    """His home, with a Maildir in it."""

    def __init__(self, home: Path) -> None:
        home.mkdir(mode=0o755)
        self.home = home
        self.make("Maildir")

    def make(self, name: str) -> Path:
        """A further Maildir."""
        maildir.make(bytes(self.home / name))
        return self.home / name

    def instruct(self, name: str, text: bytes) -> Path:
        """Write a dot-qmail file."""
        file = self.home / name
        file.write_bytes(text)
        file.chmod(0o644)
        return file

    def deliver(self, *jobs: Job, uid: int = UID, ours: int = UID, default: bytes = b"./Maildir/\n") -> list[Outcome]:
        """Deliver, where that ends with outcomes."""
        steps = Deliveries(OneUser(self.home, uid), default, b"mx.example.org", ours).deliver(jobs)
        outcomes = [step for step in steps if isinstance(step, Outcome)]
        assert len(outcomes) == len(steps)
        return outcomes

    def step(self, one: Job, *, aliases: Table | None = None, user: bytes = b"joe") -> Step:
        """What one job comes to."""
        owners = OneUser(self.home, UID, user)
        return Deliveries(owners, b"./Maildir/\n", b"mx.example.org", UID, aliases).deliver([one])[0]

    def errand(self, one: Job) -> Errand:
        """A job that takes a process of its own."""
        step = self.step(one)
        assert isinstance(step, Errand)
        return step

    def messages(self, name: str = "Maildir") -> list[bytes]:
        """What is in new/, by file name."""
        return [file.read_bytes() for file in sorted((self.home / name / "new").iterdir())]

    def everything(self) -> list[str]:
        """Every message and every leftover in any Maildir of the home."""
        return sorted(str(file.relative_to(self.home)) for file in self.home.glob("*/*/*"))


@pytest.fixture
def joe(tmp_path: Path) -> Joe:
    return Joe(tmp_path / "joe")


def job(
    number: int = 1,
    *,
    local: bytes = b"joe",
    recipient: bytes = b"",
    sender: bytes = b"ann@example.net",
    content: bytes | int = MESSAGE,
    again: bool = False,
) -> Job:
    size = os.fstat(content).st_size if isinstance(content, int) else len(content)
    shown = recipient or local + b"@example.org"
    return Job(12, b"0123abcd", number, 1_700_000_000, again, sender, local, b"example.org", shown, content, size)
