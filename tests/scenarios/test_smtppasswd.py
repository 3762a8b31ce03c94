"""smtp.passwd on the patches page's own terms: mode 0400, smtppasswd's, and cmd5checkpw started by tcpserver -u qmaild.
In the two ways that there are: through the checker's socket, and through the launcher with a set-uid bit.

The users, and the file in /usr/local/etc, are in places that only these processes see.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

from tests.etc import copy_etc, everybody
from tests.peers import peer
from tests.programs.asking import SOURCE
from tests.server import descendants, until

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="needs root: only root can make users and set-uid programs")

QMAILD, SMTPPASSWD, WHEEL = 54401, 54402, 54403
CHALLENGE = b"<1896.697170952@postoffice.reston.mci.net>"
DIGEST = b"b913a602c7eda7a495b4e6e7334d3890"
LAUNCHER = Path(SOURCE) / "pillarbox" / "share" / "launcher.c"
# What a sub-program finds: whom it runs as, what is open, what it may read. No shell's: they give up rights themselves.
LOOK = """
import os
print("in", os.getresuid(), os.getresgid(), os.getgroups(), " ".join(sorted(os.listdir("/proc/self/fd"))))
try:
    print(open("/usr/local/etc/smtp.passwd").read())
except OSError as problem:
    print(problem.strerror)
