"""Handing deliveries out, with the real queue engine and a link whose other end is read."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pillarbox.control.table import Settings, read
from pillarbox.envelope import Envelope
from pillarbox.queue.engine import Draft, Message, State
from pillarbox.queue.schedule import CROWDED_PAUSE
from pillarbox.queue.sqlite import SqliteEngine
from pillarbox.roles.handout import BATCH, ENDS_IN_A_ROUND, ON_THE_WAY, Handout
from pillarbox.roles.link import FRAME_LIMIT, LARGEST_TAG, Frame, Link, LinkLost
from pillarbox.roles.log import Log
from pillarbox.roles.verbs import DOWN, Verb
from pillarbox.status import Refusal, Status
from tests.queue.drafts import BIRTH, accept, draft, spooled


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[SqliteEngine]:
    engine = SqliteEngine.open(tmp_path / "queue", time.monotonic)
    yield engine
    engine.close()


@pytest.fixture
def links() -> Iterator[tuple[Link, Link]]:
    one, other = socket.socketpair()
    pair = Link.between("queue", "owner", one), Link.between("owner", "queue", other)
    yield pair
    for link in pair:
        link.close()


@pytest.fixture
def remotes() -> Iterator[tuple[Link, Link]]:
    one, other = socket.socketpair()
    pair = Link.between("queue", "remote", one), Link.between("remote", "queue", other)
    yield pair
    for link in pair:
        link.close()


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Log:
    log = Log("queue", False)
    monkeypatch.setattr(log.__class__, "flush", lambda self: None)
    return log


def settings(tmp_path: Path, domains: str) -> Settings:
    """With the drafts' domain as a virtual one, or without."""
    control = tmp_path / "control"
    control.mkdir(exist_ok=True)
    (control / "me").write_text("mx.example.org\n")
    (control / "virtualdomains").write_text(domains)
    return read(control)[0]


class Here:
    """Every local part is owned by who holds the other end of one link, once that was asked."""

    def __init__(self, links: tuple[Link, Link]) -> None:
        self.link: Link | None = links[0]
        self.asked: list[bytes] = []
        self.many = True

    def find(self, local: bytes, now: float) -> Link | None:
        return self.link

    def ask(self, local: bytes) -> None:
        self.asked.append(local)

    def serves_many(self, link: Link) -> bool:
        return self.many


def heard(links: tuple[Link, Link]) -> list[Frame]:
    links[0].flush()
    return links[1].receive()


def tell(handout: Handout, link: Link, outcome: Frame, now: float = BIRTH) -> None:
    handout.heard(link, outcome)
    while handout.conclude(now):
        pass


LARGE = bytes(1 << 20)


def to_many(given: Draft, body: bytes = b"body\n") -> Draft:
    """One user's 500 addresses, each a destination of its own."""
    addresses = tuple(b"joe-%d@host0.example" % number for number in range(500))
    return given._replace(envelope=Envelope(b"", addresses), body=body, size=len(body))


def committed(engine: SqliteEngine, handout: Handout, given: Draft) -> int:
    (number,) = accept(engine, given)
    handout.accepted(number, given, engine.incarnation)
    return number


def test_a_message_just_committed_goes_out_from_memory_with_each_recipient(
    engine: SqliteEngine, links: tuple[Link, Link], silent: Log, tmp_path: Path
) -> None:
    handout = Handout(engine, settings(tmp_path, "host0.example:a\nhost1.example:b\n"), silent, Here(links))
    number = committed(engine, handout, draft(1, recipients=2))
    handout.start(BIRTH)
    frames = heard(links)
    assert [frame.verb for frame in frames] == [Verb.DELIVER] * len(frames)
    told = [field for frame in frames for field in frame.fields[7:]]
    assert told[2::4] == [b"a-recipient1", b"b-recipient1"] and told[3::4] == [b"host0.example", b"host1.example"]
    assert {bytes(frame.fields[6]) for frame in frames} == {draft(1).body}
    assert handout.busy
    for delivery in told[0::4]:
        tell(handout, links[0], Frame(Verb.OUTCOME, int(delivery), [b"K", b"2.0.0", b"did 1+0+0\n"], []))
    assert not handout.busy
    engine.commit((), handout.schedule.marks())
    assert engine.show(number) is None


