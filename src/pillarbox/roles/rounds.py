"""The loop of the blocking roles (queue, owner, users): a round takes in all that has come, works, answers once.

Batches come from this by themselves: what arrives while a round works is the next round's.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from dataclasses import dataclass
from select import EPOLLIN, EPOLLOUT, epoll

from pillarbox.roles.link import Frame, Link, LinkLost
from pillarbox.roles.verbs import ROLE_SAYS, SUPERVISOR_SAYS, Verb

BRING_LINKS = frozenset({"supervisor", "spawn"})  # the peers from whom links come, many at a time
DESCRIPTORS_IN_A_ROUND = 64
LAST_READS = 8  # of a peer that is gone; what it leaves is no more than its socket holds
BACKLOG_LIMIT = 8 << 20  # octets of answers that a peer may leave unread before we stop listening to it


Heard = tuple[str, Link, Frame | None]
"""The peer's name, the link, and one frame of it; None: that link is lost."""


@dataclass(slots=True)
class _Peer:
    name: str
    link: Link
    descriptor: int
    watched: int


class Rounds:
    """Links of one role, its control link to the supervisor among them."""

    def __init__(self, role: str, control: socket.socket) -> None:
        self._role = role
        self._epoll = epoll()
        self._peers: dict[Link, _Peer] = {}
        self._watched: dict[int, _Peer | Callable[[], None]] = {}  # by descriptor
        self._lost: list[Heard] = []
        self.draining = False
        self.supervisor = Link(control, SUPERVISOR_SAYS)
        self.add("supervisor", self.supervisor)

    def add(self, name: str, link: Link) -> None:
        """Listen to `link` from now on, under the peer's `name`."""
        peer = self._peers[link] = _Peer(name, link, link.fileno(), EPOLLIN)
        self._watch(peer.descriptor, peer)

    def watch(self, listening: socket.socket | int, arrived: Callable[[], None]) -> None:
        """Call `arrived` in a round in which `listening`, a socket or descriptor, is readable or at its end."""
        self._watch(listening if isinstance(listening, int) else listening.fileno(), arrived)

    def _watch(self, descriptor: int, who: _Peer | Callable[[], None]) -> None:
        self._epoll.register(descriptor, EPOLLIN)
        self._watched[descriptor] = who

    def unwatch(self, listening: socket.socket | int) -> None:
        """No longer."""
        self._unwatch(listening if isinstance(listening, int) else listening.fileno())

    def _unwatch(self, descriptor: int) -> None:
        """Harmless twice, and when it is closed already."""
        if self._watched.pop(descriptor, None) is not None:
            with contextlib.suppress(OSError):
                self._epoll.unregister(descriptor)

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
        for descriptor, events in self._epoll.poll(0 if heard else timeout):
            who = self._watched.get(descriptor)
            if isinstance(who, _Peer):
                self._attend(who, events, heard)
            elif who is not None:
                who()
        return heard

    def _attend(self, peer: _Peer, events: int, heard: list[Heard]) -> None:
        """What is neither reading nor writing, a peer that hung up, both find out."""
        try:
            if events & ~EPOLLOUT and peer.watched & EPOLLIN:
                self._receive(peer, heard)
            if events & ~EPOLLIN and peer.watched & EPOLLOUT:
                peer.link.flush()
        except LinkLost:
            heard.append(self._drop(peer))

    def _receive(self, peer: _Peer, heard: list[Heard]) -> None:
        """All that has come; the kernel gives out no more than one frame's descriptors at a time. Raises LinkLost."""
        for _ in range(DESCRIPTORS_IN_A_ROUND if peer.name in BRING_LINKS else 1):
            for frame in peer.link.receive():
                if peer.name == "supervisor":
                    self._obey(frame)
                heard.append((peer.name, peer.link, frame))
            if peer.link.dry:
                break

    def _hear_out(self, peer: _Peer) -> None:
        """Keep for the next round what an owner or the remote role said before it went: as much as a socket holds, for
        who only stopped reading can go on for ever."""
        if peer.name not in ("owner", "remote"):
            return
        with contextlib.suppress(LinkLost):
            for _ in range(LAST_READS):
                self._lost += [(peer.name, peer.link, frame) for frame in peer.link.receive()]
                if peer.link.dry:
                    return

    def _drop(self, peer: _Peer) -> Heard:
        if peer.name == "supervisor":
            raise SystemExit(0)
        self.cut(peer.link)
        return peer.name, peer.link, None

    def cut(self, link: Link) -> None:
        """Stop listening to `link` and close it."""
        peer = self._peers.pop(link, None)
        if peer is not None:
            self._unwatch(peer.descriptor)
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
            if not peer.link.backlog and peer.watched == EPOLLIN:
                continue
            try:
                done = peer.link.flush()
            except LinkLost:
                self._hear_out(peer)
                self._lost.append(self._drop(peer))
                continue
            watched = EPOLLIN if done else EPOLLOUT
            if not done and peer.link.backlog < BACKLOG_LIMIT:
                watched |= EPOLLIN
            if watched != peer.watched:
                peer.watched = watched
                self._epoll.modify(peer.descriptor, watched)
