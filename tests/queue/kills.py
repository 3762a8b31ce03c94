"""Kill a process between any two of its system calls, and see in which order it made them.

The child is a fork of the test, traced with ptrace(2) by ctypes: it stops at the entry and the exit of each system call
and dies where the test says, not where the clock does. Where the calls' numbers are known, only those count that change
something outside the process: to be killed at any other is to be killed at the next of these.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
from collections.abc import Callable

import pytest

_TRACEME, _PEEKUSER, _SYSCALL, _SETOPTIONS = 0, 3, 24, 0x4200
_EXITKILL, _SYSGOOD = 0x100000, 1
_ORIG_RAX, _RDI, _RDX = 15 * 8, 14 * 8, 12 * 8  # in x86-64's struct user

READS_CALLS = platform.machine() == "x86_64"
CALLS = {
    1: "write",
    18: "pwrite64",
    20: "writev",
    74: "fsync",
    75: "fdatasync",
    76: "truncate",
    77: "ftruncate",
    82: "rename",
    83: "mkdir",
    84: "rmdir",
    86: "link",
    87: "unlink",
    90: "chmod",
    91: "fchmod",
    257: "openat",  # when it creates
    258: "mkdirat",
    263: "unlinkat",
    264: "renameat",
    285: "fallocate",
}

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


def _ptrace(request: int, process: int, value: int = 0, address: int = 0) -> int:
    ctypes.set_errno(0)
    answer = int(_libc.ptrace(request, process, address or None, value or None))
    if answer == -1 and (problem := ctypes.get_errno()):
        raise OSError(problem, os.strerror(problem))
    return answer


def fork(work: Callable[[], None]) -> int:
    """A child that does `work`; its process id."""
    process = os.fork()
    if process == 0:
        status = 99
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return process


def kill_self(work: Callable[[], None]) -> None:
    """Run work that ends by killing its own process."""
    _, status = os.waitpid(fork(work), 0)
    assert os.WIFSIGNALED(status), status


def _trace(work: Callable[[], None]) -> int:
    """A traced child that stands before the first step of `work`."""

    def traced() -> None:
        _ptrace(_TRACEME, 0)
        os.kill(os.getpid(), signal.SIGSTOP)
        work()

    process = fork(traced)
    _, status = os.waitpid(process, 0)
    if not os.WIFSTOPPED(status):
        assert "CI" not in os.environ, "a process must be able to trace its child here"
        pytest.skip("this system lets no process trace its child")
    _ptrace(_SETOPTIONS, process, _EXITKILL | _SYSGOOD)
    return process


def run_until(work: Callable[[], None], calls: int) -> bool:
    """Run `work` in a child and kill it instead of its n-th call. False: it was over before that."""
    process = _trace(work)
    while _step(process):
        calls -= not READS_CALLS or _call(process) != ""
        if calls == 0:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            return True
        if not _step(process):
            break
    return False


def calls_of(work: Callable[[], None]) -> list[tuple[str, str]]:
    """The calls of CALLS that `work` makes, in order, each with the file its first argument, a descriptor, means."""
    process = _trace(work)
    calls: list[tuple[str, str]] = []
    while _step(process):
        if name := _call(process):
            calls.append((name, _file(process, _ptrace(_PEEKUSER, process, address=_RDI))))
        if not _step(process):
            break
    return calls


def _step(process: int) -> bool:
    """On to the next entry or exit of a system call. False: the process is over, as it should be."""
    _ptrace(_SYSCALL, process)
    _, status = os.waitpid(process, 0)
    assert os.WIFSTOPPED(status) or status == 0, f"the child failed: {status}"
    return os.WIFSTOPPED(status)


def _call(process: int) -> str:
    name = CALLS.get(_ptrace(_PEEKUSER, process, address=_ORIG_RAX), "")
    if name == "openat" and not _ptrace(_PEEKUSER, process, address=_RDX) & os.O_CREAT:
        return ""
    return name


def _file(process: int, descriptor: int) -> str:
    try:
        return os.readlink(f"/proc/{process}/fd/{descriptor}")
    except OSError:
        return ""
