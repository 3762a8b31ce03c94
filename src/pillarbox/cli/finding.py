"""One line of `pillarbox check`."""

from __future__ import annotations

from dataclasses import dataclass


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