print(*sorted(os.environ))
"""


class Machine:
    """The page's set-up in an /etc and a /usr/local/etc of its own."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.home = place / "home"
        (self.home / "control").mkdir(parents=True)
        self._etc, self._local = place / "etc", place / "local"
        copy_etc(self._etc, without=("qmaild", "smtppasswd"))
        shutil.rmtree(self._etc / "pillarbox", ignore_errors=True)
        with (self._etc / "passwd").open("a") as passwd:
            for name, uid in (("qmaild", QMAILD), ("smtppasswd", SMTPPASSWD)):
                passwd.write(f"{name}:x:{uid}:{uid}::/nonexistent:/usr/bin/true\n")
        self._local.mkdir()
        self.file = self._local / "smtp.passwd"
        self.file.write_bytes(b"joe:secret\ntim:tanstaaftanstaaf\n")
        self.file.chmod(0o400)
        os.chown(self.file, SMTPPASSWD, WHEEL)
        self.log = place / "log"
        self.python = self._venv()

    def _venv(self) -> Path:
        """A Python that finds us by itself, as an installed one does: -I leaves no other way."""
        where = self.place / "venv"
        subprocess.run([everybody(), "-m", "venv", "--without-pip", str(where)], check=True, timeout=60)
        (packages,) = where.glob("lib/python3*/site-packages")
        (packages / "pillarbox.pth").write_text(f"{SOURCE}\n")
        return where / "bin" / "python"

    def launcher(self) -> str:
        """cmd5checkpw as the page installs it: -m 06755 -o smtppasswd -g wheel."""
        made = self.place / "cmd5checkpw"
        macros = [f'-DPYTHON="{self.python}"', '-DPROGRAM="cmd5checkpw"']
        command = [peer("cc"), "-O2", "-Wall", "-Wextra", "-Werror", *macros, "-o", str(made), str(LAUNCHER)]
        subprocess.run(command, check=True, timeout=60)
        os.chown(made, SMTPPASSWD, WHEEL)
        made.chmod(0o6755)
        return str(made)

    @contextmanager
    def run(self, *command: str, **environ: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run a command as root where all that is."""
        mounts = f'mount --bind {self._etc} /etc && mount --bind {self._local} /usr/local/etc && exec "$@"'
        environ = {"PATH": os.environ["PATH"], "PILLARBOX_HOME": str(self.home), **environ}
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [peer("unshare"), "-m", "/bin/sh", "-c", mounts, "sh", *command],
                env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log,
            )  # fmt: skip
        try:
            yield process
        finally:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()

    @contextmanager
    def checker(self) -> Iterator[None]:
        with self.run(str(self.python), "-I", "-m", "pillarbox", "run", "checker"):
            until(lambda: "checker: answering qmaild about" in self.log.read_text(), "the checker to answer")
            yield

    @contextmanager
    def tcpserver(self, *command: str, **environ: str) -> Iterator[int]:
        """The port where `command` answers, as qmaild."""
        server = [peer("tcpserver"), "-1vRHl", "mx.example.org", "-u", str(QMAILD), "-g", str(QMAILD), "127.0.0.1", "0"]
        with self.run(*server, *command, **environ) as process:
            assert process.stdout is not None
            yield int(process.stdout.readline())

    def asks(self, *cmd5checkpw: str) -> tuple[str, ...]:
        """cmd5checkpw, with what the client says on descriptor 3."""
        return ("/bin/sh", "-c", 'exec "$@" 3<&0 </dev/null 2>&1', "sh", *cmd5checkpw)


@pytest.fixture
def machine() -> Iterator[Machine]:
    place = Path(tempfile.mkdtemp(prefix="pillarbox-test-"))
    place.chmod(0o755)
    yield Machine(place)
    shutil.rmtree(place)


def said(port: int, octets: bytes) -> bytes:
    """What a client hears that says this."""
    with socket.create_connection(("127.0.0.1", port), 30) as sock:
        sock.sendall(octets)
        sock.shutdown(socket.SHUT_WR)
        heard = b""
        while block := sock.recv(65536):
            heard += block
        return heard


QUESTIONS = (
    (b"joe\0secret\0\0", b"in\n"),
    (b"tim\0" + CHALLENGE + b"\0" + DIGEST + b"\0", b"in\n"),
    (b"joe\0wrong\0\0", b""),
    (b"ann\0secret\0\0", b""),
    (b"tim\0" + CHALLENGE + b"\0" + DIGEST[::-1] + b"\0", b""),
)


# row: cmd5checkpw-tcpserver
def test_the_checker_answers_for_qmaild_who_may_not_read_the_file(machine: Machine) -> None:
    command = [str(machine.python), "-I", "-m", "pillarbox", "run", "cmd5checkpw", "/bin/echo", "in"]
    with machine.tcpserver(*machine.asks(*command)) as port:
        assert b"smtp.passwd: Permission denied, and no checker to ask: " in said(port, b"joe\0secret\0\0")
        with machine.checker():
            for octets, answer in QUESTIONS:
                assert said(port, octets) == answer
    assert "secret" not in machine.log.read_text()


# row: cmd5checkpw-set-uid
def test_the_launcher_may_read_the_file_for_qmaild(machine: Machine) -> None:
    with machine.tcpserver(*machine.asks(machine.launcher(), "/bin/echo", "in")) as port:
        for octets, answer in QUESTIONS:
            assert said(port, octets) == answer


# row: cmd5checkpw-set-uid, cmd5checkpw-identity
def test_behind_the_launcher_nothing_is_left_of_its_rights(machine: Machine) -> None:
    """CVE-2005-0580: whoever had one login could read all passwords by a sub-program of his own."""
    environ = {
        "LD_PRELOAD": "/tmp/x.so",
        "PYTHONPATH": "/tmp",
        "PYTHONSTARTUP": "/tmp/x",
        "TZ": "/tmp/x",
        "BASH_ENV": "x",
    }
    look = [str(machine.python), "-I", "-c", LOOK]
    with machine.tcpserver(*machine.asks(machine.launcher(), *look), **environ) as port:
        heard = said(port, b"joe\0secret\0\0").decode()
    ids = str((QMAILD,) * 3)
    # 3 is the listing itself.
    assert heard.splitlines()[:2] == [f"in {ids} {ids} [{QMAILD}] 0 1 2 3", "Permission denied"]
    names = set(heard.splitlines()[2].split())
    assert names & environ.keys() == set()
    assert {"TCPREMOTEIP", "PATH", "PROTO"} <= names <= {
        "PATH", "PROTO", "TCPLOCALHOST", "TCPLOCALIP", "TCPLOCALPORT", "TCPREMOTEIP", "TCPREMOTEPORT", "PWD", "OLDPWD",
        "SHLVL", "_", "LC_CTYPE",
    }  # fmt: skip


# row: cmd5checkpw-set-uid
def test_the_launcher_leaves_no_descriptor_above_3_and_always_0_to_2(machine: Machine) -> None:
    look = "import os, sys; open(sys.argv[1], 'a').write(' '.join(sorted(os.listdir('/proc/self/fd'))))"
    seen = machine.place / "seen"
    seen.touch(mode=0o666)
    seen.chmod(0o666)
    launcher = machine.launcher()
    python = str(machine.python)
    text = 'exec "$@" 3<"$0" 4<"$0" 9<"$0" 0<&- 1>&- 2>&-'
    question = machine.place / "question"
    question.write_bytes(b"joe\0secret\0\0")
    command = ["/bin/sh", "-c", text, str(question), launcher, python, "-I", "-c", look, str(seen)]
    with machine.run(*command) as process:
        assert process.wait(30) == 0
    # 3 and 4 are the file that it writes and the listing itself.
    assert seen.read_text() == "0 1 2 3 4"


# row: cmd5checkpw-set-uid
def test_with_rights_of_its_own_nobody_says_which_file_or_home(machine: Machine) -> None:
    """Or it would verify by any file that smtppasswd may read, and show lines of it in its errors."""
    launcher = machine.launcher()
    other = machine.place / "other"
    other.write_bytes(b"joe:else\n")
    (machine.home / "control" / "smtppasswd").write_text(f"{other}\n")
    with machine.tcpserver(*machine.asks(launcher, "-f", str(other), "/bin/echo", "in")) as port:
        line = b"cmd5checkpw: fatal: -f is not for a program with rights that its caller has not\n"
        assert said(port, b"") == line
    with machine.tcpserver(*machine.asks(launcher, "/bin/echo", "in")) as port:
        assert said(port, b"joe\0else\0\0") == b""
        assert said(port, b"joe\0secret\0\0") == b"in\n"
    (machine.home / "control" / "smtppasswd").unlink()
    with machine.checker():
        machine.file.chmod(0o000)
        with machine.tcpserver(*machine.asks(launcher, "/bin/echo", "in")) as port:
            assert said(port, b"joe\0secret\0\0") == (
                b"cmd5checkpw: fatal: /usr/local/etc/smtp.passwd: Permission denied\n"
            )


def test_a_caller_cannot_look_into_the_program_while_it_reads(machine: Machine) -> None:
    """The kernel takes a program with gained rights for not dumpable: /proc/PID/mem and ptrace are closed."""
    command = machine.asks(machine.launcher(), "/bin/sleep", "5")
    with machine.tcpserver(*command) as port, socket.create_connection(("127.0.0.1", port), 30) as sock:
        end = time.monotonic() + 30
        while not (found := _of_smtppasswd()) and time.monotonic() < end:
            time.sleep(0.01)
        assert found, "no process of smtppasswd while it waits for its question"
        facts = Path(f"/proc/{found[0]}/mem").stat()
        assert (facts.st_uid, facts.st_mode & 0o077) == (0, 0)
        sock.shutdown(socket.SHUT_WR)


def _of_smtppasswd() -> list[int]:
    """Processes of this test's whose effective user is smtppasswd, in Python."""
    found = []
    for pid, _name in descendants(os.getpid()):
        try:
            status = Path(f"/proc/{pid}/status").read_text()
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        ids = status.partition("Uid:")[2].split()
        if ids[1] == str(SMTPPASSWD) and b"pillarbox\0run\0cmd5checkpw" in command:
            found.append(pid)
    return found


# row: cmd5checkpw-tcpserver, cmd5checkpw-set-uid
@pytest.mark.parametrize("way", ["checker", "launcher"])
def test_clients_log_in_at_qmail_smtpd_with_every_mechanism(machine: Machine, way: str) -> None:
    """The page's run line: qmail-smtpd YOUR.HOST.NAME.HERE /usr/local/sbin/cmd5checkpw /usr/bin/true."""
    (machine.home / "control" / "me").write_text("mx.example.org\n")
    (machine.home / "control" / "rcpthosts").write_text("example.org\n")
    ours = [str(machine.python), "-I", "-m", "pillarbox", "run"]
    check = [machine.launcher()] if way == "launcher" else [*ours, "cmd5checkpw"]
    answers = machine.checker() if way == "checker" else nullcontext()
    with answers, machine.tcpserver(*ours, "qmail-smtpd", "mx.example.org", *check, "/usr/bin/true") as port:
        for mechanism in ("LOGIN", "PLAIN", "CRAM-MD5"):
            assert "235 ok, tim, go ahead (#2.0.0)" in swaks(port, mechanism, "tanstaaftanstaaf")
        assert "535 authorization failed (#5.7.0)" in swaks(port, "CRAM-MD5", "tanstaaf")
    assert "tanstaaf" not in machine.log.read_text()


def swaks(port: int, mechanism: str, password: str) -> str:
    """What swaks shows of its login as tim."""
    command = [peer("swaks"), "--server", "127.0.0.1", "--port", str(port), "--quit-after", "AUTH", "--auth", mechanism]
    done = subprocess.run(
        [*command, "--auth-user", "tim", "--auth-password", password, "--to", "joe@example.org"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60,
    )  # fmt: skip
    return done.stdout.decode()
