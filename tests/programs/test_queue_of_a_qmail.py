"""Programs of ours in a qmail with the owners and modes that it has: qmaild and users may not look into its queue, and
their mail reaches the qmail-send that works there all the same."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from pillarbox.net import listening
from tests import qmail
from tests.etc import everybody
from tests.programs.asking import SOURCE
from tests.server import until

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="needs root: only root can be other users")

QMAILD = 61_002
QUEUE = '#!/bin/sh\ncat >>"{heard}"\ncat <&1 >>"{heard}"\n'
MESSAGE = b"HELO x\r\nMAIL FROM:<a@example.net>\r\nRCPT TO:<b@example.org>\r\nDATA\r\nSubject: hi\r\n\r\n.\r\nQUIT\r\n"


@pytest.fixture
def home() -> Iterator[Path]:
    """A qmail where everybody can go; its qmail-queue keeps what it hears in `heard`."""
    top = Path(tempfile.mkdtemp(prefix="pillarbox-qmail-"))
    top.chmod(0o755)
    try:
        made = qmail.make(top / "qmail")
        (made / "bin" / "qmail-queue").write_text(QUEUE.format(heard=made / "heard"))
        (made / "bin" / "qmail-queue").chmod(0o755)
        (made / "heard").touch()
        (made / "heard").chmod(0o666)
        yield made
    finally:
        shutil.rmtree(top)


@contextmanager
def qmail_send(home: Path, gid: int = qmail.QMAIL) -> Iterator[None]:
    """By everything that others can see of it: its process, from a program that nobody may read, and the trigger."""
    program = home / "bin" / "qmail-send"
    shutil.copy("/bin/sleep", program)
    program.chmod(0o711)
    reading = os.open(home / "queue" / "lock" / "trigger", os.O_RDONLY | os.O_NONBLOCK)
    process = subprocess.Popen(
        [program, "600"], stdin=reading, user=qmail.QMAILS, group=gid, extra_groups=[], cwd=home / "queue"
    )
    os.close(reading)
    try:
        yield
    finally:
        process.kill()
        process.wait()


@contextmanager
def checker(home: Path) -> Iterator[None]:
    file = home / "control" / "smtp.passwd"
    file.write_text("joe:secret\n")
    os.chown(file, pwd.getpwnam("daemon").pw_uid, -1)
    file.chmod(0o400)
    with open(home / "log", "wb") as log:
        command = [everybody(), "-m", "pillarbox", "run", "checker", "-f", str(file), "-u", "daemon"]
        process = subprocess.Popen(command, env=environment(home), stderr=log)
    try:
        until(lambda: b"answering" in (home / "log").read_bytes(), "the checker to answer")
        yield
    finally:
        process.kill()
        process.wait()


def served(home: Path) -> Path:
    """Our server has run there, and is away; the socket it left."""
    (home / "run").mkdir(mode=0o755)
    file = home / "run" / "inject"
    listening.unix(file, 0o666).close()
    return file


def environment(home: Path) -> dict[str, str]:
    return {"PATH": os.defpath, "PYTHONPATH": SOURCE, "PILLARBOX_HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"}


def say(home: Path, *words: str, octets: bytes, uid: int, wrapped: tuple[str, ...] = ()) -> tuple[int, bytes]:
    command = [*wrapped, everybody(), "-m", "pillarbox", "run", *words]
    done = subprocess.run(
        command, input=octets, stdout=subprocess.PIPE, env=environment(home), timeout=60, cwd="/",
        user=None if wrapped else uid, group=None if wrapped else qmail.NOFILES, extra_groups=None if wrapped else [],
    )  # fmt: skip
    return done.returncode, done.stdout


def qmail_smtpd(home: Path, uid: int = QMAILD, wrapped: tuple[str, ...] = ()) -> bytes:
    """What the message is answered with."""
    replies = say(home, "qmail-smtpd", octets=MESSAGE, uid=uid, wrapped=wrapped)[1].splitlines()
    return next(line for line in replies[5:] if line[:3] != b"354")[:3]


def heard(home: Path) -> bool:
    """Did the C qmail-queue get a message since this was asked last?"""
    octets = (home / "heard").read_bytes()
    (home / "heard").write_bytes(b"")
    return b"Subject: hi\n" in octets and octets.endswith(b"\0\0")


def test_the_checker_changes_nothing_about_who_queues_while_it_runs_and_after_it(home: Path) -> None:
    with qmail_send(home):
        assert (qmail_smtpd(home), heard(home)) == (b"250", True)
        with checker(home):
            assert (home / "run" / "checker").exists()
            assert (qmail_smtpd(home), heard(home)) == (b"250", True)
            inject = say(home, "sendmail", "b@example.org", octets=b"Subject: hi\n\n", uid=61_234)
            assert (inject[0], heard(home)) == (0, True)
        assert (qmail_smtpd(home), heard(home)) == (b"250", True)
    assert (qmail_smtpd(home), heard(home)) == (b"250", True), "qmail-send is stopped for a moment"


def test_what_init_made_changes_nothing_about_it(home: Path) -> None:
    for place in ("run", "mail", "tls"):
        (home / place).mkdir()
    (home / "control" / "listen").write_text("smtp 127.0.0.1:2525\n")
    assert (qmail_smtpd(home), heard(home)) == (b"250", True)


def test_a_home_that_our_server_has_given_back_is_qmail_sends(home: Path) -> None:
    served(home)
    with qmail_send(home):
        for uid in (QMAILD, 0):
            assert (qmail_smtpd(home, uid), heard(home)) == (b"250", True), uid


def test_while_our_server_is_away_its_mail_goes_to_no_queue_that_nobody_works_on(home: Path) -> None:
    served(home)
    for uid in (QMAILD, 0):
        assert (qmail_smtpd(home, uid), heard(home)) == (b"451", False), uid


def test_a_process_that_only_has_the_name_is_not_qmail_send(home: Path) -> None:
    """Anybody can have one; it must not lead mail astray."""
    served(home)
    with qmail_send(home, gid=61_234):
        assert (qmail_smtpd(home), heard(home)) == (b"451", False)


def test_where_nobody_sees_others_processes_our_server_gets_it_if_it_answers(home: Path) -> None:
    """By proc(5)'s hidepid, in a namespace of its own."""
    become = f"mount -t proc -o hidepid=2 proc /proc && exec setpriv --reuid {QMAILD} --regid 61001 --clear-groups"
    hidden = ("unshare", "-m", "-p", "-f", "sh", "-c", f'{become} "$@"', "sh")
    if subprocess.run([*hidden, "true"], capture_output=True).returncode:
        pytest.skip("needs leave to unshare process numbers and to mount proc")
    left = served(home)
    assert (qmail_smtpd(home, wrapped=hidden), heard(home)) == (b"250", True)
    listener = listening.unix(left, 0o666)
    listener.setblocking(True)
    server = threading.Thread(target=_hang_up, args=(listener,))
    server.start()
    try:
        assert (qmail_smtpd(home, wrapped=hidden), heard(home)) == (b"451", False)
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        server.join()
        listener.close()


def _hang_up(listener: socket.socket) -> None:
    """A server that is there, and in trouble."""
    with suppress(OSError):
        while True:
            listener.accept()[0].close()
