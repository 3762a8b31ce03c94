"""The loop of the blocking roles (queue, owner, users): a round takes in all that has come, works, answers once.

Batches come from this by themselves: what arrives while a round works is the next round's.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from pillarbox.roles.link import Frame, Link, LinkLost
from pillarbox.roles.verbs import ROLE_SAYS, SUPERVISOR_SAYS, Verb

BRING_LINKS = frozenset({"supervisor", "spawn"})  # the peers from whom links come, many at a time
DESCRIPTORS_IN_A_ROUND = 64
BACKLOG_LIMIT = 8 << 20  # octets of answers that a peer may leave unread before we stop listening to it


class Heard(NamedTuple):
    """One frame and who said it; `frame` None: the link to that peer is lost."""

    peer: str
    link: Link
    frame: Frame | None


@dataclass(slots=True)
class _Peer:
    name: str
    link: Link
    watched: int


class Rounds:
    """Links of one role, its control link to the supervisor among them."""

    def __init__(self, role: str, control: socket.socket) -> None:
        self._role = role
        self._selector = selectors.DefaultSelector()
        self._peers: dict[Link, _Peer] = {}
        self._lost: list[Heard] = []
        self._outside: dict[int, Callable[[], None]] = {}
        self.draining = False
        self.supervisor = Link(control, SUPERVISOR_SAYS)
        self.add("supervisor", self.supervisor)

    def add(self, name: str, link: Link) -> None:
        """Listen to `link` from now on, under the peer's `name`."""
        self._peers[link] = _Peer(name, link, selectors.EVENT_READ)
        self._selector.register(link, selectors.EVENT_READ, link)

    def watch(self, listening: socket.socket | int, arrived: Callable[[], None]) -> None:
        """Call `arrived` in a round in which `listening`, a socket or descriptor, is readable or at its end."""
        self._selector.register(listening, selectors.EVENT_READ, arrived)

    def unwatch(self, listening: socket.socket | int) -> None:
        """No longer."""
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(listening)

    def ready(self) -> None:
        """Tell the supervisor that this role serves."""
        assert Verb.READY in ROLE_SAYS
        self.supervisor.send(Verb.READY, 0)
        self.flush()

    def links(self, name: str) -> list[Link]:
        """All links to peers of this name."""
        return [peer.link for peer in self._peers.values() if peer.name == name]

    def wait(self, timeout: float | None) -> list[Heard]:
        """Sleep up to `timeout` seconds, then all that has come, the supervisor's words included: new links and
        draining are seen to already. A lost supervisor ends the role (SystemExit): nobody is left to stop it."""
        heard, self._lost = self._lost, []
        for key, events in self._selector.select(0 if heard else timeout):
            if not isinstance(key.data, Link):
                key.data()
                continue
            peer = self._peers.get(key.data)
            if peer is not None:
                self._attend(peer, events, heard)
        return heard

    def _attend(self, peer: _Peer, events: int, heard: list[Heard]) -> None:
        try:
            if events & selectors.EVENT_READ:
                self._receive(peer, heard)
            if events & selectors.EVENT_WRITE:
                peer.link.flush()
        except LinkLost:
            heard.append(self._drop(peer))

    def _receive(self, peer: _Peer, heard: list[Heard]) -> None:
        """All that has come; the kernel gives out no more than one frame's descriptors at a time. Raises LinkLost."""
        for _ in range(DESCRIPTORS_IN_A_ROUND if peer.name in BRING_LINKS else 1):
            for frame in peer.link.receive():
                if peer.name == "supervisor":
                    self._obey(frame)
                heard.append(Heard(peer.name, peer.link, frame))
            if peer.link.dry:
                break

    def _drop(self, peer: _Peer) -> Heard:
        if peer.name == "supervisor":
            raise SystemExit(0)
        self.cut(peer.link)
        return Heard(peer.name, peer.link, None)

    def cut(self, link: Link) -> None:
        """Stop listening to `link` and close it."""
        if self._peers.pop(link, None) is not None:
            self._selector.unregister(link)
            link.close()

    def _obey(self, frame: Frame) -> None:
        if frame.verb is Verb.LINK:
            name = frame.fields[0].decode()
            self.add(name, Link.between(self._role, name, socket.socket(fileno=frame.descriptors[0])))
        elif frame.verb is Verb.DRAIN:
            self.draining = True

    def flush(self) -> None:
        """Send what the sockets take; watch the rest. A peer that does not read is not listened to either."""
        for peer in list(self._peers.values()):
            if not peer.link.backlog and peer.watched == selectors.EVENT_READ:
                continue
            try:
                done = peer.link.flush()
            except LinkLost:
                self._lost.append(self._drop(peer))
                continue
            watched = selectors.EVENT_READ if done else selectors.EVENT_WRITE
            if not done and peer.link.backlog < BACKLOG_LIMIT:
                watched |= selectors.EVENT_READ
            if watched != peer.watched:
                peer.watched = watched
                self._selector.modify(peer.link, watched, peer.link)