def test_a_domain_that_went_away_since_a_message_was_scheduled_is_another_hosts_now(
    engine: SqliteEngine, links: tuple[Link, Link], remotes: tuple[Link, Link], silent: Log, tmp_path: Path
) -> None:
    handout = Handout(engine, settings(tmp_path, "host0.example:a\n"), silent, Here(links))
    committed(engine, handout, spooled(engine, 2))
    handout.configure(settings(tmp_path, ""))
    before = len(os.listdir("/proc/self/fd"))
    handout.start(BIRTH)
    assert len(os.listdir("/proc/self/fd")) == before
    assert heard(links) == [] and not handout.busy
    handout.remote = remotes[0]
    handout.start(BIRTH)
    (frame,) = heard(remotes)
    assert frame.verb is Verb.RELAY and frame.fields[10:] == [b"recipient2@host0.example"]
    os.close(frame.descriptors[0])


def test_a_domain_that_became_ours_since_a_message_was_scheduled_is_delivered_here(
    engine: SqliteEngine, links: tuple[Link, Link], remotes: tuple[Link, Link], silent: Log, tmp_path: Path
) -> None:
    handout = Handout(engine, settings(tmp_path, ""), silent, Here(links))
    committed(engine, handout, draft(1))
    handout.configure(settings(tmp_path, "host0.example:a\n"))
    handout.remote = remotes[0]
    handout.start(BIRTH)
    assert heard(remotes) == []
    (frame,) = heard(links)
    assert frame.verb is Verb.DELIVER and frame.fields[9] == b"a-recipient1"


def test_recipients_of_one_domain_go_to_the_remote_role_in_one_frame_with_their_route(
    engine: SqliteEngine, links: tuple[Link, Link], remotes: tuple[Link, Link], silent: Log, tmp_path: Path
) -> None:
    given = draft(1)
    recipients = (b"a@far.example", b"b@near.example", b"C@FAR.example")
    given = given._replace(envelope=Envelope(given.envelope.sender, recipients))
    routed = replace(settings(tmp_path, ""), smtproutes={b"far.example": b"relay.example:26 joe se cret"})
    handout = Handout(engine, routed, silent, Here(links))
    number = committed(engine, handout, given)
    handout.remote = remotes[0]
    handout.start(BIRTH)
    far, near = sorted(heard(remotes), key=lambda frame: frame.fields[3])
    facts = [b"%d" % number, b"%d" % given.size, given.envelope.sender]
    assert given.body is not None
    assert far.fields[:9] == [*facts, b"far.example", b"relay.example", b"26", b"joe", b"se cret", bytes(given.body)]
    assert far.fields[10::2] == [b"a@far.example", b"C@FAR.example"]
    assert near.fields[:9] == [*facts, b"near.example", b"", b"25", b"", b"", bytes(given.body)]
    for frame in (far, near):
        for tag in map(int, frame.fields[9::2]):
            tell(handout, remotes[0], Frame(Verb.OUTCOME, tag, [b"K", b"2.0.0", b"taken\n"], []))
    engine.commit((), handout.schedule.marks())
    assert engine.show(number) is None


VARYING = b"list-@example.org-@[]"


def test_a_sender_that_varies_goes_to_each_recipient_under_that_one_s_name(
    engine: SqliteEngine, links: tuple[Link, Link], remotes: tuple[Link, Link], silent: Log, tmp_path: Path
) -> None:
    given = draft(1)
    recipients = (b"a@far.example", b"b@far.example", b"joe@host0.example", b"joe@host0.example")
    given = given._replace(envelope=Envelope(VARYING, recipients))
    handout = Handout(engine, settings(tmp_path, "host0.example:prefix\n"), silent, Here(links))
    number = committed(engine, handout, given)
    handout.remote = remotes[0]
    handout.start(BIRTH)
    far, here = heard(remotes), heard(links)
    assert [frame.fields[2] for frame in far] == [b"list-a=far.example@example.org", b"list-b=far.example@example.org"]
    assert [frame.fields[10:] for frame in far] == [[b"a@far.example"], [b"b@far.example"]]
    assert [frame.fields[5] for frame in here] == [b"list-joe=host0.example@example.org"] * 2
    assert [frame.fields[8::4] for frame in here] == [[b"2"], [b"3"]]
    for link, frames, place in ((remotes[0], far, 9), (links[0], here, 7)):
        for frame in frames:
            tell(handout, link, Frame(Verb.OUTCOME, int(frame.fields[place]), [b"K", b"2.0.0", b""], []))
    engine.commit((), handout.schedule.marks())
    assert engine.show(number) is None


