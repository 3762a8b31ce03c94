"""The last step of a program that logs somebody in: be him, in his home, and give way to the next program.

As checkpassword 0.90 does it: gid, uid, home, USER, HOME and SHELL, then exec. Whatever fails is 111, one line.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Sequence

from pillarbox.auth.checkpassword import TROUBLE, WRONG
from pillarbox.programs.diagnosis import fatal
from pillarbox.users.become import Ids, become
from pillarbox.users.system import SystemUser


def log_in(program: str, user: SystemUser, argv: Sequence[str]) -> int:
    """Be `user` and run `argv` in place of this process, `program` being whose words errors are. Returns an exit status
    only when that did not work: 1 for root, 111 for trouble."""
    return enter(program, user) or give_way(program, argv)


def enter(program: str, user: SystemUser) -> int:
    """Be `user`, in his home, with USER, HOME and SHELL. 0; 1 for root, 111 for trouble."""
    if user.uid == 0:
        print(f"{program}: fatal: nobody logs in as root", file=sys.stderr)
        return WRONG
    try:
        _be(Ids(user.uid, user.gid))
    except OSError as problem:
        return fatal(program, f"unable to become uid {user.uid}", problem)
    try:
        os.chdir(user.home)
    except (OSError, ValueError) as problem:
        return fatal(program, "unable to enter the home directory", problem if isinstance(problem, OSError) else None)
    os.environb.update({b"USER": user.name, b"HOME": user.home, b"SHELL": user.shell})
    return 0


def _be(user: Ids) -> None:
    """Who is the user already has nothing to give away: without root everything runs as the caller."""
    if (*os.getresuid(), *os.getresgid()) != (*[user.uid] * 3, *[user.gid] * 3):
        become(user)


def give_way(program: str, argv: Sequence[str]) -> int:
    """Run `argv` (looked for in PATH) in place of this process. Returns 111 when that did not work."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)  # Python ignores them, and the next program would
    shown = argv[0].encode("utf-8", "backslashreplace").decode()
    try:
        if not argv[0]:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        os.execvp(argv[0], list(argv))
    except OSError as problem:
        return fatal(program, f"unable to run {shown}", problem)
    return TROUBLE
