"""docs/install.md, command by command: with paths and ports of the test's own, from a wheel, and run by real
supervisors and by what systemd would do."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests import qmail
from tests.peers import peer, run, unpacked
from tests.server import _hand_over, until, unused_port

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "install.md"
JOE = "joe@example.org"
LISTEN = ("smtp", "submission", "pop3")


@dataclass(frozen=True)
class Place:
    """Where the page's commands are carried out: `paths` stand for those that the page names."""

    directory: Path
    paths: dict[str, str]
    environment: dict[str, str]

    def at(self, path: str) -> Path:
        for named, ours in self.paths.items():
            path = path.replace(named, ours)
        return Path(path)

    def ports(self) -> dict[str, int]:
        lines = self.at("/var/lib/pillarbox/control/listen").read_text().split("\n")[:-1]
        return {line.split()[0]: int(line.rpartition(":")[2]) for line in lines}


def blocks(section: str) -> list[str]:
    """The commands under one heading that are to be run here; those marked `machine` are for a machine of one's own."""
    text = PAGE.read_text().partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    return re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def carry_out(place: Place, section: str) -> str:
    """Run the commands of a section in the checkout, but systemctl's, which need a machine that systemd runs."""
    (commands,) = blocks(section)
    script = "".join(line + "\n" for line in commands.splitlines() if not line.startswith("systemctl "))
    for named, ours in place.paths.items():
        script = re.sub(rf"(?<![\w/]){re.escape(named)}(?![\w-])", ours, script)
    done = subprocess.run(
        ["/bin/sh", "-eu", "-c", script], cwd=ROOT, env=place.environment, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, f"{script}: {done.stdout.decode()}"
    return done.stdout.decode()


def everybodys_python(directory: Path) -> None:
    """`python3` that every user can run, as a system's is: the roles' users must read what it imports."""
    script = "import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))"
    nobody: dict[str, Any] = {"user": 65534, "group": 65534, "extra_groups": []} if os.getuid() == 0 else {}
    for candidate in (os.path.realpath(sys.executable), "/usr/bin/python3"):
        with suppress(OSError):
            if subprocess.run([candidate, "-I", "-c", script], capture_output=True, **nobody).returncode == 0:
                (directory / "python3").symlink_to(candidate)
                return
    pytest.skip("needs a Python 3.11 with venv that every user can run: apt-get install python3-venv")


@pytest.fixture(scope="module")
def installed() -> Iterator[Place]:
    """The program and the home, made as the page says, and then with ports of our own."""
    directory = Path(tempfile.mkdtemp(prefix="pillarbox-install-"))
    directory.chmod(0o755)
    try:
        for name in ("bin", "units", "python"):
            (directory / name).mkdir()
        everybodys_python(directory / "python")
        paths = {
            "/opt/pillarbox": f"{directory}/opt",
            "/usr/local/bin": f"{directory}/bin",
            "/var/lib/pillarbox": f"{directory}/home",
            "/var/qmail": f"{directory}/qmail",
            "/etc/systemd/system": f"{directory}/units",
            "/etc/sv/pillarbox": f"{directory}/service",
            "dist": f"{directory}/dist",
        }
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PILLARBOX"))}
        path = f"{directory}/bin:{directory}/python:{kept['PATH']}:{unpacked() / 'bin'}"
        place = Place(directory, paths, kept | {"PATH": path})
        carry_out(place, "The program")
        carry_out(place, "The home")
        lines = [f"{service} 127.0.0.1:{unused_port()}\n" for service in LISTEN]
        place.at("/var/lib/pillarbox/control/listen").write_text("".join(lines))
        place.at("/var/lib/pillarbox/control/authcleartext").write_text("1\n")
        yield place
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def greeted(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 10) as client:
            return client.recv(512).startswith(b"220 mail.example.org")
    except OSError:
        return False


def send_and_read(place: Place) -> None:
    """One mail in by submission, out by POP3, with the password that the page's command set."""
    ports = place.ports()
    curl = [peer("curl"), "--silent", "--show-error", "--user", f"{JOE}:correct horse battery staple"]
    word = os.urandom(8).hex()
    mail = ["--mail-from", JOE, "--mail-rcpt", JOE, "--upload-file", "-", f"smtp://127.0.0.1:{ports['submission']}"]
    run(*curl, *mail, say=f"Subject: {word}\r\n\r\nhello\r\n".encode())
    new = place.at("/var/lib/pillarbox/mail/example.org/joe/Maildir/new")
    until(lambda: any(word in file.read_text() for file in new.iterdir()), "the message")
    assert b"Subject: " in run(*curl, f"pop3://127.0.0.1:{ports['pop3']}/1")


def test_the_package_has_everything_without_the_checkout(installed: Place) -> None:
    (package,) = installed.at("/opt/pillarbox").glob("lib/python3*/site-packages/pillarbox")
    missing = {
        file.relative_to(ROOT / "src/pillarbox")
        for file in (ROOT / "src/pillarbox").rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
        and not (package / file.relative_to(ROOT / "src/pillarbox")).is_file()
    }  # fmt: skip
    assert missing == set()


def test_systemd_accepts_the_units_and_they_start_a_server_that_a_restart_does_not_close(installed: Place) -> None:
    carry_out(installed, "Under systemd")
    units = [installed.at(f"/etc/systemd/system/pillarbox.{kind}") for kind in ("service", "socket")]
    assert run(peer("systemd-analyze"), "verify", *units) == b""
    service, sockets = (dict(re.findall(r"^(ExecStart)=(.*)$", units[0].read_text(), re.M)), units[1].read_text())
    streams = re.findall(r"^ListenStream=(.*)$", sockets, re.MULTILINE)
    with ExitStack() as stack:
        doors = [stack.enter_context(listening_at(stream, 200 + at)) for at, stream in enumerate(streams)]
        for _ in range(2):
            serving = started(service["ExecStart"].split(), doors, installed)
            stack.callback(ended, serving)
            assert greeted(installed.ports()["smtp"])
            send_and_read(installed)
            serving.send_signal(signal.SIGTERM)
            assert serving.wait(60) == 0


def ended(process: subprocess.Popen[bytes]) -> None:
    """Whatever the test found, its process does not stay."""
    if process.poll() is None:
        process.terminate()
        process.wait(60)


def listening_at(stream: str, number: int) -> socket.socket:
    """As systemd would for ListenStream=, with this descriptor number, which is out of the way."""
    if stream.startswith("/"):
        sock = socket.socket(socket.AF_UNIX)
        Path(stream).unlink(missing_ok=True)
        sock.bind(stream)
        os.chmod(stream, 0o666)
        sock.listen()
    else:
        sock = socket.create_server(("127.0.0.1", int(stream.rpartition(":")[2])))
    os.dup2(sock.fileno(), number)
    sock.close()
    return socket.socket(fileno=number)


def started(command: list[str], doors: list[socket.socket], place: Place) -> subprocess.Popen[bytes]:
    """Where it says READY=1 to systemd, as Type=notify waits for."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        path = place.directory / "notify"
        path.unlink(missing_ok=True)
        ear.bind(str(path))
        path.chmod(0o777)
        ear.settimeout(60)
        numbers = [door.fileno() for door in doors]
        with open(place.directory / "log", "ab") as log:
            serving = subprocess.Popen(
                [*_hand_over(numbers), *command], env=place.environment | {"NOTIFY_SOCKET": str(path)},
                pass_fds=numbers, stdout=log, stderr=log,
            )  # fmt: skip
        assert ear.recv(512) == b"READY=1", (place.directory / "log").read_text()
        return serving


class Supervisor(NamedTuple):
    """How one watches a service directory ($0), and its commands for that: start anew, and end for good."""

    watch: str
    restart: list[str]
    finish: list[str]
    keeper: str


SUPERVISORS = {
    "daemontools": Supervisor('exec svscan "$(dirname "$0")"', ["svc", "-t"], ["svc", "-dx"], "multilog"),
    "runit": Supervisor('exec runsv "$0"', ["sv", "-w", "30", "restart"], ["sv", "exit"], "svlogd"),
    # s6-svscan looks for s6-supervise in /usr/bin alone; what it would do is this.
    "s6": Supervisor('s6-supervise "$0" | s6-supervise "$0/log"', ["s6-svc", "-r"], ["s6-svc", "-dx"], "s6-log"),
}


# What log/run calls, and the program that does it here: s6-setuidgid would look for its own kind in /usr/bin alone.
KEEPERS = {
    "multilog": {"multilog": "multilog", "setuidgid": "setuidgid"},
    "svlogd": {"svlogd": "svlogd", "chpst": "chpst"},
    "s6-log": {"s6-log": "s6-log", "s6-setuidgid": "setuidgid"},
}


@pytest.mark.parametrize("name", SUPERVISORS)
def test_a_supervisor_runs_it_restarts_it_and_keeps_its_log(installed: Place, name: str) -> None:
    supervisor = SUPERVISORS[name]
    peer(supervisor.restart[0])
    shutil.rmtree(installed.at("/etc/sv/pillarbox"), ignore_errors=True)
    carry_out(installed, "Under supervise, runit or s6")
    service = installed.directory / name / "pillarbox"
    service.parent.mkdir()
    service.symlink_to(installed.at("/etc/sv/pillarbox"))
    only(supervisor.keeper, installed.at("/etc/sv/pillarbox"))
    watching = subprocess.Popen(
        ["/bin/sh", "-c", supervisor.watch, str(service)], env=installed.environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        port = installed.ports()["smtp"]
        until(lambda: greeted(port), "a greeting", 60)
        send_and_read(installed)
        first = holder(installed)
        run(peer(supervisor.restart[0]), *supervisor.restart[1:], service)
        until(lambda: holder(installed) not in (first, ""), "the next start", 60)
        until(lambda: greeted(port), "a greeting after the restart", 60)
        current = service / "log" / "main" / "current"
        until(lambda: "status: exiting" in current.read_text(), "the log")
        assert "delivery 1: success" in current.read_text()
    finally:
        if name == "daemontools":
            watching.terminate()  # svscan would start it again
        for part in (service, service / "log"):
            subprocess.run([peer(supervisor.finish[0]), *supervisor.finish[1:], part], capture_output=True, timeout=60)
        watching.wait(60)
    until(lambda: not greeted(port), "the end", 60)


def only(keeper: str, service: Path) -> None:
    """Let log/run find this one of the three that keep logs, where its own user may run it too."""
    peers = service.parent / "peers"
    folder = peers / keeper
    folder.mkdir(parents=True, exist_ok=True)
    if (unpacked() / "supervisors").exists() and not (peers / "supervisors").exists():
        shutil.copytree(unpacked() / "supervisors", peers / "supervisors", symlinks=True)
    for name, program in KEEPERS[keeper].items():
        found = Path(peer(program))
        if unpacked() in found.parents:
            shutil.copy(found, folder / name)  # a starter, which looks for the program beside its own folder
        else:
            (folder / name).symlink_to(found)
    script = service / "log" / "run"
    script.write_text(script.read_text().replace("#!/bin/sh\n", f"#!/bin/sh\nPATH={folder}:/usr/bin:/bin\n", 1))


def holder(place: Place) -> str:
    """The pid of the server that runs."""
    return place.at("/var/lib/pillarbox/run/lock").read_text().strip()


@pytest.mark.skipif(os.getuid() != 0, reason="programs for everybody are root's")
def test_programs_take_the_place_of_qmails_own_and_give_it_back(installed: Place) -> None:
    home = qmail.make(installed.at("/var/qmail"))
    before, names = qmail.programs(home / "bin"), sorted(os.listdir(home / "bin"))
    told = carry_out(installed, "In the place of qmail's own programs")
    assert f"{home}/bin/qmail-smtpd: would be replaced and kept (root:" in told
    assert f"ok: {home}/bin: Pillarbox's: qmail-pop3d qmail-popup qmail-remote qmail-smtpd\n" in told
    said = run(home / "bin" / "qmail-remote", "nowhere.invalid", "a@example.org", "b@nowhere.invalid")
    assert said.startswith(b"DSorry, I couldn't find any host named nowhere.invalid. (#5.1.2)") or said[:1] == b"Z"
    (running,) = (home / "bin" / ".pillarbox" / "runtime").iterdir()
    assert (running / "pillarbox" / "share" / "launcher.c").exists()
    carry_out(installed, "Back to qmail's own programs")
    assert (qmail.programs(home / "bin"), sorted(os.listdir(home / "bin"))) == (before, names)


def test_a_newer_version_goes_over_the_old_one(installed: Place) -> None:
    carry_out(installed, "A newer version")
    assert run(installed.at("/usr/local/bin/pillarbox"), "--version").startswith(b"pillarbox ")
