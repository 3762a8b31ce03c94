"""Every control file, once: its name, kind, default, who reads it, and one line of help.

The fields of `Settings` are the table. Reading, `pillarbox check`, qmail-showctl and the reference page in the docs
come from it. The rule that must stay true: qmail's own files mean what qmail 1.03 makes of them, with a warning at
most; in our new files nonsense is an error, because a guess about TLS or a listener is worse than not starting.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any, cast

from pillarbox import blocklists
from pillarbox.blocklists import Source
from pillarbox.control import reading
from pillarbox.control.reading import Accepts, Fault, Listener, Reading
from pillarbox.status import Failure, Status

__all__ = ["TABLE", "Complaint", "Entry", "Listener", "Nonsense", "Settings"]
__all__ += ["fingerprint", "one", "read", "reread", "unknown"]

SERVICES = ("smtp", "submission", "submissions", "pop3", "pop3s", "qmtp", "qmqp")
ROLES = ("auth", "smtpd", "users", "queue", "remote", "pop3d", "log", "alias", "vmail")
_MOST = (1 << 63) - 1
_SECONDS = (1 << 31) - 1
# Stand for "not given": told apart by identity, replaced before anybody sees them.
_ME = bytes(bytearray(b"control/me"))
_ME_ALONE = frozenset((b"control/me",))


@dataclass(frozen=True, slots=True)
class Entry:
    """What the table says of one control file. `me`: control/me is its default, else `fallback`. `form` says what to
    write, for the remedy in an error line."""

    kind: str
    readers: tuple[str, ...]
    help: str
    read: Callable[[bytes], Reading]
    form: str
    ours: bool = False
    me: bool = False
    fallback: bytes = b""


@dataclass(frozen=True, slots=True)
class Complaint:
    """One odd control file, one line for people. `fatal`: `serve` must not start (on SIGHUP the old value holds)."""

    file: str
    line: int | None
    problem: str
    fatal: bool
    outcome: str = ""

    def __str__(self) -> str:
        where = f"control/{self.file}" + (f": line {self.line}" if self.line is not None else "")
        return f"{where}: {self.problem}" + (f"; {self.outcome}" if self.outcome else "")


def _field(entry: Entry, default: object) -> Any:
    metadata = {"entry": entry}
    if isinstance(default, dict):
        return field(default_factory=dict, metadata=metadata)
    return field(default=default, metadata=metadata)


def _line(readers: str, text: str, default: bytes = b"", *, accepts: Accepts = reading.is_text) -> Any:
    form = "one line of printable text"
    return _field(Entry("line", _split(readers), text, partial(reading.line, accepts=accepts), form), default)


def _host(readers: str, text: str, fallback: bytes = b"") -> Any:
    """A host name that is control/me when its file is missing, and `fallback` when that is missing too."""
    read = partial(reading.line, accepts=reading.is_host)
    return _field(Entry("line", _split(readers), text, read, "a host name", me=True, fallback=fallback), _ME)


def _number(readers: str, text: str, default: int, *, least: int = 0, most: int = _MOST, ours: bool = False) -> Any:
    form = f"a whole number from {least} to {most}"
    read = partial(reading.number, least=least, most=most, strict=ours)
    return _field(Entry("int", _split(readers), text, read, form, ours=ours), default)


def _list(readers: str, text: str, accepts: Accepts, form: str, *, ours: bool = False, default: object) -> Any:
    def read(raw: bytes) -> Reading:
        found = reading.entries(raw, accepts)
        return Reading(frozenset(cast(tuple[bytes, ...], found.value)), found.fault)

    return _field(Entry("list", _split(readers), text, read, form, ours=ours, me=default is _ME_ALONE), default)


def _map(readers: str, text: str, accepts: Accepts, form: str, *, secret: bool = False) -> Any:
    read = partial(reading.mapping, accepts=accepts, secret=secret)
    return _field(Entry("map", _split(readers), text, read, form), {})


def _ours(kind: str, readers: str, text: str, read: Callable[[bytes], Reading], form: str, default: object) -> Any:
    return _field(Entry(kind, _split(readers), text, read, form, ours=True), default)


def _flag(readers: str, text: str) -> Any:
    return _ours("flag", readers, text, reading.flag, "0 or 1", False)


def _path(readers: str, text: str, default: str | None) -> Any:
    return _ours("path", readers, text, reading.path, "a file name, absolute or relative to the home", default)


def _choice(readers: str, text: str, choices: tuple[str, ...]) -> Any:
    form = "one of " + ", ".join(choices)
    return _ours("line", readers, text, partial(reading.choice, choices=choices), form, choices[0])


def _split(readers: str) -> tuple[str, ...]:
    return tuple(readers.split())


_HOSTS = "one host a line"


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings, read once and frozen. Host names and addresses that are compared are bytes in lower case. Built by
    hand (in a test), what is not given has its default; what defaults to control/me follows `me`."""

    me: bytes = _line("all", "this host's full name", accepts=reading.is_host)
    # qmail's own
    badmailfrom: frozenset[bytes] = _list(
        "smtpd", "senders refused: addresses, @hosts, .suffixes", reading.is_sender, "one address, @host or .suffix",
        default=frozenset(),
    )  # fmt: skip
    bouncefrom: bytes = _line("queue", "local part that bounces come from", b"MAILER-DAEMON", accepts=reading.is_word)
    bouncehost: bytes = _host("queue", "host that bounces come from", b"bouncehost")
    concurrencylocal: int = _number("queue", "most local deliveries at a time", 10, most=65535)
    concurrencyremote: int = _number("queue", "most remote deliveries at a time", 20, most=65535)
    databytes: int = _number("smtpd", "most octets of a message; 0: no limit", 0)
    defaultdomain: bytes = _host("inject", "added to host names without a dot", b"defaultdomain")
    defaulthost: bytes = _host("inject", "added to addresses without a host", b"defaulthost")
    doublebouncehost: bytes = _host("queue", "host that double bounces go to", b"doublebouncehost")
    doublebounceto: bytes = _line("queue", "local part that double bounces go to", b"postmaster")
    envnoathost: bytes = _host("smtpd queue", "added to recipients without @", b"envnoathost")
    helohost: bytes = _host("remote", "our name in HELO to others")
    idhost: bytes = _host("inject", "host part of Message-ID", b"idhost")
    localiphost: bytes = _host("smtpd", "stands for our own IP addresses in recipients")
    locals: frozenset[bytes] = _list(
        "smtpd queue", "hosts whose users are this machine's", reading.is_host, _HOSTS, default=_ME_ALONE
    )
    morercpthosts: str | None = _field(
        Entry("cdb", ("smtpd",), "more rcpthosts, compiled by qmail-newmrh", lambda raw: Reading(None), _HOSTS), None
    )
    percenthack: frozenset[bytes] = _list(
        "smtpd queue", "hosts for which user%host@here means user@host", reading.is_host, _HOSTS, default=frozenset()
    )
    plusdomain: bytes = _host("inject", "added to host names ending in +", b"plusdomain")
    queuelifetime: int = _number("queue", "seconds a message may wait", 604800, most=_SECONDS)
    rcpthosts: frozenset[bytes] | None = _list(
        "smtpd", "hosts and .suffixes that mail is taken for", reading.is_host_or_suffix, "one host or .suffix a line",
        default=None,
    )  # fmt: skip
    smtpgreeting: bytes = _field(
        Entry(
            "line",
            ("smtpd",),
            "what SMTP greets with",
            partial(reading.line, accepts=reading.is_text),
            "one line of text",
            me=True,
        ),
        _ME,
    )
    smtproutes: Mapping[bytes, bytes] = _map(
        "queue", "HOST:RELAY[:PORT] [USER PASSWORD]", lambda key: not key or reading.is_host_or_suffix(key),
        "lines HOST:RELAY", secret=True,
    )  # fmt: skip
    timeoutconnect: int = _number("remote", "seconds to wait for a connection", 60, least=1, most=_SECONDS)
    timeoutremote: int = _number("remote", "seconds to wait for a remote server", 1200, least=1, most=_SECONDS)
    timeoutsmtpd: int = _number("smtpd", "seconds to wait for an SMTP client", 1200, least=1, most=_SECONDS)
    virtualdomains: Mapping[bytes, bytes] = _map(
        "smtpd queue", "DOMAIN:PREPEND, USER@DOMAIN:PREPEND, .SUFFIX:PREPEND", reading.is_virtual_key,
        "lines DOMAIN:PREPEND",
    )  # fmt: skip
    # ours
    listen: tuple[Listener, ...] = _ours(
        "listen", "supervisor", "SERVICE ADDRESS:PORT, one a line", partial(reading.listeners, services=SERVICES),
        f"lines SERVICE ADDRESS:PORT, SERVICE one of {', '.join(SERVICES)}", (),
    )  # fmt: skip
    tlscert: str = _path("supervisor", "our certificate and its chain, PEM", "tls/cert.pem")
    tlskey: str = _path("supervisor", "the certificate's private key, PEM", "tls/key.pem")
    authcleartext: bool = _flag("smtpd pop3d", "take passwords on connections without TLS")
    crammd5: bool = _flag("auth smtpd pop3d", "keep secrets that CRAM-MD5 and APOP need, and offer them")
    maxrecipients: int = _number("smtpd", "most recipients of a message", 1000, least=1, most=1_000_000, ours=True)
    spoolsize: int = _number("queue", "larger bodies (octets) go to files", 262144, most=1 << 29, ours=True)
    draintime: int = _number("supervisor", "seconds that work has to end on SIGTERM", 30, most=86400, ours=True)
    defaultdelivery: bytes = _ours(
        "text",
        "owner",
        "dot-qmail lines for users without a .qmail",
        reading.delivery,
        "dot-qmail lines",
        b"./Maildir/\n",
    )
    aliases: str = _path(
        "users owner", "the alias table that newaliases makes, without .cdb; asked ahead of alias/", "/etc/aliases"
    )
    rcptcheck: str = _choice("smtpd users", "who says at RCPT whether a recipient exists", ("users", "off", "owner"))
    roleusers: Mapping[str, str] = _ours(
        "map", "supervisor", "ROLE:USER, other user names than qmail's", partial(reading.names, allowed=ROLES),
        f"lines ROLE:USER, ROLE one of {', '.join(ROLES)}", {},
    )  # fmt: skip
    checkers: tuple[bytes, ...] = _ours(
        "list", "auth", "how system users log in: shadow, or checkpassword command lines", reading.commands,
        "lines 'shadow' or /PATH/TO/CHECKPASSWORD ARGUMENTS", (),
    )  # fmt: skip
    smtppasswd: str = _path("auth", "USER:PASSWORD lines that cmd5checkpw verifies", "/usr/local/etc/smtp.passwd")
    checkerusers: tuple[str, ...] = _ours(
        "list", "auth", "users whose programs may ask run/checker about smtppasswd; none: auth does not answer there",
        reading.users, "one user a line", (),
    )  # fmt: skip
    sendas: Mapping[bytes, tuple[bytes, ...]] = _ours(
        "map", "auth", "LOGIN:ADDRESS or LOGIN:@DOMAIN, further senders of a login", reading.grants,
        "lines LOGIN:ADDRESS or LOGIN:@DOMAIN", {},
    )  # fmt: skip
    cleartextroutes: frozenset[bytes] = _list(
        "remote", "relays that get passwords without TLS", reading.is_word, "one relay a line", ours=True,
        default=frozenset(),
    )  # fmt: skip
    resolvers: tuple[tuple[str, int], ...] = _ours(
        "list", "remote smtpd pop3d", "ADDRESS[:PORT] of name servers to ask instead of /etc/resolv.conf's",
        reading.servers, "lines ADDRESS or ADDRESS:PORT, [ADDRESS]:PORT for IPv6", (),
    )  # fmt: skip
    bounceformat: str = _choice("queue", "form of bounces", ("qsbmf", "report"))
    bouncesize: int = _number("queue", "most octets of the message in a bounce; 0: all", 0, ours=True)
    tcprules: str | None = _path("smtpd pop3d", "a tcprules cdb about clients: who may come, RELAYCLIENT, ...", None)
    rbl: tuple[Source, ...] = _ours(
        "list", "smtpd", "DNS block lists: -r LIST, -a LIST, -b, -c as rblsmtpd has them", blocklists.parse,
        "rblsmtpd's options -r LIST, -a LIST, -b, -B, -c, -C", (),
    )  # fmt: skip
    logformat: str = _choice("all", "form of log lines", ("text", "json"))

    def __post_init__(self) -> None:
        for name, entry in _FROM_ME.items():
            if getattr(self, name) is _ME:
                object.__setattr__(self, name, self.me or entry.fallback)
        if self.locals is _ME_ALONE:
            object.__setattr__(self, "locals", frozenset((self.me.lower(),) if self.me else ()))


