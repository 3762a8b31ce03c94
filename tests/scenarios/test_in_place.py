"""Programs of ours in a qmail that goes on with its own: tcpserver starts them, their mail reaches its qmail-queue.

There is no C qmail; what stands for its qmail-queue takes a message and an envelope as envelopes(5) has them.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import qmail
from tests.installing import NOBODY, a_qmail, pillarbox_command
from tests.peers import peer, run

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
