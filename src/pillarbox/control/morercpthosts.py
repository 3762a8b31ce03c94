"""control/morercpthosts.cdb: more hosts than fit a list, compiled by qmail-newmrh."""

from __future__ import annotations

from pathlib import Path

from pillarbox.status import Failure
from pillarbox.users import cdb


class MoreHosts:
    """`MoreHosts(file)(host)`: does the table hold that key (host or .suffix in lower case)? Raises Failure (4.3.0)."""

    def __init__(self, file: Path) -> None:
        self._reader = cdb.Reader(file)

    def __call__(self, key: bytes) -> bool:
        try:
            table = self._reader.current()
            return table is not None and table.get(key) is not None
        except OSError as problem:
            raise Failure(f"unable to read controls: {problem.strerror or problem}") from None
