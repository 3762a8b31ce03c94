"""The checker: who may not read the file of passwords asks there, and who may not ask hears nothing."""

from __future__ import annotations

import os
import pwd
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pillarbox.net import listening
from pillarbox.programs import checking
from pillarbox.programs.checking import NoAnswer, NoChecker
from pillarbox.roles import checker
from pillarbox.roles.log import Log
from tests.etc import everybody
from tests.people import some_people
from tests.programs.asking import OURS, SOURCE, ask
from tests.programs.calling import Ended
from tests.server import a_home, until

NOBODY = pwd.getpwnam("nobody")
DAEMON = pwd.getpwnam("daemon")
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="needs root: only root can be other users")


@pytest.fixture
def home() -> Iterator[Path]:
    """A home that every user can enter, with a file of one login."""
    directory = Path(tempfile.mkdtemp(prefix="pillarbox-test-"))
    directory.chmod(0o755)
    (directory / "control").mkdir()
    (directory / "control" / "smtppasswd").write_text("smtp.passwd\n")
    file = directory / "smtp.passwd"
    file.write_bytes(b"joe:secret\n")
    file.chmod(0o400)
    if os.getuid() == 0:
        os.chown(file, DAEMON.pw_uid, DAEMON.pw_gid)
    yield directory
    shutil.rmtree(directory)


@contextmanager
def running(home: Path, *words: str, command: tuple[str, ...] = OURS) -> Iterator[subprocess.Popen[bytes]]:
    """A checker that answers, until the end of the test."""
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": SOURCE, "PILLARBOX_HOME": str(home)}
    with open(home / "log", "wb") as log:
        process = subprocess.Popen([*command, "checker", *words], env=environ, stderr=log)
    try:
        until(lambda: b"answering" in (home / "log").read_bytes(), "the checker to answer")
        yield process
    finally:
        process.kill()
        process.wait()


def allowed() -> str:
    return "nobody" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name


def cmd5checkpw(home: Path, octets: bytes, user: int | None = None) -> Ended:
    """As nobody where we are root."""
    command = [everybody(), "-m", "pillarbox", "run", "cmd5checkpw", "echo", "in"]
    return ask(octets, command=command, environ={"PILLARBOX_HOME": str(home)}, user=user)


# row: checker-socket-peers
@needs_root
def test_who_may_not_read_the_file_is_answered_as_who_may(home: Path) -> None:
    (home / "control" / "checkerusers").write_text("nobody\n")
    with running(home):
        for octets, expected in (
            (b"joe\0secret\0\0", Ended(0, b"in\n", "")),
            (b"joe\0wrong\0\0", Ended(1, b"", "")),
            (b"ann\0secret\0\0", Ended(1, b"", "")),
        ):
            assert cmd5checkpw(home, octets, NOBODY.pw_uid) == expected
        (home / "smtp.passwd").write_bytes(b"ann:secret\n")
        assert cmd5checkpw(home, b"ann\0secret\0\0", NOBODY.pw_uid) == Ended(0, b"in\n", "")
        (home / "smtp.passwd").write_bytes(b"nonsense\n")
        assert cmd5checkpw(home, b"joe\0secret\0\0", NOBODY.pw_uid).status == 2
        (home / "smtp.passwd").unlink()
        ended = cmd5checkpw(home, b"joe\0secret\0\0", NOBODY.pw_uid)
        assert ended.status == 111
        assert ended.errors.count("\n") == 1
    log = (home / "log").read_text()
    assert f"checker: warning: {home}/smtp.passwd: line 1: not USER:PASSWORD of at most 256 octets\n" in log
    assert f"checker: warning: {home}/smtp.passwd: No such file or directory\n" in log
    assert "secret" not in log


