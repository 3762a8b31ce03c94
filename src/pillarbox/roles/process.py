"""What makes a process a role: its name, its signals, and rights that it gives away for good."""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import signal

# Sessions and frames are freed by counting; the collector is there for the odd cycle and need not look often.
GARBAGE = (20_000, 20, 50)
SPARE = 64  # descriptors: links, listening sockets, files that are open for a moment
PR_SET_DUMPABLE = 4
PR_SET_NAME = 15
PR_SET_NO_NEW_PRIVS = 38

_libc = ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, value: int | bytes) -> None:
    if _libc.prctl(option, value if isinstance(value, bytes) else ctypes.c_ulong(value), 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def become(uid: int, gid: int) -> None:
    """Be this user for good: no supplementary groups, no way back. Raises OSError."""
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    if uid != 0:
        try:
            os.setuid(0)
        except PermissionError:
            return
        raise OSError("could become root again")


def take_role(name: str) -> None:
    """In a freshly forked child: name it, bar new privileges and core dumps, and leave signals to the supervisor: a
    terminal or systemd sends them to every process, but a role ends when its control link says so."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)
    os.umask(0o077)
    _prctl(PR_SET_NAME, b"pillarbox-" + name.encode()[:5])
    _prctl(PR_SET_NO_NEW_PRIVS, 1)
    _prctl(PR_SET_DUMPABLE, 0)
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
