"""How long a client that failed to log in waits: a pure machine, time comes in as an argument.

Counted by the client's address alone, never by the account: whoever guesses from elsewhere cannot lock the owner out.
A success wipes nothing out, or a guesser with one password of his own could start afresh each time; failures are
forgotten with time. Attempts from one address wait in turn, so guessing on many connections at once is no faster.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from dataclasses import dataclass

from pillarbox.status import Refusal, Status

FREE = 3
"""Failures that cost nothing: people mistype."""
LONGEST = 15.0
"""Seconds between two attempts at most."""
PATIENCE = 60.0
"""Seconds that an attempt waits for its turn at most; when it would be more it is refused unseen."""
PARALLEL = 20
"""Attempts under way at once that cost nothing: an office behind one address comes back after an outage."""
MEMORY = 900.0
"""Seconds after which an address's failures are forgotten, counted from the last one."""
ADDRESSES = 10_000
"""Addresses remembered; beyond that the one longest unheard of is forgotten."""
GUESSES = 8
"""Wrong guesses of an address remembered, to know one that is only repeated."""
TOO_MANY = Refusal(Status(4, 7, 0), "too many failed logins from your address, try again later")


@dataclass(slots=True)
class _Client:
    failures: int = 0
    waiting: int = 0
    turn: float = 0.0
    last: float = 0.0
    guesses: tuple[bytes, ...] = ()


class Throttle:
    """Addresses are text as the socket has them; IPv6 counts by its /64, which one customer has whole."""

    def __init__(self) -> None:
        self._clients: OrderedDict[str, _Client] = OrderedDict()

    def delay(self, address: str | bytes, now: float) -> float:
        """Seconds between two attempts from here just now: 0, then 1, 2, 4, 8, 15. Changes nothing."""
        client = self._clients.get(_network(address))
        if client is None:
            return 0.0
        failures = client.failures if now - client.last < MEMORY else 0
        over = failures + max(0, client.waiting - PARALLEL) - FREE
        return min(LONGEST, 2.0 ** min(over, 10)) if over >= 0 else 0.0

    def started(self, address: str | bytes, now: float) -> float | Refusal:
        """An attempt begins: the seconds until its turn, when it may be looked at; `failed` or `ended` is to follow. A
        Refusal: too many wait before it, it is not looked at, and nothing is to follow."""
        delay = self.delay(address, now)
        client = self._client(address, now)
        due = max(client.turn, now) + delay if delay else now
        if due - now > PATIENCE:
            return TOO_MANY
        client.turn = max(client.turn, due)
        client.waiting += 1
        return due - now

    def ended(self, address: str | bytes, now: float) -> None:
        """An attempt proved right, or came to no verdict."""
        client = self._client(address, now)
        client.waiting = max(0, client.waiting - 1)

    def failed(self, address: str | bytes, now: float, guess: bytes = b"") -> None:
        """An attempt failed. `guess`, where given, is a keyed digest of name and password: the same one again (from a
        telephone that was not told the new password) is no new guess and counts only once."""
        client = self._client(address, now)
        client.waiting = max(0, client.waiting - 1)
        if guess and guess in client.guesses:
            return
        if guess:
            client.guesses = (*client.guesses[1 - GUESSES :], guess)
        client.failures += 1
        client.last = now

    def _client(self, address: str | bytes, now: float) -> _Client:
        network = _network(address)
        client = self._clients.get(network)
        if client is None:
            client = self._clients[network] = _Client(last=now)
            if len(self._clients) > ADDRESSES:
                self._clients.popitem(last=False)
        elif now - client.last >= MEMORY:
            client.failures, client.guesses = 0, ()
        self._clients.move_to_end(network)
        return client


def _network(address: str | bytes) -> str:
    text = address.decode("latin-1") if isinstance(address, bytes) else address
    if ":" not in text:
        return text
    try:
        parsed = ipaddress.IPv6Address(text.partition("%")[0])
    except ValueError:
        return text
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Address(int(parsed) >> 64 << 64))
