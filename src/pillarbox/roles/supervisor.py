"""The supervisor: starts the roles, ties them together, restarts what dies, and stops them in order.

It reads nothing from the network. Every role has one control link to it; every pair of roles of verbs.PAIRS gets a
fresh socketpair whenever one side starts, so that a role that died is back in the net without the others restarting.
"""

from __future__ import annotations

import gc
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import NoReturn

from pillarbox.roles import certificates
from pillarbox.roles.house import House
from pillarbox.roles.link import Link, LinkLost
from pillarbox.roles.log import Log
from pillarbox.roles.process import be
from pillarbox.roles.verbs import PAIRS, ROLE_SAYS, Verb
from pillarbox.status import Failure

RESTART_PAUSE = 0.05  # seconds before a role that died is started again; doubles up to
RESTART_PAUSE_LIMIT = 5.0
STEADY = 10.0  # a role that lived this many seconds is restarted without a pause again
ROUND = 1.0  # seconds between looks at what nobody reports
CERTIFICATE_PERIOD = 5.0  # seconds between looks at the certificate files
STOP_ORDER = (("smtpd", "pop3d"), ("queue", "remote", "spawn"), ("auth", "users"))
STOP_MARGIN = 5.0  # seconds beyond control/draintime until a role is killed

Run = Callable[[House, socket.socket], None]


class Moment(Enum):
    """What whoever started us may want to hear of."""

    SERVING = auto()  # once, when every role does
    RELOADING = auto()
    RELOADED = auto()
    STOPPING = auto()


@dataclass(slots=True)
class _Process:
    """One process of a role, or its empty place while it is down."""

    role: str
    run: Run
    pid: int = 0
    link: Link | None = None
    ready: bool = False
    started: float = 0.0
    pause: float = RESTART_PAUSE
    start_at: float = 0.0
    finished: bool = field(default=False)


