"""Header fields with addresses as RFC 822 section 3.3 takes them apart: the tokens of a field, and the field of tokens.

What is written is what qmail writes (qmail-header(5)): one space where one is needed, and a new line after a comma when
the line would become longer than 80.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Final, NamedTuple

LINE: Final = 80


class Kind(Enum):
    """The specials stand for themselves; the others have a text."""

    COMMA = b","
    AT = b"@"
    DOT = b"."
    LEFT = b"<"
    RIGHT = b">"
    SEMI = b";"
    COLON = b":"
    ATOM = b""
    QUOTE = b'""'
    LITERAL = b"[]"
    COMMENT = b"()"


class Token(NamedTuple):
    """`text` is without the quotes, brackets or parentheses around it, and without backslashes."""

    kind: Kind
    text: bytes = b""


COMMA, AT, DOT = Token(Kind.COMMA), Token(Kind.AT), Token(Kind.DOT)
WORDS: Final = frozenset({Kind.ATOM, Kind.QUOTE, Kind.LITERAL, Kind.COMMENT})
_SPECIALS = {kind.value: Token(kind) for kind in Kind if len(kind.value) == 1}
_SPECIAL_KINDS = {kind: kind.value for kind in Kind if len(kind.value) == 1}

_SPACE = re.compile(rb"[ \t\r\n]*")
_QUOTE = re.compile(rb'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_LITERAL = re.compile(rb"\[((?:[^\]\\]|\\.)*)\]", re.DOTALL)
_ATOM = re.compile(rb'(?:[^ \t\r\n()\[\]"<>;:@,.\\]|\\.)(?:[^ \t\r\n(\["<>;:@,.\\]|\\.)*\\?', re.DOTALL)
_PARENTHESIS = re.compile(rb"[^()\\]*(?:\\.|([()]))", re.DOTALL)
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
_TO_ESCAPE = re.compile(rb'(["\[\]()\\\r\n])')
_NO_ATOM = re.compile(rb'[^!-~]|["()<>\[\]:;@,.\\]')


class NotTokens(ValueError):
    """A quote, comment or literal without its end, or an end without its beginning."""


def parse(field: bytes) -> list[Token]:
    """All tokens, the field's name among them. Raises NotTokens."""
    found: list[Token] = []
    at = 0
    while (at := _end(_SPACE, field, at)) < len(field):
        special = _SPECIALS.get(field[at : at + 1])
        if special is not None:
            found.append(special)
            at += 1
        elif field.startswith(b"(", at):
            end = _comment_end(field, at + 1)
            found.append(Token(Kind.COMMENT, _plain(field[at + 1 : end - 1])))
            at = end
        else:
            token, at = _word(field, at)
            found.append(token)
    return found


def _end(pattern: re.Pattern[bytes], field: bytes, at: int) -> int:
    match = pattern.match(field, at)
    return match.end() if match else at


def _word(field: bytes, at: int) -> tuple[Token, int]:
    if match := _QUOTE.match(field, at):
        return Token(Kind.QUOTE, _plain(match[1])), match.end()
    if match := _LITERAL.match(field, at):
        return Token(Kind.LITERAL, _plain(match[1])), match.end()
    match = _ATOM.match(field, at)
    if match is None:
        raise NotTokens(field)
    text = _plain(match[0].removesuffix(b"\\") if match[0].count(b"\\") % 2 else match[0])
    # What cannot stand in an atom, when it stands there behind a backslash or from beyond ASCII, is quoted.
    return Token(Kind.QUOTE if _NO_ATOM.search(text) else Kind.ATOM, text), match.end()


def _comment_end(field: bytes, at: int) -> int:
    """Behind the parenthesis that closes the one before `at`; comments nest."""
    depth = 1
    while depth:
        match = _PARENTHESIS.match(field, at)
        if match is None:
            raise NotTokens(field)
        depth += {b"(": 1, b")": -1}.get(match[1] or b"", 0)
        at = match.end()
    return at


def _plain(text: bytes) -> bytes:
    return _ESCAPED.sub(rb"\1", text) if b"\\" in text else text


def write(tokens: Iterable[Token]) -> bytes:
    """The field with its LF, folded."""
    pieces = [b""]
    before: Kind | None = None
    for token in tokens:
        pieces[-1] += (b" " if _apart(before, token.kind) else b"") + _written(token)
        before = token.kind
        if before is Kind.COMMA:
            pieces.append(b"")
    return b"\n ".join(_lines(pieces)) + b"\n"


def _apart(before: Kind | None, kind: Kind) -> bool:
    if before is None:
        return False
    if before in (Kind.COLON, Kind.COMMA) or kind is Kind.LEFT:
        return True
    return before in WORDS and kind in WORDS


def _written(token: Token) -> bytes:
    special = _SPECIAL_KINDS.get(token.kind)
    if special is not None:
        return special
    around = token.kind.value
    return around[:1] + _TO_ESCAPE.sub(rb"\\\1", token.text) + around[1:]


def _lines(pieces: Sequence[bytes]) -> list[bytes]:
    """Pieces that end with commas, as many on a line as there is room for."""
    lines = [pieces[0]]
    for piece in pieces[1:]:
        taken = len(lines[-1]) + (1 if len(lines) > 1 else 0)  # what a folded line begins with counts
        if not piece or taken + 2 + len(piece) <= LINE:
            lines[-1] += piece
        else:
            lines.append(piece)
    return lines


def address(tokens: Iterable[Token]) -> bytes:
    """The address that these tokens are, as it stands in an envelope: nothing quoted, comments left out."""
    parts = []
    for kind, text in tokens:
        if kind is Kind.LITERAL:
            parts.append(b"[" + text + b"]")
        elif kind is not Kind.COMMENT:
            parts.append(_SPECIAL_KINDS.get(kind, text))
    return b"".join(parts)
