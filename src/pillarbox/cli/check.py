"""`pillarbox check`: looks at everything a server needs, changes nothing, and says of each: ok, or what to do.

The rule that must stay true: a line that begins with `problem:` names the thing, what is wrong and the remedy, and any
such line makes the exit status 1. A `note:` is worth knowing and no more.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from pillarbox.auth import shadow, smtppasswd
from pillarbox.auth.checkers import SHADOW
from pillarbox.cli import inplace, network, relays
from pillarbox.cli.clients import clients
from pillarbox.cli.finding import Finding, Premises, note, ok, problem
from pillarbox.cli.layout import (
    PLACES,
    Place,
    broken_assign,
    group_name,
    mode,
    passwords_reader,
    unreachable,
    unreadable,
    users_of,
)
from pillarbox.cli.output import printable
from pillarbox.cli.shell import quoted
from pillarbox.control import table
from pillarbox.status import Failure
from pillarbox.users import assign
from pillarbox.users.roles import User, caller

LEAST_FREE = 64 << 20  # octets; below that a burst of mail fills the disk
WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
SECRET = stat.S_IRWXO


def check(home: Path) -> int:
    """Print all findings; 0 when there is no problem, else 1. Raises Failure when there is no home to look at."""
    problems = 0
    for finding in findings(home):
        problems += finding.is_problem
        print(printable(str(finding)))
    return 1 if problems else 0


def findings(home: Path) -> Iterator[Finding]:
    """Everything, in an order in which each finding explains the ones behind it."""
    if not home.is_dir() or not (home / "control" / "me").exists():
        yield problem(str(home), "no home of Pillarbox yet", f"pillarbox init --home {quoted(home)} --me HOST")
        return
    if os.getuid() not in (0, home.stat().st_uid):
        yield problem(str(home), f"belongs to uid {home.stat().st_uid}", "run check as root, or as that user")
        return
    settings, complaints = table.read(home / "control")
    if inplace.is_qmail_sends(home):
        yield from _control(home / "control", complaints)
        yield from inplace.of_qmail(home, settings)
        return
    try:
        premises = Premises(home, users_of(settings), passwords_reader(settings), settings)
    except Failure as failure:
        yield Finding("problem", failure.text)
        return
    yield from _apart(premises)
    yield from _runtime(premises)
    yield from _reach(premises)
    for place in PLACES:
        yield from _place(premises, place)
    yield from _control(home / "control", complaints)
    yield from _readable(premises)
    for part in (
        _routes,
        _checkers,
        _smtppasswd,
        _users,
        _mailboxes,
        _queue,
        clients,
        network.certificates,
        network.ports,
        _programs,
    ):
        yield from _looking(part, premises)
    yield from network.records(settings)


def _looking(part: Callable[[Premises], Iterator[Finding]], premises: Premises) -> Iterator[Finding]:
    """The findings of one part, the last of them being what kept us from looking on."""
    try:
        yield from part(premises)
    except OSError as trouble:
        where = os.fsdecode(trouble.filename) if isinstance(trouble.filename, str | bytes) else str(premises.home)
        yield problem(where, f"cannot look at it: {trouble.strerror}", "run check as root, or as the home's owner")


def _apart(premises: Premises) -> Iterator[Finding]:
    """Two roles of one user could do to each other what the kernel bars between users."""
    if os.getuid() != 0:
        return
    holder: dict[int, str] = {}
    for role, user in premises.users.items():
        if user.uid != 0 and holder.setdefault(user.uid, role) != role:
            both = f"{holder[user.uid]} and {role} share the user {user.name}"
            yield problem("control/roleusers", both, "give each of them its own")


def _runtime(premises: Premises) -> Iterator[Finding]:
    """Roles and the programs they start run as other users, who need the interpreter."""
    if os.getuid() != 0:
        return
    interpreter = Path(sys.executable).resolve()
    closed = unreadable([interpreter], premises.users.values(), to_run=True)[0]
    if closed is None:
        yield ok(str(interpreter), "the users of all roles can run it")
    else:
        remedy = "use an interpreter that every user can run: make install PYTHON=/usr/bin/python3"
        wrong = f"{closed.user.name} cannot run it (stopped at {closed.at})"
        yield problem(str(interpreter), wrong, remedy)


def _reach(premises: Premises) -> Iterator[Finding]:
    closed = unreachable([premises.home], premises.users.values())
    if closed is None:
        yield ok(str(premises.home), "all roles can enter it")
    else:
        yield problem(
            str(premises.home), f"{closed.user.name} cannot enter {closed.at}", f"chmod o+x {quoted(closed.at)}"
        )


def _readable(premises: Premises) -> Iterator[Finding]:
    """Files that the roles read as their users; serve itself reads some of them earlier, as root."""
    home, users = premises.home, premises.users
    routes, key = home / "control" / "smtproutes", home / premises.settings.tlskey
    plain = [file for file in sorted((home / "control").iterdir()) if file != routes]
    yield from _closed_to([*plain, home / "users" / "cdb"], users.values())
    yield from _closed_to([routes], [users["queue"]], secret=True)
    yield from _closed_to([home / premises.settings.tlscert, key], [users["supervisor"]], secret=True)


def _closed_to(files: list[Path], users: Iterable[User], *, secret: bool = False) -> Iterator[Finding]:
    """`secret`: the remedy opens the file to one group alone."""
    there = [file for file in files if file.exists()]
    for file, closed in zip(there, unreadable(there, users), strict=True):
        if closed is None:
            continue
        name = quoted(closed.at)
        remedy = f"chmod o+{'x' if closed.at.is_dir() else 'r'} {name}"
        if secret and closed.at == file:
            remedy = f"chgrp {group_name(closed.user.gid)} {name} && chmod g=r {name}"
        yield problem(str(file), f"{closed.user.name} cannot read it", remedy)


def _place(premises: Premises, place: Place) -> Iterator[Finding]:
    directory = premises.home / place.name
    if not directory.is_dir():
        yield problem(str(directory), "missing", f"pillarbox init --home {quoted(premises.home)}")
        return
    facts = directory.stat()
    owner = premises.users[place.owner] if place.owner else caller()
    if facts.st_uid != owner.uid:
        wrong = f"belongs to uid {facts.st_uid}, not to {owner.name}"
        yield problem(str(directory), wrong, f"chown {'-R ' if place.owner else ''}{owner.name} {quoted(directory)}")
    elif mode(facts) & ~place.mode & (WRITABLE_BY_OTHERS | SECRET):
        yield problem(
            str(directory), f"mode {mode(facts):04o} is too open", f"chmod {place.mode:o} {quoted(directory)}"
        )
    else:
        yield ok(str(directory), place.purpose)


def _control(control: Path, complaints: list[table.Complaint]) -> Iterator[Finding]:
    for complaint in complaints:
        yield Finding("problem", str(complaint))
    given = [name for name in sorted(os.listdir(control)) if name in table.TABLE]
    for name in given:
        if (control / name).stat().st_mode & WRITABLE_BY_OTHERS:
            yield problem(str(control / name), "others can write it", f"chmod go-w {quoted(control / name)}")
    for name in table.unknown(control):
        yield note(str(control / name), "no control file of that name is known, it is ignored")
    wrong = {complaint.file for complaint in complaints}
    yield ok("control files read", " ".join(name for name in given if name not in wrong))


def _routes(premises: Premises) -> Iterator[Finding]:
    yield from relays.findings(premises.home, premises.settings, group_name(premises.users["queue"].gid))


def _checkers(premises: Premises) -> Iterator[Finding]:
    """How system users log in: auth, which then is root where it can be, has to read or run this."""
    for checker in premises.settings.checkers:
        shown = printable(checker)
        file = shadow.FILE if checker == SHADOW else Path(os.fsdecode(checker.split()[0]))
        if not os.access(file, os.R_OK if checker == SHADOW else os.X_OK) or not file.is_file():
            remedy = f"install {quoted(file)}, or take the line out" if checker != SHADOW else "serve as root"
            yield problem(f"control/checkers: {shown}", "cannot be used", remedy)
        else:
            yield ok(f"control/checkers: {shown}", "system users log in by it")


def _smtppasswd(premises: Premises) -> Iterator[Finding]:
    """cmd5checkpw's file, where there is one; auth reads it where control/checkerusers has it answer."""
    file = premises.home / premises.settings.smtppasswd
    answering, auth = bool(premises.settings.checkerusers), premises.users["auth"]
    if not file.exists():
        if answering:
            remedy = f"make it, mode 0400, {auth.name}'s; or remove control/checkerusers"
            yield problem(str(file), "missing, and run/checker is to answer about it", remedy)
        return
    facts = file.stat()
    readable = auth.uid in (0, facts.st_uid) or (auth.gid == facts.st_gid and facts.st_mode & stat.S_IRGRP)
    if facts.st_mode & SECRET:
        yield problem(str(file), f"mode {mode(facts):04o}: everybody can read it", f"chmod o= {quoted(file)}")
    elif answering and not readable:
        yield problem(str(file), f"{auth.name} cannot read it", f"chown {auth.name} {quoted(file)}")
    else:
        yield from _logins(file)


