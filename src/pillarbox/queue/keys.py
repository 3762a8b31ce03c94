"""When the keys of past commits may be forgotten."""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Callable

KEYS_KEPT = 600.0  # seconds; see Engine.known

_LOOK = "SELECT last FROM commits WHERE last > ? AND last <= ? ORDER BY last LIMIT ?"
# The newest commit stays: it says how far the ids have come.
_FORGET = """
DELETE FROM commits WHERE last > ? AND last <= ? AND last < (SELECT max(last) FROM commits) AND NOT EXISTS
    (SELECT 1 FROM messages WHERE id <= last AND id > last - length(keys) / 16)
"""


class Keys:
    """When keys of past commits may be forgotten: ten minutes of this engine's life after they were committed, or
    after it was opened (who asks may have had to wait for that), and not while a message of the same commit lives.
    Those that were there when it was opened stay as long as any message of that time: it may be the parent of a forward
    whose own end a crash has lost, and be tried again days later."""

    LOOK = 500  # commits looked at in one commit
    INTERVAL = 0.1  # seconds between two looks: LOOK is far more than the commits made in that time
    REST = 10.0  # seconds between two rounds
    NOTE = 1.0  # seconds between two notes

    def __init__(self, clock: Callable[[], float], last: int) -> None:
        self._clock = clock
        now = clock()
        self._notes = deque([(now, last)])  # how far commits had come at that time: at most KEYS_KEPT / NOTE of them
        self._opened = last
        self._old = 0  # commits up to this id are old enough
        self._end = 0  # up to which this round goes
        self._looked = 0  # and has come
        self._next = now

    def forget(self, execute: Callable[..., sqlite3.Cursor], last: int) -> None:
        """Look at a few commits, `last` being the newest before this transaction. What a rollback brings back comes
        again in the next round."""
        now = self._clock()
        if now < self._next:
            return
        self._next = now + self.INTERVAL
        notes = self._notes
        while notes and notes[0][0] <= now - KEYS_KEPT:
            self._old = notes.popleft()[1]
        if not notes or now >= notes[-1][0] + self.NOTE:
            notes.append((now, last))
        looked = execute(_LOOK, (self._looked, self._end, self.LOOK)).fetchall()
        if looked:
            execute(_FORGET, (self._looked, looked[-1][0]))
            self._looked = looked[-1][0]
        if len(looked) < self.LOOK:
            (oldest,) = execute("SELECT min(id) FROM messages").fetchone()
            before = oldest is not None and oldest <= self._opened
            self._looked, self._end = self._opened if before else 0, self._old
            self._next = now + self.REST