SECRET = frozenset({"smtproutes"})
"""Files that may hold passwords. The queue alone reads them, and gives each delivery the one it needs."""
TABLE: Mapping[str, Entry] = {spec.name: spec.metadata["entry"] for spec in fields(Settings)}
_FROM_ME = {name: entry for name, entry in TABLE.items() if entry.me and entry.kind == "line"}
_COMPILED = "morercpthosts.cdb"


def read(directory: Path, *, closed: Collection[str] = ()) -> tuple[Settings, list[Complaint]]:
    """All settings of a control directory, and what is odd there, in the table's order. Never raises for what it
    finds: an unreadable file is a fatal complaint, and its default stands in the settings returned. `closed`: files
    that are not opened, and have their defaults."""
    values, complaints = _collect(directory, closed)
    settings = Settings(**values)
    complaints += _missing(values, directory)
    complaints += _contradictions(settings)
    return settings, complaints


def reread(directory: Path, old: Settings, *, closed: Collection[str] = ()) -> tuple[Settings, list[Complaint]]:
    """`read` for a server that runs: a file with a fatal complaint keeps its value of `old`."""
    settings, complaints = read(directory, closed=closed)
    kept = {complaint.file: getattr(old, complaint.file) for complaint in complaints if complaint.fatal}
    if "me" in kept and not settings.me:
        # What follows me must follow the old one too.
        kept |= {
            name: getattr(old, name) for name, entry in TABLE.items() if entry.me and name not in _given(directory)
        }
    values = {name: getattr(settings, name) for name in TABLE} | kept
    spoken = [Complaint(c.file, c.line, c.problem, True, "the old value holds") if c.fatal else c for c in complaints]
    return Settings(**values), spoken


