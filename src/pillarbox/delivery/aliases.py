"""The alias table: /etc/aliases as sendmail's users know it, and /etc/aliases.cdb, which deliveries read.

The table is fastforward's, so either program may have made it: the key ":joe@" is joe at any host, ":joe@host" and
":@host" are one address and all of a host, all in lower case; data are instructions, each with a NUL behind it:
&ADDRESS to forward to, or the file of an included list. "?list@" names the sender of what goes to a list.

The rule that must stay true: the table forwards, and nothing else. It never runs a program and never writes a file:
those are for alias's own dot-qmail files.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pillarbox.address import split
from pillarbox.compose import rewriting, tokens
from pillarbox.compose.rewriting import Hosts
from pillarbox.compose.tokens import Kind, NotTokens, Token
from pillarbox.envelope import LONGEST
from pillarbox.status import Failure, Status, SystemTrouble
from pillarbox.users import cdb

LARGEST_LIST = 4 << 20  # octets of an included list
MOST_ADDRESSES = 10_000  # that one alias may come to
COMPILED = ".bin"  # behind the name of an included list: fastforward's newinclude makes such files

_NAME = [Token(Kind.ATOM, b"to"), Token(Kind.COLON)]


class CannotExpand(Failure):
    """The table or a list in it cannot be used now; the text says which."""

    status = Status(4, 3, 5)


class BadAliases(Failure):
    """The aliases file breaks its rules. `line` counts from 1."""

    status = Status(5, 3, 5)

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(f"line {line}: {problem}")
        self.line = line


# Reading the table.


def expand(file: Path, local: bytes, domain: bytes = b"") -> tuple[bytes, ...] | None:
    """What `Table(file).expand` says."""
    return Table(file).expand(local, domain)


class Table:
    """The table beside an aliases file (/etc/aliases: /etc/aliases.cdb), whichever that is just now; none is empty."""

    def __init__(self, file: Path) -> None:
        self._file = file.with_name(file.name + ".cdb")
        self._reader = cdb.Reader(self._file)

    def has(self, local: bytes, domain: bytes = b"") -> bool:
        """Whether there is an alias of this name. Raises CannotExpand."""
        return self._find(b":", local, domain) is not None

    def sender(self, local: bytes, domain: bytes = b"") -> bytes | None:
        """The envelope sender of what goes to this alias, where the table names one. Raises CannotExpand."""
        return self._find(b"?", local, domain)

    def expand(self, local: bytes, domain: bytes = b"") -> tuple[bytes, ...] | None:
        """All addresses to forward to, each once; None when there is no such alias. Addresses that are aliases in their
        own right come back as mail of their own, but for those that stand in the table as they are; none at all: they
        lead back to each other. Raises CannotExpand, SystemTrouble."""
        data = self._find(b":", local, domain)
        if data is None:
            return None
        found: dict[bytes, None] = {}
        done: set[bytes] = set()
        loops = False
        todo = _instructions(data)
        while todo:
            one = todo.pop(0)
            if one in done:
                loops = True
                continue
            done.add(one)
            todo.extend(self._follow(one, found))
            if len(done) > MOST_ADDRESSES:
                raise CannotExpand(f"{self._file}: {_shown(local)}: more than {MOST_ADDRESSES} addresses")
        if not found and not loops:
            raise CannotExpand(f"{self._file}: the alias {_shown(local)} names nobody")
        return tuple(found)

    def _follow(self, instruction: bytes, found: dict[bytes, None]) -> list[bytes]:
        """Carry out one instruction: the address goes to `found`, or there is more to do."""
        if instruction.startswith((b"/", b".")):
            return [b"&" + address for address in self._included(instruction)]
        address = instruction[1:]
        if not instruction.startswith(b"&") or not 0 < len(address) <= LONGEST:
            what = f"{self._file}: {_shown(instruction)}"
            raise CannotExpand(f"{what}: only addresses are taken from here; write a dot-qmail file instead")
        own_list = self._get(b"?" + address.lower())
        further = self._get(b":" + address.lower()) if own_list is None and b"@" in address else None
        if further is not None:
            return _instructions(further)
        found[address] = None
        return []

    def _find(self, letter: bytes, local: bytes, domain: bytes) -> bytes | None:
        local, domain = local.lower(), domain.lower()
        keys = (local + b"@" + domain, b"@" + domain) if domain else ()
        for key in (*keys, local + b"@"):
            data = self._get(letter + key)
            if data is not None:
                return data
        return None

    def _get(self, key: bytes) -> bytes | None:
        try:
            table = self._reader.current()
            return None if table is None else table.get(key)
        except OSError as problem:
            raise CannotExpand(f"{self._file}: {problem.strerror or problem}") from None

    def _included(self, name: bytes) -> list[bytes]:
        """The addresses of a list: fastforward's compiled file when there is one, else the text file."""
        compiled = os.fsdecode(name)
        try:
            return [one[1:] for one in _instructions(_world_readable(compiled)) if one.startswith(b"&")]
        except FileNotFoundError:
            pass
        except OSError as problem:
            raise _unreadable(compiled, problem) from None
        plain = compiled.removesuffix(COMPILED)
        try:
            return list(_listed(_world_readable(plain)))
        except OSError as problem:
            raise _unreadable(plain, problem) from None


