"""Addresses as people write them become addresses that mean the same everywhere: qmail-header(5), "ADDRESS REWRITING".

`joe` becomes joe@DEFAULTHOST, `joe@host` joe@host.DEFAULTDOMAIN, `joe@x.y+` joe@x.y.PLUSDOMAIN; routes go.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from pillarbox.compose.tokens import AT, COMMA, DOT, Kind, NotTokens, Token, parse

Address = list[Token]
Rewrite = Callable[[Address], Address]

_PHRASE = frozenset({Kind.COMMENT, Kind.ATOM, Kind.QUOTE, Kind.AT, Kind.DOT})


class Hosts(NamedTuple):
    """What completes addresses: the values of control/defaulthost, defaultdomain, plusdomain."""

    defaulthost: bytes
    defaultdomain: bytes
    plusdomain: bytes

    def rewrite(self, address: Address) -> Address:
        """One address. Raises NotTokens when a host here is no host."""
        if not address or _is_verp(address):
            return address
        address = _without_route(address)
        for extra in (DOT, AT):
            if address and address[-1] == extra:
                address = address[:-1]
        if not address:
            return address
        if AT not in address:
            address = address + parse(b"@" + self.defaulthost)
        last = address[-1]
        if last.kind is Kind.ATOM and last.text.endswith(b"+"):
            address = [*address[:-1], Token(Kind.ATOM, last.text[:-1]), *parse(b"." + self.plusdomain)]
        return address if _complete(address) else address + parse(b"." + self.defaultdomain)


def _is_verp(address: Address) -> bool:
    """user@[]: an address that the queue takes apart for each recipient."""
    return len(address) >= 2 and address[-2] == AT and address[-1] == Token(Kind.LITERAL)


def _without_route(address: Address) -> Address:
    if address[0] != AT:
        return address
    colons = [at for at, token in enumerate(address) if token.kind is Kind.COLON]
    return address[colons[0] + 1 :] if colons else []


def _complete(address: Address) -> bool:
    """Whether the host has a dot or is a literal."""
    kinds = [token.kind for token in address]
    host = kinds[len(kinds) - kinds[::-1].index(Kind.AT) :] if Kind.AT in kinds else kinds
    return Kind.DOT in host or Kind.LITERAL in host


def field(tokens: Sequence[Token], rewrite: Rewrite) -> list[Token]:
    """A whole field `NAME: address, ...` with every address of it rewritten. A comma that is missing between two
    addresses is put in. Raises NotTokens when it is no list of addresses."""
    return [*tokens[:2], *_List(tokens[2:], rewrite).run()]


class _List:
    """RFC 822 address lists are read from the right: there, one token says what comes before it."""

    def __init__(self, tokens: Sequence[Token], rewrite: Rewrite) -> None:
        self._tokens = list(tokens)
        self._rewrite = rewrite
        self._out: list[Token] = []  # from the right
        self._address: list[Token] = []  # from the right
        self._word_may_follow = True
        self._in_group = False

    def run(self) -> list[Token]:
        while self._tokens:
            token = self._tokens.pop()
            if token.kind is Kind.SEMI:
                self._close_group(token)
            elif token.kind is Kind.COLON:
                self._open_group(token)
            elif token.kind is Kind.RIGHT:
                self._angle(token)
            elif token.kind is Kind.COMMENT:
                self._out.append(token)
            elif token.kind is Kind.COMMA:
                self._flush()
                self._word_may_follow = True
                self._out.append(token)
            else:
                self._part(token)
        self._flush()
        return self._out[::-1]

    def _part(self, token: Token) -> None:
        word = token.kind in (Kind.ATOM, Kind.QUOTE, Kind.LITERAL)
        if word and not self._word_may_follow:
            self._flush(COMMA)
        self._word_may_follow = not word
        self._address.append(token)

    def _close_group(self, token: Token) -> None:
        self._flush(COMMA)
        if self._in_group:
            raise NotTokens("a group in a group")
        self._in_group = self._word_may_follow = True
        self._out.append(token)

    def _open_group(self, token: Token) -> None:
        self._flush()
        if not self._in_group:
            raise NotTokens("a colon outside of a group")
        self._in_group, self._word_may_follow = False, True
        self._out.append(token)
        while self._tokens and self._out[-1].kind is not Kind.COMMA:
            self._out.append(self._tokens.pop())

    def _angle(self, token: Token) -> None:
        """<address>, and the phrase before it."""
        self._flush(COMMA)
        self._out.append(token)
        while self._tokens and self._tokens[-1].kind is not Kind.LEFT:
            self._address.append(self._tokens.pop())
        self._flush(also_empty=True)
        if not self._tokens:
            raise NotTokens("> without <")
        self._out.append(self._tokens.pop())
        while self._tokens and self._tokens[-1].kind in _PHRASE:
            self._out.append(self._tokens.pop())
        self._word_may_follow = False

    def _flush(self, behind: Token | None = None, *, also_empty: bool = False) -> None:
        """The address that has been read goes out; `behind` separates it from what is left of it."""
        if not self._address and not also_empty:
            return
        self._out.extend(reversed(self._rewrite(self._address[::-1])))
        self._address = []
        if behind is not None:
            self._out.append(behind)
