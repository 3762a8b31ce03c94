"""A real server for a test: `pillarbox serve` as a process of its own, in a home of its own, on ports of its own.

The home lies under the system's temporary directory and can be entered by everybody, because as root the server's
roles run as another user. As root and as a plain user the tests are the same.
"""

from __future__ import annotations

import os
import pwd
import random
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import pillarbox

ME = "mx.example.org"
DOMAIN = "example.org"
SECRET = "Tr0ub4dor &3"
SERVICES = ("smtp", "submission", "submissions", "pop3", "pop3s")
ROLES = ("queue", "spawn", "remote", "users", "auth", "smtpd", "pop3d")
PATIENCE = 30.0  # seconds until a test gives up on what should take a moment
GLANCE = 0.01  # seconds between looks

_LISTENING = re.compile(r"^listening (\w+) (\S+):(\d+)$", re.MULTILINE)
_TROUBLE = re.compile(r".*(?:has a bug|this is a bug|Traceback|Warning:|ignored in|never retrieved).*")

Found = TypeVar("Found")


class NotInTime(AssertionError):
    """What a test waited for did not come."""


def until(look: Callable[..., Found], what: str, seconds: float = PATIENCE) -> Found:
    """The first thing that `look` finds which is not false, empty or None. Raises NotInTime."""
    end = time.monotonic() + seconds
    while not (found := look()):
        if time.monotonic() > end:
            raise NotInTime(f"not in {seconds:g} s: {what}")
        time.sleep(GLANCE)
    return found


def listen(*services: str) -> str:
    """control/listen: these services, on ports that the system chooses."""
    return "".join(f"{service} 127.0.0.1:0\n" for service in services)


def unused_port() -> int:
    """A port that is free on all addresses, and not of those that the kernel gives to clients: one of theirs may be
    taken again before the test has it."""
    for _ in range(100):
        port = random.randrange(20_000, 30_000)
        with suppress(OSError), socket.create_server(("", port)):
            return port
    raise NotInTime("a hundred ports, and none was free")


