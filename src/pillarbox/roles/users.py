"""The users role: who owns this address, does it exist? From users/cdb, passwd and alias/, for smtpd at RCPT."""

from __future__ import annotations

import os
import socket

from pillarbox.roles.house import House
from pillarbox.roles.link import Frame, Link
from pillarbox.roles.log import Log
from pillarbox.roles.rounds import Rounds
from pillarbox.roles.verbs import Verb
from pillarbox.routing import Local, Routing
from pillarbox.status import Failure, Refusal, Status, SystemTrouble
from pillarbox.users.owner import Owners

NO_MAILBOX = Refusal(Status(5, 1, 1), "sorry, no mailbox here by that name")
NOT_OURS = Refusal(Status(4, 3, 5), "sorry, this server cannot deliver as that user")
NOT_LOCAL = Refusal(Status(5, 7, 1), "sorry, that domain isn't in my list of allowed rcpthosts")


class Users:
    """Answers RECIPIENT by the settings and files as they are now."""

    def __init__(self, house: House) -> None:
        self._house = house
        self.reload()

    def reload(self) -> None:
        """Take the settings that the house has now."""
        self._routing = Routing(self._house.settings)
        self._owners = Owners(self._house.home)

    def verdict(self, address: bytes) -> Refusal | None:
        """None: somebody here owns `address`."""
        try:
            route = self._routing.route(address)
            if not isinstance(route, Local):
                return NOT_LOCAL
            if self._house.settings.rcptcheck != "off" and not self._owners.known(route.local):
                return NO_MAILBOX
            owner = self._owners.for_delivery(route.local)
        except Failure as failure:
            return failure.refusal
        except OSError as problem:
            return SystemTrouble.of(problem).refusal
        return None if owner.uid == os.getuid() else NOT_OURS


def run(house: House, control: socket.socket) -> None:
    """The role, to its end."""
    log = Log("users", house.settings.logformat == "json")
    rounds = Rounds("users", control)
    users = Users(house)
    rounds.ready()
    while not rounds.draining:
        for _peer, link, frame in rounds.wait(None):
            if frame is not None:
                _attend(users, house, link, frame)
        rounds.flush()
        log.flush()


def _attend(users: Users, house: House, link: Link, frame: Frame) -> None:
    if frame.verb is Verb.RELOAD:
        house.reread()
        users.reload()
    elif frame.verb is Verb.RECIPIENT:
        refused = users.verdict(frame.fields[0])
        if refused is None:
            link.send(Verb.KNOWN, frame.tag)
        else:
            link.refuse(frame.tag, refused)
