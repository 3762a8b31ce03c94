"""What breaks under a running server: nothing that was answered with 250 is lost, what is wrong is said, and when it
is mended the mail goes on without a restart."""

from __future__ import annotations

import os
import signal
import smtplib
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pillarbox.cli.certificate import new_key
from tests.server import Server, a_home, a_server, until

SENDER = "ann@example.net"
REFUSED_MAILDIR = "Unable to chdir to maildir. (#4.2.1)"

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="needs root to mount a small disk")


def send(server: Server, content: str) -> tuple[int, bytes]:
    """One message to joe: the answer to its end, or to the command before it that was refused."""
    with smtplib.SMTP("127.0.0.1", server.ports["smtp"], local_hostname="client.example.net") as client:
        client.ehlo()
        for refused in (client.mail(SENDER), client.rcpt("joe@example.org")):
            if refused[0] != 250:
                return refused
        try:
            return client.data(f"Subject: {content[:20]}\r\n\r\n{content}\r\n".encode())
        except smtplib.SMTPDataError as refusal:
            assert isinstance(refusal.smtp_error, bytes)
            return refusal.smtp_code, refusal.smtp_error


def shown(server: Server) -> str:
    return server.pillarbox("queue", "list")


def test_a_maildir_that_vanished_defers_the_mail_and_says_why() -> None:
    with a_server() as server:
        maildir = server.mailbox() / "Maildir"
        maildir.rename(server.mailbox() / "away")
        assert send(server, "first")[0] == 250
        until(lambda: REFUSED_MAILDIR in shown(server), "the reason in the queue")
        number = shown(server).split("\t")[0]
        assert "joe@example.org\twaiting\t1\t" in server.pillarbox("queue", "show", number)
        (server.mailbox() / "away").rename(maildir)
        assert server.pillarbox("queue", "retry", number) == f"message {number}: is tried now\n"
        server.await_delivered(b"first")
        until(lambda: shown(server) == "", "an empty queue")
        assert len(server.delivered()) == 1


@contextmanager
def small_disk(place: Path, mebibytes: int) -> Iterator[None]:
    owner = place.stat()
    options = f"size={mebibytes}m,mode=700,uid={owner.st_uid},gid={owner.st_gid}"
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "pillarbox-test", place], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip(f"cannot mount a small disk here: {mounted.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def make_room(place: Path, mebibytes: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={mebibytes}m", place], check=True)


@needs_root
def test_a_full_disk_refuses_mail_for_now_and_loses_none() -> None:
    with a_home() as server, small_disk(server.home / "queue", 16):
        server.start()
        maildir = server.mailbox() / "Maildir"
        maildir.rename(server.mailbox() / "away")
        taken = fill(server)
        assert taken
        assert "\nready\n" in server.output
        make_room(server.home / "queue", 96)
        (server.mailbox() / "away").rename(maildir)
        assert until(lambda: send(server, "after that")[0] == 250, "mail is taken again")
        server.pillarbox("queue", "retry", "--to", "example.org")
        until(lambda: shown(server) == "", "an empty queue")
        assert [len(server.holding(b"message %d," % number)) for number in taken] == [1] * len(taken)
        assert server.stop() == 0


def fill(server: Server) -> list[int]:
    """Send until the disk is full and that is said; the numbers of the messages that were taken."""
    taken = []
    for number in range(300):
        code, text = send(server, f"message {number}," + "\r\nline of text" * 10_000)
        if code == 250:
            taken.append(number)
            continue
        assert (code, text[:5]) == (452, b"4.3.1")
        return taken
    raise AssertionError("the small disk was never full")


def test_a_certificate_that_is_none_does_not_replace_the_one_in_use() -> None:
    with a_server() as server:
        (server.home / "tls" / "key.pem").write_bytes(new_key())
        server.signal(signal.SIGHUP)
        pair = f"{server.home}/tls/cert.pem: does not match the key in {server.home}/tls/key.pem"
        (line,) = server.await_log("certificate not taken")[:1]
        assert line.endswith(
            f"warning: certificate not taken, the old one stays: {pair}: install the pair that belongs together"
        )
        with smtplib.SMTP_SSL("127.0.0.1", server.ports["submissions"], context=server.trust()) as client:
            assert client.noop()[0] == 250
