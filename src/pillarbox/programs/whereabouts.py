"""Which home a program means. It is asked by everybody who runs `sendmail`, so it opens and imports next to nothing.

A user who sends has no --home: the machine's home is the one that root named in /etc/pillarbox/home (one line, an
absolute path), else /var/qmail. The rule that must stay true: nothing here is trusted. A wrong home leads to another
socket or to none, and the server asks the kernel who calls.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

QMAIL = "/var/qmail"
NAMED = "/etc/pillarbox/home"
_LONGEST = 4096


def find(environ: Mapping[str, str], *, qmail: str = QMAIL, named: str = NAMED) -> str:
    """$PILLARBOX_HOME, else what /etc/pillarbox/home says, else /var/qmail if it is set up, else the user's own
    ~/.local/share/pillarbox. Absolute; it need not exist."""
    if environ.get("PILLARBOX_HOME"):
        return os.path.abspath(environ["PILLARBOX_HOME"])
    return _named(named) or (qmail if is_home(qmail) else _own(environ))


def of_machine(*, qmail: str = QMAIL, named: str = NAMED) -> str:
    """The machine's home, whoever asks and whatever his environment says: what /etc/pillarbox/home says, else
    /var/qmail."""
    return _named(named) or qmail


def is_home(directory: str) -> bool:
    """Was it set up?"""
    return os.path.exists(f"{directory}/control/me")


def _named(file: str) -> str | None:
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        line = os.fsdecode(os.read(descriptor, _LONGEST).partition(b"\n")[0].strip())
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return line if line.startswith("/") and is_home(line) else None


def _own(environ: Mapping[str, str]) -> str:
    shared = environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    return f"{shared}/pillarbox"
