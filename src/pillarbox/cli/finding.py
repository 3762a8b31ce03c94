"""What `pillarbox check` looks at, and one line of what it says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pillarbox.control.table import Settings
from pillarbox.users.roles import User


@dataclass(frozen=True, slots=True)
class Premises:
    """What the checks look at: the home, whom each role runs as, who reads users/passwords, and the settings."""

    home: Path
    users: Mapping[str, User]
    passwords_reader: User
    settings: Settings


@dataclass(frozen=True, slots=True)
class Finding:
    """`word` is ok, problem or note; `text` says of what, and for a problem what to do."""

    word: str
    text: str

    @property
    def is_problem(self) -> bool:
        """Whether the exit status is 1 for it."""
        return self.word == "problem"

    def __str__(self) -> str:
        return f"{self.word}: {self.text}"


def ok(what: str, fact: str = "") -> Finding:
    """As it should be."""
    return Finding("ok", f"{what}: {fact}" if fact else what)


def note(what: str, fact: str) -> Finding:
    """Worth knowing, nothing to mend."""
    return Finding("note", f"{what}: {fact}")


def problem(what: str, wrong: str, remedy: str) -> Finding:
    """What is wrong, and the remedy."""
    return Finding("problem", f"{what}: {wrong}: {remedy}")
