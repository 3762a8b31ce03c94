"""Accounts in qmail's own vocabulary: virtualdomains, rcpthosts, users/assign, users/cdb, a home, a password record.

Every file is replaced whole, under one lock, in an order that is safe to be killed in: when an account is made its
password record comes last, when one goes its assignment does. Each command, killed anywhere, is finished by saying it
again. The rule that must stay true: an account never gets the mail or the home of another, alive or removed.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from pillarbox.address import is_domain, split
from pillarbox.auth import extension, hashes, passwords
from pillarbox.auth.passwords import Record
from pillarbox.control import edit, table
from pillarbox.control.table import Settings
from pillarbox.status import Failure, Status
from pillarbox.users import assign, homes
from pillarbox.users import replace as replacing
from pillarbox.users.assign import Assignment

FIRST_ANSWERS_FOR = (b"postmaster", b"abuse", b"mailer-daemon")
"""Names that every server and domain must have a reader for (RFC 2142): the first account."""

_LOCAL = re.compile(rb"[a-z0-9_\x80-\xff](?:[a-z0-9_.+='&~\x80-\xff-]*[a-z0-9_+='&~\x80-\xff])?")
_DOMAIN = re.compile(rb"[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?")
_LONGEST_SHOWN = 200
_LONGEST_LOCAL = 64  # RFC 5321 section 4.5.3.1.1
_TRIES = 100  # of a tenth of a second each, to get the lock
_NEEDED = frozenset(("locals", "virtualdomains", "rcpthosts", "crammd5"))


class AccountRefused(Failure):
    """What was asked for cannot be done, and nothing was changed. The text says why and what to do."""

    status = Status(5, 3, 0)


@dataclass(frozen=True, slots=True)
class MailboxUser:
    """The system user whom the homes of accounts belong to."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Account:
    """One account. `login`: it has a password record; without it an add or remove was interrupted, say it again."""

    address: bytes
    home: Path
    login: bool


@dataclass(frozen=True, slots=True)
class _Files:
    """What the lock's holder has read of one home, and writes."""

    home: Path
    settings: Settings
    assignments: tuple[Assignment, ...]
    passwords: bytes

    def record(self, address: bytes) -> Record | None:
        return passwords.find(self.passwords, address)

    def write_assignments(self, *, add: Sequence[Assignment], drop: Collection[Assignment]) -> None:
        kept = [assignment for assignment in self.assignments if assignment not in drop]
        assign.write(self.home / "users", [*kept, *add])

    def write_passwords(self, text: bytes, gid: int | None = None) -> None:
        passwords.write(self.home / "users" / "passwords", text, gid)

    def change_control(self, name: str, text: bytes) -> None:
        file = self.home / "control" / name
        if text != (file.read_bytes() if file.exists() else b""):
            replacing.file(file, text, mode=0o644)

    def control(self, name: str) -> bytes:
        file = self.home / "control" / name
        return file.read_bytes() if file.exists() else b""


def add(home: Path, address: bytes, password: bytes, *, user: MailboxUser, group: int | None = None) -> None:
    """Make the account `address` (joe@example.org, any case) in DIR `home`. The mailbox belongs to `user`; a
    users/passwords not there yet to the group `group` (auth's; default: the user's). Raises AccountRefused; Failure
    4.3.0 and OSError for trouble, after which the same call finishes the work."""
    local, domain = _parts(address)
    _check_password(password)
    if user.uid == 0:
        raise AccountRefused("mailboxes cannot belong to root; say a system user for them")
    with _locked(home) as files:
        whole = local + b"@" + domain
        if files.record(whole) is not None:
            raise AccountRefused(f"{_shown(whole)} exists already; for a new password: account password")
        _check_domain(files, local, domain)
        place = homes.place(files.home, local, domain)
        fresh, stale = _assignments(files, local, domain, place, user)
        record = _record(whole, password, files.settings)
        homes.make(place, user.uid, user.gid)
        files.write_assignments(add=fresh, drop=stale)
        _take_domain(files, domain)
        files.write_passwords(passwords.with_record(files.passwords, record), user.gid if group is None else group)


def remove(home: Path, address: bytes) -> Path | None:
    """Take the account away: no login, no mail. Its mail is moved aside, and where to is returned (None: there was
    none). Raises as `add`."""
    local, domain = _parts(address)
    with _locked(home) as files:
        whole = local + b"@" + domain
        place = homes.place(files.home, local, domain)
        stale = [assignment for assignment in files.assignments if assignment.home == os.fsencode(place)]
        known = files.record(whole) is not None
        if not known and not stale:
            raise AccountRefused(f"there is no account {_shown(whole)}")
        if known:
            files.write_passwords(passwords.without(files.passwords, whole))
        moved = homes.set_aside(place)
        kept = [assignment for assignment in files.assignments if assignment not in stale]
        if not any(a.key[1:].lower().startswith(domain + b"-") for a in kept):
            _drop_domain(files, domain)
        files.write_assignments(add=_heirs(files, domain, kept, stale), drop=stale)
        return moved