def _instructions(data: bytes) -> list[bytes]:
    return [one for one in data.split(b"\0") if one]


def _world_readable(file: str) -> bytes:
    """The content of a list. Whoever may write /etc/aliases must not be able to show what only alias may read. Raises
    OSError, CannotExpand."""
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode) or facts.st_mode & 0o444 != 0o444:
            raise CannotExpand(f"{file}: not a file that everybody may read: chmod a+r it")
        octets = os.read(descriptor, LARGEST_LIST + 1)
    finally:
        os.close(descriptor)
    if len(octets) > LARGEST_LIST:
        raise CannotExpand(f"{file}: larger than {LARGEST_LIST} octets")
    return octets


def _unreadable(file: str, problem: OSError) -> Failure:
    if isinstance(problem, FileNotFoundError | PermissionError):
        return CannotExpand(f"{file}: {problem.strerror}")
    return SystemTrouble.of(problem)


def _listed(text: bytes) -> Iterator[bytes]:
    """The addresses of a list's lines; # begins a comment. Raises CannotExpand."""
    for number, line in enumerate(text.split(b"\n"), 1):
        if not line.strip() or line.startswith(b"#"):
            continue
        found: list[bytes] = []
        try:
            rewriting.field(tokens.parse(b"to:" + line), _noting(found, None))
        except NotTokens:
            raise CannotExpand(f"an included list, line {number}: not an address: {_shown(line)}") from None
        yield from found


def _shown(octets: bytes) -> str:
    return repr(octets.strip()[:60])[1:]


# Making it.


class Alias(NamedTuple):
    """One alias: its line, its name as a key (joe@, joe@host, @host; lower case), and its instructions."""

    line: int
    target: bytes
    instructions: tuple[bytes, ...]

    def record(self) -> tuple[bytes, bytes]:
        """Key and data in the table."""
        return b":" + self.target, b"".join(one + b"\0" for one in self.instructions)


@dataclass(frozen=True, slots=True)
class Compiled:
    """All records of a table, and what is odd, one line each."""

    records: tuple[tuple[bytes, bytes], ...]
    warnings: tuple[str, ...]


