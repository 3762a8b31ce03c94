"""Frames and descriptors between two roles."""

from __future__ import annotations

import os
import resource
import socket
import struct
from collections.abc import Iterator

import pytest

from pillarbox.roles.link import FRAME_LIMIT, Frame, Link, LinkLost, refusal
from pillarbox.roles.verbs import FIELDS, MAY_SAY, PAIRS, ROLE_SAYS, SUPERVISOR_SAYS, Verb
from pillarbox.status import Refusal, Status

FACTS = (b"457", b"0a1b2c3d", b"1700000000", b"0", b"5", b"ann@example.net", b"body\n")  # of a DELIVER


@pytest.fixture
def pair() -> Iterator[tuple[Link, Link]]:
    one, other = socket.socketpair()
    links = Link.between("smtpd", "queue", one), Link.between("queue", "smtpd", other)
    yield links
    for link in links:
        link.close()


def test_frames_come_whole_and_in_order(pair: tuple[Link, Link]) -> None:
    smtpd, queue = pair
    smtpd.send(Verb.MESSAGE, 7, b"key", b"", b"body\n", b"joe@example.org")
    smtpd.send(Verb.ABORT, 8)
    assert smtpd.flush()
    message, abort = queue.receive()
    assert (message.verb, message.tag) == (Verb.MESSAGE, 7)
    assert list(message.fields) == [b"key", b"", b"body\n", b"joe@example.org"]
    assert (abort.verb, abort.tag, list(abort.fields)) == (Verb.ABORT, 8, [])


def test_a_frame_larger_than_the_socket_buffer_arrives_in_pieces(pair: tuple[Link, Link]) -> None:
    smtpd, queue = pair
    body = os.urandom(1_500_000)
    smtpd.send(Verb.MESSAGE, 1, b"key", b"", body)
    heard: list[Frame] = []
    while not heard:
        done = smtpd.flush()
        heard = queue.receive()
    assert done and smtpd.backlog == 0
    assert heard[0].fields[2] == body


def test_one_octet_at_a_time_equals_one_piece() -> None:
    one, other = socket.socketpair()
    sender, receiver = Link.between("smtpd", "queue", one), Link.between("queue", "smtpd", other)
    sender.send(Verb.START, 3, b"k" * 16)
    sender.send(Verb.BLOCK, 3, b"text")
    sender.flush()
    octets = other.recv(1 << 16)
    frames = []
    for octet in octets:
        one.send(bytes([octet]))
        frames += receiver.receive()
    assert [(frame.verb, list(frame.fields)) for frame in frames] == [
        (Verb.START, [b"k" * 16]),
        (Verb.BLOCK, [b"text"]),
    ]
    sender.close()
    receiver.close()


def test_descriptors_ride_on_their_own_frames() -> None:
    one, other = socket.socketpair()
    queue, owner = Link.between("queue", "owner", one), Link.between("owner", "queue", other)
    ends = [os.pipe() for _ in range(3)]
    for number, (reading, _writing) in enumerate(ends):
        queue.send(Verb.DELIVER, number, *FACTS)
        queue.send(Verb.DELIVER, 10 + number, *FACTS, descriptors=[reading])
    queue.flush()
    frames: list[Frame] = []
    while len(frames) < 6:
        frames += owner.receive()
    riders = [frame for frame in frames if frame.descriptors]
    assert [frame.tag for frame in riders] == [10, 11, 12]
    for frame, (_reading, writing) in zip(riders, ends, strict=True):
        os.write(writing, b"%d" % frame.tag)
        assert os.read(frame.descriptors[0], 10) == b"%d" % frame.tag
        os.close(frame.descriptors[0])
        os.close(writing)
    queue.close()
    owner.close()


def test_who_has_no_room_for_a_descriptor_ends_rather_than_go_on_without_it() -> None:
    """It would be cut off from that peer for good: nobody brings a second link between two that live."""
    one, other = socket.socketpair()
    queue, owner = Link.between("queue", "owner", one), Link.between("owner", "queue", other)
    reading, writing = os.pipe()
    queue.send(Verb.DELIVER, 1, b"457", descriptors=[reading])
    queue.flush()
    free = os.dup(writing)
    os.close(free)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
    try:
        with pytest.raises(SystemExit, match="descriptors"):
            owner.receive()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    os.close(writing)
    queue.close()
    owner.close()


def test_a_verb_that_the_pair_may_not_say_cuts_the_link(pair: tuple[Link, Link]) -> None:
    smtpd, queue = pair
    smtpd.send(Verb.DELIVER, 1, b"457")
    smtpd.flush()
    with pytest.raises(LinkLost, match="may not say"):
        queue.receive()


