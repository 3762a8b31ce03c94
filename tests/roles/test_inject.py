"""Programs bring messages to the queue role: whose they are, and that nobody takes more than his share."""

from __future__ import annotations

import array
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from pillarbox.control.table import Settings
from pillarbox.net import listening
from pillarbox.queue.engine import Draft
from pillarbox.queue.sqlite import SqliteEngine
from pillarbox.roles import inject as module
from pillarbox.roles import intake as intake_module
from pillarbox.roles.inject import PEER, Injection, known_users
from pillarbox.roles.intake import Intake
from pillarbox.roles.link import STRANGERS_LIMIT, Frame, Link, LinkLost, refusal
from pillarbox.roles.rounds import Rounds
from pillarbox.roles.verbs import MAY_SAY, Verb

KEY = b"k" * 16
NOBODY = 65534
AS_ROOT = pytest.mark.skipif(os.getuid() != 0, reason="needs root: programs of several users")


class Played:
    """A queue role of which only the way in for programs is there, with the real spool."""

    def __init__(self, home: Path) -> None:
        self.path = home / "inject"
        self.engine = SqliteEngine.open(home / "queue", time.monotonic)
        self.supervisor, control = socket.socketpair()
        self.rounds = Rounds("queue", control)
        self.intake = Intake(self.engine.spool, 1000)
        self.listening = listening.unix(self.path, 0o666)
        self.injection = Injection(self.rounds, self.listening, self.intake, {NOBODY: b"by alias"})
        self._programs: list[Link] = []
        self.answered = 0  # ASKs

    def program(self) -> Link:
        """A program that has connected."""
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(self.path))
        self._programs.append(Link(sock, MAY_SAY["queue", PEER]))
        return self._programs[-1]

    def turn(self) -> None:
        """What the role's rounds do with programs."""
        for _ in range(5):
            for peer, link, frame in self.rounds.wait(0.01):
                assert peer == PEER
                if frame is None:
                    self.intake.lost(link)
                    self.injection.lost(link)
                else:
                    self.injection.heard(link)
                    if frame.verb is Verb.ASK:
                        self.answered += self.injection.may_ask(link)
                    else:
                        self.intake.hear(link, frame, 1000)
            self.rounds.flush()
            self.injection.look()

    def said(self, program: Link) -> list[Frame]:
        """What the program hears."""
        with suppress(LinkLost):
            program.flush()
        self.turn()
        return program.receive()

    def brought(self, program: Link, sender: bytes = b"", *recipients: bytes, body: bytes = b"body\n") -> Draft:
        """A small message, and what became of it."""
        program.send(Verb.MESSAGE, 1, KEY, sender, body, *recipients)
        assert self.said(program) == []
        (waiting,) = self.intake.take()
        return waiting.draft

    def close(self) -> None:
        self.injection.close()
        for program in self._programs:
            program.close()
        for sock in (self.listening, self.supervisor):
            sock.close()
        self.rounds.supervisor.close()
        self.engine.close()


@pytest.fixture
def played(open_path: Path) -> Iterator[Played]:
    played = Played(open_path)
    yield played
    played.close()


def lost(program: Link) -> bool:
    try:
        program.receive()
    except LinkLost:
        return True
    return False


def test_a_message_begins_with_who_brought_it_by_the_kernels_word(played: Played) -> None:
    draft = played.brought(played.program(), b"joe@example.org", b"ann@example.org")
    assert (draft.uid, draft.pid) == (os.getuid(), os.getpid())
    line = b"Received: (qmail %d invoked by uid %d); 1 Jan 1970 00:16:40 -0000\n" % (os.getpid(), os.getuid())
    assert draft.body == line + b"body\n" and draft.size == len(line) + 5
    assert draft.envelope == (b"joe@example.org", (b"ann@example.org",))


@AS_ROOT
def test_another_users_message_is_his(played: Played) -> None:
    waiting_until, go_on = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(go_on)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        program = played.program()
        program.send(Verb.MESSAGE, 1, KEY, b"", b"body\n")
        program.flush()
        os.read(waiting_until, 1)
        os._exit(0)
    os.close(waiting_until)
    time.sleep(0.1)
    played.turn()
    os.close(go_on)
    os.waitpid(child, 0)
    (waiting,) = played.intake.take()
    assert (waiting.draft.uid, waiting.draft.pid) == (NOBODY, child)
    assert (waiting.draft.body or b"").startswith(b"Received: (qmail %d invoked by alias); " % child)


