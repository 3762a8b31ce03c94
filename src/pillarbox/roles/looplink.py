"""A link on an asyncio loop, and questions over it: what smtpd, pop3d and auth use."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from contextlib import suppress

from pillarbox.roles.link import LARGEST_TAG, Frame, Link, LinkLost
from pillarbox.roles.verbs import Verb

Answer = Callable[[Frame | None], None]


class LoopLink:
    """`hear` gets each frame; `lost` is called once when the other side is gone. Sends of one turn of the loop leave
    together."""

    __slots__ = ("_flushing", "_hear", "_loop", "_lost", "_writing", "link", "open")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, link: Link, hear: Callable[[Frame], None], lost: Callable[[], None]
    ) -> None:
        self._loop, self.link, self._hear, self._lost = loop, link, hear, lost
        self._flushing = False
        self._writing = False
        self.open = True
        loop.add_reader(link.fileno(), self._readable)

    def send(self, verb: Verb, tag: int, *fields: bytes, descriptors: Sequence[int] = ()) -> None:
        """Queue a frame for this turn's end. Descriptors are taken over, also when nobody is there any more."""
        if not self.open:
            _close(descriptors)
            return
        self.link.send(verb, tag, *fields, descriptors=descriptors)
        self._soon()

    def _soon(self) -> None:
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        if not self.open:
            return
        try:
            done = self.link.flush()
        except LinkLost:
            self.close()
            return
        if done and self._writing:
            self._loop.remove_writer(self.link.fileno())
        elif not done and not self._writing:
            self._loop.add_writer(self.link.fileno(), self._flush)
        self._writing = not done

    def _readable(self) -> None:
        """Take in what there is; what is left is reported again. But when the peer died with words of ours unread,
        uvloop calls this once and never again."""
        broken = False
        while self.open:
            try:
                frames = self.link.receive()
            except LinkLost:
                self.close()
                return
            for frame in frames:
                self._hear(frame)
            broken = broken or (self.open and self.link.broken)
            if not broken:
                return

    def close(self) -> None:
        """Cut the link and tell `lost`."""
        if not self.open:
            return
        self.open = False
        self._loop.remove_reader(self.link.fileno())
        if self._writing:
            self._loop.remove_writer(self.link.fileno())
        self.link.close()
        self._lost()


class Questions:
    """Questions to one peer role, which may be away for a while (then `answer` gets None at once, or when it goes)."""

    __slots__ = ("_asked", "_next", "away", "link", "unasked")

    def __init__(self, away: Callable[[], None] | None = None, unasked: Callable[[Frame], None] | None = None) -> None:
        self.link: LoopLink | None = None
        self._asked: dict[int, Answer] = {}
        self._next = 0
        self.away = away
        self.unasked = unasked

    def attach(self, loop: asyncio.AbstractEventLoop, link: Link) -> None:
        """Use this link from now on; questions on an older one are lost."""
        if self.link is not None:
            self.link.close()
        self.link = LoopLink(loop, link, self._hear, self._gone)

    @property
    def present(self) -> bool:
        """Is the peer there?"""
        return self.link is not None

    def tag(self) -> int:
        """A new tag, never 0: that is nobody's."""
        self._next = self._next % LARGEST_TAG + 1
        return self._next

    def ask(self, answer: Answer, verb: Verb, *fields: bytes, descriptors: Sequence[int] = ()) -> int:
        """Ask; `answer` is called once, with None if the peer went away. Returns the tag (for `forget`)."""
        tag = self.tag()
        self.expect(tag, answer)
        self.say(tag, verb, *fields, descriptors=descriptors)
        return tag

    def expect(self, tag: int, answer: Answer) -> None:
        """The next frame with this tag goes to `answer`."""
        self._asked[tag] = answer

    def say(self, tag: int, verb: Verb, *fields: bytes, descriptors: Sequence[int] = ()) -> None:
        """Say something; with no peer an expected answer is lost at once."""
        if self.link is not None:
            self.link.send(verb, tag, *fields, descriptors=descriptors)
        else:
            _close(descriptors)
            answer = self._asked.pop(tag, None)
            if answer is not None:
                asyncio.get_running_loop().call_soon(answer, None)

    def give_up(self, tag: int) -> None:
        """Whoever waits for this answer still has waited long enough: he gets None."""
        answer = self._asked.pop(tag, None)
        if answer is not None:
            answer(None)

    def part(self) -> None:
        """Say what is still to be said, as far as the link takes it at once, and cut it."""
        if self.link is not None:
            with suppress(LinkLost):
                self.link.link.flush()
            self.link.close()

    def forget(self, tag: int) -> None:
        """Nobody waits for this answer any more."""
        self._asked.pop(tag, None)

    def _hear(self, frame: Frame) -> None:
        answer = self._asked.pop(frame.tag, None)
        if answer is not None:
            answer(frame)
        elif self.unasked is not None:
            self.unasked(frame)
        else:
            _close(frame.descriptors)

    def _gone(self) -> None:
        self.link = None
        asked, self._asked = self._asked, {}
        for answer in asked.values():
            answer(None)
        if self.away is not None:
            self.away()


def _close(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
