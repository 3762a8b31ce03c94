"""Options as getopt(3) reads them, because every program here is called by scripts that were written for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


class BadOption(ValueError):
    """An option that the program does not have, or that lacks its argument."""


def read(arguments: Sequence[str], letters: str) -> Iterator[tuple[str, str]]:
    """(letter, argument or "") for each option, in order, then ("", word) for each word behind them. `letters` is
    getopt's: a colon behind those that take an argument, which may stand in the next word. Raises BadOption."""
    words = list(arguments)
    while words and words[0].startswith("-") and words[0] != "-":
        word = words.pop(0)
        if word == "--":
            break
        at = 1
        while at < len(word):
            letter = word[at]
            found = letters.find(letter)
            if found < 0 or letter == ":":
                raise BadOption(letter)
            at += 1
            if letters[found + 1 : found + 2] != ":":
                yield letter, ""
                continue
            if at == len(word) and not words:
                raise BadOption(letter)
            yield letter, word[at:] if at < len(word) else words.pop(0)
            break
    for word in words:
        yield "", word