def test_a_large_message_begins_so_too(played: Played) -> None:
    program = played.program()
    program.send(Verb.START, 1, KEY)
    program.send(Verb.BLOCK, 1, b"x" * 5000)
    program.send(Verb.RECIPIENTS, 1, b"ann@example.org")
    program.send(Verb.COMMIT, 1, b"", b"joe@example.org")
    assert [frame.verb for frame in played.said(program)] == [Verb.TAKEN]
    (waiting,) = played.intake.take()
    assert waiting.draft.spool is not None
    written = (played.path.parent / "queue" / "spool" / waiting.draft.spool).read_bytes()
    assert re.match(rb"Received: \(qmail \d+ invoked by uid \d+\); [^\n]*\nx{5000}\Z", written)
    assert waiting.draft.envelope.recipients == (b"ann@example.org", b"joe@example.org")


def test_nobody_can_take_a_key_that_a_forward_will_have(played: Played) -> None:
    program = played.program()
    draft = played.brought(program)
    assert draft.key != KEY and len(draft.key) == len(KEY)
    role, other = socket.socketpair()
    assert played.intake.key(Link.between("queue", "smtpd", role), KEY) == KEY
    other.close()
    role.close()


def test_no_owner_can_take_a_key_that_anothers_forward_will_have(played: Played) -> None:
    roles = [socket.socketpair() for _ in range(3)]
    links = [Link.between("queue", "owner", role) for role, _other in roles]
    for link, owner in zip(links, (b"1000:1000", b"1001:1001", b"1000:1000"), strict=True):
        played.intake.of_owner(link, owner)
    keys = []
    for link in links:
        played.intake.hear(link, Frame(Verb.MESSAGE, 1, [KEY, b"", b"body\n", b"a@b"], []), 1000)
        (waiting,) = played.intake.take()
        assert waiting.draft.body == b"body\n" and waiting.draft.key == played.intake.key(link, KEY)
        keys.append(waiting.draft.key)
    assert keys[0] == keys[2], "a repeated job finds what its owner's role did before"
    assert len({KEY, *keys}) == 3
    played.intake.lost(links[0])
    assert played.intake.key(links[0], KEY) == KEY
    links[1].close()
    played.intake.of_owner(links[2], b"1000:1000")
    assert list(played.intake._mixed) == [links[2]], "what was closed for being idle is forgotten"
    for (_role, other), link in zip(roles, links, strict=True):
        other.close()
        link.close()


@pytest.mark.parametrize("octet", [b"\n", b"\r", b"\0", b"\x7f", b"\t"])
@pytest.mark.parametrize("where", ["sender", "recipient"])
def test_an_address_with_a_control_character_is_refused_for_good(played: Played, octet: bytes, where: str) -> None:
    program = played.program()
    address = b"joe" + octet + b"X-Forged: yes@example.org"
    sender, recipient = (address, b"a@b") if where == "sender" else (b"a@b", address)
    program.send(Verb.MESSAGE, 1, KEY, sender, b"body\n", b"first@b", recipient)
    (refused,) = played.said(program)
    assert refusal(refused.fields).status == (5, 1, 3)
    assert played.intake.take() == []


# row: vectors-queue
@pytest.mark.parametrize(("length", "taken"), [(1002, True), (1003, False)])
def test_addresses_are_as_long_as_qmail_queue_takes_them(played: Played, length: int, taken: bool) -> None:
    program = played.program()
    program.send(Verb.MESSAGE, 1, KEY, b"", b"body\n", b"x" * length)
    said = [refusal(frame.fields).status for frame in played.said(program)]
    assert said == ([] if taken else [(5, 1, 3)])


def test_descriptors_that_a_program_sends_are_dropped(played: Played) -> None:
    program = played.program()
    played.turn()
    before = len(os.listdir("/proc/self/fd"))
    sock = socket.socket(fileno=os.dup(program.fileno()))
    frame = _frame(Verb.ABORT, 1)
    for _ in range(20):
        sock.sendmsg([frame], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0] * 200))])
        played.turn()
    sock.close()
    assert len(os.listdir("/proc/self/fd")) <= before
    assert played.brought(program).envelope == (b"", ())


def test_a_frame_larger_than_a_programs_cuts_it_off(played: Played) -> None:
    program = played.program()
    program.send(Verb.MESSAGE, 1, KEY, b"", b"x" * STRANGERS_LIMIT)
    with pytest.raises(LinkLost):
        played.said(program)


@pytest.mark.parametrize("verb", [verb for verb in Verb if verb not in MAY_SAY[PEER, "queue"]])
def test_a_verb_of_the_roles_cuts_a_program_off(played: Played, verb: Verb) -> None:
    program = played.program()
    sock = socket.socket(fileno=os.dup(program.fileno()))
    sock.sendall(_frame(verb, 3))
    sock.close()
    played.turn()
    assert lost(program)


