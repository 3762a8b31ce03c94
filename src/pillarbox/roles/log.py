"""The log: one line a fact on standard error, as text (qmail's own lines where qmail has them) or as JSON.

Lines of one round or turn leave in one write. Nothing secret comes here, and bytes from the network cannot forge a
line: see `safe`.
"""

from __future__ import annotations

import json
import os
import time
from typing import NamedTuple

LINE_LIMIT = 4096  # octets; one write of a line this long is not torn by another role's
FACT_LIMIT = 100  # characters, up to six octets each, of a fact in a JSON object that is too long
STANDARD_ERROR = 2

_SAFE = bytes(byte if 33 <= byte <= 126 and byte != ord("%") else ord("_") for byte in range(256)).replace(b"\n", b"_")
_SAFE = _SAFE[:10] + b"/" + _SAFE[11:]


def safe(text: bytes) -> str:
    """qmail-send's safe text: LF is /, what is not printable ASCII (and %) is _."""
    return text.translate(_SAFE).decode("ascii")


class Event(NamedTuple):
    """A fact that comes often. `text` is its line, with a place for each of `names`, which are those of the facts in
    JSON."""

    event: str
    text: str
    names: tuple[str, ...]


# qmail-send's lines of every message.
NEW = Event("new", "new msg %d", ("msg",))
INFO = Event("info", "info msg %d: bytes %d from <%s> qp %d uid %d", ("msg", "bytes", "sender", "qp", "uid"))
STARTING = Event("starting", "starting delivery %d: msg %d to %s %s", ("delivery", "msg", "channel", "recipient"))
ENDED = Event("delivery", "delivery %d: %s: %s", ("delivery", "outcome", "report"))
END = Event("end", "end msg %d", ("msg",))


class Log:
    """The log of one role. With `as_json` every fact is an object with time, role and event."""

    def __init__(self, role: str, as_json: bool) -> None:
        self._role = role
        self.as_json = as_json
        self._lines: list[str] = []

    def fact(self, text: str, event: str, **facts: str | int | float) -> None:
        """Note one fact: `text` is its line in the text format, the rest its JSON. Leaves with the next `flush`."""
        if self.as_json:
            named = {"time": round(time.time(), 3), "role": self._role, "event": event, **facts}
            text = json.dumps(named, ensure_ascii=True)
            if len(text) > LINE_LIMIT:  # cut within the quotes, so that it still is an object
                named = {name: fact[:FACT_LIMIT] if isinstance(fact, str) else fact for name, fact in named.items()}
                text = json.dumps(named, ensure_ascii=True)
        self._lines.append(text[:LINE_LIMIT])

    def note(self, event: Event, *facts: str | int, **unsaid: str | int) -> None:
        """As `fact`, put together only in the format that is written. What is `unsaid` in the line is in the JSON."""
        if self.as_json:
            self.fact("", event.event, **dict(zip(event.names, facts, strict=True)), **unsaid)
        else:
            self._lines.append((event.text % facts)[:LINE_LIMIT])

    def say(self, text: str, event: str, **facts: str | int | float) -> None:
        """Note one fact and write it now."""
        self.fact(text, event, **facts)
        self.flush()

    def flush(self) -> None:
        """Write what was noted. A log that cannot be written does not stop the mail."""
        if not self._lines:
            return
        octets = ("\n".join(self._lines) + "\n").encode("ascii", "replace")
        self._lines = []
        try:
            while octets:
                octets = octets[os.write(STANDARD_ERROR, octets) :]
        except OSError:
            return  # nobody reads the log: there is nowhere left to say so