class Server:
    """One home and, between `start` and `stop`, the server that runs there."""

    def __init__(self, home: Path, control: Mapping[str, str], accounts: Sequence[str]) -> None:
        self.home = home
        self.ports: dict[str, int] = {}
        self._serving: subprocess.Popen[bytes] | None = None
        self._log = home.parent / "log"
        self._output = home.parent / "output"
        self._seen = 0
        self.pillarbox("init", "--me", ME)
        for name, text in {"listen": listen(*SERVICES), **control}.items():
            self.control(name, text)
        for address in accounts:
            self.pillarbox("account", "add", address, "--password-stdin", say=SECRET)

    # the home

    def control(self, name: str, text: str | None) -> None:
        """Write a control file, or remove it (None)."""
        file = self.home / "control" / name
        if text is None:
            file.unlink(missing_ok=True)
        else:
            file.write_text(text, "utf-8")

    def put(self, file: Path, octets: bytes, mode: int = 0o600) -> None:
        """Write a file that belongs to the accounts' user, or in alias/ to its user."""
        file.write_bytes(octets)
        file.chmod(mode)
        self.give(file)

    def give(self, file: Path) -> None:
        """Make a file or directory that user's own."""
        if os.getuid() == 0:
            user = pwd.getpwnam("alias" if self.home / "alias" in file.parents else "vmail")
            os.chown(file, user.pw_uid, user.pw_gid)

    def mailbox(self, local: str = "joe", domain: str = DOMAIN) -> Path:
        """The home of an account."""
        return self.home / "mail" / domain / local

    def delivered(self, local: str = "joe", maildir: str = "Maildir") -> list[Path]:
        """The messages in new/ and cur/ of a mailbox."""
        found: list[Path] = []
        for place in ("new", "cur"):
            with suppress(FileNotFoundError):
                found += (self.mailbox(local) / maildir / place).iterdir()
        return found

    def await_delivered(self, token: bytes, local: str = "joe", maildir: str = "Maildir") -> Path:
        """The one message of a mailbox with `token` in it, once it is there."""
        path = until(lambda: self.holding(token, local, maildir), f"a message with {token!r} for {local}")
        assert len(path) == 1, f"{token!r} is there more than once: {path}"
        return path[0]

    def holding(self, token: bytes, local: str = "joe", maildir: str = "Maildir") -> list[Path]:
        """The messages of a mailbox with `token` in them."""
        return [file for file in self.delivered(local, maildir) if token in file.read_bytes()]

    def empty(self, local: str = "joe", maildir: str = "Maildir") -> None:
        """Take away the messages of a mailbox."""
        for file in self.delivered(local, maildir):
            file.unlink(missing_ok=True)

    @property
    def authority(self) -> Path:
        """The certificate by which clients verify the server."""
        return self.home / "tls" / "cert.pem"

    def trust(self) -> ssl.SSLContext:
        """A client's context that trusts this server and nobody else."""
        return ssl.create_default_context(cafile=self.authority)

    # the command

    def pillarbox(self, *arguments: str, say: str = "", status: int = 0) -> str:
        """Run a `pillarbox` command for this home, which ends with `status`; what it printed on both outputs."""
        done = subprocess.run(
            [*_COMMAND, *arguments, "--home", str(self.home)],
            input=say.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=_environment(),
            timeout=60,
        )
        output = done.stdout.decode()
        assert done.returncode == status, f"{arguments}: status {done.returncode}: {output}"
        return output

    # the server

    def start(self, *, handed: Sequence[socket.socket] = ()) -> None:
        """Serve; returns when it said `ready`. `handed`: listening sockets to hand over, as systemd does."""
        over = [sock.fileno() for sock in handed]
        with open(self._log, "ab") as log, open(self._output, "wb") as output:
            self._serving = subprocess.Popen(
                [*(_hand_over(over) if handed else ()), *_COMMAND, "serve", "--home", str(self.home)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=log,
                env=_environment(),
                cwd=self.home.parent,
                pass_fds=over,
            )
        until(self._ready, "ready")
        said = self._output.read_text()
        self.ports = {service: int(port) for service, _address, port in reversed(_LISTENING.findall(said))}

    def _ready(self) -> bool:
        assert self._serving is not None
        said = self._output.read_text()
        assert self._serving.poll() is None, f"serve ended with {self._serving.returncode}: {said}{self.log()}"
        return "\nready\n" in said

    @property
    def output(self) -> str:
        """What serve printed on standard output since its last start."""
        return self._output.read_text()

    @property
    def pid(self) -> int:
        """The supervisor's."""
        assert self._serving is not None
        return self._serving.pid

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the supervisor."""
        os.kill(self.pid, number)

    def wait(self, seconds: float = 60) -> int:
        """The exit status, once it has ended."""
        assert self._serving is not None
        return self._serving.wait(seconds)

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """Kill -9 for the supervisor and every role, at one moment as far as that goes."""
        if self._serving is None or self._serving.poll() is not None:
            return
        for pid in [self.pid, *self.processes()]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.wait()

    def processes(self, role: str = "") -> list[int]:
        """The pids of all roles, or of one, by the names that the kernel has for them."""
        return [pid for pid, name in descendants(self.pid) if name.startswith(f"pillarbox-{role}"[:15])]

    def kill_role(self, role: str) -> int:
        """Kill -9 for every process of a role; how many there were."""
        killed = self.processes(role)
        for pid in killed:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return len(killed)

    # the log

    def log(self) -> str:
        """All that the server logged, over all its starts."""
        return self._log.read_text("utf-8", "replace") if self._log.exists() else ""

    def news(self) -> str:
        """What was logged since the last call of `news`."""
        log = self.log()
        seen, self._seen = self._seen, len(log)
        return log[seen:]

    def await_log(self, pattern: str, times: int = 1) -> list[str]:
        """The lines that match, once there are so many of them."""

        def look() -> list[str]:
            found = [line for line in self.log().splitlines() if re.search(pattern, line)]
            return found if len(found) >= times else []

        return until(look, f"{times} lines like {pattern!r} in the log:\n{self.log()[-3000:]}")

    def trouble(self) -> list[str]:
        """Lines of the log that no server should ever write."""
        return _TROUBLE.findall(self.log())


# A role that loses its supervisor lets go of everything by ending: what is unclosed then is no news.
_COMMAND = (sys.executable, "-W", "always", "-W", "ignore::ResourceWarning", "-m", "pillarbox")


def _hand_over(descriptors: Sequence[int]) -> list[str]:
    """What starts a program with these as its descriptors 3, 4, ...; their numbers now must be larger ones."""
    script = (
        "import os, sys\n"
        "given = [int(number) for number in sys.argv[1].split(',')]\n"
        "for at, number in enumerate(given):\n"
        "    os.dup2(number, 3 + at)\n"
        "    os.close(number)\n"
        "told = {'LISTEN_PID': str(os.getpid()), 'LISTEN_FDS': str(len(given))}\n"
        "os.execve(sys.argv[2], sys.argv[2:], {**os.environ, **told})\n"
    )
    assert min(descriptors) >= 3 + len(descriptors), descriptors
    return [sys.executable, "-c", script, ",".join(map(str, descriptors))]


def _environment() -> dict[str, str]:
    source = str(Path(pillarbox.__file__).parent.parent)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PILLARBOX", "PYTHON"))}
    return kept | {"PYTHONPATH": source, "TZ": "UTC", "LC_ALL": "C.UTF-8"}


def descendants(parent: int) -> Iterator[tuple[int, str]]:
    """All descendants, with their names: owner roles are spawn's children."""
    for pid, name in direct_children(parent):
        yield pid, name
        yield from descendants(pid)


def direct_children(parent: int) -> Iterator[tuple[int, str]]:
    """Pid and name of each living child."""
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with suppress(FileNotFoundError, ProcessLookupError):
                name, _, rest = Path("/proc", entry, "stat").read_text().partition("(")[2].rpartition(")")
                state, ppid = rest.split()[:2]
                if int(ppid) == parent and state != "Z":
                    yield int(entry), name


@contextmanager
def a_home(
    control: Mapping[str, str] | None = None, accounts: Sequence[str] = ("joe@example.org",)
) -> Iterator[Server]:
    """A home with a server that is not started. At the end whatever still runs is killed, and the log is looked at."""
    directory = Path(tempfile.mkdtemp(prefix="pillarbox-test-"))
    directory.chmod(0o755)
    server = None
    try:
        server = Server(directory / "home", control or {}, accounts)
        yield server
        assert not server.trouble(), "\n".join(server.trouble())
    except BaseException:
        if server is not None:
            print(f"the log of {server.home}:\n{server.log()[-6000:]}")
        raise
    finally:
        if server is not None:
            server.kill()
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def a_server(
    control: Mapping[str, str] | None = None, accounts: Sequence[str] = ("joe@example.org",)
) -> Iterator[Server]:
    """A server that serves, and at the end stops with status 0 when it is told to."""
    with a_home(control, accounts) as server:
        server.start()
        yield server
        assert server.stop() == 0
