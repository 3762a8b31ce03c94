"""qmail-inject: make a letter of the message on standard input and queue it, qmail-inject(8).

`sendmail` is the same with other options. Exit statuses: 0 queued (or printed), 100 it cannot be, 111 not now.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from pillarbox.compose import letter
from pillarbox.compose.header import HeaderReader, HeaderTooLong
from pillarbox.compose.letter import BadAddress, BadField, Letter, Occasion, Person, Wishes
from pillarbox.compose.rewriting import Hosts
from pillarbox.envelope import Envelope
from pillarbox.programs import diagnosis, hosts, options, other_queue, whereabouts
from pillarbox.programs.content import BLOCK, Content
from pillarbox.programs.injector import Result, inject
from pillarbox.quoting import quote

NAME = "qmail-inject"
PERMANENT = diagnosis.PERMANENT
TEMPORARY = diagnosis.TEMPORARY
READ_ERROR = "read error"

Environment = Mapping[bytes, bytes]


class Call(NamedTuple):
    """How the program was called. `header`: the header's recipients count, beside `recipients`. `sender` is -f's,
    None without. `crlf`: lines may end with CR LF. `several`: one argument may name several recipients. `needs_one`:
    a message for nobody is an error."""

    program: str
    recipients: Sequence[bytes]
    header: bool
    sender: bytes | None = None
    queue: bool = True
    crlf: bool = False
    several: bool = False
    needs_one: bool = False


class Fatal(Exception):
    """The end: one line on standard error, and the exit status."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


def main(arguments: list[str]) -> int:
    """The exit status."""
    which, queue, sender = "A", True, None
    words: list[bytes] = []
    try:
        for option, argument in options.read(arguments, "aAhHnNf:"):
            if option == "":
                words.append(os.fsencode(argument))
            elif option == "f":
                sender = os.fsencode(argument)
            elif option in "nN":
                queue = option == "N"
            else:
                which = option
    except options.BadOption:
        return diagnosis.usage(NAME, "[ -nNaAhH ] [ -f sender ] [ recip ... ]")
    header = which in "hH" or (which == "A" and not words)
    return run(Call(NAME, [] if which == "h" else words, header, sender, queue), os.environb)


def run(call: Call, environ: Environment) -> int:
    """Carry it out, with these environment variables of qmail-inject(8)."""
    try:
        _run(call, environ)
    except Fatal as fatal:
        print(f"{call.program}: fatal: {fatal}", file=sys.stderr)
        return fatal.status
    return 0


def _run(call: Call, environ: Environment) -> None:
    home = whereabouts.find(dict(os.environ))
    if not whereabouts.is_home(home):
        raise Fatal(f"{home}: not set up; set PILLARBOX_HOME, or ask root for {whereabouts.NAMED}", TEMPORARY)
    try:
        defaults = hosts.read(home, environ)
    except OSError as problem:
        raise Fatal(f"{home}/control: unable to read controls: {problem.strerror}", TEMPORARY) from None
    occasion = Occasion(int(time.time()), os.getpid(), defaults.idhost)
    blocks = _input(call.crlf)
    reader = _header(blocks)
    try:
        named = _named(call, defaults.hosts)
        wishes = _wishes(call, environ, defaults)
        made = letter.compose(reader.fields, person(environ), wishes, defaults.hosts, occasion)
    except BadField as bad:
        raise Fatal(f"unable to parse this line:\n{_shown(bad.field)}", PERMANENT) from None
    except BadAddress as bad:
        raise Fatal(f"unable to parse address: {_shown(bad.address)}", PERMANENT) from None
    recipients = (*named, *(made.recipients if call.header else ()))
    if not recipients and call.needs_one:
        raise Fatal("no recipients: name them, or say -t and write To, Cc or Bcc", PERMANENT)
    body = _whole_lines(reader.body or b"", blocks)
    if call.queue:
        _queue(home, Envelope(made.sender, recipients), made, body, environ)
    else:
        _print(made, body)


def _named(call: Call, completing: Hosts) -> list[bytes]:
    if not call.several:
        return [letter.recipient(address, completing) for address in call.recipients]
    return [address for text in call.recipients for address in letter.recipients(text, completing)]