def _logins(file: Path) -> Iterator[Finding]:
    try:
        smtppasswd.look_through(smtppasswd.read(file))
    except smtppasswd.CannotRead as failure:
        yield note(failure.text, "so its lines were not looked at")
    except smtppasswd.Malformed as failure:
        yield problem(f"{file}: {failure.text}", "who stands behind it cannot log in", "mend the line")
    else:
        yield ok(str(file), "closed to others, USER:PASSWORD in every line")


def _users(premises: Premises) -> Iterator[Finding]:
    users = premises.home / "users"
    try:
        assigned = assign.read(users)
    except assign.BadAssign as failure:
        yield Finding("problem", broken_assign(premises.home, failure))
        return
    if assigned and not _newer(users / "cdb", users / "assign"):
        yield problem(str(users / "cdb"), "older than users/assign, or missing", "pillarbox run qmail-newu")
    elif assigned:
        yield ok(str(users / "assign"), f"{len(assigned)} lines, compiled")
    passwords = users / "passwords"
    if passwords.exists():
        yield _secret(passwords, premises.passwords_reader)


def _secret(file: Path, user: User) -> Finding:
    """A file that the roles read and nobody else may."""
    facts = file.stat()
    readable = facts.st_uid == user.uid or (facts.st_gid == user.gid and facts.st_mode & stat.S_IRGRP)
    if facts.st_mode & SECRET:
        return problem(str(file), f"mode {mode(facts):04o}: everybody can read it", f"chmod o= {quoted(file)}")
    if not readable:
        return problem(
            str(file),
            f"{user.name} cannot read it",
            f"chgrp {group_name(user.gid)} {quoted(file)} && chmod g+r {quoted(file)}",
        )
    return ok(str(file), "closed to others")