@AS_ROOT
def test_a_user_has_no_more_programs_than_his_share_and_others_still_come_in(
    played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EACH", 3)
    ready, go_on = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(go_on)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        programs = [played.program() for _ in range(5)]
        os.read(ready, 1)
        os._exit(sum(map(lost, programs)))
    os.close(ready)
    time.sleep(0.1)
    played.turn()
    assert played.brought(played.program()).uid == 0
    os.close(go_on)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
    played.turn()
    assert played.injection._of == {0: 1}


def test_all_programs_together_have_a_bound_too(played: Played) -> None:
    played.injection._most = 2
    programs = [played.program() for _ in range(3)]
    played.turn()
    assert [lost(program) for program in programs] == [False, False, True]
    programs[0].close()
    played.turn()
    programs.append(played.program())
    assert played.brought(programs[-1]).envelope == (b"", ())


def test_who_is_silent_is_cut_off_and_what_he_had_begun_is_dropped(
    played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SILENCE", 0.3)
    silent = played.program()
    silent.send(Verb.START, 1, KEY)
    silent.send(Verb.BLOCK, 1, b"x" * 5000)
    assert played.said(silent)[0].verb is Verb.TAKEN
    assert played.injection.patience() is not None
    time.sleep(0.35)
    played.turn()
    assert lost(silent)
    assert list((played.path.parent / "queue" / "spool").iterdir()) == []
    assert played.injection.patience() is None


def test_who_does_not_read_is_cut_off(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "UNREAD", 1000)
    program = played.program()
    program.send(Verb.START, 1, KEY)
    for _ in range(50_000):
        program.send(Verb.BLOCK, 1, b"")
    deaf = False
    for _ in range(200):
        try:
            program.flush()
        except LinkLost:
            deaf = True
            break
        played.turn()
    assert deaf


def test_a_program_that_gave_up_before_it_was_heard_brings_nothing(played: Played) -> None:
    """It has told its caller so, who may send the message again."""
    program = played.program()
    program.send(Verb.MESSAGE, 1, KEY, b"", b"body\n")
    program.flush()
    program.close()
    played.turn()
    assert played.intake.take() == []


def test_a_message_has_a_largest_size(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake_module, "STRANGERS_OCTETS", 10_000)
    program = played.program()
    program.send(Verb.START, 1, KEY)
    for _ in range(3):
        program.send(Verb.BLOCK, 1, b"x" * 4000)
    *_, refused = played.said(program)
    assert refusal(refused.fields).status == (5, 3, 4)
    assert list((played.path.parent / "queue" / "spool").iterdir()) == []


def test_a_program_cannot_take_the_places_of_all_large_messages(played: Played) -> None:
    program = played.program()
    for tag in range(1, 7):
        program.send(Verb.START, tag, KEY)
    said = played.said(program)
    assert [(frame.tag, refusal(frame.fields).status) for frame in said] == [(5, (4, 3, 2)), (6, (4, 3, 2))]
    program.send(Verb.ABORT, 1)
    program.send(Verb.START, 7, KEY)
    program.send(Verb.START, 2, KEY)
    assert played.said(program) == []


def test_who_asks_again_and_again_is_not_answered_and_cut_off(played: Played) -> None:
    """Each answer is a look at all keys of the last minutes: a few thousand of them stopped all mail."""
    modest, greedy = played.program(), played.program()
    modest.send(Verb.ASK, 1, KEY)
    for tag in range(1, 1000):
        greedy.send(Verb.ASK, tag, KEY)
    modest.flush()
    with suppress(LinkLost):
        greedy.flush()
    played.turn()
    assert played.answered == 2
    assert lost(greedy) and not lost(modest)


def test_recipients_of_all_programs_have_a_bound_in_memory(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake_module, "STRANGERS_RECIPIENTS", 10_000)
    program = played.program()
    for tag in (1, 2):
        program.send(Verb.START, tag, KEY)
        program.send(Verb.RECIPIENTS, tag, *[b"joe@example.org"] * 100)
    (refused,) = played.said(program)
    assert (refused.tag, refusal(refused.fields).status) == (2, (4, 3, 2))
    program.send(Verb.COMMIT, 1, b"")
    assert played.said(program) == []
    (waiting,) = played.intake.take()
    assert len(waiting.draft.envelope.recipients) == 100
    assert played.intake._addressed == 0


def test_only_users_of_their_own_have_a_word_of_their_own() -> None:
    """Where everything runs as one user he is nobody special."""
    settings = Settings(me=b"mx.example.org", roleusers={"alias": "root", "smtpd": "daemon"})
    words = known_users(settings)
    assert words.get(0) == (None if os.getuid() == 0 else b"by alias")
    assert b"from network" in words.values()


def _frame(verb: Verb, tag: int) -> bytes:
    ours, theirs = socket.socketpair()
    link = Link(ours, frozenset())
    link.send(verb, tag)
    link.flush()
    octets = theirs.recv(100)
    link.close()
    theirs.close()
    return octets
