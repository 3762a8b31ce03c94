"""The auth role: are these credentials good, and whose are they? It alone reads password records.

Hashes are computed off the loop, a few at a time. Failures are counted by client address, in one place for all network
roles. After a POP3 login it makes a socketpair: the owner gets one end with the mailbox's name, pop3d the other.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from pillarbox.auth.passwords import Record
from pillarbox.auth.throttle import Throttle
from pillarbox.auth.verify import Accounts, Login, extension_record, verify
from pillarbox.credentials import Credentials, Digest, Password
from pillarbox.roles import connections
from pillarbox.roles.house import House
from pillarbox.roles.link import Frame, Link
from pillarbox.roles.log import Log
from pillarbox.roles.logins import PASSWORD
from pillarbox.roles.looplink import LoopLink, Questions
from pillarbox.roles.verbs import SUPERVISOR_SAYS, Verb
from pillarbox.status import Failure, Refusal, Status, SystemTrouble

AT_ONCE = 2  # hashes computed at a time: each takes 19 MiB and a core
OWNER_TIME = 20.0  # seconds that an owner role has to answer
ATTEMPTS = 500  # under way or waiting, of all clients
WRONG = Refusal(Status(5, 7, 8), "authorization failed")
BUSY = Refusal(Status(4, 7, 0), "too many logins at once, try again later")
AWAY = Refusal(Status(4, 7, 0), "temporary authentication failure")


@dataclass(slots=True)
class Attempt:
    """One LOGIN under way: what is claimed, from where, and whom to answer."""

    link: LoopLink
    tag: int
    wants_maildrop: bool
    client: str
    credentials: Credentials
    login: Login | None = None


class Auth:
    """All attempts of all clients."""

    def __init__(self, house: House, control: socket.socket) -> None:
        self._house = house
        self._loop = asyncio.get_running_loop()
        self._log = Log("auth", house.settings.logformat == "json")
        self._accounts = Accounts(house.home, house.settings)
        self._throttle = Throttle()
        self._salt = os.urandom(16)
        self._threads = ThreadPoolExecutor(AT_ONCE)
        self._attempts = 0
        self._spawn = Questions()
        self._ended = self._loop.create_future()
        self._control = LoopLink(self._loop, Link(control, SUPERVISOR_SAYS), self._told, self._end)
        self._links: set[LoopLink] = set()

    async def serve(self) -> None:
        """To the role's end."""
        self._control.send(Verb.READY, 0)
        await self._ended
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _told(self, frame: Frame) -> None:
        if frame.verb is Verb.LINK:
            self._attach(frame.fields[0].decode(), socket.socket(fileno=frame.descriptors[0]))
        elif frame.verb is Verb.RELOAD:
            self._house.reread()
            self._accounts = Accounts(self._house.home, self._house.settings)
        elif frame.verb is Verb.DRAIN:
            self._end()

    def _end(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)

    def _attach(self, peer: str, sock: socket.socket) -> None:
        link = Link.between("auth", peer, sock)
        if peer == "spawn":
            self._spawn.attach(self._loop, link)
            return
        made: list[LoopLink] = []

        def hear(frame: Frame) -> None:
            self._begin(made[0], frame, wants_maildrop=peer == "pop3d")

        made.append(LoopLink(self._loop, link, hear, lambda: self._links.discard(made[0])))
        self._links.add(made[0])

    # one attempt

    def _begin(self, link: LoopLink, frame: Frame, *, wants_maildrop: bool) -> None:
        client, mechanism, login, challenge, secret = frame.fields
        credentials: Credentials = Password(login, secret)
        if mechanism != PASSWORD:
            credentials = Digest(mechanism, login, challenge, secret)
        attempt = Attempt(link, frame.tag, wants_maildrop, client.decode("ascii", "replace"), credentials)
        if self._attempts >= ATTEMPTS:
            _refuse(attempt, BUSY)
            return
        delay = self._throttle.started(attempt.client, self._loop.time())
        if isinstance(delay, Refusal):
            _refuse(attempt, delay)
            return
        self._attempts += 1
        if delay:
            self._loop.call_later(delay, self._look_up, attempt)
        else:
            self._look_up(attempt)

    def _look_up(self, attempt: Attempt) -> None:
        """Find the record; a mailbox with a password of its own has it where only its owner reads."""
        try:
            attempt.login = self._accounts.find(attempt.credentials.login)
            record = self._accounts.record(attempt.login) if attempt.login is not None else None
        except Failure as failure:
            self._undecided(attempt, failure.refusal)
            return
        login = attempt.login
        if login is None or not login.extension:
            self._verify(attempt, record)
            return

        def answered(frame: Frame | None) -> None:
            if frame is None or frame.verb is not Verb.HASH:
                self._undecided(attempt, AWAY)
            else:
                self._verify(attempt, extension_record(login, frame.fields[0]))

        def reached(owner: Questions | None) -> None:
            if owner is None:
                answered(None)
                return

            def told(frame: Frame | None) -> None:
                owner.part()
                answered(frame)

            tag = owner.ask(told, Verb.PASSWD, login.local, login.extension)
            self._loop.call_later(OWNER_TIME, owner.give_up, tag)

        self._reach(login, reached)

    def _reach(self, login: Login, reached: Callable[[Questions | None], None]) -> None:
        """A link of its own to the role of the login's owner, for one question; None: there is none just now."""

        def answered(frame: Frame | None) -> None:
            if frame is None or frame.verb is not Verb.OWNED or not frame.descriptors:
                reached(None)
                return
            owner = Questions()
            owner.attach(self._loop, Link.between("auth", "owner", socket.socket(fileno=frame.descriptors[0])))
            reached(owner)

        tag = self._spawn.ask(answered, Verb.OWNER, login.local)
        self._loop.call_later(OWNER_TIME, self._spawn.give_up, tag)

    def _verify(self, attempt: Attempt, record: Record | None) -> None:
        verified = self._loop.run_in_executor(self._threads, verify, record, attempt.credentials)

        def done(verified: asyncio.Future[bool]) -> None:
            if verified.cancelled() or verified.exception() is not None:
                self._undecided(attempt, AWAY)
            elif verified.result():
                self._welcome(attempt)
            else:
                self._failed(attempt)

        verified.add_done_callback(done)

    def _undecided(self, attempt: Attempt, refusal: Refusal) -> None:
        self._attempts -= 1
        self._throttle.ended(attempt.client, self._loop.time())
        _refuse(attempt, refusal)

    def _failed(self, attempt: Attempt) -> None:
        self._attempts -= 1
        self._throttle.failed(attempt.client, self._loop.time(), self._guess(attempt.credentials))
        _refuse(attempt, WRONG)

    def _guess(self, credentials: Credentials) -> bytes:
        """A keyed digest of name and password, so that a telephone with an old password counts once; a digest over a
        challenge is new each time."""
        if isinstance(credentials, Digest):
            return b""
        secret = credentials.login + b"\0" + credentials.password
        return hashlib.blake2b(secret, key=self._salt, digest_size=16).digest()

    def _welcome(self, attempt: Attempt) -> None:
        self._attempts -= 1
        self._throttle.ended(attempt.client, self._loop.time())
        assert attempt.login is not None  # nobody's credentials are never good
        identity = self._accounts.identity(attempt.credentials.login, attempt.login)
        fields = (identity.login, identity.address, identity.extension, *identity.sendas)
        if attempt.wants_maildrop:
            self._hand_maildrop(attempt, attempt.login, fields)
        else:
            attempt.link.send(Verb.IDENTITY, attempt.tag, *fields)

    def _hand_maildrop(self, attempt: Attempt, login: Login, fields: tuple[bytes, ...]) -> None:
        """Say who it is, with our caller's end of a socket to this one mailbox; the owner has the other."""

        def reached(owner: Questions | None) -> None:
            if owner is None:
                _refuse(attempt, AWAY)
                return
            try:
                one, other = socket.socketpair()
            except OSError as problem:
                _refuse(attempt, SystemTrouble.of(problem).refusal)
            else:
                owner.say(0, Verb.MAILDROP, login.local, login.extension, descriptors=[other.detach()])
                attempt.link.send(Verb.IDENTITY, attempt.tag, *fields, descriptors=[one.detach()])
            owner.part()

        self._reach(login, reached)


def _refuse(attempt: Attempt, refusal: Refusal) -> None:
    attempt.link.send(Verb.REFUSED, attempt.tag, str(refusal.status).encode(), refusal.text.encode("ascii", "replace"))


def run(house: House, control: socket.socket) -> None:
    """The role, to its end."""

    async def serve() -> None:
        await Auth(house, control).serve()

    connections.run(serve)