def _wishes(call: Call, environ: Environment, defaults: hosts.Defaults) -> Wishes:
    letters = environ.get(b"QMAILINJECT", b"")
    return Wishes(
        from_header=call.header,
        sender=None if call.sender is None else letter.recipient(call.sender, defaults.hosts),
        name_as_comment=b"c" in letters,
        drop_from=b"f" in letters,
        drop_message_id=b"i" in letters,
        drop_return_path=b"s" in letters,
        per_recipient=b"r" in letters,
        per_message=b"m" in letters,
        lists=_lists(environ.get(b"QMAILMFTFILE")),
    )


def person(environ: Environment) -> Person:
    """Who sends, by the first of several variables each."""
    host = _first(environ, b"QMAILHOST", b"MAILHOST")
    user = _first(environ, b"QMAILUSER", b"MAILUSER", b"USER", b"LOGNAME") or b"anonymous"
    name = _first(environ, b"QMAILNAME", b"MAILNAME", b"NAME")
    if name is not None:
        name = b" ".join(name.split())  # a line end in it would begin a field
    envelope_host = environ.get(b"QMAILSHOST")
    return Person(user, host, name, environ.get(b"QMAILSUSER", user), host if envelope_host is None else envelope_host)


def _first(environ: Environment, *names: bytes) -> bytes | None:
    return next((environ[name] for name in names if name in environ), None)


def _lists(file: bytes | None) -> frozenset[bytes]:
    """The addresses of $QMAILMFTFILE, one a line; no file, no addresses."""
    if file is None:
        return frozenset()
    try:
        with open(file, "rb") as opened:
            lines = opened.read().split(b"\n")
    except FileNotFoundError:
        return frozenset()
    except OSError as problem:
        raise Fatal(f"{os.fsdecode(file)}: {problem.strerror}", TEMPORARY) from None
    return frozenset(line.rstrip(b" \t").lower() for line in lines if line and not line.startswith(b"#"))


# the message


def _input(crlf: bool) -> Iterator[bytes]:
    """Standard input in blocks; with `crlf` CR LF becomes LF."""
    held = b""
    while True:
        try:
            octets = os.read(0, BLOCK)
        except OSError as problem:
            raise Fatal(f"{READ_ERROR}: {problem.strerror}", TEMPORARY) from None
        if not octets:
            break
        if crlf:
            octets = held + octets
            held = b"\r" if octets.endswith(b"\r") else b""
            octets = octets[: len(octets) - len(held)].replace(b"\r\n", b"\n")
        if octets:
            yield octets
    if held:
        yield held


def _header(blocks: Iterator[bytes]) -> HeaderReader:
    reader = HeaderReader()
    try:
        for block in blocks:
            reader.feed(block)
            if reader.body is not None:
                break
    except HeaderTooLong as trouble:
        raise Fatal(str(trouble), PERMANENT) from None
    reader.finish()
    return reader


def _whole_lines(begun: bytes, blocks: Iterator[bytes]) -> Iterator[bytes]:
    """The body, with the LF that its last line may lack."""
    last = begun
    if begun:
        yield begun
    for block in blocks:
        last = block
        yield block
    if last and not last.endswith(b"\n"):
        yield b"\n"


def _queue(home: str, envelope: Envelope, made: Letter, body: Iterator[bytes], environ: Environment) -> None:
    try:
        with Content() as content:
            content.write(made.header)
            for block in body:
                content.write(block)
            result = _brought(home, envelope, content, environ)
    except OSError as problem:
        raise Fatal(f"{problem.filename or 'temporary file'}: {problem.strerror}", TEMPORARY) from None
    if result.status:
        raise Fatal(result.text, PERMANENT if result.permanent else TEMPORARY)


def _brought(home: str, envelope: Envelope, content: Content, environ: Environment) -> Result:
    program = other_queue.program(home, environ)
    if not program:
        return inject(home, envelope, content)
    from pillarbox.programs.elsewhere import hand_over

    return hand_over(program, envelope, content)


def _print(made: Letter, body: Iterator[bytes]) -> None:
    output = sys.stdout.buffer
    output.write(b"Return-Path: <" + quote(made.sender) + b">\n" + made.header)
    for block in body:
        output.write(block)
    output.flush()


def _shown(octets: bytes) -> str:
    return octets.rstrip(b"\n").decode("utf-8", "backslashreplace")
