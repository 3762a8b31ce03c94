"""From what a client says about itself to who it is: login names to accounts, credentials to yes or no.

The rule that must stay true: an unknown name and a wrong secret are the same, in answer and in work done.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from pathlib import Path

from pillarbox.auth import extension, hashes
from pillarbox.auth.passwords import Passwords, Record
from pillarbox.control.table import Settings
from pillarbox.credentials import Credentials, Digest, Identity, Password
from pillarbox.users import system
from pillarbox.users.owner import Owner, Owners
from pillarbox.users.roles import User

_LONGEST_LOGIN = 1000
_NO_SECRET = b"\0"  # stands in for the secret of nobody; a NUL is in no password


@dataclass(frozen=True, slots=True)
class Login:
    """The mailbox that a login name means. `address` is the account's (lower case); `extension` (case kept, never with
    a slash or a leading dot) is b"" for the account itself, else the mailbox is `home`/Maildir-EXTENSION and its hash
    is in the file `passwd` there, for somebody with the owner's rights to read. `sendas`: further senders (addresses,
    @domains) granted to the account; its extensions have none. `local`: the name by which Owners.for_login finds the
    owner, extension left out. `system`: the owner, where he is a system user, whose password control/checkers knows;
    he has his name in `domains` too."""

    address: bytes
    extension: bytes
    home: bytes
    sendas: tuple[bytes, ...] = ()
    local: bytes = b""
    system: Owner | None = None
    domains: tuple[bytes, ...] = ()


class Accounts:
    """The accounts of one home, as users/passwords and users/cdb are just now, and the system users where
    control/checkers lets them log in. Methods block on files and the password database."""

    def __init__(self, home: Path, settings: Settings, *, alias: User | None = None) -> None:
        self._passwords = Passwords(home / "users" / "passwords")
        self._owners = Owners(home, alias=alias)
        self._me = settings.me.lower()
        self._sendas = settings.sendas
        self._checkers = settings.checkers
        self._local_domains = sorted(settings.locals, key=lambda domain: (domain != self._me, domain))

    def find(self, name: bytes) -> Login | None:
        """The mailbox of a login name, in any case: joe@example.org, or joe where that is unique over all domains or
        the domain is control/me, each with an extension: joe-lists. The first existing account of joe-a-b, joe-a,
        joe is final. A system user comes before the short form of an account. Raises Failure (4.3.0)."""
        if len(name) > _LONGEST_LOGIN or b"\0" in name:
            return None
        system_name = self.system_name(name)
        found = self._system(system_name) if system_name else None
        if found is not None:
            return found
        local, at, domain = name.rpartition(b"@")
        if not at:
            local = name
        end = len(local)
        while end > 0:
            address = self._account(local[:end].lower(), domain.lower() if at else None)
            if address == b"":
                return None
            if address is not None:
                return self._login(address, local[end + 1 :], bare=end == len(local))
            end = local.rfind(b"-", 0, end)
        return None

    def system_name(self, name: bytes) -> bytes:
        """What a system user of this login name would be called: joe, or joe of joe@example.org where that domain is in
        control/locals. b"" where no system user is meant, or none may log in."""
        local, at, domain = name.rpartition(b"@")
        if not self._checkers or b"\0" in name or (at and domain.lower() not in self._local_domains):
            return b""
        return local if at else name

    @property
    def checkers(self) -> tuple[bytes, ...]:
        """How system users log in; where they do, `find` may block on the password database."""
        return self._checkers

    def _is_system(self, name: bytes) -> bool:
        return bool(self._checkers) and self._system(name) is not None

    def _system(self, name: bytes) -> Login | None:
        owner = self._owners.for_login(name)
        entry = system.find(owner.user) if owner is not None else None
        if owner is None or entry is None or entry.uid != owner.uid or not _begins(name, owner):
            return None  # users/assign may give his name to a mailbox of accounts, which has no system password
        if owner.dash and not extension.allowed(owner.ext):
            return None
        first, *more = self._local_domains or (b"",)
        addresses = [owner.user + b"@" + domain for domain in (first, *more)]
        granted = tuple(each for key in (owner.user, *addresses) for each in self._sendas.get(key, ()))
        sendas = () if owner.ext else granted
        return Login(addresses[0], owner.ext, owner.home, sendas, owner.user, system=owner, domains=tuple(more))

    def record(self, login: Login) -> Record | None:
        """The account's own record; None for an extension, see `extension_record`, and for a system user. Raises
        Failure (4.3.0)."""
        return None if login.extension or login.system is not None else self._passwords.get(login.address)

    def identity(self, name: bytes, login: Login) -> Identity:
        """Who has proven to be `login`, having called himself `name`."""
        return Identity(name, login.address, login.extension, login.sendas, login.domains)

    def _account(self, local: bytes, domain: bytes | None) -> bytes | None:
        """The account's address; None when there is none, b"" when several are meant."""
        if domain is not None:
            address = local + b"@" + domain
            return address if self._passwords.get(address) is not None else None
        namesakes = self._passwords.namesakes(local)
        ours = local + b"@" + self._me
        if ours in namesakes:
            return ours
        return namesakes[0] if len(namesakes) == 1 else (b"" if namesakes else None)

    def _login(self, address: bytes, ext: bytes, *, bare: bool) -> Login | None:
        if not bare and not extension.allowed(ext):
            return None
        local, _, domain = address.rpartition(b"@")
        name = domain + b"-" + local
        owner = self._owners.for_login(name)
        if owner is None or owner.ext:
            return None  # a record without its assignment: an account half made or half removed
        return Login(address, ext, owner.home, () if ext else self._granted(address, local), name)

    def _granted(self, address: bytes, local: bytes) -> tuple[bytes, ...]:
        """What control/sendas grants to an account, under its address or the short name that means it."""
        granted = self._sendas.get(address, ())
        if local in self._sendas and self._account(local, None) == address and not self._is_system(local):
            granted += self._sendas[local]
        return granted


def _begins(name: bytes, owner: Owner) -> bool:
    """Whether the owner is the user whom the name begins with, and the rest his extension."""
    return name.lower() == (owner.user + owner.dash + owner.ext).lower()


def extension_record(login: Login, line: bytes) -> Record | None:
    """The record of an extension from the hash in its passwd file (b"" when there is none)."""
    return Record(login.address, line) if hashes.usable(line) else None


def verify(record: Record | None, credentials: Credentials, *, crypt: bool = False) -> bool:
    """Are these the account's? `record` is None for a name that is nobody's: the same work, and no. `crypt`: the record
    would come from crypt(3), so a hash of that kind is part of the work. Blocks for about 50 ms for a password; safe in
    any thread."""
    match credentials:
        case Password():
            stored = record.hash if record else None
            return hashes.matches(stored, credentials.password, crypt=crypt)
        case Digest():
            secret = record.secret if record else None
            expected = _digest(credentials, secret or _NO_SECRET)
            right = hmac.compare_digest(expected, credentials.response.lower())
            return right and bool(secret)


def _digest(credentials: Digest, secret: bytes) -> bytes:
    """What a client that knows the secret answers. MD5 as the protocols have it (RFC 1939 section 7, RFC 2195)."""
    if credentials.mechanism == b"APOP":
        return hashlib.md5(credentials.challenge + secret, usedforsecurity=False).hexdigest().encode()
    return hmac.new(secret, credentials.challenge, _md5).hexdigest().encode()


def _md5(octets: bytes = b"") -> hashlib._Hash:
    return hashlib.md5(octets, usedforsecurity=False)
