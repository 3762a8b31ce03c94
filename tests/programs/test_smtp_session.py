"""sendmail -bs: what a program hears over standard input and output, with no server there, and how it ends."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pillarbox.programs.conversation import TimedOut, converse
from pillarbox.smtp.receiver import Receiver
from tests.programs.calling import a_home, call
from tests.programs.smtpd import Home

HELLO = b"EHLO me\r\nMAIL FROM:<joe@example.org>\r\nRCPT TO:<ann@elsewhere.example>\r\n"


def test_mail_to_any_host_and_of_any_size_is_taken_and_nobody_can_log_in(tmp_path: Path) -> None:
    home = a_home(tmp_path / "home", rcpthosts="example.org", databytes="10", badmailfrom="@bad.example")
    said = call(home, "sendmail", "-bs", say=HELLO + b"RSET\r\nAUTH PLAIN AGEAYg==\r\nQUIT\r\n")
    assert (said.status, said.errors) == (0, "")
    assert said.output.split(b"\r\n") == [
        b"220 mx.example.org ESMTP", b"250-mx.example.org", b"250-PIPELINING", b"250 8BITMIME", b"250 ok", b"250 ok",
        b"250 flushed", b"503 auth not available (#5.3.3)", b"221 mx.example.org", b"",
    ]  # fmt: skip


def test_the_trace_names_it(tmp_path: Path) -> None:
    home = Home(tmp_path)
    message = b"DATA\r\nSubject: x\r\n\r\nbody of more than ten octets\r\n.\r\nQUIT\r\n"
    home.control("databytes", "10\n")
    assert call(home.home, "sendmail", "-bs", say=HELLO + message, environ=home.environ()).status == 0
    trace = b"Received: from localhost (HELO me) (sendmail-bs@127.0.0.1)\n  by localhost with SMTP; "
    assert home.messages()[0][0].startswith(trace)


def test_with_a_client_of_tcpserver_it_is_qmail_smtpd(tmp_path: Path) -> None:
    home = a_home(tmp_path / "home", rcpthosts="example.org")
    said = call(home, "sendmail", "-bs", say=HELLO + b"QUIT\r\n", environ={"PROTO": "TCP"})
    assert b"553 sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)\r\n" in said.output


def test_without_a_server_a_message_is_refused_for_now_and_the_session_goes_on(tmp_path: Path) -> None:
    home = a_home(tmp_path / "home")
    message = b"DATA\r\nSubject: x\r\n\r\nbody\r\n.\r\nNOOP\r\nQUIT\r\n"
    said = call(home, "sendmail", "-bs", say=HELLO + message)
    assert said.status == 0
    assert said.output.endswith(
        b"354 go ahead\r\n451 connection to mail server rejected (#4.4.1)\r\n250 ok\r\n221 mx.example.org\r\n"
    )


def test_a_caller_that_hangs_up_ends_it(tmp_path: Path) -> None:
    assert call(a_home(tmp_path / "home"), "sendmail", "-bs", say=HELLO).status == 1


def test_a_home_that_is_not_set_up_is_said(tmp_path: Path) -> None:
    said = call(tmp_path, "sendmail", "-bs", say=HELLO)
    assert (said.status, said.output) == (1, b"421 unable to read controls (#4.3.0)\r\n")
    assert said.errors.startswith("qmail-smtpd: warning: ")


class Silent:
    """A session that nobody asks anything."""

    def respond(self, event: object) -> object:
        raise AssertionError(event)


@pytest.fixture
def pipes() -> Iterator[tuple[int, int, int, int]]:
    reading, other = os.pipe()
    hearing, writing = os.pipe()
    yield reading, other, hearing, writing
    for descriptor in (reading, other, hearing, writing):
        os.close(descriptor)


def test_who_says_nothing_is_given_up(pipes: tuple[int, int, int, int]) -> None:
    reading, _other, hearing, writing = pipes
    with pytest.raises(TimedOut):
        converse(Receiver(b"mx.example.org"), Silent(), lambda effect: None, reading, writing, 0.05)
    assert os.read(hearing, 1000).startswith(b"220 mx.example.org")


def test_who_does_not_read_is_given_up(pipes: tuple[int, int, int, int]) -> None:
    reading, _other, _hearing, writing = pipes
    os.set_blocking(writing, False)
    try:
        while True:
            os.write(writing, b"x" * 4096)
    except BlockingIOError:
        pass
    os.set_blocking(writing, True)
    with pytest.raises(TimedOut):
        converse(Receiver(b"mx.example.org"), Silent(), lambda effect: None, reading, writing, 0.05)
