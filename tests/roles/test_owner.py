"""The owner role with real mailboxes, in a process of its own; queue, auth and pop3d are played by the test."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from pillarbox.control.table import Settings
from pillarbox.mailbox import maildir
from pillarbox.roles import owner as module
from pillarbox.roles.house import House
from pillarbox.roles.link import Frame, Link, LinkLost
from pillarbox.roles.process import take_role
from pillarbox.roles.verbs import MAY_SAY, ROLE_SAYS, Verb
from pillarbox.users.assign import Assignment, write
from pillarbox.users.become import Ids

PATIENCE = 10.0  # seconds


USER = Ids(os.getuid() or 65534, os.getgid() or 65534)  # mail is never root's


class Played:
    """The role as its owner's, and the other ends of its links. `home` is the home of the user joe too; ann is somebody
    else."""

    def __init__(self, home: Path) -> None:
        for name in ("control", "users", "alias"):
            (home / name).mkdir()
        assigned = [
            Assignment(b"=joe", b"joe", b"%d" % USER.uid, b"%d" % USER.gid, os.fsencode(home)),
            Assignment(b"+joe-", b"joe", b"%d" % USER.uid, b"%d" % USER.gid, os.fsencode(home), b"-"),
            Assignment(b"=ann", b"ann", b"4711", b"4711", os.fsencode(home)),
        ]
        write(home / "users", assigned)
        maildir.make(str(home / "Maildir"))
        for place in (home, home / "Maildir", *(home / "Maildir").iterdir()):
            os.chown(place, *USER)
        self.home = home
        ours, control = socket.socketpair()
        self._pid = os.fork()
        if self._pid == 0:
            ours.close()
            self._be(control)
        control.close()
        self.supervisor = Link(ours, ROLE_SAYS)
        self.auth = self.link("auth")

    def _be(self, control: socket.socket) -> None:
        try:
            take_role("owner", USER if os.getuid() == 0 else None, may_gain=True)
            module.run(House(self.home, Settings(me=b"mx.example.org"), []), control)
            os._exit(0)
        except SystemExit:
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        os._exit(1)

    def link(self, name: str) -> Link:
        ours, theirs = socket.socketpair()
        self.supervisor.send(Verb.LINK, 0, name.encode(), descriptors=[theirs.detach()])
        self.supervisor.flush()
        return Link.between(name, "owner", ours)

    def maildrop(self, login: bytes = b"joe") -> Link:
        """What pop3d is given after a login."""
        ours, theirs = socket.socketpair()
        self.auth.send(Verb.MAILDROP, 0, login, b"", descriptors=[theirs.detach()])
        self.auth.flush()
        return Link(ours, MAY_SAY["maildrop", "pop3d"])

    def __enter__(self) -> Played:
        return self

    def __exit__(self, *_: object) -> None:
        """The supervisor goes; a role that still lives ends by that, with status 0."""
        self.auth.close()
        self.supervisor.close()
        assert os.waitpid(self._pid, 0)[1] == 0


def ask(link: Link, verb: Verb, *fields: bytes) -> Frame:
    """Say something; the next frame that comes. Raises LinkLost, TimeoutError."""
    link.send(verb, 1, *fields)
    return answers(link)[0]


def answers(link: Link) -> list[Frame]:
    """Say what is to be said; the frames that come next. Raises LinkLost, TimeoutError."""
    link.flush()
    end = time.monotonic() + PATIENCE
    while not (frames := link.receive()):
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.002)
    return frames


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that every user can enter."""
    directory = Path(tempfile.mkdtemp(prefix="pillarbox-test-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def owner(place: Path) -> Iterator[Played]:
    with Played(place) as played:
        yield played


def test_a_maildrop_is_listed_to_who_holds_its_socket_one_at_a_time(owner: Played) -> None:
    first, second = owner.maildrop(), owner.maildrop()
    assert ask(first, Verb.OPEN).verb is Verb.LISTED
    assert ask(second, Verb.OPEN).verb is Verb.REFUSED
    first.close()
    second.close()


@pytest.mark.parametrize("number", [b"", b"one", b"-1", b"1" * 5000])
@pytest.mark.parametrize("verb", [Verb.FETCH, Verb.UPDATE])
def test_a_number_that_is_none_cuts_the_link_and_unlocks_the_maildrop(owner: Played, verb: Verb, number: bytes) -> None:
    broken = owner.maildrop()
    ask(broken, Verb.OPEN)
    with pytest.raises(LinkLost):
        ask(broken, verb, number)
    next_one = owner.maildrop()
    assert ask(next_one, Verb.OPEN).verb is Verb.LISTED
    broken.close()
    next_one.close()


def test_a_client_that_left_before_it_was_turned_away_does_not_matter(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAILDROPS", 1)
    with Played(place) as played:
        holds = played.maildrop()
        ask(holds, Verb.OPEN)
        for _ in range(20):
            played.maildrop().close()
        holds.close()
        end = time.monotonic() + PATIENCE
        while not opens(played):
            assert time.monotonic() < end


def test_a_login_of_another_owner_opens_nothing_here(owner: Played) -> None:
    drop = owner.maildrop(b"ann")
    assert refused(drop) == b"4.3.5"
    drop.close()
    answer = ask(owner.auth, Verb.PASSWD, b"ann", b"lists")
    assert (answer.verb, answer.fields[0]) == (Verb.REFUSED, b"4.3.5")


def test_deliveries_of_one_round_are_told_of_in_one_frame(owner: Played) -> None:
    queue = owner.link("queue")
    for message in (b"1", b"2"):
        whom = (b"7" + message, b"0", b"joe", b"mx.example.org")
        queue.send(Verb.DELIVER, 0, message, b"incarnation", b"1700000000", b"0", b"2", b"a@b.example", b"x\n", *whom)
    (outcome,) = answers(queue)
    assert (outcome.tag, outcome.fields) == (71, [b"K", b"2.0.0", b"did 1+0+0\n", b"", b"72"])
    assert len(os.listdir(owner.home / "Maildir" / "new")) == 2
    queue.close()


def test_an_extension_is_never_a_way_to_another_directory(owner: Played) -> None:
    answer = ask(owner.auth, Verb.PASSWD, b"joe", b"x/../../etc")
    assert (answer.verb, answer.fields[0]) == (Verb.REFUSED, b"4.3.5")


def test_users_hears_which_extensions_find_a_mailbox(owner: Played) -> None:
    (owner.home / ".qmail-lists").write_text("./Maildir/\n")
    users = owner.link("users")
    assert ask(users, Verb.EXISTS, b"joe").verb is Verb.KNOWN
    assert ask(users, Verb.EXISTS, b"joe-lists").verb is Verb.KNOWN
    assert ask(users, Verb.EXISTS, b"joe-other").fields[0] == b"5.1.1"
    assert ask(users, Verb.EXISTS, b"ann").fields[0] == b"4.3.5"
    users.close()


def test_a_role_that_nobody_has_a_link_to_ends(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONELY_TIME", 0.1)
    with Played(place) as played:
        drop = played.maildrop()
        ask(drop, Verb.OPEN)
        played.auth.close()
        time.sleep(0.3)
        assert ask(drop, Verb.UPDATE).verb is Verb.UPDATED, "a maildrop in use is company"
        drop.close()
        end = time.monotonic() + PATIENCE
        with pytest.raises(LinkLost):
            while time.monotonic() < end:
                played.supervisor.receive()
                time.sleep(0.01)


def refused(link: Link) -> bytes:
    """The status of the refusal that comes unasked."""
    end = time.monotonic() + PATIENCE
    while not (frames := link.receive()):
        assert time.monotonic() < end
        time.sleep(0.002)
    assert frames[0].verb is Verb.REFUSED
    return frames[0].fields[0]


def opens(played: Played) -> bool:
    link = played.maildrop()
    try:
        return ask(link, Verb.OPEN).verb is Verb.LISTED
    except LinkLost:
        return False
    finally:
        link.close()
