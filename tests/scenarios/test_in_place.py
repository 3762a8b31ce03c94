"""Programs of ours in a qmail that goes on with its own: tcpserver starts them, their mail reaches its qmail-queue.

There is no C qmail; what stands for its qmail-queue takes a message and an envelope as envelopes(5) has them.
"""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import qmail
from tests.installing import NOBODY, a_qmail, pillarbox_command
from tests.peers import peer, run
from tests.server import until

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="programs for everybody are root's")

THEIR_QUEUE = """#!/bin/sh
cd '{place}' || exit 61
cat >message || exit 53
cat <&1 >envelope || exit 54
"""
MAIL = b"Subject: hello\r\n\r\n.stuffed\r\n"


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A qmail with our qmail-smtpd and qmail-inject in it, and its own qmail-queue."""
    with a_qmail() as made:
        (made.parent / "arrived").mkdir()
        os.chown(made.parent / "arrived", NOBODY, NOBODY)
        queue = made / "bin" / "qmail-queue"
        queue.write_text(THEIR_QUEUE.format(place=made.parent / "arrived"))
        queue.chmod(0o755)
        before = qmail.facts(queue)
        done = pillarbox_command("install", "--into", made, "--only", "qmail-smtpd,qmail-inject")
        assert (done.status, done.errors) == (0, "")
        assert qmail.facts(queue) == before
        yield made


def arrived(home: Path, name: str) -> bytes:
    return (home.parent / "arrived" / name).read_bytes()


@contextmanager
def tcpserver(home: Path, *words: str) -> Iterator[int]:
    """The port where our qmail-smtpd answers as a user without rights, by an ordinary run line."""
    line = [peer("tcpserver"), "-1RHl", "mail.example.org", "-u", str(NOBODY), "-g", str(NOBODY), "127.0.0.1", "0"]
    with subprocess.Popen(
        [*line, home / "bin" / "qmail-smtpd", *words], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL,
        env={"PATH": os.environ["PATH"]}, cwd="/",
    ) as serving:  # fmt: skip
        try:
            assert serving.stdout is not None
            yield int(serving.stdout.readline())
        finally:
            serving.kill()


def test_mail_from_the_network_reaches_the_qmail_queue_that_is_there(home: Path) -> None:
    with tcpserver(home) as port:
        words = ["--mail-from", "ann@example.net", "--mail-rcpt", "joe@example.org", "--upload-file", "-"]
        run(peer("curl"), "--silent", "--show-error", *words, f"smtp://127.0.0.1:{port}/client.example.net", say=MAIL)
    assert arrived(home, "envelope") == b"Fann@example.net\0Tjoe@example.org\0\0"
    received, _, content = arrived(home, "message").partition(b"Subject: ")
    assert received.startswith(
        b"Received: from unknown (HELO client.example.net) (127.0.0.1)\n  by mail.example.org with"
    )
    assert content == b"hello\n\n.stuffed\n"


def test_mail_of_a_user_of_the_machine_does_too(home: Path) -> None:
    subprocess.run(
        [home / "bin" / "qmail-inject", "-f", "ann@example.org", "joe@example.org"], input=b"Subject: local\n\n",
        user=NOBODY, group=NOBODY, extra_groups=[], env={}, check=True, timeout=60,
    )  # fmt: skip
    assert arrived(home, "envelope") == b"Fann@example.org\0Tjoe@example.org\0\0"
    assert b"\nSubject: local\n" in arrived(home, "message")


def test_what_their_qmail_queue_says_is_told(home: Path) -> None:
    queue = home / "bin" / "qmail-queue"
    before = queue.read_text()
    queue.write_text("#!/bin/sh\nexit 31\n")
    try:
        done = subprocess.run(
            [home / "bin" / "qmail-inject", "-f", "ann@example.org", "joe@example.org"], input=b"\n",
            capture_output=True, user=NOBODY, group=NOBODY, extra_groups=[], env={}, timeout=60,
        )  # fmt: skip
    finally:
        queue.write_text(before)
    assert done.returncode == 100
    assert done.stderr == b"qmail-inject: fatal: mail server permanently rejected message (#5.3.0)\n"


def rc(home: Path) -> str:
    """As INSTALL.boot has it for ./Maildir/, but for the directory."""
    return f"exec env - PATH={home}/bin:/usr/bin:/bin qmail-start ./Maildir/\n"


def test_with_all_programs_replaced_the_old_rc_starts_our_server_and_undone_all_is_as_it_was() -> None:
    """The page's upgrade to its end: stopped, replaced, started by the same file, and back."""
    with a_qmail() as home:
        assert pillarbox_command("init", "--home", home).status == 0  # the users, where they are missing
        for place in home.rglob("*"):
            if place.lstat().st_uid in (qmail.QMAILQ, qmail.QMAILS, qmail.ALIAS):
                mode = place.lstat().st_mode
                os.chown(place, pwd.getpwnam("alias" if place == home / "alias" else "qmailq").pw_uid, -1)
                place.chmod(mode & 0o7777)
        before = qmail.programs(home / "bin")
        assert pillarbox_command("install", "--into", home).status == 0
        (home / "alias" / ".qmail-team").write_text("./Team/\n")
        run(home / "bin" / "maildirmake", home / "alias" / "Team")
        for place in (home / "alias" / "Team", *(home / "alias" / "Team").iterdir()):
            os.chown(place, pwd.getpwnam("alias").pw_uid, -1)
        with served(home) as log:
            subprocess.run(
                [home / "bin" / "qmail-inject", "-f", "ann@example.net", "team@example.org"], input=b"Subject: hi\n\n",
                user=NOBODY, group=NOBODY, extra_groups=[], env={}, check=True, timeout=60,
            )  # fmt: skip
            until(lambda: "delivery 1: success: " in log.read_text(), "the delivery")
            (message,) = (home / "alias" / "Team" / "new").iterdir()
            assert b"Subject: hi\n" in message.read_bytes()
            assert run(home / "bin" / "qmail-qstat").startswith(b"messages in queue: ")
        assert pillarbox_command("install", "--into", home, "--undo").status == 0
        assert not (home / "bin" / ".pillarbox").exists()
        assert qmail.programs(home / "bin") == before


@contextmanager
def served(home: Path) -> Iterator[Path]:
    """While the server runs that /var/qmail/rc starts; its log."""
    (home / "rc").write_text(rc(home))
    log = home.parent / "log"
    with log.open("wb") as said, subprocess.Popen(["/bin/sh", home / "rc"], stdout=said, stderr=said) as serving:
        try:
            yield log
            serving.terminate()
            assert serving.wait(60) == 0
        finally:
            serving.kill()
