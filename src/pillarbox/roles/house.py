"""What every role knows when it is forked: the home, the settings, its listening sockets, the certificates."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pillarbox.control.table import SECRET, Listener, Settings, fingerprint, read, reread
from pillarbox.roles import certificates
from pillarbox.status import Failure
from pillarbox.users.become import Ids
from pillarbox.users.roles import User

SMTP_SERVICES = ("smtp", "submission", "submissions")
POP3_SERVICES = ("pop3", "pop3s")
PASSWORDS = "passwords"  # in House.users: auth's own user, whom it is where control/checkers does not want root
ACCOUNT_FILES = ("rcpthosts", "virtualdomains")  # the control files that `pillarbox account` writes
_SPEAKS = {"smtpd": SMTP_SERVICES, "pop3d": POP3_SERVICES}


class Unreadable(Failure):
    """A control file that a role needs is there and cannot be read."""


@dataclass(slots=True)
class House:
    """One home and what serves it."""

    home: Path
    settings: Settings
    listening: list[tuple[Listener, socket.socket]]
    certificates: dict[str, int] = field(default_factory=dict)
    public: socket.socket | None = None  # where the queue answers `pillarbox queue`, listening in run/
    injection: socket.socket | None = None  # where it takes messages from programs
    checker: socket.socket | None = None  # where auth answers cmd5checkpw, with control/checkerusers
    places: int | None = None  # what owner roles share to know how many deliveries run as processes
    users: Mapping[str, Ids] = field(default_factory=dict)  # whom each role becomes; none of them when we are not root
    alias: User | None = None  # whose alias/ is, where control/roleusers may say that
    role: str = "supervisor"  # whose view of the house this is
    overrides: Mapping[str, Any] = field(default_factory=dict)  # settings that whoever started us said, not control/

    def seen_by(self, role: str) -> House:
        """The house as a role gets it."""
        return replace(self, role=role)

    def may_gain(self, role: str) -> bool:
        """Programs of this role may be set-uid or set-gid: those in dot-qmail files, and checkpassword programs."""
        return role in ("spawn", "owner") or (role == "auth" and bool(self.settings.checkers))

    def listeners(self, role: str) -> list[tuple[Listener, socket.socket]]:
        """The listening sockets of one role."""
        return [(listener, sock) for listener, sock in self.listening if listener.service in _SPEAKS.get(role, ())]

    def descriptors(self, role: str) -> set[int]:
        """The inherited descriptors that this role may keep."""
        kept = {sock.fileno() for _listener, sock in self.listeners(role)}
        if role == "queue":
            kept |= {sock.fileno() for sock in (self.public, self.injection) if sock is not None}
        if role == "auth" and self.checker is not None:
            kept.add(self.checker.fileno())
        if role in ("spawn", "owner") and self.places is not None:
            kept.add(self.places)
        return kept

    def reread(self) -> list[str]:
        """Read the control files again; a file with an error keeps its old value. Returns the complaints as lines."""
        closed = frozenset() if self.role == "queue" else SECRET
        settings, complaints = reread(self.home / "control", self.settings, closed=closed)
        self.settings = replace(settings, **self.overrides)
        if PASSWORDS in self.users:
            self.users = {**self.users, "auth": Ids(0, 0) if self.settings.checkers else self.users[PASSWORDS]}
        return [str(complaint) for complaint in complaints]

    def read_secrets(self) -> list[str]:
        """The control files that the queue alone reads, which whoever forked it did not. Returns what is odd there as
        lines. Raises Unreadable: not to know the routes is to send mail another way than the postmaster said."""
        fresh, complaints = read(self.home / "control")
        for complaint in complaints:
            if complaint.file in SECRET and complaint.fatal:
                raise Unreadable(str(complaint))
        self.settings = replace(self.settings, **{name: getattr(fresh, name) for name in SECRET})
        return [str(complaint) for complaint in complaints if complaint.file in SECRET]

    def account_marks(self) -> tuple[tuple[str, int, int, int], ...]:
        """Changes when a domain comes or goes with its accounts. Raises OSError."""
        return tuple(mark for mark in fingerprint(self.home / "control") if mark[0] in ACCOUNT_FILES)

    def certificate_marks(self) -> dict[Path, tuple[int, int, int]]:
        """Changes when a certificate file does."""
        return certificates.marks(self.home, self.settings.tlscert, self.settings.tlskey)

    def read_certificates(self) -> None:
        """Take the certificates that are on disk now. Raises BadCertificate; then the old ones stay."""
        fresh = certificates.read(self.home, self.settings.tlscert, self.settings.tlskey)
        old, self.certificates = self.certificates, fresh
        for descriptor in old.values():
            os.close(descriptor)
