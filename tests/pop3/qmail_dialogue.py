"""tests/dialogues/qmail-pop3/*.txt: conversations with qmail-popup and qmail-pop3d, for the machine alone and for the
programs.

Facts: program (qmail-popup or qmail-pop3d), maildrop (empty; else tests/dialogues/pop3/maildrop). We are
mx.example.org. joe's password is secret, spacy's is " two  spaces ", trailing's "two  spaces ".
"""

from __future__ import annotations

from pathlib import Path

from tests.dialogue import facts, parse

DIALOGUES = Path(__file__).parent.parent / "dialogues"
FILES = sorted((DIALOGUES / "qmail-pop3").glob("*.txt"))


def stated(file: Path) -> dict[str, str]:
    """The facts of a dialogue."""
    said = facts(parse(file))
    assert said.keys() <= {"program", "maildrop"}
    return said