def test_a_sender_that_varies_is_handed_out_as_fast_as_its_owner_reads(
    engine: SqliteEngine, links: tuple[Link, Link], silent: Log, tmp_path: Path
) -> None:
    handout = Handout(engine, settings(tmp_path, "host0.example:a\n"), silent, Here(links))
    body = bytes(1 << 20)
    given = draft(1)._replace(envelope=Envelope(VARYING, (b"joe@host0.example",) * 60), body=body, size=len(body))
    committed(engine, handout, given)
    handout.start(BIRTH)
    assert links[0].backlog < ON_THE_WAY + 2 * len(body) and handout.held_up
    numbers: list[int] = []
    while len(numbers) < 60:
        numbers += [int(frame.fields[8]) for frame in heard(links)]
        handout.start(BIRTH)
    assert numbers == list(range(60))


def test_a_route_without_a_relay_defers_and_says_where_the_slip_is(
    engine: SqliteEngine, links: tuple[Link, Link], remotes: tuple[Link, Link], silent: Log, tmp_path: Path
) -> None:
    handout = Handout(engine, replace(settings(tmp_path, ""), smtproutes={b"": b" joe secret"}), silent, Here(links))
    number = committed(engine, handout, draft(1))
    handout.remote = remotes[0]
    handout.start(BIRTH)
    assert heard(remotes) == [] and not handout.busy
    engine.commit((), handout.schedule.marks())
    entry = engine.show(number)
    assert entry is not None
    (recipient,) = entry[1]
    assert recipient.state is State.WAITING and b"control/smtproutes" in recipient.reason
    assert b"secret" not in recipient.reason


def test_no_role_may_tell_of_a_delivery_that_is_another_ones(
    engine: SqliteEngine, links: tuple[Link, Link], remotes: tuple[Link, Link], silent: Log, tmp_path: Path
) -> None:
    handout = Handout(engine, settings(tmp_path, "host0.example:a\n"), silent, Here(links))
    committed(engine, handout, draft(1))
    handout.remote = remotes[0]
    handout.start(BIRTH)
    (frame,) = heard(links)
    outcome = Frame(Verb.OUTCOME, int(frame.fields[7]), [b"K", b"2.0.0", b"taken\n"], [])
    with pytest.raises(LinkLost):
        tell(handout, remotes[0], outcome)
    assert handout.busy
    handout.remote_lost(remotes[0], BIRTH)
    assert handout.busy


def test_a_destination_that_the_remote_role_calls_down_is_left_alone(
    engine: SqliteEngine, links: tuple[Link, Link], remotes: tuple[Link, Link], silent: Log, tmp_path: Path
) -> None:
    handout = Handout(engine, settings(tmp_path, ""), silent, Here(links))
    for number in range(1, 5):
        committed(engine, handout, draft(number))
        handout.remote = remotes[0]
        handout.start(BIRTH)
        for frame in heard(remotes):
            fields = [b"Z", b"4.4.1", b"no connection\n", DOWN]
            tell(handout, remotes[0], Frame(Verb.OUTCOME, int(frame.fields[9]), fields, []))
    assert number == 4 and handout._number == 3


def test_a_last_attempt_that_fails_for_now_is_logged_as_the_failure_it_is(
    engine: SqliteEngine, links: tuple[Link, Link], silent: Log, tmp_path: Path
) -> None:
    handout = Handout(engine, replace(settings(tmp_path, "host0.example:a\n"), queuelifetime=5), silent, Here(links))
    committed(engine, handout, draft(1))
    handout.start(BIRTH + 6)
    (frame,) = heard(links)
    later = Frame(Verb.OUTCOME, int(frame.fields[7]), [b"Z", b"4.2.0", b"not now\n"], [])
    tell(handout, links[0], later, BIRTH + 6)
    assert silent._lines[-1].startswith("delivery 1: failure: not_now/I'm_not_going_to_try_again;")


