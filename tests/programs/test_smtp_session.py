"""sendmail -bs: what a program hears over standard input and output, with no server there, and how it ends."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pillarbox.control.table import Settings
from pillarbox.programs import smtp_session
from pillarbox.programs.conversation import TimedOut, converse
from pillarbox.smtp.receiver import Receiver
from tests.programs.calling import a_home, call

HELLO = b"EHLO me\r\nMAIL FROM:<joe@example.org>\r\nRCPT TO:<ann@elsewhere.example>\r\n"


def codes(said: bytes) -> list[bytes]:
    """Of the replies, in order."""
    assert said.endswith(b"\r\n")
    return [line[:3] for line in said[:-2].split(b"\r\n") if line[3:4] == b" "]


def test_mail_to_any_host_and_of_any_size_is_taken_and_nobody_can_log_in(tmp_path: Path) -> None:
    home = a_home(tmp_path / "home", rcpthosts="example.org", databytes="10", locals="example.org")
    said = call(home, "sendmail", "-bs", say=HELLO + b"RSET\r\nAUTH PLAIN AGEAYg==\r\nQUIT\r\n")
    assert (said.status, said.errors) == (0, "")
    assert codes(said.output)[:5] == [b"220", b"250", b"250", b"250", b"250"]
    assert codes(said.output)[5] in (b"502", b"503") and codes(said.output)[6:] == [b"221"]
    assert b"STARTTLS" not in said.output and b"AUTH" not in said.output.partition(b"221")[0].partition(b"\r\n250 ")[0]
    assert b"250-SIZE\r\n" in said.output or b"250-SIZE 0\r\n" in said.output


def test_without_a_server_a_message_is_refused_for_now_and_the_session_goes_on(tmp_path: Path) -> None:
    home = a_home(tmp_path / "home")
    message = b"DATA\r\nSubject: x\r\n\r\nbody\r\n.\r\nNOOP\r\nQUIT\r\n"
    said = call(home, "sendmail", "-bs", say=HELLO + message)
    assert said.status == 0
    assert codes(said.output) == [b"220", b"250", b"250", b"250", b"354", b"451", b"250", b"221"]


def test_a_caller_that_hangs_up_ends_it(tmp_path: Path) -> None:
    assert call(a_home(tmp_path / "home"), "sendmail", "-bs", say=HELLO).status == 0


def test_a_home_that_is_not_set_up_is_said(tmp_path: Path) -> None:
    said = call(tmp_path, "sendmail", "-bs", say=HELLO)
    assert said.output == b"" and said.errors.startswith(f"pillarbox: {tmp_path}: not set up; ")


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


def test_the_table_says_how_long_that_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pipes: tuple[int, int, int, int]
) -> None:
    home = a_home(tmp_path / "home", timeoutsmtpd="77")
    monkeypatch.setenv("PILLARBOX_HOME", str(home))
    given: list[float] = []
    monkeypatch.setattr(smtp_session, "converse", lambda *arguments: given.append(arguments[-1]))
    assert smtp_session.main([]) == 0
    assert given == [77.0] and Settings(me=b"x").timeoutsmtpd == 1200
