"""checker [-f FILE] [-u USER]...: answer on DIR/run/checker, for programs that may not read it, whether logins stand in
FILE (control/smtppasswd's, else /usr/local/etc/smtp.passwd). For supervise, systemd or a terminal; never ends.

Started as root it takes the socket and becomes FILE's owner; else it must be he. USERs (control/checkerusers, else
qmaild) may ask. `serve` answers there itself where control/checkerusers says so.
"""

from __future__ import annotations

import os
import pwd
import selectors
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from pillarbox.cli import activation
from pillarbox.control import table
from pillarbox.net import listening, unix
from pillarbox.programs import options, whereabouts
from pillarbox.programs.checking import SOCKET
from pillarbox.programs.diagnosis import fatal, usage
from pillarbox.roles.checker import Checker, uids
from pillarbox.roles.log import Log
from pillarbox.status import Failure
from pillarbox.users.become import Ids, become

NAME = "checker"
CALLER = "qmaild"
ROUND = 1.0  # seconds


class CannotStart(Failure):
    """No socket, or no user to be; the text says what to do."""


def main(arguments: list[str]) -> int:
    """100 called wrongly, 111 cannot start."""
    try:
        file, users = _read(arguments)
    except options.BadOption:
        return usage(NAME, "[-f file] [-u user]...")
    try:
        home = Path(whereabouts.find(os.environ))
        control = home / "control"
        file = home / (file or table.one(control, "smtppasswd"))
        users = users or list(table.one(control, "checkerusers")) or [CALLER]
        owner = _owner(file)
        sock = _socket(home)
        _be(owner)
    except Failure as problem:
        return fatal(NAME, problem.text)
    except OSError as problem:
        return fatal(NAME, "unable to listen", problem)
    log = Log(NAME, as_json=False)
    log.say(f"checker: answering {', '.join(users)} about {file} on {home / SOCKET}", "serving")
    return _serve(sock, file, users, log)


def _read(arguments: list[str]) -> tuple[Path | None, list[str]]:
    """(-f's FILE, -u's USERs). Raises BadOption."""
    file, users = None, []
    for letter, word in options.read(arguments, "f:u:"):
        if letter == "f":
            file = Path(word)
        elif letter == "u":
            users.append(word)
        else:
            raise options.BadOption(word)
    return file, users


def _owner(file: Path) -> Ids:
    """Whom the file belongs to, with his own group and never the file's, which is root's after a mere chown: nobody
    whom it would be a pity to have broken into. Raises CannotStart."""
    try:
        facts = file.stat()
    except OSError as problem:
        raise CannotStart(f"{file}: {problem.strerror}") from None
    if os.getuid() != 0:
        return Ids(facts.st_uid, os.getgid())
    if facts.st_uid == 0:
        remedy = f"useradd -r smtppasswd; chown smtppasswd {file}"
        raise CannotStart(f"{file}: belongs to root, and nothing that answers others should be root: {remedy}")
    try:
        user = pwd.getpwuid(facts.st_uid)
    except KeyError:
        remedy = f"useradd -r smtppasswd; chown smtppasswd {file}"
        raise CannotStart(f"{file}: belongs to uid {facts.st_uid}, and there is no such user: {remedy}") from None
    if user.pw_gid == 0:
        remedy = f"groupadd -r {user.pw_name}; usermod -g {user.pw_name} {user.pw_name}"
        raise CannotStart(f"{file}: its owner {user.pw_name} is in root's group: {remedy}")
    return Ids(user.pw_uid, user.pw_gid)


def _socket(home: Path) -> socket.socket:
    """systemd's, else our own. Raises Failure, OSError."""
    handed = activation.handed(os.environ, os.getpid())
    if handed:
        return handed[0].sock
    path = home / SOCKET
    path.parent.mkdir(mode=0o755, exist_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trial:
        trial.settimeout(ROUND)
        try:
            unix.connect(trial, str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return listening.unix(path, 0o666)
    raise CannotStart(f"{path}: another checker answers there; stop it first")


def _be(owner: Ids) -> None:
    """The file's owner, who has no other rights. Raises CannotStart."""
    if os.getuid() != 0:
        return
    try:
        become(owner)
    except OSError as problem:
        raise CannotStart(f"cannot become uid {owner.uid}: {problem.strerror}") from None


def _serve(sock: socket.socket, file: Path, users: list[str], log: Log) -> int:
    selector = selectors.DefaultSelector()

    def watch(each: socket.socket, readable: Callable[[], None]) -> None:
        selector.register(each, selectors.EVENT_READ, readable)

    checker = Checker(sock, file, uids(users, log), log, watch=watch, unwatch=selector.unregister)
    try:
        while True:
            for key, _events in selector.select(ROUND):
                key.data()
            checker.look()
    except KeyboardInterrupt:
        return 0
    finally:
        checker.close()
        sys.stderr.flush()