class Nonsense(Failure):
    """A control file that cannot be used; the text is one line with the remedy."""

    status = Status(5, 3, 5)


def one(directory: Path, name: str) -> Any:
    """One setting, for a program that needs no other (and not one that follows control/me). Raises Nonsense for what
    `read` has a fatal complaint about."""
    entry = TABLE[name]
    try:
        text = reading.content(directory / name)
    except OSError as problem:
        raise Nonsense(f"control/{name}: cannot read it: {problem.strerror}") from None
    found = Reading(None) if text is None else entry.read(text)
    if found.fault is not None and entry.ours:
        raise Nonsense(str(_complaint(name, entry, found.fault, absent=False)))
    return getattr(Settings(), name) if found.value is None else found.value


def fingerprint(directory: Path) -> tuple[tuple[str, int, int, int], ...]:
    """Changes when any file of the directory does; the files' contents are not read. Raises OSError."""
    found = []
    with os.scandir(directory) as listing:
        for file in listing:
            if file.name.removesuffix(".cdb") in TABLE:
                facts = file.stat()
                found.append((file.name, facts.st_ino, facts.st_size, facts.st_mtime_ns))
    return tuple(sorted(found))


def unknown(directory: Path) -> list[str]:
    """Names in the directory that no entry of the table knows: misspelled, or of another program. Raises OSError."""
    return sorted(name for name in os.listdir(directory) if name not in TABLE and name != _COMPILED)