def set_password(home: Path, address: bytes, password: bytes, *, group: int | None = None) -> None:
    """Give an account a new password. `joe-lists@example.org` that is no account, but an extension with its
    ~joe/Maildir-lists, gets the one in the file passwd there. Raises as `add`."""
    local, domain = _parts(address)
    _check_password(password)
    with _locked(home) as files:
        whole = local + b"@" + domain
        if files.record(whole) is not None:
            record = _record(whole, password, files.settings)
            files.write_passwords(passwords.with_record(files.passwords, record), group)
            return
        end = local.rfind(b"-")
        while end > 0:
            if files.record(local[:end] + b"@" + domain) is not None:
                # From the address as typed: Maildir-Lists is not Maildir-lists.
                _set_extension(files, local[:end], domain, address[end + 1 :].rpartition(b"@")[0], password)
                return
            end = local.rfind(b"-", 0, end)
        if domain in files.settings.locals:
            raise AccountRefused(
                f"{domain.decode()} is a local domain: {_shown(local)} is a system user's, who sets passwords himself"
                " (passwd, and maildirpasswd for a mailbox beside his first)"
            )
        raise AccountRefused(f"there is no account {_shown(whole)}; to make it: account add")


def list(home: Path) -> tuple[Account, ...]:
    """All accounts by domain and name, also those that an interrupted add or remove left. Raises Failure, OSError."""
    home = _absolute(home)
    found: dict[bytes, Account] = {}
    for assignment in assign.read(home / "users"):
        directory = Path(os.fsdecode(assignment.home))
        local, domain = os.fsencode(directory.name), os.fsencode(directory.parent.name)
        if directory == homes.place(home, local, domain) and assignment.key == b"=" + domain + b"-" + local:
            found[local + b"@" + domain] = Account(local + b"@" + domain, directory, False)
    for record in passwords.parse(passwords.read(home / "users" / "passwords")):
        if isinstance(record, Record):
            account = found.get(record.address) or Account(
                record.address, homes.place(home, *split(record.address)), False
            )
            found[record.address] = replace(account, login=True)
    return tuple(sorted(found.values(), key=lambda account: split(account.address)[::-1]))


def _parts(address: bytes) -> tuple[bytes, bytes]:
    """Local part and domain in lower case, fit to be directories and words of users/assign."""
    local, domain = split(address.lower())
    if not domain or not is_domain(domain) or not _DOMAIN.fullmatch(domain):
        raise AccountRefused(f"not an address: {_shown(address)}; say it like joe@example.org")
    if len(local) > _LONGEST_LOCAL or not _LOCAL.fullmatch(local) or b".." in local or not _is_utf8(local):
        raise AccountRefused(
            f"{_shown(address)}: the name of an account has letters, digits and _ . + = ' & ~ - inside, 64 at most"
        )
    return local, domain


def _is_utf8(local: bytes) -> bool:
    try:
        return local.decode("utf-8").isprintable()
    except UnicodeDecodeError:
        return False


def _check_password(password: bytes) -> None:
    if not password:
        raise AccountRefused("the password is empty")
    if len(password) > hashes.LONGEST_PASSWORD:
        raise AccountRefused(f"the password is longer than {hashes.LONGEST_PASSWORD} bytes")
    if any(odd in password for odd in (b"\0", b"\r", b"\n")):
        raise AccountRefused("the password holds a NUL or a line end, which no mail program could send")


def _check_domain(files: _Files, local: bytes, domain: bytes) -> None:
    """Would mail to the address reach the account, and nobody else's mail?"""
    settings, name = files.settings, domain.decode()
    if domain in settings.locals:
        remedy = f"take {name} out of control/locals"
        if not (files.home / "control" / "locals").exists():
            remedy = "control/locals is missing and control/me counts, so: echo localhost > control/locals"
        raise AccountRefused(
            f"{name} is a local domain, its mail goes to system users; to have accounts there {remedy}"
        )
    if settings.virtualdomains.get(domain, domain).lower() != domain:
        raise AccountRefused(f"control/virtualdomains gives {name} to somebody else; take that line out")
    if local + b"@" + domain in settings.virtualdomains:
        raise AccountRefused(f"control/virtualdomains gives {_shown(local + b'@' + domain)} away; take that line out")
    for other, prefix in settings.virtualdomains.items():
        # example.org-x-joe would be joe at example.org-x, and x-joe at example.org.
        if prefix and (other.startswith(domain + b"-") or domain.startswith(prefix.lower() + b"-")):
            raise AccountRefused(f"names under {name} and {_shown(other)} would be mixed up; use another domain")


