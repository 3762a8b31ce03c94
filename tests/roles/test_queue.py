"""The queue role with its real engine; supervisor, smtpd and owner are played by the test over real sockets."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pillarbox.control.table import Settings
from pillarbox.net import listening
from pillarbox.roles.house import House
from pillarbox.roles.link import Frame, Link, LinkLost
from pillarbox.roles.queue import Queue
from pillarbox.roles.verbs import ROLE_SAYS, Verb

SETTINGS = Settings(me=b"mx.example.org", locals=frozenset({b"example.org"}), rcpthosts=frozenset({b"example.org"}))
PATIENCE = 10.0  # seconds


class Played:
    """A queue role in a thread of its own, and the ends of its links that are not its."""

    def __init__(self, home: Path, settings: Settings = SETTINGS) -> None:
        for name in ("queue", "run", "control"):
            (home / name).mkdir(exist_ok=True)
        self.house = House(home, settings, [], public=listening.unix(home / "run" / "queue", 0o600))
        ours, control = socket.socketpair()
        self.supervisor = Link(ours, ROLE_SAYS)
        self.links = [self.supervisor]
        self.role = Queue(self.house, control)
        self._thread = threading.Thread(target=self.role.run)
        self._thread.start()
        self._keys = 0

    def link(self, name: str) -> Link:
        """A fresh link to the role, as the supervisor brings it when `name` starts."""
        ours, theirs = socket.socketpair()
        self.supervisor.send(Verb.LINK, 0, name.encode(), descriptors=[theirs.detach()])
        assert self.supervisor.flush()
        self.links.append(Link.between(name, "queue", ours))
        return self.links[-1]

    def send(self, smtpd: Link, *recipients: bytes, tag: int = 1, body: bytes = b"Subject: x\n\n") -> bytes:
        """A small message, all in one frame; its key."""
        self._keys += 1
        key = b"%016d" % self._keys
        smtpd.send(Verb.MESSAGE, tag, key, b"ann@example.net", body, *recipients)
        assert smtpd.flush()
        return key

    def end(self) -> None:
        """Everybody else is gone, and the supervisor says so."""
        for link in self.links[1:]:
            link.close()
        self.supervisor.send(Verb.DRAIN, 0)
        self.supervisor.flush()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        for link in [self.supervisor, *self.role._rounds._peers]:
            link.close()
        assert self.house.public is not None
        self.house.public.close()


def next_frame(link: Link, *verbs: Verb, seconds: float = PATIENCE) -> Frame:
    """The next frame with one of these verbs. Raises LinkLost, TimeoutError."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for frame in link.receive():
            if frame.verb in verbs:
                return frame
        time.sleep(0.005)
    raise TimeoutError(verbs)


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Played]:
    played = Played(tmp_path)
    yield played
    played.end()


def test_a_new_owner_gets_what_an_older_one_had_though_its_death_is_not_yet_heard(queue: Played) -> None:
    smtpd, owner = queue.link("smtpd"), queue.link("owner")
    queue.send(smtpd, b"joe@example.org")
    first = next_frame(owner, Verb.DELIVER)
    fresh = queue.link("owner")
    queue.send(smtpd, b"jim@example.org", tag=2)
    assert next_frame(fresh, Verb.DELIVER).fields[0] == b"2"
    owner.close()
    again = next_frame(fresh, Verb.DELIVER)
    assert (again.fields[0], again.fields[3]) == (first.fields[0], b"1")
    with pytest.raises(LinkLost):
        next_frame(owner, Verb.DELIVER)
