"""The owner roles as queue and users see them: whose is a local part, and the link to that owner's role.

Asked of spawn once, remembered for a while; a link that nobody used for a while is closed, and an owner role without
links ends. One that died is asked for anew.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass

from pillarbox.roles.link import LARGEST_TAG, Frame, Link, LinkLost, refusal
from pillarbox.roles.rounds import Rounds
from pillarbox.roles.verbs import Verb
from pillarbox.status import Refusal
from pillarbox.users.become import Ids

KNOWN_TIME = 60.0  # seconds that the owner of a local part is not asked about again
KNOWN_LIMIT = 10_000  # local parts remembered
IDLE_TIME = 10.0  # seconds until a link that is not used is closed
SILENT_TIME = 120.0  # seconds that an owner role with work has to answer a PING


@dataclass(slots=True)
class _Role:
    """A living link to an owner role, when it was used last, and when it is looked at next. `asked`: when it was asked
    whether it is there, and has not answered yet; 0: not asked."""

    link: Link
    used: float
    look_at: float
    asked: float = 0.0


class OwnerLinks:
    """`us` is our role's name, `many` who owns the mailboxes of all accounts. Times are seconds on any one clock."""

    def __init__(self, us: str, rounds: Rounds, many: Ids | None = None) -> None:
        self._us, self._rounds = us, rounds
        self._many = b"%d:%d" % many if many is not None else None
        self._owner_of: dict[bytes, tuple[bytes, float]] = {}
        self._roles: dict[bytes, _Role] = {}
        self._asked: dict[int, bytes] = {}
        self._unanswered: dict[bytes, int] = {}
        self._next = 0

    def find(self, local: bytes, now: float) -> Link | None:
        """The link to the owner of this local part; None: `ask` first."""
        owner, until = self._owner_of.get(local, (b"", 0.0))
        role = self._roles.get(owner) if now < until else None
        if role is None:
            return None
        role.used = now
        return role.link

    def ask(self, local: bytes) -> None:
        """Ask spawn, unless its answer is awaited; when spawn is away, once it is there (`spawn_came`)."""
        if local in self._unanswered:
            return
        self._next = self._next % LARGEST_TAG + 1
        self._asked[self._next] = local
        self._unanswered[local] = self._next
        for spawn in self._rounds.links("spawn")[-1:]:
            spawn.send(Verb.OWNER, self._next, local)

    def spawn_came(self) -> None:
        """A new spawn role: it is asked everything that is unanswered."""
        unanswered, self._unanswered, self._asked = list(self._unanswered), {}, {}
        for local in unanswered:
            self.ask(local)

    def heard(self, frame: Frame, now: float) -> tuple[bytes, Link | Refusal] | None:
        """spawn's answer: the local part asked about, and the link to its owner or why there is none. None: nobody
        waits for it. Raises LinkLost when it is nonsense."""
        local = self._asked.pop(frame.tag, None)
        if local is None or (frame.verb is Verb.OWNED and not frame.descriptors):
            for descriptor in frame.descriptors:
                os.close(descriptor)
            return None
        if frame.verb is Verb.REFUSED:
            refused = refusal(frame.fields)  # or it stays unanswered, for the next spawn role
            del self._unanswered[local]
            return local, refused
        if frame.verb is not Verb.OWNED:
            raise LinkLost("not an answer")
        del self._unanswered[local]
        return local, self._learn(local, frame.fields[0], frame.descriptors[0], now)

    def _learn(self, local: bytes, owner: bytes, descriptor: int, now: float) -> Link:
        if len(self._owner_of) >= KNOWN_LIMIT:
            self._owner_of.clear()
        self._owner_of[local] = owner, now + KNOWN_TIME
        sock = socket.socket(fileno=descriptor)
        role = self._roles.get(owner)
        if role is None:
            role = self._roles[owner] = _Role(Link.between(self._us, "owner", sock), now, now + IDLE_TIME)
            self._rounds.add("owner", role.link)
        else:
            sock.close()  # we are connected to that role already
            role.used = now
        return role.link

    def lost(self, link: Link) -> None:
        """That owner role is gone."""
        for owner, role in list(self._roles.items()):
            if role.link is link:
                del self._roles[owner]

    def forget(self) -> None:
        """Who owns what may have changed. Links stay: they lead to users, not to local parts."""
        self._owner_of.clear()

    def shift(self, step: float) -> None:
        """The clock was set by `step` seconds: nobody was silent or idle for longer than he was."""
        self.forget()
        for role in self._roles.values():
            role.used += step
            role.look_at += step
            role.asked = role.asked and role.asked + step

    def answered(self, link: Link) -> None:
        """That owner role said PONG."""
        for role in self._roles.values():
            if role.link is link:
                role.asked = 0.0

    def serves_many(self, link: Link) -> bool:
        """Is this the role of all accounts, or the only one that there can be?"""
        if self._many is None:
            return True
        role = self._roles.get(self._many)
        return role is not None and role.link is link

    def sweep(self, now: float, busy: Callable[[Link], bool]) -> list[Link]:
        """Close links unused for a while. Where something is under way, ask whether anybody is there; returns links on
        which nobody answered in time: he may hang on a dead mount, and no longer be one that could be killed."""
        silent = []
        for role in list(self._roles.values()):
            if now < role.look_at:
                continue
            role.look_at = now + IDLE_TIME
            if role.asked and now - role.asked > SILENT_TIME:
                silent.append(role.link)
            elif role.link.backlog or busy(role.link):
                if not role.asked:
                    role.asked = now
                    role.link.send(Verb.PING, 0)
            elif now - role.used >= IDLE_TIME:
                self.lost(role.link)
                self._rounds.cut(role.link)
        return silent

    @property
    def next_sweep(self) -> float | None:
        """When `sweep` has something to look at; None without links."""
        return min((role.look_at for role in self._roles.values()), default=None)
