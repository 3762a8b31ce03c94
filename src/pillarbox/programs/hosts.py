"""The control files that complete addresses, read without the table of all control files: that takes longer to import
than a message takes to be sent. The table stays the one place that says what they mean; a test compares."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import NamedTuple

from pillarbox.compose.rewriting import Hosts

_LONGEST = 4096


class Defaults(NamedTuple):
    """What completes addresses, and the right side of Message-ID."""

    hosts: Hosts
    idhost: bytes


def read(home: str, environ: Mapping[bytes, bytes]) -> Defaults:
    """control/defaulthost, defaultdomain, plusdomain and idhost, each control/me when it is missing; the environment
    comes first (qmail-inject(8)). Raises OSError for a file that cannot be read."""
    me = _line(home, "me")

    def value(name: str) -> bytes:
        given = environ.get(b"QMAIL" + name.upper().encode())
        if given is not None:
            return given
        line = _line(home, name)
        return line if line is not None else me if me is not None else name.encode()

    hosts = Hosts(value("defaulthost"), value("defaultdomain"), value("plusdomain"))
    return Defaults(hosts, value("idhost"))


def _line(home: str, name: str) -> bytes | None:
    try:
        with open(f"{home}/control/{name}", "rb", buffering=0) as file:
            return file.read(_LONGEST).partition(b"\n")[0].rstrip(b" \t\n")
    except OSError as problem:
        if problem.errno == errno.ENOENT:
            return None
        raise
