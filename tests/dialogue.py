r"""Dialogue files: conversations of SMTP or POP3 that a postmaster can read and a test can run.

    # a comment; blank lines too are for the reader
    service: submission              facts, ahead of the first step: what the server is set to
    S: 220 mx.example.org ESMTP      the server says exactly this line; … stands for any text
    C: EHLO client.example           the client sends this line and CR LF; lines in a row are sent in one piece
    C+ MAIL FROM:<a@b.example>\n     the same without CR LF: for lines that are wrong, and for blocks of octets
    * tls                            something that is not a line; words are the runner's, these every runner knows:
                                     tls (the handshake is made here), closed (the server closes), hangup (the client
                                     does), silence (the server has nothing more to say)

In C lines \r \n \t \0 \\ and \xNN are octets, and {40*text} is text forty times.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Fact:
    """A setting of the server."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Send:
    """Octets from the client."""

    octets: bytes


@dataclass(frozen=True, slots=True)
class Expect:
    """One line from the server, without CR LF; … is any text."""

    line: str

    def matches(self, line: bytes) -> bool:
        """True when the server said this."""
        pattern = "(.*)".join(re.escape(part) for part in self.line.split("…"))
        return re.fullmatch(pattern.encode(), line, re.DOTALL) is not None


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that is not a line."""

    word: str
    argument: str


Step = Fact | Send | Expect | Happening

_STEP = re.compile(r"(?:(S:|C:|C\+|\*) ?|(\w[\w -]*): ?)(.*)")
_REPEATED = re.compile(r"\{(\d+)\*([^}]*)\}")
_ESCAPE = re.compile(rb"\\(?:x([0-9a-fA-F]{2})|(.))")
_OCTETS = {b"r": b"\r", b"n": b"\n", b"t": b"\t", b"0": b"\0", b"\\": b"\\"}


class BadDialogue(Exception):
    """The file says something that is not in the format."""


def parse(file: Path) -> list[Step]:
    """All steps of a dialogue file in order; raises BadDialogue with file and line."""
    steps: list[Step] = []
    for number, line in enumerate(file.read_text("utf-8").split("\n"), 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _STEP.fullmatch(line)
        if match is None or (match[2] and any(not isinstance(step, Fact) for step in steps)):
            raise BadDialogue(f"{file}: line {number}: {line!r}")
        steps.append(_step(match[1] or "", match[2] or "", match[3]))
    return steps


def facts(steps: list[Step]) -> dict[str, str]:
    """The settings that stand ahead of a dialogue."""
    return {step.name: step.value for step in steps if isinstance(step, Fact)}


def pieces(steps: list[Step]) -> list[Expect | Send | Happening]:
    """The steps to run: without facts, and with what the client sends in a row joined into one piece."""
    joined: list[Expect | Send | Happening] = []
    for step in steps:
        last = joined[-1] if joined else None
        if isinstance(step, Send) and isinstance(last, Send):
            joined[-1] = Send(last.octets + step.octets)
        elif not isinstance(step, Fact):
            joined.append(step)
    return joined


def walk(
    file: Path,
    hear: Callable[[], bytes],
    send: Callable[..., bytes],
    happen: Callable[[str, str], None],
    *,
    one_by_one: bool,
) -> None:
    """Take a machine through a dialogue. `hear`: what it has said since it was asked last; `send`: the same, after
    these pieces, each in a read of its own; `happen`: word and argument, when nothing more was said. `one_by_one`: an
    octet in each piece."""
    heard = b""
    for step in pieces(parse(file)):
        heard += hear()
        match step:
            case Send(octets):
                assert not heard, f"the client speaks while the server has more to say: {heard!r}"
                size = 1 if one_by_one else len(octets)
                heard = send(*[octets[at : at + size] for at in range(0, len(octets), size)])
            case Expect():
                line, end, heard = heard.partition(b"\r\n")
                assert end, f"expected {step.line!r}, heard no more than {line!r}"
                assert step.matches(line), f"expected {step.line!r}, heard {line!r}"
            case Happening(word, argument):
                assert not heard, f"the server has more to say: {heard!r}"
                happen(word, argument)
    heard += hear()
    assert not heard, f"the server has more to say: {heard!r}"


def _step(mark: str, fact: str, text: str) -> Step:
    match mark:
        case "S:":
            return Expect(text)
        case "C:":
            return Send(_octets(text) + b"\r\n")
        case "C+":
            return Send(_octets(text))
        case "*":
            word, _, argument = text.partition(" ")
            return Happening(word, argument)
    return Fact(fact, text.strip())


def _octets(text: str) -> bytes:
    text = _REPEATED.sub(lambda match: match[2] * int(match[1]), text)
    return _ESCAPE.sub(_unescape, text.encode())


def _unescape(match: re.Match[bytes]) -> bytes:
    if match[1]:
        return bytes.fromhex(match[1].decode())
    return _OCTETS[match[2]]
