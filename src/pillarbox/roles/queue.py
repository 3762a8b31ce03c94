"""The queue role: the only opener of the queue. It commits drafts, schedules, and hands deliveries out.

One round: take in all that has come, commit it once, answer, see to outcomes, hand out. All drafts that arrive while
one commit runs share the next; what outcomes say rides along, or goes alone after a moment of quiet. The rule that
must stay true: COMMITTED is said only after the commit that holds the message has returned.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from typing import Any

from pillarbox.control.table import SECRET
from pillarbox.queue.engine import Engine, QueueBroken, QueueFull
from pillarbox.queue.inquiry import answer
from pillarbox.queue.sqlite import SqliteEngine
from pillarbox.roles.bounces import Bounces
from pillarbox.roles.handout import Handout
from pillarbox.roles.house import House
from pillarbox.roles.inject import PEER, Injection, known_users
from pillarbox.roles.intake import Intake
from pillarbox.roles.link import Frame, Link, LinkLost
from pillarbox.roles.log import Log
from pillarbox.roles.owners import OwnerLinks
from pillarbox.roles.public import Public
from pillarbox.roles.rounds import Rounds
from pillarbox.roles.verbs import Verb
from pillarbox.status import Refusal, Status

QUIET = 0.020  # seconds that outcomes wait for a commit of drafts to ride in
MANY_MARKS = 512  # outcomes that wait for nobody
CLOCK_STEP = 1.0  # seconds that the clock of the day may differ from the steady one in a round
FULL_PAUSE = 1.0  # seconds until marks are tried again on a full disk; meanwhile nothing is handed out
OPEN_PAUSE = 0.5  # seconds until a queue that cannot be opened is tried again; doubles up to
OPEN_PAUSE_LIMIT = 30.0
CLOSED = Refusal(Status(4, 3, 0), "queue not available, try again later")
_SECRET_FILES = tuple(f"control/{name}:" for name in SECRET)
_OUTCOME, _COMMITTED = Verb.OUTCOME, Verb.COMMITTED  # Python 3.11 runs a function to find a member in its Enum
_INTAKE = frozenset({Verb.MESSAGE, Verb.START, Verb.BLOCK, Verb.RECIPIENTS, Verb.COMMIT, Verb.ABORT})


class Queue:
    """All of the role."""

    def __init__(self, house: House, control: socket.socket) -> None:
        self._house = house
        self._rounds = Rounds("queue", control)
        self._log = Log("queue", house.settings.logformat == "json")
        self._marked = 0.0  # when the oldest mark that is not in the engine was made
        self._more = False  # outcomes that were heard are left for the next round
        self._full = False  # new mail had no room the last time
        self._full_until = 0.0
        self._looked_at = time.time(), time.monotonic()
        self._owners = OwnerLinks("queue", self._rounds, house.users.get("vmail"))
        self._asks: list[tuple[Link, Frame]] = []  # that came before the queue could be opened

    def run(self) -> None:
        """To the role's end: told to drain, or the database broke (QueueBroken)."""
        for line in self._house.read_secrets():
            self._log.say(f"warning: {line}", "warning", why=line)
        engine = self._opened()
        self._engine = engine
        self._handout = Handout(engine, self._house.settings, self._log, self._owners)
        self._bounces = Bounces(engine, self._house.settings, self._handout.shown, self._log)
        self._intake = Intake(engine.spool, self._house.settings.spoolsize)
        assert self._house.public is not None and self._house.injection is not None
        known = known_users(self._house.settings)
        self._injection = Injection(self._rounds, self._house.injection, self._intake, known)
        public = Public(self._rounds, self._house.public, self._house.home, self._answer)
        self._say_accepting(None)
        self._find_remote()
        for link, frame in self._asks:
            self._asked(link, frame, time.time())
        self._rounds.ready()
        while not self._finished():
            self._round()
        public.close()
        self._injection.close()
        self._commit(time.time(), now_at_once=True)
        self._rounds.flush()
        self._log.flush()
        engine.close()

    def _opened(self) -> Engine:
        """The engine; while it cannot be opened smtpd is told, and it is tried again with growing pauses."""
        pause = OPEN_PAUSE
        while True:
            try:
                return SqliteEngine.open(self._house.home / "queue", time.monotonic)
            except (QueueBroken, QueueFull) as failure:
                self._log.say(f"alert: cannot open the queue: {failure.text}", "alert", why=failure.text)
            self._turn_away(pause)
            pause = min(pause * 2, OPEN_PAUSE_LIMIT)

    def _turn_away(self, pause: float) -> None:
        """Serve without a queue for `pause` seconds: every draft is refused for now. Who asks about a commit waits: to
        say no to one that happened would make the client send it twice."""
        self._rounds.ready()
        end = time.monotonic() + pause
        while (left := end - time.monotonic()) > 0:
            for peer, link, frame in self._rounds.wait(left):
                if frame is None:
                    self._asks = [asked for asked in self._asks if asked[0] is not link]
                elif frame.verb is Verb.ASK:
                    self._asks.append((link, frame))
                elif frame.verb is Verb.LINK:
                    self._say_accepting(CLOSED)
                elif peer == "smtpd" and frame.verb not in (Verb.BLOCK, Verb.RECIPIENTS):
                    link.refuse(frame.tag, CLOSED)
            if self._rounds.draining:
                raise SystemExit(0)
            self._rounds.flush()

    def _finished(self) -> bool:
        return self._rounds.draining and not self._handout.busy and not self._intake.waiting

    # a round

    def _round(self) -> None:
        heard = self._rounds.wait(0.0 if self._more else self._patience())
        now = self._time()
        for peer, link, frame in heard:
            self._attend(peer, link, frame, now)
        self._commit(now)
        self._more = self._handout.conclude(now)  # no client waits for this
        self._note_marks(now)
        self._hand_out(now)
        self._injection.look()
        self._rounds.flush()
        self._log.flush()

    def _time(self) -> float:
        """Seconds since 1970. When the clock was set, what waits some seconds goes on waiting for as many: marks for a
        commit, an owner role for the patience that one has with it."""
        now, steady = time.time(), time.monotonic()
        step = (now - self._looked_at[0]) - (steady - self._looked_at[1])
        self._looked_at = now, steady
        if abs(step) > CLOCK_STEP:
            self._marked = self._marked and self._marked + step
            self._full_until = self._full_until and self._full_until + step
            self._bounces.shift(step)
            self._owners.shift(step)
        return now

    def _patience(self) -> float | None:
        """Seconds until something is to be done without being told."""
        now = self._time()
        times = []
        if (patience := self._injection.patience()) is not None:
            times.append(now + patience)
        if self._marked:
            times.append(max(self._marked + QUIET, self._full_until))
        elif self._bounces.due is not None:
            times.append(self._bounces.due)
        sweep = self._owners.next_sweep
        if sweep is not None:
            times.append(sweep)
        if not self._marked:
            due = self._handout.schedule.next_due(now)
            if due is not None and not self._rounds.draining:
                times.append(due)
        return max(0.0, min(times) - now) if times else None

    def _attend(self, peer: str, link: Link, frame: Frame | None, now: float) -> None:
        if frame is None:
            self._lost(peer, link, now)
        elif frame.verb in _INTAKE:
            if peer == PEER:
                self._injection.heard(link)
            if peer == "smtpd" or self._intake.knows(link):
                self._intake.hear(link, frame, int(now))
        elif frame.verb is _OUTCOME:
            self._outcome(peer, link, frame, now)
        elif frame.verb is Verb.PONG:
            self._owners.answered(link)
        elif frame.verb is Verb.ASK:
            if peer != PEER or self._injection.may_ask(link):
                self._asked(link, frame, now)
        elif peer == "spawn":
            self._owned(link, frame, now)
        elif frame.verb is Verb.LINK and frame.fields[0] == b"spawn":
            self._owners.spawn_came()
        elif frame.verb is Verb.LINK and frame.fields[0] == b"remote":
            self._find_remote()
        elif frame.verb is Verb.RELOAD:
            for line in self._house.reread():
                if line.startswith(_SECRET_FILES):  # of all others the supervisor tells
                    self._log.say(f"warning: {line}", "warning", why=line)
            self._owners.forget()
            self._log.as_json = self._house.settings.logformat == "json"
            self._handout.configure(self._house.settings)
            self._bounces.settings = self._house.settings
            self._intake.limit = self._house.settings.spoolsize

    def _owned(self, link: Link, frame: Frame, now: float) -> None:
        """spawn says who owns a local part; what waits for that goes there."""
        try:
            answer = self._owners.heard(frame, now)
        except LinkLost:
            self._rounds.cut(link)
            return
        if answer is not None:
            if isinstance(answer[1], Link):
                self._intake.of_owner(answer[1], frame.fields[0])
            self._handout.placed(*answer, now)

    def _find_remote(self) -> None:
        """Use the newest remote role. Of an older one, which has died, the last words may not be heard yet."""
        links = self._rounds.links("remote")
        self._handout.remote = links[-1] if links else None

    def _say_accepting(self, refusal: Refusal | None) -> None:
        """Tell every smtpd whether drafts are taken, so that a client hears it before it sends its message."""
        fields = () if refusal is None else (str(refusal.status).encode(), refusal.text.encode())
        for link in self._rounds.links("smtpd"):
            link.send(Verb.ACCEPTING, 0, *fields)

    def _lost(self, peer: str, link: Link, now: float) -> None:
        if peer in ("smtpd", "owner", PEER):  # an owner's forwards are drafts too
            self._intake.lost(link)
            self._injection.lost(link)
        if peer == "owner":
            self._owners.lost(link)
            self._handout.owner_lost(link, now)
        elif peer == "remote":
            self._handout.remote_lost(link, now)

    def _outcome(self, peer: str, link: Link, frame: Frame, now: float) -> None:
        try:
            self._handout.heard(link, frame)
        except (LinkLost, ValueError):
            self._rounds.cut(link)
            self._lost(peer, link, now)

    def _note_marks(self, now: float) -> None:
        """Bounces ride in the commits that marks ride in."""
        if not self._marked and (self._handout.schedule.unsettled or self._bounces.are_due(now)):
            self._marked = now

    def _asked(self, link: Link, frame: Frame, now: float) -> None:
        """Was the draft with this key committed? What waits for this round's commit is, first."""
        self._commit(now)
        number = self._engine.known(self._intake.key(link, frame.fields[0]))
        if number is None:
            link.refuse(frame.tag, CLOSED)
        else:
            link.send(Verb.COMMITTED, frame.tag, b"%d" % number)

    # commits

    def _commit(self, now: float, *, now_at_once: bool = False) -> None:
        waiting = self._intake.take()
        schedule = self._handout.schedule
        ripe = self._marked and now >= max(self._marked + QUIET, self._full_until)
        if not waiting and not (self._marked and (now_at_once or ripe or schedule.unsettled >= MANY_MARKS)):
            return
        marks = schedule.marks()
        bounces = self._bounces.take(now)
        try:
            endings = [one.ending for one in bounces]
            receipt = self._engine.commit([one.draft for one in waiting], marks, endings)
        except QueueFull as failure:
            self._say_full(failure)
            if bounces:  # they have time, who waits has not
                self._bounces.refused(bounces, now)
                self._intake.waiting = waiting
                self._commit(now, now_at_once=now_at_once)
                return
            if not waiting:
                self._full_until = now + FULL_PAUSE
                return
            for one in waiting:
                one.refuse(failure.refusal)
            self._commit(now, now_at_once=now_at_once)  # marks have room that new mail may not take
            return
        self._full = self._full and not waiting
        self._full_until = 0.0
        self._marked = 0.0
        schedule.settled(len(marks))
        self._bounces.wanted(receipt.failed)
        self._note_marks(now)
        for one, number in zip(waiting, receipt.accepted, strict=True):
            one.link.send(_COMMITTED, one.tag, b"%d" % number)
        self._rounds.flush()  # clients hear of it while the rest of the round is done
        incarnation = self._engine.incarnation
        for one, number in zip(waiting, receipt.accepted, strict=True):
            self._handout.accepted(number, one.draft, incarnation)
        if bounces:
            self._bounces.committed(bounces, receipt.bounced)
        self._handout.ended(receipt.ended)
        for bounce, number in zip(bounces, receipt.bounced, strict=True):
            if number and bounce.ending.bounce is not None:
                self._handout.accepted(number, bounce.ending.bounce, incarnation)

    def _say_full(self, failure: QueueFull) -> None:
        """Once, until new mail has room again."""
        if not self._full:
            self._log.say(f"alert: queue: {failure.text}", "alert", why=failure.text)
        self._full = True

    def _hand_out(self, now: float) -> None:
        for silent in self._owners.sweep(now, self._handout.serves):
            self._rounds.cut(silent)
            self._intake.lost(silent)
            self._owners.lost(silent)
            self._handout.owner_silent(silent, now)
            self._note_marks(now)
        if self._full_until > now or self._rounds.draining:
            return
        if not self._marked:
            self._handout.read_ahead()
        self._handout.start(now)
        self._note_marks(now)

    # what the postmaster asks

    def _answer(self, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
        now = time.time()
        self._commit(now, now_at_once=True)
        changed = set()
        for one in answer(self._engine, request, int(now)):
            if "done" in one:
                changed.add(int(str(one["id"])))
            yield one
        if changed:
            self._handout.changed(changed, int(now))
            self._bounces.wanted(changed)  # who was removed may have been the last to be tried


def run(house: House, control: socket.socket) -> None:
    """The role, to its end."""
    Queue(house, control).run()
