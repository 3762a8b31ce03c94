"""The users role: who owns this address, does it exist? From users/cdb, passwd and alias/, for smtpd at RCPT.

With control/rcptcheck=owner the owner's role is asked as well whether there is a mailbox for the extension: a yes is
remembered for a moment, and no answer in time is a temporary no.
"""

from __future__ import annotations

import os
import socket
import time
from collections import OrderedDict
from dataclasses import dataclass

from pillarbox.delivery.aliases import Table
from pillarbox.roles.homes import Homes
from pillarbox.roles.house import House
from pillarbox.roles.link import LARGEST_TAG, Frame, Link, LinkLost, refusal
from pillarbox.roles.log import Log
from pillarbox.roles.owners import OwnerLinks
from pillarbox.roles.rounds import Rounds
from pillarbox.roles.verbs import Verb
from pillarbox.routing import Local, Routing
from pillarbox.status import Failure, Refusal, Status, SystemTrouble
from pillarbox.users.owner import Owners

NO_MAILBOX = Refusal(Status(5, 1, 1), "sorry, no mailbox here by that name")
NOT_OURS = Refusal(Status(4, 3, 5), "sorry, this server cannot deliver as that user")
SILENT = Refusal(Status(4, 3, 0), "cannot look up that recipient now, try again later")
OWNER_TIME = 10.0  # seconds that an owner role has to answer
ASKED_AT_ONCE = 1000  # questions to owners that are unanswered; more are refused for now
REMEMBERED = 10_000  # local parts that their owners said yes to
REMEMBERED_TIME = 30.0  # seconds


@dataclass(slots=True)
class _Question:
    """Does this local part exist? One that smtpd waits for; `owner`: whom it was put to, None while that is sought."""

    local: bytes
    link: Link
    tag: int
    until: float
    owner: Link | None = None


