"""The loop of the blocking roles."""

from __future__ import annotations

import os
import socket
import time
from typing import NoReturn

from pillarbox.roles.inject import PEER
from pillarbox.roles.link import READ_SIZE, Link
from pillarbox.roles.rounds import LAST_READS, Rounds
from pillarbox.roles.verbs import MAY_SAY, ROLE_SAYS, Verb
from pillarbox.status import Refusal, Status

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


def test_a_program_that_is_gone_is_not_heard_out() -> None:
    """It asks again by its key. Who it was may be forgotten when its last words are looked at."""
    supervisor, control = socket.socketpair()
    one, other = socket.socketpair()
    rounds, link = Rounds("queue", control), Link(one, MAY_SAY[PEER, "queue"], stranger=True)
    rounds.add(PEER, link)
    program = Link(other, MAY_SAY["queue", PEER])
    program.send(Verb.ABORT, 1)
    assert program.flush()
    program.close()
    link.refuse(1, Refusal(Status(4, 3, 0), "not now"))
    rounds.flush()
    assert rounds.wait(1) == [(PEER, link, None)]
    rounds.supervisor.close()
    supervisor.close()


def _talk(sock: socket.socket, octets: bytes) -> NoReturn:
    """In a process of its own, until nobody listens: status 0; for some seconds at most."""
    status = 1
    try:
        sock.setblocking(True)
        end = time.monotonic() + 3
        while time.monotonic() < end:
            sock.sendall(octets)
    except OSError:
        status = 0
    finally:
        os._exit(status)


def test_who_does_not_read_and_goes_on_saying_something_is_not_heard_for_ever() -> None:
    supervisor, control = socket.socketpair()
    one, other = socket.socketpair()
    rounds, link = Rounds("queue", control), Link.between("queue", "owner", one)
    rounds.add("owner", link)
    other.shutdown(socket.SHUT_RD)
    said = Link.between("owner", "queue", other)
    said.send(Verb.PONG, 0)
    frame = b"".join(said._parting)
    talking = os.fork()
    if talking == 0:
        one.close()
        _talk(other, frame * 6000)  # it costs less to say such frames than to hear them
    time.sleep(0.2)  # there is more of it than one read takes
    link.send(Verb.PING, 0)
    rounds.flush()
    assert len(rounds.wait(0)) <= LAST_READS * READ_SIZE // len(frame) + 1
    assert rounds.links("owner") == []
    assert os.waitpid(talking, 0)[1] == 0, "he was cut off"
    other.close()
    rounds.supervisor.close()
    supervisor.close()