def compiled(text: bytes, hosts: Hosts) -> Compiled:
    """The table that an aliases file stands for (newaliases(1) of fastforward): `NAME: ADDRESS, ...`, lines that go on
    begin with a blank, # begins a comment. Recipients without a host get those of qmail-header(5); a name without one
    is that name at every host. Raises BadAliases."""
    aliases: dict[bytes, Alias] = {}
    warnings = []
    for number, line in _logical_lines(text):
        alias = _alias(number, line, hosts)
        first = aliases.setdefault(alias.target, alias)
        if first is not alias:
            name = _shown(alias.target.removesuffix(b"@"))
            warnings.append(f"line {number}: {name} is there already, in line {first.line}, which counts")
    records = [alias.record() for alias in aliases.values()]
    for target in aliases:
        local, domain = split(target)
        owner = b"owner-" + local + b"@" + domain
        if local and owner in aliases:
            sender = owner if domain else tokens.address(hosts.rewrite([Token(Kind.QUOTE, b"owner-" + local)]))
            records.append((b"?" + target, sender))
    return Compiled(tuple(records), tuple(warnings))


def write(file: Path, text: bytes, hosts: Hosts) -> tuple[str, ...]:
    """Replace the table beside `file` by the one of `text`; what is odd. Raises BadAliases, OSError; then the old one
    stands."""
    made = compiled(text, hosts)
    cdb.write(file.with_name(file.name + ".cdb"), made.records)
    return made.warnings


def _logical_lines(text: bytes) -> Iterator[tuple[int, bytes]]:
    """Lines with those that continue them, numbered by their first; comments left out."""
    begun, number = b"", 0
    for at, line in enumerate(text.replace(b"\r\n", b"\n").split(b"\n"), 1):
        if begun and (not line or line[:1] in b" \t"):
            begun += b" " + line
            continue
        if begun.strip() and not begun.startswith(b"#"):
            yield number, begun
        begun, number = line, at
    if begun.strip() and not begun.startswith(b"#"):
        yield number, begun


def _alias(number: int, line: bytes, hosts: Hosts) -> Alias:
    try:
        found = tokens.parse(line)
    except NotTokens:
        raise BadAliases(number, f"a quote or parenthesis without its end: {_shown(line)}") from None
    found = [token for token in found if token.kind is not Kind.COMMENT]
    colon = next((at for at, token in enumerate(found) if token.kind is Kind.COLON), None)
    if colon is None or not found[:colon]:
        raise BadAliases(number, f"not NAME: ADDRESS, ...: {_shown(line)}")
    target = tokens.address(found[:colon]).lower()
    instructions: list[bytes] = []
    for recipient in _between_commas(found[colon + 1 :]):
        instructions += _recipient(number, recipient, hosts)
    if not instructions or b"\0" in line:
        raise BadAliases(number, f"names nobody: {_shown(line)}")
    return Alias(number, target if b"@" in target else target + b"@", tuple(instructions))


def _between_commas(found: Sequence[Token]) -> Iterator[list[Token]]:
    piece: list[Token] = []
    for token in [*found, tokens.COMMA]:
        if token != tokens.COMMA:
            piece.append(token)
        elif piece:
            yield piece
            piece = []


def _recipient(number: int, recipient: list[Token], hosts: Hosts) -> list[bytes]:
    text = tokens.address(recipient)
    if recipient[0].kind is Kind.COLON:
        keyword, colon, file = text[1:].partition(b":")
        if keyword.lower() != b"include" or not colon or not file.startswith(b"/"):
            raise BadAliases(number, f"not :include:/FILE: {_shown(text)}")
        return [file + COMPILED.encode()]
    if tokens.AT not in recipient and text.startswith((b"|", b"/")):
        what = "runs no program" if text.startswith(b"|") else "writes to no file"
        raise BadAliases(number, f"the alias table {what}: {_shown(text)}: put that line into alias/.qmail-NAME")
    found: list[bytes] = []
    try:
        rewriting.field([*_NAME, *recipient], _noting(found, hosts))
    except NotTokens:
        raise BadAliases(number, f"not an address: {_shown(text)}") from None
    return [b"&" + address for address in found]


def _noting(found: list[bytes], hosts: Hosts | None) -> Callable[[list[Token]], list[Token]]:
    def note(address: list[Token]) -> list[Token]:
        address = address if hosts is None else hosts.rewrite(address)
        found.append(tokens.address(address))
        return address

    return note