@pytest.mark.parametrize(
    "octets",
    [
        struct.pack("<IBBII", FRAME_LIMIT + 1, Verb.ABORT, 0, 1, 0),
        struct.pack("<IBBII", 2, Verb.ABORT, 0, 1, 0),
        struct.pack("<IBBII", 10, 250, 0, 1, 0),
        struct.pack("<IBBII", 10, Verb.ABORT, 1, 1, 0),
        struct.pack("<IBBIII", 14, Verb.BLOCK, 0, 1, 1, 5),
        struct.pack("<IBBIII", 16, Verb.BLOCK, 0, 1, 1, 1) + b"xx",
        struct.pack("<IBBII", 10, Verb.BLOCK, 0, 1, 1 << 30),
    ],
    ids=[
        "too long",
        "too short",
        "no such verb",
        "missing descriptor",
        "field too long",
        "field too short",
        "too many fields",
    ],
)
def test_nonsense_cuts_the_link(octets: bytes) -> None:
    one, other = socket.socketpair()
    queue = Link.between("queue", "smtpd", other)
    one.send(octets)
    with pytest.raises(LinkLost):
        queue.receive()
    one.close()
    queue.close()


@pytest.mark.parametrize(
    ("verb", "fields"),
    [(Verb.MESSAGE, 2), (Verb.START, 0), (Verb.BLOCK, 0), (Verb.COMMIT, 0), (Verb.ASK, 0), (Verb.ASK, 2)],
)
def test_a_frame_with_too_few_fields_or_too_many_cuts_the_link(
    pair: tuple[Link, Link], verb: Verb, fields: int
) -> None:
    smtpd, queue = pair
    smtpd.send(verb, 1, *[b"x"] * fields)
    smtpd.flush()
    with pytest.raises(LinkLost, match="so"):
        queue.receive()


def test_a_descriptor_where_none_belongs_cuts_the_link_and_is_closed(pair: tuple[Link, Link]) -> None:
    smtpd, queue = pair
    reading, writing = os.pipe()
    smtpd.send(Verb.START, 1, b"k" * 16, descriptors=[reading])
    smtpd.flush()
    with pytest.raises(LinkLost, match="so"):
        queue.receive()
    queue.close()
    with pytest.raises(BrokenPipeError):
        os.write(writing, b"x")
    os.close(writing)


LINKED = struct.pack("<IBBIII", 19, Verb.LINK, 1, 0, 1, 5) + b"queue"
MISFIT = struct.pack("<IBBIII", 19, Verb.LINK, 1, 0, 1, 4) + b"queue"


@pytest.mark.parametrize("octets", [LINKED + b"\0" * 20, MISFIT], ids=["in a frame before it", "in the frame itself"])
def test_a_descriptor_that_came_with_nonsense_is_closed(octets: bytes) -> None:
    ours, theirs = socket.socketpair()
    link = Link(theirs, SUPERVISOR_SAYS)
    reading, writing = os.pipe2(os.O_NONBLOCK)
    socket.send_fds(ours, [octets], [writing])
    os.close(writing)
    with pytest.raises(LinkLost):
        link.receive()
    link.close()
    assert os.read(reading, 1) == b"", "nobody has its other end any more"
    os.close(reading)
    ours.close()


def test_every_verb_has_its_fields() -> None:
    assert set(FIELDS) == set(Verb)


def test_a_descriptor_sent_on_a_closed_link_is_closed() -> None:
    one, other = socket.socketpair()
    queue = Link.between("queue", "owner", one)
    queue.close()
    reading, writing = os.pipe()
    queue.send(Verb.DELIVER, 1, *FACTS, descriptors=[reading])
    with pytest.raises(BrokenPipeError):
        os.write(writing, b"x")
    os.close(writing)
    other.close()


def test_a_closed_peer_is_a_lost_link(pair: tuple[Link, Link]) -> None:
    smtpd, queue = pair
    smtpd.close()
    with pytest.raises(LinkLost):
        queue.receive()
    queue.send(Verb.TAKEN, 1, b"1")
    with pytest.raises(LinkLost):
        queue.flush()


def test_closing_a_link_closes_the_descriptors_on_it() -> None:
    one, other = socket.socketpair()
    queue = Link.between("queue", "owner", one)
    reading, writing = os.pipe()
    queue.send(Verb.DELIVER, 1, descriptors=[reading])
    queue.close()
    with pytest.raises(BrokenPipeError):
        os.write(writing, b"x")
    os.close(writing)
    other.close()


def test_a_refusal_crosses_as_it_was(pair: tuple[Link, Link]) -> None:
    smtpd, queue = pair
    queue.refuse(9, Refusal(Status(4, 3, 1), "disk full"))
    queue.flush()
    (frame,) = smtpd.receive()
    assert refusal(frame.fields) == Refusal(Status(4, 3, 1), "disk full")


@pytest.mark.parametrize("fields", [[b"5.1.1"], [b"5.1", b"x"], [b"5.x.1", b"x"], [b"-5.1.1", b"x"]])
def test_a_refusal_of_nonsense_cuts_the_link(fields: list[bytes]) -> None:
    with pytest.raises(LinkLost):
        refusal(fields)


def test_every_pair_has_its_verbs_and_the_supervisor_is_told_nothing_but_ready() -> None:
    for one, other in PAIRS:
        assert MAY_SAY[one, other] and MAY_SAY[other, one]
    assert {Verb.READY} == ROLE_SAYS
    assert not SUPERVISOR_SAYS & frozenset().union(*MAY_SAY.values())
    assert MAY_SAY["auth", "owner"] == {Verb.MAILDROP, Verb.PASSWD}
