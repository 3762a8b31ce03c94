"""How qmail's programs are started on this machine, and where one of ours would behave otherwise.

Run lines stand in shell scripts, inetd.conf and systemd units. They are read, never run: what a variable holds is not
known here, and a line that cannot be taken apart is not guessed at.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pillarbox.programs import lookup

PLACES = (
    "service/*/run",
    "etc/service/*/run",
    "etc/sv/*/run",
    "etc/rc.local",
    "etc/rc.d/rc.local",
    "etc/init.d/*",
    "usr/local/etc/rc.d/*",
    "etc/inetd.conf",
    "etc/systemd/system/*.service",
    "lib/systemd/system/*.service",
)
OF_A_QMAIL = ("rc", "supervise/*/run", "service/*/run")
ENOUGH = 64_000_000  # octets of memory in which each of our programs does its work
_LARGEST = 1 << 18  # octets of a file that is looked at
_MOST = 5000  # files

_CONTINUED = re.compile(r"\\\n[ \t]*")
_REDIRECTION = re.compile(r"(?:(?<=\s)|^)\d*(?:>>|>&|>\||>|<&|<>|<)\s*&?[^\s;|&]*")
_EXEC = re.compile(r"^Exec(?:Start|StartPre|StartPost)=[-@:+!]*")
_LIMIT = re.compile(r"^LimitAS=(?:\S*:)?(\d+)([KMGT]?)\s*$")
_TCPSERVERS_USER = re.compile(r"-[1XpPhHrRoOdDqQv]*[uU]")
_OPERATORS = frozenset(";|&()\n")
_USER = re.compile(r"^User=(?!root$|0$)", re.MULTILINE)
_SIZES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
# Who of the words of a run line becomes another user before the program starts.
_CHANGES_USER = frozenset({"setuidgid", "envuidgid", "s6-setuidgid", "setpriv", "su", "sudo", "runuser", "setpidgid"})
_CHECKERS = ("checkpassword", "maildirpop3d", "checkpw", "cmd5checkpw", "vchkpw")


@dataclass(frozen=True, slots=True)
class RunLine:
    """One command: `words` as a shell would split them. `root`: nothing there says that it starts as another user."""

    file: Path
    number: int
    words: tuple[str, ...]
    root: bool = True

    @property
    def where(self) -> str:
        return f"{self.file}:{self.number}"


def files(root: Path, home: Path | None) -> list[Path]:
    """The files in which run lines stand, each once, whatever its names."""
    found: dict[Path, Path] = {}
    for place, patterns in ((root, PLACES), (home, OF_A_QMAIL)):
        for pattern in patterns if place else ():
            for file in sorted(place.glob(pattern)) if place else ():
                found.setdefault(file.resolve(), file)
    return list(found.values())[:_MOST]


def read(file: Path) -> list[RunLine]:
    """The commands of one file; none when it cannot be read."""
    text = ""
    with suppress(OSError):
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as stream:
            text = stream.read(_LARGEST).decode("utf-8", "replace")
    root = not (file.suffix == ".service" and _USER.search(text))
    return [line for number, one in _logical(text) for line in _commands(file, number, one, root)]


def limits(file: Path, lines: Sequence[RunLine], names: Collection[str]) -> Iterator[str]:
    """Limits of memory in which a program of ours cannot even start, in a file that starts one."""
    started = [line for line in lines if any(_name(word) in names for word in line.words)]
    if not started:
        return
    for line in lines:
        for word, octets in _limits(line.words):
            if octets < ENOUGH:
                yield f"{line.where}: {word} is too little for Pillarbox's programs, which want {ENOUGH}: raise it"


def judge(line: RunLine, names: Collection[str]) -> Iterator[str]:
    """Where the program that a line starts, one of `names`, would behave otherwise if it were ours."""
    for at, word in enumerate(line.words):
        name, arguments = _name(word), line.words[at + 1 :]
        if name not in names or any("$" in argument for argument in arguments):
            continue
        if name == "qmail-smtpd":
            yield from _smtpd(line, arguments)
        if name == "qmail-pop3d" and line.root and not _logs_in(line.words[:at]):
            yield f"{line.where}: qmail-pop3d is started as root, and ours is nobody's then: put a login before it"
        if name == "qmail-start":
            yield f"{line.where}: qmail-start starts Pillarbox's own queue and deliveries, and no qmail-send"


def elsewhere(line: RunLine, directory: Path, names: Collection[str]) -> Iterator[str]:
    """Programs of ours which the line takes from another directory than that into which ours are put."""
    for word in line.words:
        if _name(word) in names and word.startswith("/") and Path(word).parent != directory:
            place = Path(word).parent
            into = place.parent if place.name == "bin" else place
            yield (
                f"{line.where}: {word} stays what it is; "
                f"ours comes there with: pillarbox install --into {shlex.quote(str(into))} --only {_name(word)}"
            )


def _smtpd(line: RunLine, arguments: Sequence[str]) -> Iterator[str]:
    """As its own table has it: no argument is no login, three and more are HOST CHECKER PROGRAM."""
    if not arguments:
        return
    if len(arguments) < 3 or "/" in arguments[0]:
        yield (
            f"{line.where}: qmail-smtpd wants HOST CHECKER PROGRAM, as in: qmail-smtpd mail.example.org "
            "/usr/local/sbin/cmd5checkpw /usr/bin/true; without HOST the C program takes any password and is an open "
            "relay, ours lets nobody log in"
        )
    elif lookup.is_true(os.fsencode(arguments[1]), os.defpath.encode()):
        checker = arguments[1]
        yield f"{line.where}: qmail-smtpd has {checker} for a checker: in C any password is good, ours lets nobody in"


def _logs_in(before: Sequence[str]) -> bool:
    """Is there, ahead of qmail-pop3d, somebody who makes another user of it?"""
    names = [_name(word) for word in before]
    if any(name in _CHECKERS or name in _CHANGES_USER for name in names):
        return True
    if "qmail-popup" in names:  # popup HOST CHECKER ... pop3d
        return len(names) - names.index("qmail-popup") > 2
    return any(_TCPSERVERS_USER.match(word) for word in before)


def _limits(words: Sequence[str]) -> Iterator[tuple[str, int]]:
    """softlimit -a -d -m, chpst -d -m, ulimit -v -d, LimitAS=: octets of memory or data."""
    name = _name(words[0]) if words else ""
    match = _LIMIT.match(words[0]) if words else None
    if match:
        yield words[0].strip(), int(match[1][:18]) * _SIZES[match[2]]
    for at, word in enumerate(words):
        name = _name(word) if _name(word) in ("softlimit", "chpst", "ulimit") else name
        letters = {"softlimit": "adm", "chpst": "dm", "ulimit": "vd"}.get(name, "")
        if len(word) < 2 or word[0] != "-" or word[1] not in letters:
            continue
        number = word[2:] or (words[at + 1] if at + 1 < len(words) else "")
        if number.isascii() and number.isdigit():
            yield f"{name} -{word[1]} {number}", int(number[:18]) * (1024 if name == "ulimit" else 1)


def _logical(text: str) -> Iterator[tuple[int, str]]:
    """Lines with those that a backslash joins made one, each with the number of its first."""
    number = 1
    for line in re.split(r"(?<!\\)\n", text):
        yield number, _CONTINUED.sub(" ", line)
        number += line.count("\n") + 1


def _commands(file: Path, number: int, line: str, root: bool) -> Iterator[RunLine]:
    unit = file.suffix == ".service"
    if unit and _LIMIT.match(line):
        yield RunLine(file, number, (line,))
    if unit:
        if not _EXEC.match(line):
            return
        line = _EXEC.sub("", line)
    words = _words(line)
    if file.name == "inetd.conf":
        if len(words) > 6:  # service type protocol wait user program argv[0] arguments
            yield RunLine(file, number, (words[5], *words[7:]), root=words[4].partition(".")[0] == "root")
        return
    command: list[str] = []
    for word in [*words, ";"]:
        if not _OPERATORS.issuperset(word):
            command.append(word)
        elif command:
            yield RunLine(file, number, tuple(command), root)
            command = []


def _words(line: str) -> list[str]:
    lexer = shlex.shlex(_REDIRECTION.sub(" ", line), posix=True, punctuation_chars=";|&()")
    lexer.whitespace_split = True
    lexer.commenters = "#"
    try:
        return list(lexer)
    except ValueError:
        return []  # a quotation that goes on in the next line


def _name(word: str) -> str:
    return word.rpartition("/")[2]
