"""The owner role with real mailboxes, in a process of its own; queue, auth and pop3d are played by the test."""

from __future__ import annotations

import os
import socket
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
from pillarbox.roles.verbs import MAY_SAY, ROLE_SAYS, Verb

PATIENCE = 10.0  # seconds


class Played:
    """The role, and the other ends of its links. `home` is the mailbox's too."""

    def __init__(self, home: Path) -> None:
        for name in ("control", "users", "alias"):
            (home / name).mkdir()
        maildir.make(str(home / "Maildir"))
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
            module.run(House(self.home, Settings(me=b"mx.example.org"), []), control)
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

    def maildrop(self) -> Link:
        """What pop3d is given after a login."""
        ours, theirs = socket.socketpair()
        self.auth.send(Verb.MAILDROP, 0, os.fsencode(self.home), b"", descriptors=[theirs.detach()])
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
    link.flush()
    end = time.monotonic() + PATIENCE
    while not (frames := link.receive()):
        if time.monotonic() > end:
            raise TimeoutError(verb)
        time.sleep(0.002)
    return frames[0]


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[Played]:
    with Played(tmp_path) as played:
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
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAILDROPS", 1)
    with Played(tmp_path) as played:
        holds = played.maildrop()
        ask(holds, Verb.OPEN)
        for _ in range(20):
            played.maildrop().close()
        holds.close()
        end = time.monotonic() + PATIENCE
        while not opens(played):
            assert time.monotonic() < end


def opens(played: Played) -> bool:
    link = played.maildrop()
    try:
        return ask(link, Verb.OPEN).verb is Verb.LISTED
    except LinkLost:
        return False
    finally:
        link.close()
