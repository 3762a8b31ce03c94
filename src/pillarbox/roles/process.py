"""What makes a process a role: its name, its signals, and rights that it gives away for good."""

from __future__ import annotations

import ctypes
import errno
import gc
import os
import resource
import signal
import socket
import traceback
from collections.abc import Callable
from typing import NoReturn

from pillarbox.roles.log import Log
from pillarbox.status import Failure
from pillarbox.users.become import Ids, become

# Sessions and frames are freed by counting; the collector is there for the odd cycle and need not look often.
GARBAGE = (20_000, 20, 50)
SPARE = 64  # descriptors: links, listening sockets, files that are open for a moment
PR_SET_DUMPABLE = 4
PR_SET_NAME = 15
PR_SET_NO_NEW_PRIVS = 38
_LONGEST_ANSWER = 4000  # octets: a pipe takes them at one stroke

_libc = ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, value: int | bytes) -> None:
    if _libc.prctl(option, value if isinstance(value, bytes) else ctypes.c_ulong(value), 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def take_role(name: str, user: Ids | None = None, *, may_gain: bool = False) -> None:
    """In a freshly forked child: name it, become `user` (None: stay who we are), bar core dumps and tracing, and leave
    signals to the supervisor: a terminal or systemd sends them to every process, but a role ends when its control link
    says so. `may_gain`: programs it runs may be set-uid or set-gid; for all others that is barred."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)
    os.umask(0o077)
    _prctl(PR_SET_NAME, b"pillarbox-" + name.encode()[:5])
    if user is not None:
        become(user)
    if not may_gain:
        _prctl(PR_SET_NO_NEW_PRIVS, 1)
    _prctl(PR_SET_DUMPABLE, 0)  # behind the change of user, which sets it anew
    gc.freeze()
    gc.set_threshold(*GARBAGE)


def raise_descriptor_limit() -> int:
    """Soft limit of open files up to the hard one; returns it."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(hard, 1 << 16) if hard != resource.RLIM_INFINITY else 1 << 16
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


def affordable(most: int, each: int, spare: int = SPARE) -> int:
    """How many things, at most `most`, this process may have open at a time when each takes `each` descriptors and
    `spare` are for everything else. A process without descriptors could not even take in a new link."""
    limit, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return most if limit == resource.RLIM_INFINITY else max(1, min(most, (limit - spare) // each))


def keep_only(descriptors: set[int]) -> None:
    """Close every descriptor but these."""
    start = 0
    for descriptor in sorted(descriptors):
        if start < descriptor:  # an empty range is not one to close_range(2): it would close everything
            os.closerange(start, descriptor)
        start = descriptor + 1
    os.closerange(start, resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def fork_linked(kind: socket.SocketKind = socket.SOCK_STREAM) -> tuple[int, socket.socket]:
    """Fork, with a socketpair between the two: the child's pid and our end; in the child 0 and its end. Raises
    OSError."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    try:
        pid = os.fork()
    except OSError:
        ours.close()
        theirs.close()
        raise
    kept, other = (ours, theirs) if pid else (theirs, ours)
    other.close()
    return pid, kept


def apart(look: Callable[[], str]) -> str:
    """What `look` says, in a process of its own: what it has read is in nobody else's memory afterwards, nor in that of
    the roles that are forked later. Raises OSError; ChildProcessError when it ended without a word."""
    answer, said = os.pipe2(os.O_CLOEXEC)
    try:
        pid = os.fork()
    except OSError:
        os.close(answer)
        os.close(said)
        raise
    if pid == 0:
        try:
            os.write(said, b"." + look().encode("utf-8", "replace")[:_LONGEST_ANSWER])
        finally:
            os._exit(0)
    os.close(said)
    try:
        with open(answer, "rb") as stream:
            octets = stream.read()
    finally:
        os.waitpid(pid, 0)
    if not octets:
        raise ChildProcessError(errno.ECHILD, "a process that was to look at something ended without a word")
    return octets[1:].decode("utf-8", "replace")


def be(role: str, work: Callable[[], None], log: Log, keep: set[int], user: Ids | None, *, may_gain: bool) -> NoReturn:
    """Be a role, in a freshly forked child, to its end: `keep` are the descriptors it may have beside 0 to 2. What ends
    it is one line in the log. Our caller's objects stay referenced, and so unclosed, until the process is gone."""
    status = 1
    try:
        take_role(role, user, may_gain=may_gain)
        keep_only({0, 1, 2, *keep})
        work()
        status = 0
    except SystemExit as end:
        if isinstance(end.code, str):
            log.say(f"alert: {role}: {end.code}", "role-failed", why=end.code)
        else:
            status = end.code or 0
    except Failure as failure:
        log.say(f"alert: {role}: {failure.text}", "role-failed", why=failure.text)
    except BaseException:
        last = traceback.format_exc(limit=-3).replace("\n", " / ")
        log.say(f"alert: {role} has a bug: {last}", "bug", trace=last)
    finally:
        os._exit(status)
