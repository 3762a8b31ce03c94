"""What qmail-smtpd reads of a home, without the table of all control files, which takes longer to import than a client
takes to be greeted. The table stays the one place that says what each file is; a test compares.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pillarbox.admission import Lookup, QmailAdmission
from pillarbox.control import reading
from pillarbox.status import Failure

SECONDS = 1200
_MOST_SECONDS = (1 << 31) - 1
_MOST_OCTETS = (1 << 63) - 1
_NO_LIMIT_IN_C = 4294967295  # qmail-smtpd adds one to it


class Unreadable(Failure):
    """A control file is there and cannot be read, or there is none that says how to greet."""


@dataclass(frozen=True, slots=True)
class Controls:
    """`greeting`: what stands before ESMTP. `localiphost`: None, or what stands for our own addresses. `timeout` in
    seconds. `open`: there is no control/rcpthosts."""

    greeting: bytes
    localiphost: bytes | None
    timeout: int
    open: bool
    admission: QmailAdmission


def read(home: str, environ: Mapping[bytes, bytes]) -> Controls:
    """All of them, once; $DATABYTES goes before control/databytes. Raises Unreadable."""
    control = f"{home}/control"
    me = _line(control, "me")
    greeting = _line(control, "smtpgreeting", me)
    if greeting is None:
        raise Unreadable(
            "neither control/smtpgreeting nor control/me is there: write this host's full name into control/me"
        )
    rcpthosts = _list(control, "rcpthosts")
    badmailfrom = _list(control, "badmailfrom")
    more = None if rcpthosts is None else _more(f"{control}/morercpthosts.cdb")
    return Controls(
        greeting,
        _line(control, "localiphost", me),
        _number(_content(control, "timeoutsmtpd"), SECONDS, 1, _MOST_SECONDS),
        rcpthosts is None,
        QmailAdmission(badmailfrom or frozenset(), rcpthosts, more, _databytes(control, environ)),
    )


def _content(control: str, name: str) -> bytes | None:
    try:
        return reading.content(f"{control}/{name}")
    except OSError as problem:
        raise Unreadable(f"control/{name}: {problem.strerror}") from None


def _line(control: str, name: str, default: bytes | None = None) -> bytes | None:
    text = _content(control, name)
    return default if text is None else reading.first_line(text)


def _list(control: str, name: str) -> frozenset[bytes] | None:
    text = _content(control, name)
    return None if text is None else frozenset(line.lower() for _, line in reading.lines(text))


def _number(text: bytes | None, default: int, least: int, most: int) -> int:
    value = None if text is None else reading.number(text, least, most, strict=False).value
    return value if isinstance(value, int) else default


def _databytes(control: str, environ: Mapping[bytes, bytes]) -> int:
    given = environ.get(b"DATABYTES")
    text = _content(control, "databytes") if given is None else given
    octets = _number(text, 0, 0, _MOST_OCTETS)
    return octets - 1 if octets == _NO_LIMIT_IN_C else octets


def _more(file: str) -> Lookup | None:
    """control/morercpthosts.cdb, open from now on."""
    if not os.path.exists(file):
        return None
    from pathlib import Path

    from pillarbox.control.morercpthosts import MoreHosts

    look: Callable[[bytes], bool] = MoreHosts(Path(file))
    try:
        look(b"")
    except Failure as failure:
        raise Unreadable(f"control/morercpthosts.cdb: {failure.text}") from None
    return look