def test_a_last_attempt_that_nobody_saw_the_end_of_is_logged_as_the_failure_it_is(
    engine: SqliteEngine, links: tuple[Link, Link], silent: Log, tmp_path: Path
) -> None:
    here = Here(links)
    handout = Handout(engine, replace(settings(tmp_path, "host0.example:a\n"), queuelifetime=5), silent, here)
    committed(engine, handout, draft(1))
    now = float(BIRTH + 6)
    said: list[str] = []
    while not said or ": deferral: The_delivery_was_broken_off" in said[-1]:
        handout.start(now)
        handout.owner_lost(links[0], now)
        said.append(silent._lines[-1])
        due = handout.schedule.next_due(now)
        now = now if due is None else max(due, now)
        assert len(said) < 10
        engine.commit((), handout.schedule.marks())
        handout.schedule.settled(handout.schedule.unsettled)
        handout.read_ahead()
    assert "failure: The_delivery_was_broken_off._(#4.3.0)/I'm_not_going_to_try_again;" in said[-1]


def test_deliveries_of_an_owner_that_died_are_tried_again_as_repeats(
    engine: SqliteEngine, links: tuple[Link, Link], silent: Log, tmp_path: Path
) -> None:
    handout = Handout(engine, settings(tmp_path, "host0.example:a\n"), silent, Here(links))
    handout.read_ahead()
    committed(engine, handout, draft(1))
    handout.start(BIRTH)
    (first,) = heard(links)
    assert first.fields[3] == b"0"
    handout.owner_lost(links[0], BIRTH)
    assert not handout.busy
    handout.start(BIRTH + 60)
    (second,) = heard(links)
    assert second.fields[3] == b"1"


def test_a_body_too_large_for_a_frame_goes_by_descriptor(
    engine: SqliteEngine, links: tuple[Link, Link], silent: Log, tmp_path: Path
) -> None:
    handout = Handout(engine, settings(tmp_path, "host0.example:a\n"), silent, Here(links))
    body = os.urandom(FRAME_LIMIT)
    committed(engine, handout, draft(1)._replace(body=body, size=len(body)))
    handout.start(BIRTH)
    (frame,) = heard(links)
    assert frame.fields[4] == b"%d" % len(body) and frame.fields[6] == b""
    (descriptor,) = frame.descriptors
    assert os.pread(descriptor, len(body) + 1, 0) == body
    os.close(descriptor)


def test_one_recipient_named_very_often_goes_in_frames_that_hold_them(
    engine: SqliteEngine, links: tuple[Link, Link], silent: Log, tmp_path: Path
) -> None:
    handout = Handout(
        engine, replace(settings(tmp_path, "host0.example:a\n"), concurrencylocal=65535), silent, Here(links)
    )
    longest = b"x" * 885 + b"@host0.example"
    given = draft(1)
    committed(engine, handout, given._replace(envelope=Envelope(given.envelope.sender, (longest,) * 2400)))
    handout.start(BIRTH)
    numbers: list[int] = []
    while len(numbers) < 2400:
        for frame in heard(links):
            assert frame.fields[6] == given.body
            numbers += map(int, frame.fields[8::4])
    assert numbers == list(range(2400))


def test_numbers_of_deliveries_stay_within_what_a_tag_holds(
    engine: SqliteEngine, links: tuple[Link, Link], silent: Log, tmp_path: Path
) -> None:
    handout = Handout(engine, settings(tmp_path, "host0.example:a\n"), silent, Here(links))
    handout._number = LARGEST_TAG - 1
    for number in (1, 2):
        committed(engine, handout, draft(number))
    handout.start(BIRTH)
    frames = heard(links)
    assert [int(frame.fields[7]) for frame in frames] == [LARGEST_TAG, 1]
    for frame in frames:
        links[1].send(Verb.OUTCOME, int(frame.fields[7]), b"K", b"2.0.0", b"did 1+0+0\n")
    links[1].flush()
    for outcome in links[0].receive():
        tell(handout, links[0], outcome)
    assert not handout.busy


