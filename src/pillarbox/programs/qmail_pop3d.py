"""qmail-pop3d MAILDIR: POP3 for somebody who has logged in, on descriptors 0 and 1 (qmail-pop3d(8)).

Started by qmail-popup by way of a checkpassword program, which has become the user and gone home; MAILDIR is relative
to that. The same machine, session and maildrop as `serve`, with qmail's replies and sizes, and without a lock.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress

from pillarbox.content import Head, Stuffer
from pillarbox.mailbox.maildrop import BLOCK, Maildrop, NoMaildrop
from pillarbox.pop3 import reply as r
from pillarbox.pop3.manners import POP3D
from pillarbox.pop3.server import Server
from pillarbox.programs import diagnosis
from pillarbox.programs.conversation import TimedOut, converse, send
from pillarbox.sessions import effects
from pillarbox.sessions.retrieval import Access, Retrieval
from pillarbox.status import Failure, Refusal

NAME = "qmail-pop3d"
PATIENCE = 1200.0  # seconds of silence, qmail's
OVER = 0  # whatever became of the session
ROOT = 1
# qmail-pop3d sends an empty line behind every message, and clients have seen it for decades.
_BEHIND = b"\r\n"


class BrokenOff(Exception):
    """A message could not be read to its end. Half of one must not look like a whole one: the session is over."""


class Mailbox:
    """Carries out a session's effects on one maildrop."""

    def __init__(self, maildrop: Maildrop) -> None:
        self._maildrop = maildrop

    def execute(self, effect: effects.Effect) -> effects.Result:
        """The result. Raises BrokenOff, TimedOut, OSError."""
        match effect:
            case effects.SendContent(number, lines, announce):
                return self._send(number, lines, announce)
            case effects.UpdateMaildrop(deleted):
                try:
                    self._maildrop.update(deleted)
                except Failure as failure:
                    return failure.refusal
        return None

    def _send(self, number: int, lines: int | None, announce: bytes) -> Refusal | None:
        try:
            descriptor = self._maildrop.content(number)
        except Failure as failure:
            return failure.refusal
        try:
            send(1, announce, PATIENCE)
            _blast(descriptor, lines)
        finally:
            os.close(descriptor)
        return None


def _blast(descriptor: int, lines: int | None) -> None:
    """A message from its start, to the final dot."""
    stuffer, head = Stuffer(), None if lines is None else Head(lines)
    while (block := _read(descriptor)) and not (head is not None and head.full):
        send(1, stuffer.feed(block if head is None else head.feed(block)), PATIENCE)
    rest = b"" if head is None else stuffer.feed(head.finish())
    ending = stuffer.finish()
    send(1, rest + ending[:-3] + _BEHIND + ending[-3:], PATIENCE)


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, BLOCK)
    except OSError as problem:
        raise BrokenOff(f"unable to read a message: {problem.strerror}") from problem


def main(arguments: list[str]) -> int:
    """0 when the session is over, however; 1 for root."""
    if 0 in (os.getuid(), os.geteuid()):
        print(f"{NAME} invoked as uid 0, terminating", file=sys.stderr)
        return ROOT
    try:
        maildrop = _open(arguments)
    except NoMaildrop as problem:
        return _refuse(problem.text)
    listings = maildrop.listings
    access = Access(me=b"", token=bytes, cleartext=True)
    machine = Server(b"", authorized=True, manners=POP3D)
    session = Retrieval(access, listings, POP3D)
    try:
        converse(machine, session, Mailbox(maildrop).execute, 0, 1, PATIENCE)
    except BrokenOff as problem:
        diagnosis.fatal(NAME, str(problem))
    except (TimedOut, OSError):
        return OVER  # the client is gone: nothing is deleted, and there is nobody to tell
    return OVER


def _open(arguments: list[str]) -> Maildrop:
    """Raises NoMaildrop."""
    if not arguments:
        raise NoMaildrop("this user has no $HOME/Maildir")
    try:
        return Maildrop.open(os.fsencode(arguments[0]), time.time(), as_qmail=True)
    except NoMaildrop:
        raise
    except Failure:
        raise NoMaildrop("unable to scan $HOME/Maildir") from None


def _refuse(text: str) -> int:
    with suppress(TimedOut, OSError):  # a client that is gone
        send(1, r.err(text.encode()).encode(POP3D.dialect), PATIENCE)
    return OVER