def _newer(one: Path, other: Path) -> bool:
    return one.exists() and one.stat().st_mtime_ns >= other.stat().st_mtime_ns


def _mailboxes(premises: Premises) -> Iterator[Finding]:
    """The homes of accounts, and their Maildirs, if nothing else is said to deliver into."""
    vmail = premises.users["vmail"]
    for directory, names in _account_homes(premises).items():
        facts = directory.stat() if directory.is_dir() else None
        if facts is None:
            yield problem(str(directory), f"missing, but mail to {names} goes there", f"mkdir it for {vmail.name}")
        elif facts.st_uid != vmail.uid:
            wrong = f"belongs to uid {facts.st_uid}, not to {vmail.name}"
            yield problem(str(directory), wrong, f"chown -R {vmail.name} {quoted(directory)}")
        elif not any((directory / name).exists() for name in ("Maildir/new", ".qmail")):
            remedy = f"pillarbox run maildirmake {quoted(directory)}/Maildir (as {vmail.name})"
            yield problem(str(directory / "Maildir"), f"missing, but mail to {names} goes there", remedy)
        else:
            yield ok(str(directory), f"mail to {names}")


def _account_homes(premises: Premises) -> dict[Path, str]:
    """Homes below mail/ that users/assign names, and for whom."""
    mail = os.fsencode(premises.home / "mail") + b"/"
    homes: dict[Path, list[str]] = {}
    try:
        assigned = assign.read(premises.home / "users")
    except assign.BadAssign:
        return {}
    for line in assigned:
        if line.key.startswith(b"=") and line.home.startswith(mail):
            homes.setdefault(Path(os.fsdecode(line.home)), []).append(printable(line.key[1:]))
    return {directory: ", ".join(names) for directory, names in homes.items()}


def _queue(premises: Premises) -> Iterator[Finding]:
    queue, owner = premises.home / "queue", premises.users["queue"]
    for file in sorted(queue.rglob("*")):
        if file.relative_to(queue).parts[0] in inplace.OF_QMAIL_SEND:
            continue
        if file.lstat().st_uid != owner.uid:
            wrong = f"belongs to uid {file.lstat().st_uid}, not to {owner.name}"
            yield problem(str(file), wrong, f"chown -R {owner.name} {quoted(queue)}")
            return
    room = os.statvfs(queue)
    free = room.f_bavail * room.f_frsize
    if free < LEAST_FREE or not room.f_favail:
        yield problem(str(queue), f"only {free >> 20} MiB free", "make room on this disk")
    else:
        yield ok(str(queue), f"{free >> 20} MiB free")


def _programs(premises: Premises) -> Iterator[Finding]:
    yield from inplace.programs(premises.home)
