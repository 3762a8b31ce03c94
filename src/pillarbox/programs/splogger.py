"""splogger [TAG [FACILITY]]: lines of standard input to syslog, as qmail's splogger does (splogger(8)).

Each line has the time ahead of it, since syslog's own is coarse: `1790000000.123456 new msg 1`.
"""

from __future__ import annotations

import os
import syslog
import time
from collections.abc import Iterator

from pillarbox.programs import diagnosis

NAME = "splogger"
MAIL = 2  # the facility, syslog(3)
FACILITIES = frozenset(map(str, range(24)))
LONGEST = 799  # octets of a line that syslog gets at once; what is longer continues with + behind the time
READ_SIZE = 1 << 16

_PRINTABLE = bytes(byte if 32 <= byte <= 126 else ord("?") for byte in range(256))
_LEVELS = ((b"alert:", syslog.LOG_ALERT), (b"warning:", syslog.LOG_WARNING))


def main(arguments: list[str]) -> int:
    """0 at the end of the input; 100 called wrongly; 111 when it cannot be read."""
    tag = arguments[0] if arguments else NAME
    facility = arguments[1] if len(arguments) > 1 else str(MAIL)
    if len(arguments) > 2 or facility not in FACILITIES:
        return diagnosis.usage(NAME, "[tag [facility]]")
    syslog.openlog(tag, 0, int(facility) << 3)
    try:
        for part, continued in _parts():
            say(part, continued)
    except OSError as problem:
        return diagnosis.fatal(NAME, "unable to read the log", problem)
    return 0


def say(part: bytes, continued: bool) -> None:
    """One line, or a further part of a long one."""
    level = next((level for word, level in _LEVELS if part.startswith(word)), syslog.LOG_INFO)
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    stamp = f"{seconds}.{nanoseconds // 1000:06}{'+' if continued else ''}"
    syslog.syslog(level, f"{stamp} {part.translate(_PRINTABLE).decode('ascii')}")


def _parts() -> Iterator[tuple[bytes, bool]]:
    """(octets, whether they go on with a line that has begun), as they come. Never more than LONGEST are kept."""
    kept, continued = b"", False
    while octets := os.read(0, READ_SIZE):
        *lines, kept = (kept + octets).split(b"\n")
        for line in lines:
            yield from _cut(line, continued)
            continued = False
        while len(kept) > LONGEST:
            yield kept[:LONGEST], continued
            kept, continued = kept[LONGEST:], True
    yield from _cut(kept, continued)


def _cut(line: bytes, continued: bool) -> Iterator[tuple[bytes, bool]]:
    for start in range(0, len(line), LONGEST):
        yield line[start : start + LONGEST], continued or start > 0
