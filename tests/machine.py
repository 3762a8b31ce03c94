"""A machine of a test's own, as far as namespaces make one: its own users, processes and network.

Its network is lo alone, so that programs can have the ports below 1024 that run lines name; its /etc is a copy
where only the machine sees it. Everything else is the real machine's. All its processes end with the test.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import TypeVar

import pytest

import pillarbox
from pillarbox.users.roles import POSTS
from tests.etc import copy_etc, open_to_all
from tests.peers import unpacked
from tests.server import direct_children, until

_LIBC = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000
_SPACES = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
# Sets lo up: SIOCSIFFLAGS with IFF_UP and IFF_RUNNING.
_LO = "import fcntl, socket, struct; fcntl.ioctl(socket.socket(), 0x8914, struct.pack('16sh14x', b'lo', 0x41))"
_BEGIN = 'mount --bind "$1" /etc; "$2" -c "$3"; : >"$4"; exec sleep 1000'

Found = TypeVar("Found")


class Machine:
    """One that is there. `directory` is for everybody to enter."""

    def __init__(self, directory: Path, first: int, environment: Mapping[str, str]) -> None:
        self.directory = directory
        self.environment = dict(environment)
        self._first = first
        self._started: list[subprocess.Popen[bytes]] = []

    def command(self, *words: str | Path) -> list[str]:
        """The command line of a program there."""
        inside = ["nsenter", f"--target={self._first}", "--mount", "--net", "--pid"]
        return [*inside, "--", *map(str, words)]

    def run(self, *words: str | Path, say: bytes = b"", status: int = 0) -> str:
        """Run a program there; what it printed on both outputs."""
        done = subprocess.run(
            self.command(*words), input=say, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=self.environment,
            cwd=self.directory, timeout=300,
        )  # fmt: skip
        said = done.stdout.decode(errors="replace")
        assert done.returncode == status, f"{words}: status {done.returncode}: {said}"
        return said

    def start(self, *words: str | Path, log: Path) -> None:
        """A program that stays until the end."""
        with open(log, "ab") as file:
            process = subprocess.Popen(
                self.command(*words), stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=self.environment,
                cwd=self.directory,
            )  # fmt: skip
        self._started.append(process)

    def end(self) -> None:
        """With the first process of its namespace all others go."""
        os.kill(self._first, signal.SIGKILL)
        for process in self._started:
            process.wait(60)

    def within(self, do: Callable[[], Found]) -> Found:
        """Do something with this machine's network; a socket that is made there stays there."""
        found: list[Found] = []

        def there() -> None:
            space = os.open(f"/proc/{self._first}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            try:
                assert _LIBC.setns(space, _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
            finally:
                os.close(space)
            found.append(do())

        thread = Thread(target=there)  # a namespace belongs to a thread, which takes it along
        thread.start()
        thread.join()
        return found[0]

    def greets(self, port: int) -> bytes:
        """What a server there says first; empty when there is none."""

        def look() -> bytes:
            try:
                with socket.create_connection(("127.0.0.1", port), 10) as client:
                    return client.recv(512)
            except OSError:
                return b""

        return self.within(look)


def _python() -> str:
    """Ours, where every user can run it with what it imports; the test ends here where not."""
    if not open_to_all(Path(sys.executable)) or not open_to_all(Path(pillarbox.__file__).parent):
        pytest.skip("needs an interpreter and a source tree that every user can read: run the tests from such a place")
    return sys.executable


def _command(directory: Path) -> None:
    """`pillarbox` for everybody, from the checkout."""
    (directory / "bin").mkdir()
    script = directory / "bin" / "pillarbox"
    source = Path(pillarbox.__file__).parent.parent
    script.write_text(f"#!/bin/sh\nPYTHONPATH='{source}' exec '{_python()}' -m pillarbox \"$@\"\n")
    script.chmod(0o755)


@contextmanager
def a_machine(users: Sequence[str] = ()) -> Iterator[Machine]:
    """With no user of the server's and these ordinary ones, whose homes are in its directory's home/. Needs root."""
    if os.getuid() != 0 or subprocess.run([*_SPACES, "true"], capture_output=True).returncode:
        pytest.skip("needs root, and leave to unshare mounts, processes and network")
    directory = Path(tempfile.mkdtemp(prefix="pillarbox-machine-"))
    holder = machine = None
    try:
        directory.chmod(0o755)
        _command(directory)
        ours = {name for post in POSTS for name in (post.name, post.group)}
        copy_etc(directory / "etc", without={"pillarbox", *ours, *users})
        begin = ["sh", "-euc", _BEGIN, "sh", str(directory / "etc"), sys.executable, _LO, str(directory / "ready")]
        with open(directory / "log", "wb") as log:
            holder = subprocess.Popen([*_SPACES, *begin], stdin=subprocess.DEVNULL, stderr=log)
        until((directory / "ready").exists, "the namespaces")
        ((first, _name),) = direct_children(holder.pid)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PILLARBOX"))}
        path = f"{directory}/bin:{kept['PATH']}:/usr/sbin:/sbin:{unpacked() / 'bin'}"
        machine = Machine(directory, first, kept | {"PATH": path, "LC_ALL": "C.UTF-8"})
        (directory / "home").mkdir()
        for user in users:
            machine.run("useradd", "--create-home", "--home-dir", directory / "home" / user, user)
        yield machine
    finally:
        if machine is not None:
            machine.end()
        if holder is not None:
            holder.kill()  # and --kill-child kills the first process, if that is there
            holder.wait(60)
        shutil.rmtree(directory, ignore_errors=True)