class Users:
    """The role: answers RECIPIENT by the settings and files as they are now."""

    def __init__(self, house: House, control: socket.socket) -> None:
        self._house = house
        self._rounds = Rounds("users", control)
        self._log = Log("users", house.settings.logformat == "json")
        self._links = OwnerLinks("users", self._rounds)
        self._questions: OrderedDict[int, _Question] = OrderedDict()  # by our tag, the oldest first
        self._next = 0
        self._good: dict[bytes, float] = {}
        self._homes = Homes(time.monotonic)
        self._take_settings()

    def _take_settings(self) -> None:
        self._routing = Routing(self._house.settings)
        listed = Table(self._house.home / self._house.settings.aliases).has
        self._owners = Owners(self._house.home, alias=self._house.alias, owned=self._homes.owned, listed=listed)
        self._links.forget()
        self._good.clear()

    def run(self) -> None:
        """To the role's end."""
        self._rounds.ready()
        while not self._rounds.draining:
            for peer, link, frame in self._rounds.wait(self._patience()):
                if frame is None:
                    self._lost(peer, link)
                else:
                    self._attend(peer, link, frame)
            self._sweep(time.monotonic())
            self._rounds.flush()
            self._log.flush()

    def _patience(self) -> float | None:
        times = [self._links.next_sweep, next(iter([asked.until for asked in self._questions.values()]), None)]
        known = [until for until in times if until is not None]
        return max(0.0, min(known) - time.monotonic()) if known else None

    def _attend(self, peer: str, link: Link, frame: Frame) -> None:
        if frame.verb is Verb.RECIPIENT:
            self._recipient(link, frame)
        elif peer == "spawn":
            self._owned(link, frame)
        elif peer == "owner":
            self._answered(link, frame)
        elif frame.verb is Verb.LINK and frame.fields[0] == b"spawn":
            self._links.spawn_came()
        elif frame.verb is Verb.RELOAD:
            self._house.reread()
            self._take_settings()

    # what the files say

    def _recipient(self, link: Link, frame: Frame) -> None:
        found = self.verdict(frame.fields[0])
        if isinstance(found, Refusal):
            link.refuse(frame.tag, found)
        elif found and self._house.settings.rcptcheck == "owner" and self._good.get(found, 0.0) < time.monotonic():
            self._ask_owner(found, link, frame.tag)
        else:
            link.send(Verb.KNOWN, frame.tag)

    def verdict(self, address: bytes) -> Refusal | bytes:
        """The local part that somebody here owns, in lower case, or why `address` is refused. b"" for one of another
        host: admission has said that mail may go there, and who exists there is not ours to know."""
        try:
            route = self._routing.route(address)
            if not isinstance(route, Local):
                return b""
            if self._house.settings.rcptcheck != "off" and not self._owners.known(route.local, route.domain):
                return NO_MAILBOX
            owner = self._owners.for_delivery(route.local)
        except Failure as failure:
            return failure.refusal
        except OSError as problem:
            return SystemTrouble.of(problem).refusal
        if not self._house.users and owner.uid != os.getuid():
            return NOT_OURS  # nobody here can become that user
        return route.local.lower()

    # what the owners say

    def _ask_owner(self, local: bytes, link: Link, tag: int) -> None:
        if len(self._questions) >= ASKED_AT_ONCE:
            link.refuse(tag, SILENT)
            return
        now = time.monotonic()
        self._next = self._next % LARGEST_TAG + 1
        asked = self._questions[self._next] = _Question(local, link, tag, now + OWNER_TIME)
        owner = self._links.find(local, now)
        if owner is None:
            self._links.ask(local)
        else:
            self._put(self._next, asked, owner)

    def _put(self, tag: int, asked: _Question, owner: Link) -> None:
        asked.owner = owner
        owner.send(Verb.EXISTS, tag, asked.local)

    def _owned(self, link: Link, frame: Frame) -> None:
        try:
            answer = self._links.heard(frame, time.monotonic())
        except LinkLost:
            self._rounds.cut(link)
            return
        if answer is None:
            return
        local, owner = answer
        for tag, asked in list(self._questions.items()):
            if asked.local == local and asked.owner is None:
                if isinstance(owner, Link):
                    self._put(tag, asked, owner)
                else:
                    self._settle(tag, owner)

    def _answered(self, owner: Link, frame: Frame) -> None:
        if frame.verb is Verb.PONG:
            self._links.answered(owner)
            return
        asked = self._questions.get(frame.tag)
        if asked is None or asked.owner is not owner:
            return  # too late, or none of its business
        if frame.verb is Verb.KNOWN:
            if len(self._good) >= REMEMBERED:
                self._good.clear()
            self._good[asked.local] = time.monotonic() + REMEMBERED_TIME
            self._settle(frame.tag, None)
            return
        try:
            self._settle(frame.tag, refusal(frame.fields))
        except LinkLost:
            self._rounds.cut(owner)
            self._lost("owner", owner)

    def _settle(self, tag: int, refused: Refusal | None) -> None:
        asked = self._questions.pop(tag)
        if refused is None:
            asked.link.send(Verb.KNOWN, asked.tag)
        else:
            asked.link.refuse(asked.tag, refused)

    def _lost(self, peer: str, link: Link) -> None:
        if peer == "owner":
            self._links.lost(link)
        for tag, asked in list(self._questions.items()):
            if asked.link is link:
                del self._questions[tag]
            elif asked.owner is link:
                self._settle(tag, SILENT)

    def _sweep(self, now: float) -> None:
        while self._questions:
            tag, oldest = next(iter(self._questions.items()))
            if oldest.until > now:
                break
            self._settle(tag, SILENT)
        for silent in self._links.sweep(now, lambda owner: any(it.owner is owner for it in self._questions.values())):
            self._rounds.cut(silent)
            self._lost("owner", silent)


def run(house: House, control: socket.socket) -> None:
    """The role, to its end."""
    Users(house, control).run()
