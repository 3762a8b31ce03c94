"""qmail-start: the server as an old /var/qmail/rc starts it, with a logger and without ports."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.peers import bundle
from tests.scenarios.wire import token
from tests.server import _COMMAND, Server, _environment, a_home, until


@pytest.fixture
def home() -> Iterator[Server]:
    with a_home() as server:
        yield server


def start(server: Server, *arguments: str, environment: dict[str, str] | None = None) -> None:
    """qmail-start with these arguments; its standard output is the server's log."""
    with open(server._log, "ab") as log, open(server._output, "ab") as complaints:
        server._serving = subprocess.Popen(
            [*_COMMAND, "run", "qmail-start", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=complaints,
            env=_environment() | {"PILLARBOX_HOME": str(server.home)} | (environment or {}),
        )


def queue(server: Server, word: bytes, recipient: bytes = b"joe@example.org") -> None:
    """A message by qmail-queue."""
    said, envelope = os.pipe()
    os.write(envelope, b"Fann@example.net\0T%s\0\0" % recipient)
    os.close(envelope)
    command = f'exec "$@" 1<&{said}'
    done = subprocess.run(
        ["/bin/bash", "-c", command, "sh", *_COMMAND, "run", "qmail-queue"],
        input=b"Subject: %s\n\n" % word,
        env=_environment() | {"PILLARBOX_HOME": str(server.home)},
        pass_fds=[said],
        stderr=subprocess.PIPE,
    )
    os.close(said)
    assert done.returncode == 0, done


def test_mail_of_local_programs_goes_where_the_first_argument_says(home: Server) -> None:
    subprocess.run([*_COMMAND, "run", "maildirmake", str(home.mailbox() / "Other")], env=_environment(), check=True)
    for place in ("", "tmp", "new", "cur"):
        home.give(home.mailbox() / "Other" / place)
    start(home, "./Other/")
    word = token()
    queue(home, word)
    home.await_delivered(word, maildir="Other")
    home.signal(signal.SIGHUP)  # the settings are read again, and control/defaultdelivery is still not asked
    word = token()
    queue(home, word)
    home.await_delivered(word, maildir="Other")
    assert home.stop() == 0
    assert "delivery 1: success: did_1+0+0/" in home.log()
    assert "\nstatus: exiting\n" in home.log()
    assert home.output == ""


def test_without_arguments_mail_goes_into_an_mbox(home: Server) -> None:
    start(home)
    word = token()
    queue(home, word)
    mbox = home.mailbox() / "Mailbox"
    until(lambda: mbox.exists() and word in mbox.read_bytes(), "the message")
    assert mbox.read_bytes().startswith(b"From ann@example.net ")
    assert home.stop() == 0


def test_no_port_is_opened_and_no_network_role_runs(home: Server) -> None:
    start(home, "./Maildir/")
    until(lambda: home.processes("queue"), "the queue role")
    word = token()
    queue(home, word)
    home.await_delivered(word)
    assert home.processes("smtpd") == [] and home.processes("pop3d") == []
    (supervisor,) = [home.pid]
    sockets = {os.readlink(f"/proc/{supervisor}/fd/{number}") for number in os.listdir(f"/proc/{supervisor}/fd")}
    inodes = {name[8:-1] for name in sockets if name.startswith("socket:")}
    listening = {line.split()[9] for line in Path("/proc/net/tcp").read_text().splitlines()[1:]}
    assert not inodes & listening
    assert home.stop() == 0


def test_multilog_keeps_the_log_as_qmaill_to_the_last_line(home: Server) -> None:
    multilog = home.home.parent / "multilog"
    shutil.copy(bundle("supervisors") / "usr" / "bin" / "multilog", multilog)  # where qmaill may run it
    place = home.home.parent / "main"
    place.mkdir()
    if os.getuid() == 0:
        user = pwd.getpwnam("qmaill")
        os.chown(place, user.pw_uid, user.pw_gid)
    start(home, "./Maildir/", str(multilog), "t", str(place))
    word = token()
    queue(home, word)
    home.await_delivered(word)
    until(lambda: "end msg 1" in (place / "current").read_text(), "the delivery in the log")
    if os.getuid() == 0:
        assert (place / "current").stat().st_uid == user.pw_uid
    assert home.stop() == 0
    lines = (place / "current").read_text().splitlines()
    assert lines[-1].endswith(" status: exiting")
    assert all(line.startswith("@4") for line in lines)
    assert home.log() == ""


def test_what_keeps_it_from_starting_is_in_the_logger_s_log(home: Server) -> None:
    kept = home.home.parent / "kept"
    kept.touch()
    kept.chmod(0o666)
    home.control("draintime", "soon\n")
    start(home, "./Maildir/", "/bin/sh", "-c", f"cat >{kept}")
    assert home.wait() == 111
    assert kept.read_text().startswith("qmail-start: fatal: ")
    assert "control/draintime: line 1: not a whole number" in kept.read_text() or "draintime" in kept.read_text()


@pytest.mark.parametrize(
    ("arguments", "status", "complaint"),
    [
        (["./Maildir/", "/nonexistent/logger"], 111, "/nonexistent/logger: no such file or directory"),
        ([""], 100, "no delivery instruction in the first line"),
    ],
)
def test_nonsense_is_refused_in_one_line(home: Server, arguments: list[str], status: int, complaint: str) -> None:
    start(home, *arguments)
    assert home.wait() == status
    (line,) = home.output.splitlines()
    assert line.startswith("qmail-start: ") and line.endswith(complaint)