def test_a_message_that_is_not_in_memory_is_read_once_for_all_its_recipients(
    engine: SqliteEngine, links: tuple[Link, Link], silent: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handout = Handout(
        engine, settings(tmp_path, "".join(f"host{n}.example:a{n}\n" for n in range(50))), silent, Here(links)
    )
    accept(engine, draft(1, recipients=50))
    handout.read_ahead()
    read: list[int] = []
    body = engine.body

    def counted(message: Message) -> bytes:
        read.append(message.id)
        return body(message)

    monkeypatch.setattr(engine, "body", counted)
    handout.start(BIRTH)
    assert len(heard(links)) == 50 and len(read) == 1


def test_mail_waits_until_it_is_known_whose_it_is_and_is_put_off_when_nobody_says(
    engine: SqliteEngine, links: tuple[Link, Link], silent: Log, tmp_path: Path
) -> None:
    owners = Here(links)
    owners.link = None
    handout = Handout(engine, settings(tmp_path, "host0.example:a\nhost1.example:b\n"), silent, owners)
    number = committed(engine, handout, draft(1, recipients=2))
    handout.start(BIRTH)
    assert heard(links) == [] and handout.held_up
    first, second = owners.asked
    handout.placed(first, links[0], BIRTH)
    assert [frame.fields[8] for frame in heard(links)] == [b"0"]
    handout.placed(second, Refusal(Status(4, 3, 0), "not now"), BIRTH)
    assert not handout.held_up
    engine.commit((), handout.schedule.marks())
    entry = engine.show(number)
    assert entry is not None and entry[1][1].reason == b"not now (#4.3.0)\n"


def test_what_became_of_a_delivery_is_heard_from_who_has_it_and_from_nobody_else(
    engine: SqliteEngine, links: tuple[Link, Link], silent: Log, tmp_path: Path
) -> None:
    handout = Handout(engine, settings(tmp_path, "host0.example:a\n"), silent, Here(links))
    committed(engine, handout, draft(1))
    handout.start(BIRTH)
    (frame,) = heard(links)
    outcome = Frame(Verb.OUTCOME, int(frame.fields[7]), [b"K", b"2.0.0", b"did 1+0+0\n"], [])
    with pytest.raises(LinkLost):
        tell(handout, links[1], outcome)
    assert handout.busy


def test_deliveries_that_went_the_same_way_are_told_of_together(
    engine: SqliteEngine, links: tuple[Link, Link], silent: Log, tmp_path: Path
) -> None:
    handout = Handout(engine, settings(tmp_path, "host0.example:a\n"), silent, Here(links))
    for number in range(1, 4):
        committed(engine, handout, draft(number))
    handout.start(BIRTH)
    first, *others = [frame.fields[7] for frame in heard(links)]
    assert len(others) == 2
    outcome = Frame(Verb.OUTCOME, int(first), [b"K", b"2.0.0", b"did 1+0+0\n", b"", *others], [])
    tell(handout, links[0], outcome)
    assert not handout.busy
    assert len(handout.schedule.marks()) == 3
    ended = [line for line in silent._lines if line.endswith(": success: did_1+0+0/")]
    assert len(ended) == 3


def test_what_was_heard_is_seen_to_in_turns_and_stands_when_the_speaker_dies(
    engine: SqliteEngine, links: tuple[Link, Link], silent: Log, tmp_path: Path
) -> None:
    handout = Handout(engine, settings(tmp_path, "host0.example:a\n"), silent, Here(links))
    for number in range(ENDS_IN_A_ROUND + 1):
        committed(engine, handout, draft(number))
    handout.start(BIRTH)
    first, *others = [frame.fields[7] for frame in heard(links)]
    handout.heard(links[0], Frame(Verb.OUTCOME, int(first), [b"K", b"2.0.0", b"did 1+0+0\n", b"", *others], []))
    handout.owner_lost(links[0], BIRTH)
    assert handout.conclude(BIRTH)
    assert len(handout.schedule.marks()) == ENDS_IN_A_ROUND and handout.busy
    assert not handout.conclude(BIRTH)
    assert [mark.state for mark in handout.schedule.marks()] == [State.DONE] * (ENDS_IN_A_ROUND + 1)
    assert not handout.busy


def test_of_such_deliveries_none_counts_twice_when_one_is_not_the_speaker_s(
    engine: SqliteEngine, links: tuple[Link, Link], silent: Log, tmp_path: Path
) -> None:
    handout = Handout(engine, settings(tmp_path, "host0.example:a\n"), silent, Here(links))
    for number in range(1, 3):
        committed(engine, handout, draft(number))
    handout.start(BIRTH)
    first, second = [frame.fields[7] for frame in heard(links)]
    outcome = Frame(Verb.OUTCOME, int(first), [b"K", b"2.0.0", b"did 1+0+0\n", b"", b"4711", second], [])
    with pytest.raises(LinkLost):
        handout.heard(links[0], outcome)
    handout.owner_lost(links[0], BIRTH)
    assert not handout.conclude(BIRTH)
    assert not handout.busy
    assert len(handout.schedule.marks()) == 2


def test_one_user_s_deliveries_leave_room_for_others_however_many_addresses_he_has(
    engine: SqliteEngine, links: tuple[Link, Link], silent: Log, tmp_path: Path
) -> None:
    owners = Here(links)
    owners.many = False
    handout = Handout(engine, settings(tmp_path, "host0.example:a\n"), silent, owners)
    committed(engine, handout, to_many(draft(1)))
    handout.start(BIRTH)
    share = 10 * BATCH // 4
    running = [frame.fields[7] for frame in heard(links)]
    assert len(running) == share
    tell(handout, links[0], Frame(Verb.OUTCOME, int(running[0]), [b"K", b"2.0.0", b"did 1+0+0\n"], []))
    marks = handout.schedule.marks()
    engine.commit((), marks)
    handout.schedule.settled(len(marks))
    handout.read_ahead()
    handout.start(BIRTH)
    assert len(heard(links)) == 0, "the others come back when their pause is over"
    handout.start(BIRTH + CROWDED_PAUSE)
    assert len(heard(links)) == 1


def test_what_an_owner_role_does_not_read_counts_as_his_share(
    engine: SqliteEngine, links: tuple[Link, Link], silent: Log, tmp_path: Path
) -> None:
    owners = Here(links)
    owners.many = False
    handout = Handout(engine, settings(tmp_path, "host0.example:a\n"), silent, owners)
    number = committed(engine, handout, to_many(draft(1), body=LARGE))
    handout.start(BIRTH)
    assert handout.schedule.running == 10 * BATCH // 4
    assert len(handout._running) < handout.schedule.running, "the rest waits for him to read"
    engine.remove([number])
    handout.changed([number], BIRTH)
    assert handout.schedule.running == len(handout._running) == handout._load[links[0]], "and does not leave any more"


def test_an_owner_with_nothing_left_to_do_is_forgotten(
    engine: SqliteEngine, links: tuple[Link, Link], silent: Log, tmp_path: Path
) -> None:
    """His link is closed when it was idle for a while, and many owners come and go."""
    handout = Handout(engine, settings(tmp_path, "host0.example:a\n"), silent, Here(links))
    committed(engine, handout, draft(1))
    handout.start(BIRTH)
    (frame,) = heard(links)
    assert links[0] in handout._load
    tell(handout, links[0], Frame(Verb.OUTCOME, int(frame.fields[7]), [b"K", b"2.0.0", b"did 1+0+0\n"], []))
    assert links[0] not in handout._load


def test_what_the_postmaster_stops_does_not_leave_though_it_was_about_to(
    engine: SqliteEngine, links: tuple[Link, Link], remotes: tuple[Link, Link], silent: Log, tmp_path: Path
) -> None:
    handout = Handout(engine, settings(tmp_path, ""), silent, Here(links))
    removed, held, kept = (committed(engine, handout, draft(number)) for number in (1, 2, 3))
    handout.start(BIRTH)  # the remote role is away
    assert handout.schedule.running == 3
    engine.remove([removed])
    engine.hold([held], b"by hand")
    handout.changed([removed, held], BIRTH)
    handout.remote = remotes[0]
    handout.read_ahead()
    handout.start(BIRTH)
    assert [int(frame.fields[0]) for frame in heard(remotes)] == [kept]
    assert handout.schedule.running == 1
    engine.release([held], BIRTH)
    handout.changed([held], BIRTH)
    handout.read_ahead()
    handout.start(BIRTH)
    assert [int(frame.fields[0]) for frame in heard(remotes)] == [held]
