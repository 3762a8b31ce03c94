"""qmail-smtpd [HOST CHECKER PROGRAM ...]: SMTP on descriptors 0 and 1, qmail-smtpd(8), with logins as qmail-smtpd-auth
adds them: CHECKER, told on its descriptor 3 who the client claims to be, says by its exit status whether that is so.

The rule that must stay true: nobody is let in but by CHECKER's 0, and CHECKER is what the run line means by it. One
that forgot HOST would have PROGRAM (/usr/bin/true) for a checker, and be open to every password: then there are no
logins.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from pillarbox.credentials import Credentials, Identity
from pillarbox.programs import client, lookup, other_queue, smtpd_settings, whereabouts
from pillarbox.programs.conversation import TimedOut, converse, send
from pillarbox.programs.drafts import Drafts
from pillarbox.programs.smtpd_settings import Controls, Unreadable
from pillarbox.sessions import effects
from pillarbox.sessions.reception import Exchange, Qmail, Reception
from pillarbox.smtp import replies as r
from pillarbox.smtp.offer import Limits
from pillarbox.smtp.receiver import Receiver
from pillarbox.smtp.reply import Dialect, Reply
from pillarbox.status import Failure, Refusal, Status

NAME = "qmail-smtpd"
MECHANISMS = (b"LOGIN", b"CRAM-MD5", b"PLAIN")
PENALTY = 5.0  # seconds that a failed login waits for its answer
FAILURES = 20
"""Failed logins of a connection: at 5 seconds each nobody who mistypes gets there."""
CHECKING = 60.0  # seconds that a checker has
LONGEST_LINE = 65536  # octets; qmail-smtpd had no limit but memory
_TROUBLE = 111
_IPV4 = re.compile(rb"\[([0-9]{1,20})\.([0-9]{1,20})\.([0-9]{1,20})\.([0-9]{1,20})\]")
_WRONG = Refusal(Status(5, 7, 8), "authorization failed")
_NO_PIPE = Refusal(Status(4, 3, 0), "oops, unable to open pipe and I can't auth")
_NO_CHILD = Refusal(Status(4, 3, 0), "oops, child won't start and I can't auth")
_BAD_CHILD = Refusal(Status(4, 3, 0), "oops, problem with child and I can't auth")


class AddressesUnknown(Failure):
    """The system does not say which addresses are ours."""


@dataclass(frozen=True, slots=True)
class Logins:
    """`host` for challenges; `checker` is CHECKER PROGRAM ..., empty when nobody can log in."""

    host: bytes
    checker: tuple[bytes, ...]


def main(arguments: list[str]) -> int:
    """0 after QUIT, 1 after everything else."""
    environ = os.environb
    home = whereabouts.find(os.environ)
    try:
        os.chdir(home)
        controls = smtpd_settings.read(home, environ)
    except (Unreadable, OSError) as problem:
        _warn(problem.text if isinstance(problem, Unreadable) else f"{home}: {problem.strerror}")
        return _last_words(r.CONTROLS_UNREADABLE)
    if controls.open and b"RELAYCLIENT" not in environ:
        _warn("there is no control/rcpthosts: anybody may send mail to every domain through this server")
    logins = understand([os.fsencode(word) for word in arguments], environ)
    drafts = Drafts(home, other_queue.program(home, environ))
    try:
        return _talk(controls, logins, drafts, environ)
    finally:
        drafts.forget()


def understand(words: Sequence[bytes], environ: Mapping[bytes, bytes]) -> Logins:
    """The arguments: none is qmail-smtpd without logins; fewer than three, a first one that is no host name or a
    checker that is `true`, under whatever name, are a mistake, which is told to the log, and no logins."""
    path = environ.get(b"PATH", os.defpath.encode())
    if len(words) >= 3:
        if lookup.is_true(words[1], path):
            _warn(f"nobody can log in: {os.fsdecode(words[1])} is no checker: to it every password is good")
            return Logins(b"", ())
        # Would execvp find it? No host has the name of a program of this machine.
        if words[0] and lookup.found(words[0], path) is None:
            return Logins(words[0], tuple(words[1:]))
        _warn(f"nobody can log in: {os.fsdecode(words[0])} is a program, and this host's full name belongs there")
    elif words:
        _warn(f"nobody can log in: usage: {NAME} HOST CHECKER PROGRAM [ARGUMENT ...]")
    return Logins(b"", ())


def _talk(controls: Controls, logins: Logins, drafts: Drafts, environ: Mapping[bytes, bytes]) -> int:
    facts = exchange(controls, logins, environ)
    machine = Receiver(
        controls.greeting,
        dialect=Dialect.QMAIL,
        offer=facts.offer,
        limits=Limits(LONGEST_LINE, LONGEST_LINE, sys.maxsize),
        rename=Rename(controls.localiphost),
    )
    session = Reception(facts)
    try:
        converse(machine, session, Execution(drafts, logins).execute, 0, 1, float(controls.timeout))
    except TimedOut:
        return _last_words(r.TIMEOUT)
    except (AddressesUnknown, MemoryError) as problem:
        machine.dismiss(r.OUT_OF_MEMORY if isinstance(problem, MemoryError) else r.ADDRESSES_UNKNOWN)
        with suppress(TimedOut, OSError):
            send(1, machine.data_to_send(), float(controls.timeout))
        return 1
    except OSError:  # the client is gone
        return 1
    return 0 if session.taken_leave else 1


def exchange(controls: Controls, logins: Logins, environ: Mapping[bytes, bytes]) -> Exchange:
    """The facts of the session."""
    who = client.find(environ)
    return Exchange(
        service="smtp",
        me=logins.host,
        client=who.ip,
        admission=controls.admission,
        clock=time.time,
        token=lambda: b"%d.%d" % (os.getpid(), time.time()),
        mechanisms=MECHANISMS if logins.checker else (),
        cleartext=True,
        penalty=PENALTY,
        failures=FAILURES,
        relayclient=environ.get(b"RELAYCLIENT"),
        qmail=Qmail(controls.greeting, who.host, who.info, who.local),
    )


class Execution:
    """Carries out what a session asks."""

    def __init__(self, drafts: Drafts, logins: Logins) -> None:
        self._drafts, self._logins = drafts, logins

    def execute(self, effect: effects.Effect) -> effects.Result:
        """The result."""
        match effect:
            case effects.Authenticate(credentials):
                return check(self._logins.checker, credentials)
            case effects.Pause(seconds):
                time.sleep(seconds)
                return None
        return self._drafts.execute(effect)


def check(checker: Sequence[bytes], credentials: Credentials) -> Identity | Refusal:
    """Ask the checker. Its 111 is trouble and no refusal; one that cannot be run refuses, as in C."""
    from pillarbox.auth import checkpassword

    said = checkpassword.said(credentials)
    if said is None:
        return _WRONG
    try:
        process = checkpassword.start(checker, said)
        status = process.wait(CHECKING)
    except checkpassword.CannotStart as failure:
        return _NO_PIPE if failure.pipe else _NO_CHILD
    except checkpassword.Overdue:
        _warn(f"{os.fsdecode(checker[0])} took more than {CHECKING:g} seconds")
        return _BAD_CHILD
    if process.problem is not None:
        _warn(f"cannot run {os.fsdecode(checker[0])}: {process.problem.strerror}")
    if status == 0:
        return Identity(credentials.login, credentials.login)
    return _BAD_CHILD if status < 0 or status == _TROUBLE else _WRONG


class Rename:
    """control/localiphost for our own addresses in brackets, else what stood there."""

    def __init__(self, localiphost: bytes | None) -> None:
        self._name = localiphost
        self._own: frozenset[str] | None = None

    def __call__(self, host: bytes) -> bytes:
        """Raises AddressesUnknown."""
        address = "" if self._name is None else _address(host)
        return self._name if self._name is not None and address and address in self._addresses() else host

    def _addresses(self) -> frozenset[str]:
        if self._own is None:
            from pillarbox.net.interfaces import own_addresses

            try:
                self._own = own_addresses()
            except OSError as problem:
                raise AddressesUnknown(f"cannot list our addresses: {problem.strerror}") from None
        return self._own


def _address(literal: bytes) -> str:
    """The IP address in brackets, "" where there is none; octets of IPv4 as qmail's ip_scanbracket reads them."""
    four = _IPV4.fullmatch(literal)
    if four is not None:
        return ".".join(str(int(octet) & 255) for octet in four.groups())
    import ipaddress

    six = literal.removesuffix(b"]").decode("ascii", "replace")
    with suppress(ValueError):
        return str(ipaddress.IPv6Address(six[6:])) if six[:6].lower() == "[ipv6:" else ""
    return ""


def _last_words(reply: Reply) -> int:
    with suppress(TimedOut, OSError):
        send(1, reply.encode(Dialect.QMAIL), 0.0)
    return 1


def _warn(text: str) -> None:
    print(f"{NAME}: warning: {text}", file=sys.stderr)