# row: checker-socket-peers
@needs_root
def test_who_is_not_allowed_hears_nothing_and_is_named_once(home: Path) -> None:
    with running(home, "-u", "daemon"):
        for _ in range(2):
            ended = cmd5checkpw(home, b"joe\0secret\0\0", NOBODY.pw_uid)
            assert (ended.status, ended.output) == (111, b"")
            assert "does not answer this user: see control/checkerusers" in ended.errors
    warning = f"checker: warning: uid {NOBODY.pw_uid} asks, and is not in control/checkerusers\n"
    assert (home / "log").read_text().count(warning) == 1


@needs_root
def test_it_becomes_the_owner_of_the_file_and_has_no_other_rights(home: Path) -> None:
    """Not the file's group either: `chown smtppasswd FILE` leaves that root's."""
    os.chown(home / "smtp.passwd", DAEMON.pw_uid, 0)
    with running(home, "-u", "nobody") as process:
        status = Path(f"/proc/{process.pid}/status").read_text()
    for line in (
        f"Uid:\t{DAEMON.pw_uid}\t{DAEMON.pw_uid}\t{DAEMON.pw_uid}",
        f"Gid:\t{DAEMON.pw_gid}\t{DAEMON.pw_gid}\t{DAEMON.pw_gid}",
        "Groups:\t \n",
        "CapEff:\t0000000000000000",
    ):
        assert line in status
    assert (home / "run" / "checker").stat().st_mode & 0o777 == 0o666


@needs_root
def test_the_file_of_root_is_not_answered_about(home: Path) -> None:
    os.chown(home / "smtp.passwd", 0, 0)
    ended = ask(None, "checker", environ={"PILLARBOX_HOME": str(home)})
    assert ended.status == 111
    assert ended.errors == (
        f"checker: fatal: {home}/smtp.passwd: belongs to root, and nothing that answers others should be root: "
        f"useradd -r smtppasswd; chown smtppasswd {home}/smtp.passwd\n"
    )


@needs_root
def test_a_file_of_nobody_or_of_somebody_in_roots_group_is_not_answered_about(home: Path) -> None:
    file = home / "smtp.passwd"
    with some_people("pauper") as people:
        subprocess.run(people.within("usermod", "-g", "0", "pauper"), check=True)
        poor = "its owner pauper is in root's group: groupadd -r pauper; usermod -g pauper pauper"
        nobodys = "belongs to uid 61877, and there is no such user: useradd -r smtppasswd; chown smtppasswd"
        for uid, why in ((people.ids("pauper")[0], poor), (61_877, f"{nobodys} {file}")):
            os.chown(file, uid, 0)
            ended = ask(None, command=people.within(*OURS, "checker"), environ={"PILLARBOX_HOME": str(home)})
            assert (ended.status, ended.errors) == (111, f"checker: fatal: {file}: {why}\n")


def test_a_second_one_does_not_take_the_place_of_the_first(home: Path) -> None:
    with running(home, "-u", allowed()):
        ended = ask(None, "checker", environ={"PILLARBOX_HOME": str(home)})
        assert ended.status == 111
        assert f"{home}/run/checker: another checker answers there; stop it first" in ended.errors
        assert checking.ask(str(home), b"joe\0secret\0\0") == 0
    with running(home, "-u", allowed()):
        assert checking.ask(str(home), b"joe\0secret\0\0") == 0


@pytest.mark.parametrize(
    ("octets", "status"),
    [
        (b"joe\0secret\0\0", 0),
        (b"joe\0wrong\0\0", 1),
        (b"joe\0secret\0", 2),
        (b"", 2),
        (b"joe\0secret\0".ljust(513, b"x"), 1),
    ],
)
def test_the_answer_is_cmd5checkpws_exit_status(home: Path, octets: bytes, status: int) -> None:
    with running(home, "-u", allowed()):
        assert checking.ask(str(home), octets) == status


def test_without_a_checker_that_is_said(home: Path) -> None:
    with pytest.raises(NoChecker, match="run/checker: No such file or directory"):
        checking.ask(str(home), b"joe\0secret\0\0")
    (home / "run").mkdir()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(home / "run" / "checker"))
    with pytest.raises(NoChecker, match="run/checker: Connection refused"):
        checking.ask(str(home), b"joe\0secret\0\0")


