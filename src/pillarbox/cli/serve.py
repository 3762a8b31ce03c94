"""`pillarbox serve`: make what is missing, take the ports, and run the roles in the foreground, each as its own user.

Everything that can be wrong with a set-up is found before the first role starts, and is one line with its remedy.
"""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from pathlib import Path

from pillarbox.cli import activation
from pillarbox.cli.activation import Handed
from pillarbox.cli.create import create
from pillarbox.cli.herald import Herald
from pillarbox.cli.home import Lock
from pillarbox.cli.layout import passwords_reader, users_of
from pillarbox.cli.notify import Notifier
from pillarbox.cli.port import remedy
from pillarbox.cli.unusable import refuse_unusable
from pillarbox.control.table import SECRET, Complaint, Listener, Settings, read
from pillarbox.net import listening
from pillarbox.roles import auth, places, pop3d, queue, remote, smtpd, spawn
from pillarbox.roles import users as users_role
from pillarbox.roles.connections import IMPLICIT_TLS
from pillarbox.roles.house import PASSWORDS, House
from pillarbox.roles.log import Log
from pillarbox.roles.process import raise_descriptor_limit
from pillarbox.roles.supervisor import Moment, Run, Supervisor
from pillarbox.status import Failure, Status
from pillarbox.users.become import Ids

PUBLIC = "run/queue"
INJECTION = "run/inject"
CHECKER = "run/checker"
PERMANENT = Status(5, 3, 5)


class CannotServe(Failure):
    """The set-up is not fit to serve; the text says what to do."""

    status = PERMANENT


def serve(home: Path, delivery: bytes | None = None) -> int:
    """Serve from `home` until SIGTERM or SIGINT; the exit status. Raises Failure before anything is served.

    With `delivery` as qmail-start does: the dot-qmail lines of users without a .qmail are these, not those of
    control/defaultdelivery; no port is opened, and nothing is said to people."""
    classic = delivery is not None
    received = activation.handed(os.environ, os.getpid())
    systemd = Notifier.taken(os.environ)
    for line in create(home):
        print(line, flush=True)
    lock = Lock(home)
    lock.take()
    settings = _settings(home)
    users = users_of(settings)
    house = House(home, settings, [] if classic else _bound(settings, received))
    house.overrides = {"defaultdelivery": delivery, "listen": ()} if classic else {}
    house.read_certificates()
    _refuse_without_certificate(house)
    refuse_unusable(home, users)
    bound = [listener for listener, _sock in house.listening]
    herald = None if classic else Herald.begin(home, settings, bound)
    # The first account made its domain ours.
    house.settings = settings = replace(_settings(home, quiet=True), **house.overrides)
    ours = (PUBLIC, INJECTION, CHECKER) if settings.checkerusers else (PUBLIC, INJECTION)
    activation.refuse_strange(received, [home / each for each in ours])
    house.public = activation.unix(received, home / PUBLIC, 0o600)
    house.injection = activation.unix(received, home / INJECTION, 0o666)
    if settings.checkerusers:
        house.checker = activation.unix(received, home / CHECKER, 0o666)
    house.places = places.file()
    raise_descriptor_limit()
    house.alias = users["alias"]
    if os.getuid() == 0:
        everybody = {**users, PASSWORDS: passwords_reader(settings)}
        house.users = {role: Ids(user.uid, user.gid) for role, user in everybody.items()}
    os.umask(0o077)
    log = Log("supervisor", settings.logformat == "json")

    def announce(moment: Moment) -> None:
        systemd.tell(moment)
        if moment is Moment.SERVING and herald is not None:
            herald.proclaim([*(f"listening {listener}" for listener in bound), "ready"])

    status = Supervisor(house, _roles(house), log, announce).run()
    lock.release()
    return status


def _roles(house: House) -> list[tuple[str, Run, int]]:
    """All that have something to do: without a port of theirs, the network's roles have not."""
    # A core is left to the queue and the deliveries: one more network role costs more in switches than it gains.
    smtpds = max(1, len(os.sched_getaffinity(0)) - 1)
    roles: list[tuple[str, Run, int]] = [
        ("queue", queue.run, 1),
        ("spawn", spawn.run, 1),
        ("remote", remote.run, 1),
        ("users", users_role.run, 1),
        ("auth", auth.run, 1),
        ("smtpd", smtpd.run, smtpds),
        ("pop3d", pop3d.run, 1),
    ]
    return [role for role in roles if role[0] not in ("smtpd", "pop3d") or house.listeners(role[0])]


def _settings(home: Path, *, quiet: bool = False) -> Settings:
    """The control files. What is odd in qmail's own is said and served; what is wrong in ours is refused."""
    settings, complaints = read(home / "control", closed=SECRET)
    fatal = [complaint for complaint in complaints if complaint.fatal]
    if not quiet:
        log = Log("supervisor", settings.logformat == "json")
        for complaint in complaints:
            if not complaint.fatal:
                log.say(f"pillarbox: warning: {complaint}", "warning", why=str(complaint))
    if fatal:
        raise CannotServe("; ".join(_refusal(home, complaint) for complaint in fatal))
    return settings


def _refusal(home: Path, complaint: Complaint) -> str:
    return f"{home}/{complaint}"


def _bound(settings: Settings, received: list[Handed]) -> list[tuple[Listener, socket.socket]]:
    """All of control/listen, with the ports the system chose where the file says 0, and what was handed over."""
    wanted = activation.listeners(received, settings.listen)
    if not wanted:
        raise CannotServe("control/listen: names no listener: write a line such as: smtp 127.0.0.1:2525")
    bound = []
    for listener, given in wanted:
        try:
            sock = given or listening.tcp(listener.address, listener.port)
        except OSError as problem:
            line = f"control/listen: {listener}: {problem.strerror}: {remedy(problem)}"
            raise CannotServe(line, Status(4, 3, 0)) from None
        bound.append((Listener(listener.service, listener.address, sock.getsockname()[1]), sock))
    return bound


def _refuse_without_certificate(house: House) -> None:
    """A port that promises TLS needs a certificate."""
    for listener, _sock in house.listening:
        if listener.service in IMPLICIT_TLS and "" not in house.certificates:
            raise CannotServe(
                f"control/listen: {listener}: there is no certificate {house.home / house.settings.tlscert}: "
                "install one, or leave this listener out"
            )
