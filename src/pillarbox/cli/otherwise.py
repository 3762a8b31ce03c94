"""What would behave otherwise with our programs in the place of a qmail's own: run lines, rules, routes, control files.

The rule that must stay true: no line shows a password, nor a word that may be one.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from pillarbox.cli import relays, runlines
from pillarbox.cli.launchers import Programs
from pillarbox.cli.output import printable
from pillarbox.cli.runlines import RunLine
from pillarbox.control import table
from pillarbox.tcprules import UNDERSTOOD, Rules, Unreadable

# What qmail-smtpd and the programs behind it read of the environment that a rule can set.
_READ = {*UNDERSTOOD, b"QMAILQUEUE", b"TCPLOCALHOST", b"TCPREMOTEHOST", b"TCPREMOTEINFO", b"TCPREMOTEIP"}
_WITHOUT_QUEUE = ("qmail-smtpd", "qmail-remote", "qmail-popup", "qmail-pop3d")
_RULES = re.compile(r"-[1XUpPhHrRoOdDqQv]*x(.*)", re.ASCII | re.DOTALL)


def otherwise(home: Path | None, programs: Path, names: Collection[str], root: Path = Path("/")) -> Iterator[str]:
    """A line for each thing. `names` are to be ours in the directory `programs`; `home` is their qmail, if it is one's;
    `root` is where the machine's own files are."""
    commands: list[RunLine] = []
    for file in runlines.files(root, home):
        lines = runlines.read(file)
        commands += lines
        yield from runlines.limits(file, lines, names)
        for line in lines:
            yield from runlines.judge(line, names)
            yield from runlines.elsewhere(line, programs, names)
    if "qmail-smtpd" in names:
        yield from _rules(commands, root)
    if "qmail-queue" in names and home is not None:
        others = ",".join(name for name in _WITHOUT_QUEUE if name in names)
        yield (
            f"{programs}/qmail-queue: is for Pillarbox's own server, which must run; to stay with qmail-send: "
            f"--undo, then --only {others}"
        )
    if "cmd5checkpw" in names and not _has_rights(Programs(programs), "cmd5checkpw"):
        yield (
            f"{programs}/cmd5checkpw: where its user may not read its file it asks `pillarbox run checker`; "
            "--setuid OWNER gives it a set-uid bit instead"
        )
    if home is not None:
        yield from _control(home, names)


def _has_rights(programs: Programs, name: str) -> bool:
    """Ours, with a set-uid bit: a program of somebody else is about to be replaced."""
    facts = programs.facts(name)
    return facts is not None and bool(facts.st_mode & stat.S_ISUID) and programs.is_ours(name)


def _rules(commands: Sequence[RunLine], root: Path) -> Iterator[str]:
    """Tables of tcpserver -x that set what other patches of qmail-smtpd read."""
    for command in commands:
        for file in _tables(command.words) if any(word.endswith("qmail-smtpd") for word in command.words) else ():
            try:
                rules = dict(Rules(root / file.lstrip("/")).items())
            except (Unreadable, OSError):
                continue  # tcpserver says so itself
            unread = {name for rule in rules.values() for name, _value in rule.variables} - _READ
            if unread:
                named = ", ".join(sorted(map(printable, unread)))
                yield f"{command.where}: {file} sets {named}, which no program of Pillarbox reads"


def _tables(words: Sequence[str]) -> Iterator[str]:
    if not any(word.rpartition("/")[2] == "tcpserver" for word in words):
        return
    for at, word in enumerate(words):
        match = _RULES.fullmatch(word)
        if match:
            name = match[1] or (words[at + 1] if at + 1 < len(words) else "")
            if name.startswith("/"):
                yield name


def _control(home: Path, names: Collection[str]) -> Iterator[str]:
    settings, complaints = table.read(home / "control")
    if {"qmail-remote", "qmail-start"} & set(names) and (home / "control" / "smtproutes").exists():
        for finding in relays.findings(home, settings, "qmail"):
            yield finding.text
    for complaint in complaints:
        yield f"{home}/{complaint}"
    unknown = table.unknown(home / "control")
    if unknown:
        yield f"{home}/control: no program of Pillarbox reads {' '.join(unknown)}"