class Supervisor:
    """`roles`: (name, how to run it, how many). `announce` hears of each moment."""

    def __init__(
        self, house: House, roles: list[tuple[str, Run, int]], log: Log, announce: Callable[[Moment], None]
    ) -> None:
        self._house = house
        self._log = log
        self._announce = announce
        self._processes = [_Process(name, run) for name, run, count in roles for _ in range(count)]
        self._selector = selectors.DefaultSelector()
        self._announced = False
        self._stopping = False
        self._reload = False
        self._marks = house.certificate_marks()
        self._domains = house.account_marks()
        self._looked = 0.0

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT; the exit status."""
        self._catch_signals()
        gc.collect()
        gc.freeze()
        for process in self._processes:
            self._start(process)
        while not self._stopping:
            self._round()
        return self._stop()

    # rounds

    def _catch_signals(self) -> None:
        self._wake, ours = socket.socketpair()
        self._wake.setblocking(False)
        ours.setblocking(False)
        self._ours = ours
        signal.set_wakeup_fd(ours.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, self._signalled)
        self._selector.register(self._wake, selectors.EVENT_READ, None)

    def _signalled(self, number: int, _frame: object) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            self._stopping = True
        elif number == signal.SIGHUP:
            self._reload = True

    def _round(self, timeout: float = ROUND) -> None:
        now = time.monotonic()
        pauses = [process.start_at - now for process in self._processes if not process.pid]
        self._listen(timeout if self._stopping else max(0.0, min([timeout, *pauses])))
        self._flush_all()
        self._reap()
        now = time.monotonic()
        if not self._stopping:
            for process in self._processes:
                if not process.pid and process.start_at <= now:
                    self._start(process)
            if self._reload or self._domains_changed():
                self._reload = False
                self._announce(Moment.RELOADING)
                self._reread()
                self._announce(Moment.RELOADED)
            elif now - self._looked > CERTIFICATE_PERIOD:
                self._looked = now
                self._look_at_certificates()
        self._log.flush()

    def _listen(self, timeout: float) -> None:
        for key, _events in self._selector.select(timeout):
            if key.data is None:
                with suppress(BlockingIOError):
                    self._wake.recv(512)
                continue
            try:
                for frame in key.data.link.receive():
                    if frame.verb is Verb.READY:
                        key.data.ready = True
                        self._count_ready()
            except LinkLost:
                self._cut(key.data)

    def _count_ready(self) -> None:
        if not self._announced and all(process.ready for process in self._processes):
            self._announced = True
            self._announce(Moment.SERVING)

    def _reap(self) -> None:
        for process in self._processes:
            if not process.pid:
                continue
            pid, status = os.waitpid(process.pid, os.WNOHANG)
            if pid:
                self._ended(process, status)

    def _ended(self, process: _Process, status: int) -> None:
        self._cut(process)
        process.pid = 0
        process.ready = False
        if self._stopping:
            return
        self._postpone(process)
        how = (
            f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"status {os.waitstatus_to_exitcode(status)}"
        )
        self._log.say(
            f"alert: {process.role} ended with {how}, starting it again", "role-ended", peer=process.role, how=how
        )

    def _postpone(self, process: _Process) -> None:
        """It shall start again, the later the less it lived."""
        now = time.monotonic()
        steady = now - process.started > STEADY
        process.pause = RESTART_PAUSE if steady else min(process.pause * 2, RESTART_PAUSE_LIMIT)
        process.start_at = now + process.pause

    def _cut(self, process: _Process) -> None:
        if process.link is not None:
            with suppress(KeyError):
                self._selector.unregister(process.link)
            process.link.close()
            process.link = None

    # starting

    def _start(self, process: _Process) -> None:
        ours, theirs = socket.socketpair()
        process.started = time.monotonic()
        try:
            pid = os.fork()
        except OSError as problem:  # no memory or no process number: for now
            ours.close()
            theirs.close()
            self._postpone(process)
            line = f"alert: cannot start {process.role}: {problem.strerror}, trying again"
            self._log.say(line, "role-not-started", peer=process.role, why=str(problem.strerror))
            return
        if pid == 0:
            self._be(process, theirs)
        theirs.close()
        process.pid = pid
        process.link = Link(ours, ROLE_SAYS)
        self._selector.register(process.link, selectors.EVENT_READ, process)
        self._tie(process)
        self._send_certificates(process)

    def _be(self, process: _Process, control: socket.socket) -> NoReturn:
        house, role = self._house.seen_by(process.role), process.role
        keep = {control.fileno(), *house.descriptors(role)}
        user = house.users.get(role)
        be(role, lambda: process.run(house, control), self._log, keep, user, may_gain=house.may_gain(role))

    def _tie(self, process: _Process) -> None:
        """Give `process` and each living peer of it the two ends of a new socketpair."""
        for peer in self._peers(process):
            if peer.link is None:
                continue
            one, other = socket.socketpair()
            for link, name, end in ((process.link, peer.role, one), (peer.link, process.role, other)):
                assert link is not None
                link.send(Verb.LINK, 0, name.encode(), descriptors=[end.detach()])
                self._flush(link)

    def _peers(self, process: _Process) -> Iterator[_Process]:
        for one, other in PAIRS:
            if process.role in (one, other):
                wanted = other if process.role == one else one
                yield from (peer for peer in self._processes if peer.role == wanted)

    def _flush(self, link: Link) -> None:
        with suppress(LinkLost):  # its death is noticed by waitpid
            link.flush()

    def _flush_all(self) -> None:
        """A role that did not read for a while must not miss what it was told last."""
        for process in self._processes:
            if process.link is not None and process.link.backlog:
                self._flush(process.link)

    # what changes while it runs

    def _domains_changed(self) -> bool:
        """`pillarbox account` has written: whoever made an account does not have to tell us."""
        try:
            domains = self._house.account_marks()
        except OSError:
            return False  # control is not to be read just now; SIGHUP would say so
        changed, self._domains = domains != self._domains, domains
        return changed

    def _reread(self) -> None:
        try:
            for line in self._house.reread():
                self._log.say(line, "warning", why=line)
        except Failure as failure:
            self._log.say(f"warning: {failure.text}", "warning", why=failure.text)
        self._log.as_json = self._house.settings.logformat == "json"
        for process in self._processes:
            if process.link is not None:
                process.link.send(Verb.RELOAD, 0)
                self._flush(process.link)
        self._look_at_certificates(always=True)

    def _look_at_certificates(self, always: bool = False) -> None:
        try:
            marks = self._house.certificate_marks()
            if marks == self._marks and not always:
                return
            self._marks = marks
            self._house.read_certificates()
        except (Failure, OSError) as problem:
            line = f"warning: certificate not taken, the old one stays: {problem}"
            self._log.say(line, "warning", why=str(problem))
            return
        for process in self._processes:
            self._send_certificates(process)

    def _send_certificates(self, process: _Process) -> None:
        if process.role not in ("smtpd", "pop3d") or process.link is None:
            return
        left = list(self._house.certificates.items())
        while True:
            some, left = left[: certificates.AT_ONCE], left[certificates.AT_ONCE :]
            names = [name.encode() for name, _descriptor in some]
            copies = [os.dup(descriptor) for _name, descriptor in some]
            process.link.send(Verb.CERTIFICATES, len(left), *names, descriptors=copies)
            if not left:
                break
        self._flush(process.link)

    # stopping

    def _stop(self) -> int:
        self._announce(Moment.STOPPING)
        self._log.say("status: exiting", "exiting")
        for _listener, sock in self._house.listening:
            sock.close()  # or clients would still be let in by the kernel, and wait in vain
        end = time.monotonic() + self._house.settings.draintime + STOP_MARGIN
        for roles in STOP_ORDER:
            ending = [process for process in self._processes if process.role in roles and process.pid]
            for process in ending:
                if process.link is not None:
                    process.link.send(Verb.DRAIN, 0)
                    self._flush(process.link)
            while any(process.pid for process in ending) and time.monotonic() < end:
                self._round(0.05)
            for process in ending:
                if process.pid:
                    os.kill(process.pid, signal.SIGKILL)
                    os.waitpid(process.pid, 0)
                    process.pid = 0
        return 0
