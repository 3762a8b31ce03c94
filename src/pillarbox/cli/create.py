"""Makes a home, or what is missing of one. Asks nothing, changes nothing that is there, says each thing it made.

One file that is there is changed: a control/smtproutes with passwords is closed to others.

The rule that must stay true: control/me is written last. A home without it is not finished, and killed at any moment
`create` finishes it the next time; in a home with it nobody's locals or rcpthosts are invented.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from pillarbox.accounts import FIRST_ANSWERS_FOR
from pillarbox.address import is_domain
from pillarbox.cli.layout import PLACES, Place, holds_passwords, settings_of, unreachable, users_of
from pillarbox.cli.newusers import make_missing
from pillarbox.cli.shell import quoted
from pillarbox.control.table import Settings
from pillarbox.status import Failure, Status
from pillarbox.users.roles import User, caller

PERMANENT = Status(5, 3, 5)
SERVICE_PORTS = {"smtp": 25, "submission": 587, "submissions": 465, "pop3": 110, "pop3s": 995}
PLAIN_USER_OFFSET = {"smtp": 2500, "submission": 2000, "submissions": 2000, "pop3": 2000, "pop3s": 2000}


class CannotCreate(Failure):
    """The home cannot be made; the text says what stands in the way and what to do."""

    status = PERMANENT


def create(home: Path, me: str | None = None, *, standard_ports: bool = False) -> list[str]:
    """Make what is missing of `home`; returns a line for each thing made, none when all was there.

    `me` is the host's full name for a new home (default: what the system says) and is refused when it contradicts the
    one there. `standard_ports`: listen on 25, 587, ... of all addresses, not on unprivileged ones of 127.0.0.1. As root
    the system users of the roles are made too. Raises CannotCreate."""
    try:
        return list(_steps(home, _host(home, me), standard_ports))
    except OSError as problem:
        raise CannotCreate(
            f"{problem.filename or home}: {problem.strerror}; let the user {caller().name} write there, "
            "or say another --home"
        ) from problem


def _steps(home: Path, me: str, standard_ports: bool) -> Iterator[str]:
    settings = settings_of(home)
    if os.getuid() == 0:
        yield from make_missing(home, settings)
    users = users_of(settings)
    _refuse_unreachable(home, users)
    if not home.is_dir():
        _make_directory(home, 0o755, None)
    _refuse_unreachable(home, users)
    made = [f"{place.name}/" for place in PLACES if _made(home / place.name, place, users)]
    if made:
        yield f"created {home} with {' '.join(made)}"
    yield from _tls(home, me, users["supervisor"])
    if not (home / "control" / "me").exists():
        yield from _alias(home / "alias", me)
    yield from _control(home / "control", me, standard_ports)
    yield from _close_routes(home / "control" / "smtproutes", settings, users["queue"])


def _host(home: Path, me: str | None) -> str:
    """The host's name: as control/me has it, as asked, or as the system says."""
    file = home / "control" / "me"
    written = file.read_text("ascii", "replace").partition("\n")[0].strip() if file.exists() else ""
    if me is None:
        return written or _nodename()
    if not is_domain(me.encode("ascii", "replace")):
        raise CannotCreate(f"--me: not a host name: {me!r}; say the full name of this machine, like mail.example.org")
    if written and written.lower() != me.lower():
        raise CannotCreate(f"{file} says {written!r}, not {me!r}; change the file, or leave --me out")
    return written or me


def _nodename() -> str:
    """What the system is called, when mail can be addressed to that."""
    name = os.uname().nodename
    return name if is_domain(name.encode("ascii", "replace")) and name != "localhost" else "localhost.localdomain"


def _refuse_unreachable(home: Path, users: Mapping[str, User]) -> None:
    closed = unreachable([home], users.values())
    if closed is not None:
        raise CannotCreate(
            f"{home}: the user {closed.user.name} of the server cannot enter {closed.at}; "
            f"say another --home, or: chmod o+x {quoted(closed.at)}"
        )


def _made(directory: Path, place: Place, users: Mapping[str, User]) -> bool:
    """Make one place of the home unless it is there, whosever it is."""
    if directory.is_dir():
        return False
    _make_directory(directory, place.mode, users[place.owner] if place.owner and os.getuid() == 0 else None)
    return True


