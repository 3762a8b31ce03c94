"""qmail-popup HOST PROGRAM [ARGUMENTS]: the login of POP3 on descriptors 0 and 1 (qmail-popup(8)).

PROGRAM, a checkpassword program, hears the name, the password and our greeting's timestamp on its descriptor 3, and
when they are right it leads the rest of the session over the same connection (qmail-pop3d). There is one attempt. The
rule that must stay true: what the client sends behind the password is not read here, it is the program's.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Sequence
from contextlib import suppress

from pillarbox.auth.checkpassword import CannotStart, Overdue, said, start
from pillarbox.pop3 import reply as r
from pillarbox.pop3.manners import POPUP
from pillarbox.pop3.server import Server
from pillarbox.programs import diagnosis
from pillarbox.programs.conversation import READ_SIZE, TimedOut, converse, send
from pillarbox.sessions import effects
from pillarbox.sessions.retrieval import Access, Retrieval
from pillarbox.status import Refusal, Status

NAME = "qmail-popup"
PATIENCE = 1200.0  # seconds of silence, qmail's
TOTAL = 4 * 3600.0  # seconds that the program has, login and session: qmail's popup waited for ever
OVER = 1  # whatever became of the session, as in qmail
_EARLY = 16  # reads, of what a client said without waiting for the answer to its password
USAGE = r.err(b"usage: popup hostname subprogram")

_WRONG = Refusal(Status(5, 7, 8), "authorization failed")
_CRASHED = Refusal(Status(4, 3, 0), "aack, child crashed")
_NO_PIPE = Refusal(Status(4, 3, 0), "unable to open pipe")
_NO_PROCESS = Refusal(Status(4, 3, 0), "unable to fork")


class Program:
    """Carries out the one effect of a session before its login."""

    def __init__(self, argv: Sequence[bytes], stamp: bytes) -> None:
        self._argv = argv
        self._stamp = stamp

    def execute(self, effect: effects.Effect) -> Refusal | None:
        """The result: None when the program has led the session to its end."""
        assert isinstance(effect, effects.HandOver)
        asked = said(effect.credentials, self._stamp)
        return _WRONG if asked is None else self._ask(asked)

    def _ask(self, asked: bytes) -> Refusal | None:
        try:
            process = start(self._argv, asked, apart=False)
            if process.problem is not None:
                diagnosis.fatal(NAME, f"unable to run {self._shown}", process.problem)
            status = process.wait(TOTAL)
        except CannotStart as problem:
            diagnosis.fatal(NAME, problem.text)
            return _NO_PIPE if problem.pipe else _NO_PROCESS
        except Overdue as problem:
            diagnosis.fatal(NAME, f"{self._shown} {problem.text}")
            return None
        if status < 0:
            return _CRASHED
        return _WRONG if status else None

    @property
    def _shown(self) -> str:
        return self._argv[0].decode("utf-8", "backslashreplace")


def main(arguments: list[str]) -> int:
    """1, always."""
    with suppress(TimedOut, OSError):  # the client is gone, and qmail's ends without a word
        if len(arguments) < 2:
            send(1, USAGE.encode(POPUP.dialect), PATIENCE)
        else:
            host, *argv = map(os.fsencode, arguments)
            _serve(host, argv)
    return OVER


def _serve(host: bytes, argv: Sequence[bytes]) -> None:
    stamp = b"<%d.%d@%s>" % (os.getpid(), time.time(), host)
    machine = Server(b"", stamp=stamp, manners=POPUP)
    session = Retrieval(Access(me=host, token=bytes, cleartext=True, stamp=stamp), manners=POPUP)
    converse(machine, session, Program(argv, stamp).execute, 0, 1, PATIENCE, at_once=1)
    _drain()


def _drain() -> None:
    """Take what the client said too early: a connection that ends with something unread is reset, and with it may go
    our last reply, before the client has it."""
    for _ in range(_EARLY):
        if not select.select([0], [], [], 0)[0] or not os.read(0, READ_SIZE):
            return