def test_a_checker_that_hangs_does_not_hold_us_up(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "PATIENCE", 0.2)
    (home / "run").mkdir()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(home / "run" / "checker"))
        sock.listen()
        with pytest.raises(NoAnswer, match="does not answer: timed out"):
            checking.ask(str(home), b"joe\0secret\0\0")


def test_who_says_nothing_is_cut_off_and_holds_nobody_up(home: Path) -> None:
    with running(home, "-u", allowed()):
        silent = [socket.socket(socket.AF_UNIX) for _ in range(10)]
        for sock in silent:
            sock.connect(str(home / "run" / "checker"))
            sock.send(b"joe")
        assert checking.ask(str(home), b"joe\0secret\0\0") == 0
        for sock in silent:
            sock.settimeout(20)
            assert sock.recv(1) == b""
            sock.close()


def test_those_who_are_silent_keep_nobody_out(home: Path) -> None:
    with running(home, "-u", allowed()):
        silent = [_connected(home) for _ in range(checker.CALLERS + 10)]
        began = time.monotonic()
        for _ in range(10):
            assert checking.ask(str(home), b"joe\0secret\0\0") == 0
        assert time.monotonic() - began < checker.SILENCE
        assert silent[0].recv(1) == b"", "the longest silent had to go"
        for sock in silent:
            sock.close()


def test_one_who_had_to_go_may_speak_at_that_moment(home: Path) -> None:
    ready: dict[socket.socket, Callable[[], None]] = {}
    sock = listening.unix(home / "socket", 0o600)
    told = checker.Checker(
        sock, home / "smtp.passwd", [os.getuid()], Log("checker", as_json=False), watch=ready.__setitem__,
        unwatch=ready.__delitem__,
    )  # fmt: skip
    callers = [socket.socket(socket.AF_UNIX) for _ in range(checker.CALLERS + 1)]
    for caller in callers[:-1]:
        caller.connect(str(home / "socket"))
        ready[sock]()
    longest_silent = list(ready.values())[1]
    callers[-1].connect(str(home / "socket"))
    ready[sock]()
    longest_silent()
    for caller in callers:
        caller.close()
    told.close()
    sock.close()


def test_who_guesses_waits_and_who_is_right_does_not_wait_for_him(home: Path) -> None:
    """Everybody who asks for a client of the network is qmaild."""
    guesses = int(checker.REFUSALS[1]) + 100
    with running(home, "-u", allowed()):
        guessing = [_connected(home, b"joe\0wrong\0\0") for _ in range(guesses)]
        assert checking.ask(str(home), b"joe\0secret\0\0") == 0
        assert select.select([guessing[-1]], [], [], 0)[0] == [], "his turn has not come"
        assert [sock.recv(1) for sock in guessing] == [b"\x01"] * guesses, "nobody hears that it cannot be said"
        for sock in guessing:
            sock.close()


def test_who_hangs_up_on_his_answer_gets_no_more_guesses(home: Path) -> None:
    """When a place is free again goes by what was asked, not by who still listens."""
    log = Log("checker", as_json=False)
    ready: dict[socket.socket, Callable[[], None]] = {}
    sock = listening.unix(home / "socket", 0o600)
    told = checker.Checker(
        sock, home / "smtp.passwd", [os.getuid()], log, watch=ready.__setitem__, unwatch=ready.__delitem__
    )
    asked = 0
    while sock in ready and asked < 1000:
        with socket.socket(socket.AF_UNIX) as caller:
            caller.connect(str(home / "socket"))
            caller.send(b"joe\0wrong\0\0")
            caller.shutdown(socket.SHUT_WR)
            ready[sock]()
            while others := [each for each in ready if each is not sock]:
                ready[others[0]]()
        asked += 1
    assert checker.REFUSALS[1] + checker.WAITING <= asked < 900
    told._refusals.full = 2.0
    told.look()
    assert sock in ready, "two answers went out, and there is room for the next"
    told.close()
    assert not ready
    sock.close()