def _make_directory(directory: Path, mode: int, owner: User | None) -> None:
    """With its missing parents, and with exactly this mode whatever the umask. It has its name only when its mode and
    owner are right; what a killed start left under the other name is empty and goes, whosever it is."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    fresh = directory.with_name(f".{directory.name}.new")
    with suppress(FileNotFoundError):
        fresh.rmdir()
    fresh.mkdir(mode=0o700)
    if owner is not None:
        os.chown(fresh, owner.uid, owner.gid)
    fresh.chmod(mode)
    os.rename(fresh, directory)


def _tls(home: Path, me: str, reader: User) -> Iterator[str]:
    """A certificate of our own, unless control/tlscert says it is elsewhere or there is one. A key that lies there
    alone, put there or left by a start that was killed, gets its certificate."""
    certificate, key = home / "tls" / "cert.pem", home / "tls" / "key.pem"
    if certificate.exists() or any((home / "control" / name).exists() for name in ("tlscert", "tlskey")):
        return
    from pillarbox.cli.certificate import new_key, self_signed

    if not key.exists():
        _put(key, new_key(), 0o600 if reader.uid == os.getuid() else 0o640, gid=reader.gid)
    try:
        _put(certificate, self_signed(key.read_bytes(), me, datetime.now(UTC)), 0o644)
    except (ValueError, TypeError) as problem:
        raise CannotCreate(f"{key}: no usable private key; remove it, and a new one is made") from problem
    yield f"created tls/cert.pem and tls/key.pem: a self-signed certificate for {me} and localhost"


def _control(control: Path, me: str, standard_ports: bool) -> Iterator[str]:
    fresh, own = not (control / "me").exists(), me.lower()
    adopted = not fresh and not (control / "listen").exists()
    texts = {"listen": _listen(standard_ports)}
    if fresh:
        # Double bounces go to who answers for postmaster here: the host's own name is not in locals.
        texts = {"locals": "localhost\n", "rcpthosts": "localhost\n", "doublebouncehost": "localhost\n", **texts}
        texts["virtualdomains"] = f"{own}:{own}\n"
    if adopted:
        texts["bounceformat"] = "qsbmf\n"  # somebody's qmail: programs there read qmail's bounces
    for name, text in texts.items():
        if not (control / name).exists():
            _put(control / name, text.encode("ascii"))
            yield f"created control/{name}: {', '.join(text.splitlines())}"
    if fresh:
        _put(control / "me", f"{me}\n".encode("ascii"))
        yield f"created control/me: {me}"


def _alias(alias: Path, me: str) -> Iterator[str]:
    """Programs here write to root and the like at the machine's own name, which nobody answers for as long as it has no
    account: that mail goes on to the same names at localhost, which the alias table may know. Nobody is root there
    either, so postmaster gets what cron says."""
    forwards = [(f"{me}-{name}", name) for name in (*map(bytes.decode, FIRST_ANSWERS_FOR), "root")]
    made = []
    for name, target in (*forwards, ("root", "postmaster")):
        file = alias / f".qmail-{name.lower().replace('.', ':')}"
        if not os.path.lexists(file):
            _put(file, f"&{target}@localhost\n".encode("ascii"))
            made.append(file.name)
    if made:
        yield f"created alias/{made[-1]} and others: what programs here write to root goes to the first account"


def _close_routes(file: Path, settings: Settings, reader: User) -> Iterator[str]:
    """Passwords for relays are for root and the queue: the one file that is there and is changed."""
    if not holds_passwords(settings) or not file.stat().st_mode & stat.S_IROTH:
        return
    try:
        if os.getuid() == 0:
            os.chown(file, -1, reader.gid)
        file.chmod(0o640 if os.getuid() == 0 else 0o600)
    except PermissionError:
        yield f"control/smtproutes: holds passwords, and everybody can read it: chmod o= {quoted(file)}"
    else:
        yield "control/smtproutes: holds passwords: others can not read it any more"


def _listen(standard_ports: bool) -> str:
    if not standard_ports:
        return "".join(f"{name} 127.0.0.1:{port + PLAIN_USER_OFFSET[name]}\n" for name, port in SERVICE_PORTS.items())
    addresses = ["0.0.0.0", "[::]"] if Path("/proc/net/if_inet6").exists() else ["0.0.0.0"]
    return "".join(f"{name} {at}:{port}\n" for name, port in SERVICE_PORTS.items() for at in addresses)


def _put(file: Path, octets: bytes, mode: int = 0o644, *, gid: int = -1) -> None:
    """A file that has its name only when it is whole and on disk, and is never readable by more than `mode` says."""
    fresh = file.with_name(f".{file.name}.new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as stream:
        if os.getuid() == 0:
            os.fchown(descriptor, -1, gid)
        os.fchmod(descriptor, mode)
        stream.write(octets)
        stream.flush()
        os.fsync(descriptor)
    os.replace(fresh, file)
