"""The messages of one SMTP session, on their way to whoever queues them: another program, which hears a large one as it
comes, or the server of this home, which hears them when they are whole."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from pillarbox.envelope import Envelope
from pillarbox.programs.content import Content
from pillarbox.sessions import effects
from pillarbox.status import Refusal, Status

if TYPE_CHECKING:  # what brings messages to queues waits until there is one: clients wait to be greeted
    from pillarbox.programs.elsewhere import Injection
    from pillarbox.programs.injector import Result

NOT_OPENED = Refusal(Status(4, 3, 0), "qqt failure")


class Drafts:
    """Carries out OpenDraft, WriteBlock, Commit and Abort. `program` queues, or None: the server of `home`."""

    def __init__(self, home: str, program: bytes | None) -> None:
        self._home, self._program = home, program
        self._injection: Injection | None = None
        self._content: Content | None = None
        self._full = False  # there was no room for the content

    def execute(self, effect: effects.Effect) -> effects.Result:
        """The result."""
        match effect:
            case effects.OpenDraft():
                return self._open()
            case effects.WriteBlock(block):
                self._write(block)
            case effects.Commit(envelope, rest):
                self._write(rest)
                return self._commit(envelope)
            case effects.Abort():
                self.forget()
        return None

    def forget(self) -> None:
        """Whatever was said of a message."""
        injection, self._injection = self._injection, None
        content, self._content = self._content, None
        if injection is not None:
            injection.abort()
        if content is not None:
            content.close()

    def _open(self) -> Refusal | None:
        self.forget()
        self._full = False
        if self._program is None:
            self._content = Content()
            return None
        from pillarbox.programs.elsewhere import Injection

        try:
            self._injection = Injection(self._program)
        except OSError:
            return NOT_OPENED
        return None

    def _write(self, block: bytes) -> None:
        """Trouble is told at the end, in the words for it."""
        if self._injection is not None:
            self._injection.write(block)
            return
        assert self._content is not None, "no draft is open"
        try:
            if not self._full:
                self._content.write(block)
        except OSError:  # its temporary file
            self._full = True

    def _commit(self, envelope: Envelope) -> effects.Committed | effects.Declined:
        result = self._queued(envelope)
        if result.status:
            return effects.Declined(result.permanent, result.text)
        return effects.Committed(b"%d qp %d" % (time.time(), result.number))

    def _queued(self, envelope: Envelope) -> Result:
        """`number` is the process that brought it to the queue, as the queue says it in the message's trace."""
        if self._injection is not None:
            injection, self._injection = self._injection, None
            return injection.finish(envelope)
        from pillarbox.programs.elsewhere import UNREADABLE, text
        from pillarbox.programs.injector import NO_ROOM, Result, inject

        assert self._content is not None, "no draft is open"
        try:
            status = NO_ROOM if self._full else inject(self._home, envelope, self._content).status
        except OSError:  # the content's temporary file
            status = UNREADABLE
        finally:
            self.forget()
        return Result(status, text(status)) if status else Result(0, "", os.getpid())
