"""The auth role: are these credentials good, and whose are they? It alone reads password records.

Hashes are computed off the loop, a few at a time. Failures are counted by client address, in one place for all network
roles. After a POP3 login it makes a socketpair: the owner gets one end with the mailbox's name, pop3d the other.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import argon2.low_level  # noqa: F401  # for auth.hashes: all is imported before a role changes its user

from pillarbox.auth.checkers import CannotCheck, Verdict, check
from pillarbox.auth.passwords import Record
from pillarbox.auth.throttle import Throttle
from pillarbox.auth.verify import Accounts, Login, extension_record, verify
from pillarbox.credentials import Credentials, Digest, Password
from pillarbox.roles import connections
from pillarbox.roles.checker import Checker, uids
from pillarbox.roles.house import House
from pillarbox.roles.link import Frame, Link
from pillarbox.roles.log import Log, safe
from pillarbox.roles.logins import PASSWORD
from pillarbox.roles.looplink import LoopLink, Questions
from pillarbox.roles.verbs import SUPERVISOR_SAYS, Verb
from pillarbox.status import Failure, Refusal, Status, SystemTrouble

AT_ONCE = 2  # hashes computed at a time: each takes 19 MiB and a core
OWNER_TIME = 20.0  # seconds that an owner role has to answer
CHECKS_AT_ONCE = 8  # questions to control/checkers at a time; a program among them may take long
ATTEMPTS = 500  # under way or waiting, of all clients
WRONG = Refusal(Status(5, 7, 8), "authorization failed")
BUSY = Refusal(Status(4, 7, 0), "too many logins at once, try again later")
AWAY = Refusal(Status(4, 7, 0), "temporary authentication failure")

Found = TypeVar("Found")


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
        self._accounts = Accounts(house.home, house.settings, alias=house.alias)
        self._throttle = Throttle()
        self._salt = os.urandom(16)
        self._hashing = ThreadPoolExecutor(AT_ONCE)
        self._asking = ThreadPoolExecutor(CHECKS_AT_ONCE)
        self._finding = ThreadPoolExecutor(1)
        self._attempts = 0
        self._spawn = Questions()
        self._ended = self._loop.create_future()
        self._control = LoopLink(self._loop, Link(control, SUPERVISOR_SAYS), self._told, self._end)
        self._links: set[LoopLink] = set()
        self._checker = self._checking()

    async def serve(self) -> None:
        """To the role's end."""
        self._control.send(Verb.READY, 0)
        if self._checker is not None:
            self._look(self._checker)
        await self._ended
        if self._checker is not None:
            self._checker.close()
        for threads in (self._hashing, self._asking, self._finding):
            threads.shutdown(wait=False, cancel_futures=True)

    def _checking(self) -> Checker | None:
        """Answers on run/checker about control/smtppasswd, which has to be ours to read."""
        if self._house.checker is None:
            return None
        allowed = uids(self._house.settings.checkerusers, self._log)
        file = self._house.home / self._house.settings.smtppasswd
        loop = self._loop
        return Checker(self._house.checker, file, allowed, self._log, watch=loop.add_reader, unwatch=loop.remove_reader)

    def _look(self, checker: Checker) -> None:
        checker.look()
        self._loop.call_later(1.0, self._look, checker)

    def _told(self, frame: Frame) -> None:
        if frame.verb is Verb.LINK:
            self._attach(frame.fields[0].decode(), socket.socket(fileno=frame.descriptors[0]))
        elif frame.verb is Verb.RELOAD:
            self._house.reread()
            if self._house.users and self._house.users["auth"].uid != os.getuid():
                self._end()  # control/checkers was made or taken away; the next of us will be whom it needs
            self._accounts = Accounts(self._house.home, self._house.settings, alias=self._house.alias)
            if self._checker is not None:
                self._checker.uids = uids(self._house.settings.checkerusers, self._log)
                self._checker.file = self._house.home / self._house.settings.smtppasswd
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
        """Find whose mailbox is meant. Where system users log in the password database is asked, off the loop, since it
        may be a network away; the accounts are then looked at by that one thread alone."""
        look = partial(_look, self._accounts, attempt.credentials.login)
        if self._accounts.checkers:
            self._compute(attempt, self._finding, look, lambda found: self._found(attempt, *found))
            return
        try:
            found = look()
        except Failure as failure:
            self._undecided(attempt, failure.refusal)
        else:
            self._found(attempt, *found)

    def _found(self, attempt: Attempt, login: Login | None, record: Record | None) -> None:
        """A mailbox with a password of its own has it where only its owner reads."""
        attempt.login = login
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
        """Against our own record; and then, where a system user may be meant, by control/checkers. They are asked about
        other names too, of accounts and of nobody: a wrong password takes the same time whoever is meant."""
        name = self._accounts.system_name(attempt.credentials.login)

        def verified(right: bool) -> None:
            if right:
                self._welcome(attempt)
            elif name and not (attempt.login and attempt.login.extension):
                self._ask_checkers(attempt, name)
            else:
                self._failed(attempt)

        # Mailboxes of system users have hashes as maildirpasswd makes them.
        crypt = attempt.login is not None and attempt.login.system is not None and bool(attempt.login.extension)
        self._compute(attempt, self._hashing, partial(verify, record, attempt.credentials, crypt=crypt), verified)

    def _ask_checkers(self, attempt: Attempt, name: bytes) -> None:
        owner = attempt.login.system if attempt.login else None
        today = int(time.time()) // 86400

        def checked(verdict: Verdict) -> None:
            if verdict.remark:
                self._warn(attempt, verdict.remark)
            if verdict.right:
                self._welcome(attempt)
            else:
                self._failed(attempt)

        named = owner.user if owner is not None else name
        work = partial(check, self._accounts.checkers, named, owner, attempt.credentials, today)
        self._compute(attempt, self._asking, work, checked)

    def _compute(
        self, attempt: Attempt, threads: ThreadPoolExecutor, work: Callable[[], Found], done: Callable[[Found], None]
    ) -> None:
        """Do what blocks off the loop; a failure of it ends the attempt without a verdict."""

        def ended(computed: asyncio.Future[Found]) -> None:
            problem = None if computed.cancelled() else computed.exception()
            if isinstance(problem, CannotCheck):
                self._warn(attempt, problem.text)
                self._undecided(attempt, AWAY)
            elif isinstance(problem, Failure):
                self._undecided(attempt, problem.refusal)
            elif computed.cancelled() or problem is not None:
                self._undecided(attempt, AWAY)
            else:
                done(computed.result())

        if self._ended.done():  # we are about to go: the threads take nothing more
            self._undecided(attempt, AWAY)
        else:
            self._loop.run_in_executor(threads, work).add_done_callback(ended)

    def _warn(self, attempt: Attempt, why: str) -> None:
        login = safe(attempt.credentials.login[:256])
        self._log.say(f"auth: warning: login {login}: {why}", "warning", login=login, why=why)
        self._log.flush()

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
        domains = b" ".join(identity.domains)
        fields = (identity.login, identity.address, identity.extension, domains, *identity.sendas)
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


def _look(accounts: Accounts, name: bytes) -> tuple[Login | None, Record | None]:
    """Whose mailbox a login name means, and his record. Raises Failure (4.3.0)."""
    login = accounts.find(name)
    return login, accounts.record(login) if login is not None else None


def _refuse(attempt: Attempt, refusal: Refusal) -> None:
    attempt.link.send(Verb.REFUSED, attempt.tag, str(refusal.status).encode(), refusal.text.encode("ascii", "replace"))


def run(house: House, control: socket.socket) -> None:
    """The role, to its end."""

    async def serve() -> None:
        await Auth(house, control).serve()

    connections.run(serve)
