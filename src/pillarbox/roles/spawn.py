"""The spawn role: it starts the owner roles, and is the only one that can become another user.

It is told a local part or a login, never a user or a path; whose that is it finds out itself, with the one resolver. It
has imported everything before the first request, has one thread, and reads neither mail nor passwords. The rules that
must stay true: no owner role is root's, nor one of another role's user; a peer gets a connected socket to the owner of
what it named and to no other.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from pillarbox.roles import owner
from pillarbox.roles.homes import Homes
from pillarbox.roles.house import House
from pillarbox.roles.link import Frame, Link, LinkLost
from pillarbox.roles.log import Log
from pillarbox.roles.process import affordable, be, fork_linked
from pillarbox.roles.rounds import Rounds
from pillarbox.roles.verbs import ROLE_SAYS, Verb
from pillarbox.status import Failure, Refusal, Status, SystemTrouble
from pillarbox.users.become import Ids
from pillarbox.users.owner import Owner, Owners

OWNERS = 2000  # roles at the same time, where this process may have so many descriptors
OWN_MAIL = ("alias", "vmail")  # the users of ours that mail is for
ROUND = 0.05  # seconds between looks at children that hung up and have not ended
UNREAD = 64 << 10  # octets that may wait for an owner role to read them: some 2,800 links, each with its descriptor
HANG_TIME = 10.0  # seconds until one that reads nothing gets no more
LAST_MOMENT = 5.0  # seconds they have for that
NOT_AS_ROOT = Refusal(Status(4, 3, 5), "Not allowed to perform deliveries as root.")
NOT_AS_ROLE = Refusal(Status(4, 3, 5), "sorry, this server does not deliver as a user of its own")
NOT_OURS = Refusal(Status(4, 3, 5), "sorry, this server cannot deliver as that user")
NOBODY = Refusal(Status(5, 1, 1), "sorry, no mailbox here by that name")
HANGS = Refusal(Status(4, 3, 0), "the owner's home or processes do not answer")
TOO_MANY = Refusal(Status(4, 3, 2), "too many owners at once, try again later")

Run = Callable[[House, socket.socket], None]


@dataclass(slots=True)
class _Child:
    """An owner role. `gone`: since when it has hung up; `read`: when it last was seen to read what it is sent. On a
    clock that never goes back."""

    pid: int
    user: Ids
    link: Link
    gone: float = 0.0
    read: float = 0.0


class Spawn:
    """All owner roles; `run_owner` is what each does."""

    def __init__(self, house: House, control: socket.socket, run_owner: Run) -> None:
        self._house, self._run_owner = house, run_owner
        self._rounds = Rounds("spawn", control)
        self._log = Log("spawn", house.settings.logformat == "json")
        self._owners = Owners(house.home, alias=house.alias, owned=Homes(time.monotonic).owned)
        self._serving: dict[Ids, _Child] = {}
        self._ending: list[_Child] = []
        self._most = affordable(OWNERS, 2)

    def run(self) -> None:
        """To the role's end: told to drain, and the last owner has ended."""
        self._rounds.ready()
        while not (self._rounds.draining and not self._serving and not self._ending):
            for peer, link, frame in self._rounds.wait(ROUND if self._ending else None):
                if frame is None:
                    self._lost(link)
                elif peer == "supervisor":
                    self._told(frame)
                elif frame.verb is Verb.OWNER:
                    self._asked(peer, link, frame)
            self._reap()
            self._rounds.flush()
            self._log.flush()

    def _told(self, frame: Frame) -> None:
        """What the supervisor says to every role, the owners hear from us."""
        if frame.verb is Verb.RELOAD:
            self._house.reread()
        if frame.verb in (Verb.RELOAD, Verb.DRAIN):
            for child in self._serving.values():
                child.link.send(frame.verb, 0)

    # who asks

    def _asked(self, peer: str, link: Link, frame: Frame) -> None:
        try:
            child = self._owner_role(self._user(peer, frame.fields[0]))
            one, other = socket.socketpair()
        except Failure as failure:
            link.refuse(frame.tag, failure.refusal)
        except OSError as problem:
            link.refuse(frame.tag, SystemTrouble.of(problem).refusal)
        else:
            child.link.send(Verb.LINK, 0, peer.encode(), descriptors=[one.detach()])
            link.send(Verb.OWNED, frame.tag, b"%d:%d" % child.user, descriptors=[other.detach()])

    def _user(self, peer: str, local: bytes) -> Ids:
        """Whom the owner role of this local part (auth: of this login) runs as. Raises Failure."""
        found = self._owners.for_login(local) if peer == "auth" else self._owners.for_delivery(local)
        if found is None:
            raise Failure(NOBODY.text, NOBODY.status)
        _refuse_foreign(found)
        if any(ids.uid == found.uid for role, ids in self._house.users.items() if role not in OWN_MAIL):
            raise Failure(NOT_AS_ROLE.text, NOT_AS_ROLE.status)
        return Ids(found.uid, found.gid)

    # children

    def _owner_role(self, user: Ids) -> _Child:
        """The role of this user, started unless it runs. Raises Failure, OSError."""
        child = self._serving.get(user)
        if child is None:
            if len(self._serving) + len(self._ending) >= self._most:
                raise Failure(TOO_MANY.text, TOO_MANY.status)
            child = self._serving[user] = self._start(user)
            self._rounds.add("child", child.link)
        elif not _reads(child, time.monotonic()):
            raise Failure(HANGS.text, HANGS.status)
        return child

    def _start(self, user: Ids) -> _Child:
        pid, link = fork_linked()
        if pid == 0:
            self._be(user, link)
        return _Child(pid, user, Link(link, ROLE_SAYS))

    def _be(self, user: Ids, control: socket.socket) -> NoReturn:
        house = self._house.seen_by("owner")
        becomes = user if os.getuid() == 0 else None
        keep = {control.fileno(), *house.descriptors("owner")}
        be("owner", lambda: self._run_owner(house, control), self._log, keep, becomes, may_gain=True)

    def _lost(self, link: Link) -> None:
        """A peer's or a child's end was closed. The child is dead or about to end."""
        for user, child in self._serving.items():
            if child.link is link:
                del self._serving[user]
                child.gone = time.monotonic()
                self._ending.append(child)
                return

    def _reap(self) -> None:
        now = time.monotonic()
        for child in list(self._ending):
            pid, status = os.waitpid(child.pid, os.WNOHANG)
            if pid:
                self._ending.remove(child)
                self._say_end(child, status)
            elif now - child.gone > LAST_MOMENT:
                os.kill(child.pid, signal.SIGKILL)

    def _say_end(self, child: _Child, status: int) -> None:
        if os.WIFSIGNALED(status) and not self._rounds.draining:
            how = f"signal {os.WTERMSIG(status)}"
            line = f"alert: the owner role of uid {child.user.uid} ended with {how}"
            self._log.say(line, "role-ended", peer="owner", uid=child.user.uid, how=how)


def _reads(child: _Child, now: float) -> bool:
    """Whether one more may be put in line: any user can stop his processes, and what is meant for them must not take
    all our descriptors. Who is merely behind is waited for."""
    waiting = child.link.backlog
    if waiting < UNREAD:
        child.read = now
        return True
    try:
        child.link.flush()
    except LinkLost:
        return False  # we hear of it in the next round
    if child.link.backlog < waiting:
        child.read = now
    return now - child.read < HANG_TIME


def _refuse_foreign(found: Owner) -> None:
    """Raises Failure for root, and, where we are not root, for everybody but ourselves."""
    if found.uid == 0:
        raise Failure(NOT_AS_ROOT.text, NOT_AS_ROOT.status)
    if os.getuid() not in (0, found.uid):
        raise Failure(NOT_OURS.text, NOT_OURS.status)


def run(house: House, control: socket.socket) -> None:
    """The role, to its end."""
    Spawn(house, control, owner.run).run()