def _assignments(
    files: _Files, local: bytes, domain: bytes, place: Path, user: MailboxUser
) -> tuple[tuple[Assignment, ...], tuple[Assignment, ...]]:
    """The lines of users/assign that the account adds, and those it takes the place of."""
    directory = os.fsencode(place)
    if any(odd in directory for odd in (b":", b"\n", b"\0")):
        raise AccountRefused(f"the path {place} cannot stand in users/assign, which divides by colons; move the home")
    if (files.home / "users" / "cdb").exists() and not (files.home / "users" / "assign").exists():
        raise AccountRefused(
            "users/cdb is there without users/assign, from which it must be made; restore users/assign"
        )
    name = domain + b"-" + local
    owner = Assignment(b"=" + name, user.name.encode(), b"%d" % user.uid, b"%d" % user.gid, directory)
    own = (owner, replace(owner, key=b"+" + name + b"-", dash=b"-"))
    held = {assignment.key.lower(): assignment for assignment in files.assignments}
    for fresh in own:
        holder = held.get(fresh.key)
        if holder is not None and holder.home != directory and not _stands_in(holder, local, place):
            raise AccountRefused(f"users/assign gives {fresh.key[1:].decode()} to somebody else; take that line out")
    answers = [b"=" + domain + b"-" + answered for answered in FIRST_ANSWERS_FOR]
    if not any(passwords.parse(files.passwords)):
        answers += [b"=" + answered for answered in FIRST_ANSWERS_FOR if not _alias_has(files.home, answered)]
    keys = {assignment.key for assignment in own}
    more = tuple(replace(owner, key=key) for key in answers if key not in held and key not in keys)
    return own + more, tuple(held[key] for key in keys if key in held)


def _stands_in(holder: Assignment, local: bytes, place: Path) -> bool:
    """Whether the line is of the kind that lets a domain's first account answer for postmaster."""
    return local in FIRST_ANSWERS_FOR and holder.home.startswith(os.fsencode(place.parent) + b"/")


def _alias_has(home: Path, name: bytes) -> bool:
    return (home / "alias" / f".qmail-{name.decode()}").exists()


def _heirs(
    files: _Files, domain: bytes, kept: Sequence[Assignment], gone: Sequence[Assignment]
) -> tuple[Assignment, ...]:
    """Lines that let other accounts answer for postmaster where the one that did is gone."""
    everybody = os.fsencode(files.home / homes.ACCOUNTS) + b"/"
    lost = {assignment.key.lower() for assignment in gone}
    found = []
    for name in FIRST_ANSWERS_FOR:
        for key, inside in ((b"=" + domain + b"-" + name, everybody + domain + b"/"), (b"=" + name, everybody)):
            heir = next((a for a in kept if a.key.startswith(b"=") and a.home.startswith(inside)), None)
            if heir is not None and key in lost:
                found.append(replace(heir, key=key))
    return tuple(found)


def _take_domain(files: _Files, domain: bytes) -> None:
    text = files.control("virtualdomains")
    files.change_control("virtualdomains", edit.with_line(text, domain + b":" + domain))
    if files.settings.rcpthosts is not None:  # without the file everything is taken: to make one would shut others out
        files.change_control("rcpthosts", edit.with_line(files.control("rcpthosts"), domain))


def _drop_domain(files: _Files, domain: bytes) -> None:
    """The host's own name stays one that is served here: mail to its root is not to be looked for elsewhere."""
    text = files.control("virtualdomains")
    shorter = edit.without_line(text, domain + b":" + domain)
    if shorter != text:
        files.change_control("rcpthosts", edit.without_line(files.control("rcpthosts"), domain))
        if domain != files.settings.me.lower():
            files.change_control("virtualdomains", shorter)


def _record(address: bytes, password: bytes, settings: Settings) -> Record:
    made = hashes.make(password, secrets.token_bytes(hashes.SALT_OCTETS))
    return Record(address, made, password if settings.crammd5 else None)


def _set_extension(files: _Files, local: bytes, domain: bytes, ext: bytes, password: bytes) -> None:
    key = b"=" + domain + b"-" + local
    owner = next((assignment for assignment in files.assignments if assignment.key.lower() == key), None)
    if owner is None or not extension.allowed(ext):
        raise AccountRefused(f"there is no account {_shown(local + b'-' + ext + b'@' + domain)}")
    made = hashes.make(password, secrets.token_bytes(hashes.SALT_OCTETS))
    with extension.opened(owner.home, ext) as directory:
        extension.write(directory, made)


@contextmanager
def _locked(home: Path) -> Iterator[_Files]:
    """One account command at a time. Raises Failure when others take more than ten seconds."""
    home = _absolute(home)
    users = home / "users"
    if not users.is_dir() or not (home / "control").is_dir():
        raise AccountRefused(f"{home} is no home of Pillarbox; make it: pillarbox init --home {home}")
    descriptor = os.open(users / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        _lock(descriptor)
        yield _Files(home, _settings(home), assign.read(users), passwords.read(users / "passwords"))
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> None:
    for _ in range(_TRIES):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            threading.Event().wait(0.1)
    raise Failure("another account command is at work; try again when it is done")


def _settings(home: Path) -> Settings:
    settings, complaints = table.read(home / "control")
    for complaint in complaints:
        if complaint.fatal and complaint.file in _NEEDED:
            raise Failure(str(complaint))
    return settings


def _absolute(home: Path) -> Path:
    return Path(os.path.abspath(home))


def _shown(address: bytes) -> str:
    """For a line of text: whatever a terminal would not print is escaped."""
    text = address[:_LONGEST_SHOWN].decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