def _connected(home: Path, octets: bytes = b"") -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(20)
    sock.connect(str(home / "run" / "checker"))
    if octets:
        sock.sendall(octets)
        sock.shutdown(socket.SHUT_WR)
    return sock


def test_answers_are_bounded_over_time() -> None:
    line = checker._Line(20.0, 200.0, at=1000.0)
    assert [line.take(1000.0) for _ in range(201)] == [True] * 200 + [False]
    assert not line.take(1000.04)
    assert line.take(1000.06)
    assert not line.take(1000.06)
    assert [line.take(9000.0) for _ in range(201)] == [True] * 200 + [False]


def test_systemd_may_hand_over_the_socket(home: Path) -> None:
    (home / "run").mkdir()
    path = home / "run" / "checker"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        path.chmod(0o666)
        sock.listen()
        give = "import os, sys\nos.dup2(int(sys.argv[1]), 3)\nos.environ['LISTEN_PID'] = str(os.getpid())\n"
        give += "os.execv(sys.argv[2], sys.argv[2:])"
        command = [sys.executable, "-c", give, str(sock.fileno()), *OURS, "checker", "-u", allowed()]
        environ = {"PATH": os.defpath, "PYTHONPATH": SOURCE, "PILLARBOX_HOME": str(home), "LISTEN_FDS": "1"}
        process = subprocess.Popen(command, env=environ, pass_fds=[sock.fileno()], stderr=subprocess.DEVNULL)
    try:
        assert checking.ask(str(home), b"joe\0secret\0\0") == 0
    finally:
        process.kill()
        process.wait()


def test_it_ends_when_it_is_told(home: Path) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        with running(home, "-u", allowed()) as process:
            process.send_signal(number)
            assert process.wait(20) in (-signal.SIGTERM, 0)


@pytest.mark.parametrize("words", [["-x"], ["word"], ["-f"]])
def test_called_wrongly_it_says_how(words: list[str]) -> None:
    assert ask(None, "checker", *words) == Ended(100, b"", "checker: usage: checker [-f file] [-u user]...\n")


@pytest.mark.parametrize("name", ["no-such-user"])
def test_a_user_that_there_is_not_is_said(home: Path, name: str) -> None:
    warning = f"checker: warning: control/checkerusers: there is no user {name}\n"
    with running(home, "-u", name):
        until(lambda: warning in (home / "log").read_text(), "the warning")


# row: checker-socket-peers
def test_serve_answers_too_where_control_says_who_may_ask() -> None:
    with a_home({"checkerusers": allowed(), "smtppasswd": "smtp.passwd"}) as server:
        file = server.home / "smtp.passwd"
        file.write_bytes(b"joe:secret\n")
        file.chmod(0o400)
        if os.getuid() == 0:
            os.chown(file, pwd.getpwnam("pillarauth").pw_uid, 0)
        server.start()
        assert checking.ask(str(server.home), b"joe\0secret\0\0") == 0
        assert checking.ask(str(server.home), b"joe\0wrong\0\0") == 1
        if os.getuid() == 0:
            assert cmd5checkpw(server.home, b"joe\0secret\0\0", NOBODY.pw_uid) == Ended(0, b"in\n", "")
            server.control("checkerusers", "daemon\n")
            server.signal(signal.SIGHUP)
            until(lambda: cmd5checkpw(server.home, b"joe\0secret\0\0", NOBODY.pw_uid).status == 111, "nobody to be out")
            assert checking.ask(str(server.home), b"joe\0secret\0\0") == 0


def test_serve_answers_nobody_where_control_does_not_say_so() -> None:
    with a_home({"smtppasswd": "smtp.passwd"}) as server:
        server.start()
        assert not (server.home / "run" / "checker").exists()
