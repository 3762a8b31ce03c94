"""`sendmail -bs`: SMTP on standard input and output, for programs of this machine that speak it.

What qmail's sendmail makes of qmail-smtpd with RELAYCLIENT set: mail to any host is taken, of any size, and nobody logs
in: whoever can run this could send the same with `sendmail -t`. The queue learns from the kernel who it is.
"""

from __future__ import annotations

import os
import secrets
import time
from dataclasses import replace

from pillarbox.admission import Admission
from pillarbox.cli.home import existing, require
from pillarbox.control.table import read
from pillarbox.envelope import Envelope
from pillarbox.programs import diagnosis
from pillarbox.programs.content import Content
from pillarbox.programs.conversation import TimedOut, converse
from pillarbox.programs.injector import NO_ROOM, TOO_LONG, Result, inject
from pillarbox.sessions import effects
from pillarbox.sessions.reception import Exchange, Reception
from pillarbox.smtp import replies as r
from pillarbox.smtp.receiver import Receiver
from pillarbox.smtp.reply import Dialect
from pillarbox.status import Refusal, Status, SystemTrouble

NAME = "sendmail"
CLIENT = b"127.0.0.1"
NOBODY = Refusal(Status(5, 7, 0), "no logins here")


class Drafts:
    """Carries out a session's effects with the queue of a running server."""

    def __init__(self, home: str) -> None:
        self._home = home
        self._content = Content()

    def execute(self, effect: effects.Effect) -> effects.Result:
        """The result. Whether a recipient exists is not asked: that is seen at delivery."""
        match effect:
            case effects.WriteBlock(block):
                return self._write(block)
            case effects.Commit(envelope):
                return self._commit(envelope)
            case effects.OpenDraft() | effects.Abort():
                self.forget()
            case effects.Authenticate():
                return NOBODY
            case effects.Pause(seconds):
                time.sleep(seconds)
        return None

    def forget(self) -> None:
        """Whatever was said of a message."""
        self._content.close()
        self._content = Content()

    def _write(self, block: bytes) -> Refusal | None:
        try:
            self._content.write(block)
        except OSError as problem:
            self.forget()
            return SystemTrouble.of(problem).refusal
        return None

    def _commit(self, envelope: Envelope) -> effects.Committed | Refusal:
        try:
            result = inject(self._home, envelope, self._content)
        except OSError as problem:
            return SystemTrouble.of(problem).refusal
        finally:
            self.forget()
        return _refusal(result) if result.status else effects.Committed(b"%d" % result.number)


def main(arguments: list[str]) -> int:
    """0 when the session is over, 111 when it cannot be. Arguments are ignored."""
    home = existing(os.environ)
    require(home)
    settings, _complaints = read(home / "control")
    facts = Exchange(
        service="smtp", me=settings.me, client=CLIENT,
        admission=Admission(replace(settings, rcpthosts=None, databytes=0)),
        clock=time.time, token=lambda: secrets.token_hex(8).encode(),
    )  # fmt: skip
    machine = Receiver(settings.me, greeting=settings.smtpgreeting, offer=facts.offer)
    drafts = Drafts(str(home))
    try:
        converse(machine, Reception(facts), drafts.execute, 0, 1, float(settings.timeoutsmtpd))
    except TimedOut:
        os.write(1, r.TIMEOUT.encode(Dialect.MODERN))
    except OSError as problem:
        return diagnosis.fatal(NAME, "cannot talk over standard input and output", problem)
    finally:
        drafts.forget()
    return 0


def _refusal(result: Result) -> Refusal:
    if result.permanent:
        return Refusal(Status(5, 1, 3) if result.status == TOO_LONG else Status(5, 3, 0), result.text)
    return Refusal(Status(4, 3, 1) if result.status == NO_ROOM else Status(4, 3, 0), result.text)
