"""The last step of checkpassword and its like: who the next program finds itself to be."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

import pillarbox
from tests.etc import everybody
from tests.peers import peer

NOBODY = pwd.getpwnam("nobody")
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")

# What the next program sees of itself. Python's own C library says it, not a shell, which would ask passwd.
LOOK = """
import json, os, signal
print(json.dumps({
    "uids": os.getresuid(), "gids": os.getresgid(), "groups": os.getgroups(), "cwd": os.getcwd(),
    "env": {name: os.environ.get(name) for name in ("USER", "HOME", "SHELL", "KEPT")},
    "pipe": signal.getsignal(signal.SIGPIPE) is signal.SIG_IGN, "caps": [line for line in open("/proc/self/status")
    if line.startswith("Cap") and not line.startswith("CapBnd")],
}))
"""


def log_in(
    user: str, *argv: str, as_user: int | None = None, ahead: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Behind the command `ahead`."""
    source = str(Path(pillarbox.__file__).parent.parent)
    text = (
        "import os, sys\nfrom pillarbox.programs.become import log_in\nfrom pillarbox.users.system import SystemUser\n"
        f"sys.exit(log_in('prog', SystemUser({user}), {list(argv)!r}))"
    )
    environ = {"PATH": os.defpath, "PYTHONPATH": source, "KEPT": "yes", "USER": "qmaild"}
    return subprocess.run(
        [*ahead, everybody(), "-c", text],
        env=environ,
        capture_output=True,
        text=True,
        timeout=30,
        user=as_user,
        cwd="/usr",
    )


def looking() -> list[str]:
    return ["/usr/bin/env", everybody(), "-I", "-c", LOOK]


# row: checkpassword-login
@needs_root
def test_the_next_program_is_the_user_in_his_home_and_nothing_more() -> None:
    more = [peer("setpriv"), "--groups=4,20", "--inh-caps=+chown"]
    done = log_in(f"b'joe', {NOBODY.pw_uid}, {NOBODY.pw_gid}, b'/tmp', b'/bin/zsh'", *looking(), ahead=more)
    assert (done.returncode, done.stderr) == (0, "")
    seen = json.loads(done.stdout)
    assert seen["uids"] == [NOBODY.pw_uid] * 3
    assert seen["gids"] == [NOBODY.pw_gid] * 3
    assert seen["groups"] == []
    assert seen["cwd"] == "/tmp"
    assert seen["env"] == {"USER": "joe", "HOME": "/tmp", "SHELL": "/bin/zsh", "KEPT": "yes"}
    assert {line.split()[1] for line in seen["caps"]} == {"0000000000000000"}


def test_a_pipe_that_nobody_reads_ends_the_next_program() -> None:
    done = log_in(f"b'joe', {os.getuid() or NOBODY.pw_uid}, {os.getgid() or NOBODY.pw_gid}, b'/', b''", *[
        "/bin/grep", "SigIgn", "/proc/self/status",
    ])  # fmt: skip
    assert int(done.stdout.split()[1], 16) & 0x7FFFFFFF == 0


# row: checkpassword-root
@needs_root
def test_nobody_logs_in_as_root() -> None:
    done = log_in("b'toor', 0, 0, b'/root', b'/bin/sh'", "/bin/echo", "in")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "prog: fatal: nobody logs in as root\n")


@needs_root
def test_who_is_not_root_becomes_himself_and_nobody_else() -> None:
    himself = f"{NOBODY.pw_uid}, {os.getgid()}"
    done = log_in(f"b'joe', {himself}, b'/', b''", "/bin/echo", "in", as_user=NOBODY.pw_uid)
    assert (done.returncode, done.stdout) == (0, "in\n")
    for other in (f"{NOBODY.pw_uid + 1}, {os.getgid()}", f"{NOBODY.pw_uid}, {os.getgid() + 1}"):
        done = log_in(f"b'joe', {other}, b'/', b''", "/bin/echo", "in", as_user=NOBODY.pw_uid)
        assert (done.returncode, done.stdout) == (111, "")
        assert done.stderr.startswith("prog: fatal: unable to become uid ")


@needs_root
@pytest.mark.parametrize("home", [b"/no/such/home", b"", b"/root"])
def test_without_his_home_nobody_gets_in(home: bytes) -> None:
    Path("/root").chmod(0o700)
    done = log_in(f"b'joe', {NOBODY.pw_uid}, {NOBODY.pw_gid}, {home!r}, b''", "/bin/echo", "in")
    assert (done.returncode, done.stdout) == (111, "")
    assert done.stderr.startswith("prog: fatal: unable to enter the home directory")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("path", ["/no/such/program", "no-such-program", "", "/etc/passwd"])
def test_a_next_program_that_cannot_be_run_is_111(path: str) -> None:
    ids = f"{os.getuid() or NOBODY.pw_uid}, {os.getgid() or NOBODY.pw_gid}"
    done = log_in(f"b'joe', {ids}, b'/', b''", path)
    assert (done.returncode, done.stdout) == (111, "")
    assert done.stderr.startswith(f"prog: fatal: unable to run {path}")
    assert done.stderr.count("\n") == 1
