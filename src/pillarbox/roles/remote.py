"""The remote role: SMTP to the world. It gets a message, its route and the one login that route needs with each RELAY,
and reads no queue, no mailbox and no file with a secret.

How many errands run at a time is the queue's schedule's business. When the queue role goes, every errand is broken off:
nobody would hear of its end, and the message will be tried again. On DRAIN only those go on that wait for the answer to
their final dot.
"""

from __future__ import annotations

import asyncio
import os
import socket
import traceback
from typing import Any

from pillarbox.envelope import Envelope
from pillarbox.net.deaf import Deaf
from pillarbox.net.resolver import Resolver, Server
from pillarbox.outcome import Outcome
from pillarbox.roles import connections, relay
from pillarbox.roles.carrier import Carrier
from pillarbox.roles.house import House
from pillarbox.roles.journey import Content, Errand, Result
from pillarbox.roles.link import Frame, Link
from pillarbox.roles.log import Log
from pillarbox.roles.looplink import LoopLink
from pillarbox.roles.parking import Parking
from pillarbox.roles.relay import Road
from pillarbox.roles.verbs import DOWN, SUPERVISOR_SAYS, Verb
from pillarbox.routes import Hop

BUG = Outcome.later(b"Sorry, this is a bug of ours; it is in the log. (#4.3.0)\n")


class Remote:
    """All errands of this process."""

    def __init__(self, house: House, control: socket.socket) -> None:
        self._house = house
        self._loop = asyncio.get_running_loop()
        self._log = Log("remote", house.settings.logformat == "json")
        self._ended = self._loop.create_future()
        self._draining = False
        self._queue: LoopLink | None = None
        self._carriers: dict[asyncio.Task[Any] | None, Carrier] = {}
        self._deaf = Deaf()
        self._errands: set[asyncio.Task[None]] = set()
        self._take_settings()
        self._loop.set_exception_handler(self._bug)
        self._control = LoopLink(self._loop, Link(control, SUPERVISOR_SAYS), self._told, self._end)

    async def serve(self) -> None:
        """To the role's end."""
        self._control.send(Verb.READY, 0)
        await self._ended

    def _take_settings(self) -> None:
        settings = self._house.settings
        servers = [Server(address, port) for address, port in settings.resolvers]
        self._log.as_json = settings.logformat == "json"
        self._road = Road(
            names=Resolver(servers, float(settings.timeoutconnect)),
            me=settings.helohost or settings.me,
            connect=float(settings.timeoutconnect),
            patience=float(settings.timeoutremote),
            carriers=self._carriers,
            deaf=self._deaf,
            parking=Parking(),
        )

    # what the supervisor says

    def _told(self, frame: Frame) -> None:
        if frame.verb is Verb.LINK:
            self._attach(Link.between("remote", frame.fields[0].decode(), socket.socket(fileno=frame.descriptors[0])))
        elif frame.verb is Verb.RELOAD:
            self._house.reread()
            self._take_settings()
        elif frame.verb is Verb.DRAIN:
            self._draining = True
            self._break_off(keep_critical=True)
            self._maybe_end()

    def _attach(self, link: Link) -> None:
        if self._queue is not None:
            self._queue.close()
        self._queue = LoopLink(self._loop, link, self._asked, self._alone)

    def _alone(self) -> None:
        self._queue = None
        self._break_off(keep_critical=False)

    def _break_off(self, *, keep_critical: bool) -> None:
        for errand in self._errands:
            carrier = self._carriers.get(errand)
            if carrier is None or not (keep_critical and carrier.critical):
                errand.cancel()

    def _maybe_end(self) -> None:
        if self._draining and not self._errands:
            self._end()

    def _end(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)

    def _bug(self, _loop: asyncio.AbstractEventLoop, facts: dict[str, Any]) -> None:
        """What nobody foresaw, in a callback of the loop: one line in the log, and life goes on."""
        self._say_bug(facts.get("exception"), str(facts.get("message")))

    def _say_bug(self, bug: BaseException | None, message: str) -> None:
        told = [message] if bug is None else traceback.format_exception(bug)
        line = "".join(told[-3:]).strip().replace("\n", " / ")
        self._log.say(f"alert: remote has a bug: {line}", "bug", trace=line)

    # errands

    def _asked(self, frame: Frame) -> None:
        if self._draining:
            _close(frame)  # when we end the queue takes it for lost
            return
        try:
            errand, tags = read(frame, self._house.settings.cleartextroutes)
        except ValueError:  # the queue is broken or broken into
            _close(frame)
            if self._queue is not None:
                self._queue.close()
            return
        task = self._loop.create_task(self._run(errand, tags))

        def over(task: asyncio.Task[None]) -> None:
            _close(frame)
            self._errands.discard(task)
            if not task.cancelled() and (bug := task.exception()) is not None:
                self._say_bug(bug, "")
                self._report(tags, Result.alike(BUG, len(tags)))
            self._maybe_end()

        self._errands.add(task)
        task.add_done_callback(over)

    async def _run(self, errand: Errand, tags: list[int]) -> None:
        self._report(tags, await relay.run(errand, self._road))

    def _report(self, tags: list[int], result: Result) -> None:
        if self._queue is None:
            return
        last = (DOWN,) if result.down else ()
        for tag, outcome in zip(tags, result.outcomes, strict=True):
            status = str(outcome.status).encode()
            self._queue.send(Verb.OUTCOME, tag, outcome.verdict.value, status, outcome.report, *last)


def read(frame: Frame, clear: frozenset[bytes]) -> tuple[Errand, list[int]]:
    """A RELAY as an errand, and the tags of its recipients' OUTCOMEs. `clear` is control/cleartextroutes. Raises
    ValueError when it is none."""
    _message, size, sender, domain, relay_, port, user, password, body, *pairs = frame.fields
    if len(pairs) % 2:
        raise ValueError("a recipient without an address")
    hop = Hop(relay_, int(port), user, password) if relay_ else None
    source: bytes | int = frame.descriptors[0] if frame.descriptors else body
    errand = Errand(
        domain=domain,
        hop=hop,
        envelope=Envelope(sender, tuple(pairs[1::2])),
        content=Content(source, int(size)),
        clear=hop is not None and hop.among(clear),
    )
    return errand, [int(tag) for tag in pairs[0::2]]


def _close(frame: Frame) -> None:
    for descriptor in frame.descriptors:
        os.close(descriptor)


def run(house: House, control: socket.socket) -> None:
    """The role, to its end."""

    async def serve() -> None:
        await Remote(house, control).serve()

    connections.run(serve)
