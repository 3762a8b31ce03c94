"""The loop of the blocking roles."""

from __future__ import annotations

import socket

from pillarbox.roles.link import Link
from pillarbox.roles.rounds import Rounds
from pillarbox.roles.verbs import ROLE_SAYS, Verb

MANY = 50


def test_links_that_came_together_are_taken_in_together() -> None:
    """The kernel gives out the descriptors of one frame at a time; a round for each would leave the others waiting."""
    ours, control = socket.socketpair()
    supervisor = Link(ours, ROLE_SAYS)
    rounds = Rounds("owner", control)
    others = []
    for _ in range(MANY):
        one, other = socket.socketpair()
        others.append(other)
        supervisor.send(Verb.LINK, 0, b"queue", descriptors=[one.detach()])
    assert supervisor.flush()
    assert len(rounds.wait(1)) == len(rounds.links("queue")) == MANY
    for link in (supervisor, rounds.supervisor, *rounds.links("queue")):
        link.close()
    for other in others:
        other.close()


def test_what_a_peer_said_before_it_went_is_heard_though_our_words_found_nobody() -> None:
    """An outcome that is not heard is a delivery that is made again."""
    supervisor, control = socket.socketpair()
    one, other = socket.socketpair()
    rounds, link = Rounds("queue", control), Link.between("queue", "owner", one)
    rounds.add("owner", link)
    owner = Link.between("owner", "queue", other)
    owner.send(Verb.PONG, 0)
    assert owner.flush()
    owner.close()
    link.send(Verb.PING, 0)
    rounds.flush()
    heard = rounds.wait(1)
    assert [(peer, None if frame is None else frame.verb) for peer, _, frame in heard] == [
        ("owner", Verb.PONG),
        ("owner", None),
    ]
    rounds.supervisor.close()
    supervisor.close()