def _given(directory: Path) -> frozenset[str]:
    return frozenset(os.listdir(directory)) & TABLE.keys()


def _collect(directory: Path, closed: Collection[str]) -> tuple[dict[str, Any], list[Complaint]]:
    values: dict[str, Any] = {}
    complaints: list[Complaint] = []
    for name, entry in TABLE.items():
        try:
            text = None if entry.kind == "cdb" or name in closed else reading.content(directory / name)
        except OSError as problem:
            reason = f"cannot read it: {problem.strerror}"
            complaints.append(Complaint(name, None, reason, True, "make it readable for this user, or remove it"))
            continue
        if text is None:
            continue
        found = entry.read(text)
        if found.value is not None and not (entry.ours and found.fault):
            values[name] = found.value
        if found.fault:
            complaints.append(_complaint(name, entry, found.fault, absent=found.value is None))
    if values.get("rcpthosts") is not None and (directory / _COMPILED).exists():
        values["morercpthosts"] = f"control/{_COMPILED}"
    return values, complaints


def _complaint(name: str, entry: Entry, fault: Fault, *, absent: bool) -> Complaint:
    problem = fault.problem + (f" (and {fault.more} more)" if fault.more else "")
    if entry.ours:
        return Complaint(name, fault.line, problem, True, f"write {entry.form}, or remove the file")
    return Complaint(name, fault.line, problem, False, f"taken as absent, {_default(name)} holds" if absent else "")


def _default(name: str) -> str:
    spec = next(spec for spec in fields(Settings) if spec.name == name)
    return f"the default {spec.default}"


def _missing(values: Mapping[str, object], directory: Path) -> Iterator[Complaint]:
    if not values.get("me") and not ("locals" in values and "smtpgreeting" in values):
        yield Complaint("me", None, "missing or empty", True, "write this host's full name into it")
    if "rcpthosts" not in values and not (directory / "rcpthosts").exists():
        outcome = "list the domains that mail is taken for"
        yield Complaint(
            "rcpthosts", None, "missing: anybody may send mail to every domain through this server", False, outcome
        )


def _contradictions(settings: Settings) -> Iterator[Complaint]:
    both = sorted(settings.locals & settings.virtualdomains.keys())
    if both:
        problem = f"{reading.shown(both[0])} is in control/locals too, which wins"
        yield Complaint("virtualdomains", None, problem, False)
    if settings.bounceformat == "report":
        yield Complaint("bounceformat", None, "report is not there yet", False, "bounces have the form qsbmf")
