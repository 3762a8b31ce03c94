"""Which program queues mail of a home: ours, or the C one of a qmail that some of our programs were put into."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pillarbox.programs import other_queue
from tests.programs.calling import a_home, call

THEIRS = "#!/bin/sh\n"
OURS = "#!/usr/bin/python3 -IS\n# Put here by pillarbox install: qmail-queue\n"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A qmail's, which never was one of Pillarbox."""
    made = a_home(tmp_path / "qmail", defaulthost="ref.example.test")
    (made / "bin").mkdir()
    (made / "queue" / "lock").mkdir(parents=True)
    os.mkfifo(made / "queue" / "lock" / "trigger")
    put(made, THEIRS)
    return made


def put(home: Path, text: str, mode: int = 0o755) -> Path:
    file = home / "bin" / "qmail-queue"
    file.write_text(text)
    file.chmod(mode)
    return file


def served(home: Path) -> None:
    """Our server has run there, and is away."""
    (home / "run").mkdir()
    (home / "run" / "inject").touch()


@contextmanager
def qmail_send(home: Path) -> Iterator[None]:
    """It has nothing else that others could see of it."""
    reading = os.open(home / "queue" / "lock" / "trigger", os.O_RDONLY | os.O_NONBLOCK)
    try:
        yield
    finally:
        os.close(reading)


def asked(home: Path, **environ: str) -> bytes | None:
    return other_queue.program(str(home), {name.encode(): value.encode() for name, value in environ.items()})


def test_qmailqueue_wins(home: Path) -> None:
    assert asked(home, QMAILQUEUE="/other") == b"/other"
    assert asked(home, QMAILQUEUE="") == os.fsencode(home / "bin" / "qmail-queue")


def test_a_qmail_keeps_its_queue_whether_qmail_send_runs_or_is_stopped_for_a_moment(home: Path) -> None:
    theirs = os.fsencode(home / "bin" / "qmail-queue")
    assert asked(home) == theirs
    with qmail_send(home):
        assert asked(home) == theirs


def test_where_our_server_was_set_up_it_gets_the_mail_unless_qmail_send_runs_there(home: Path) -> None:
    served(home)
    assert asked(home) is None
    with qmail_send(home):
        assert asked(home) == os.fsencode(home / "bin" / "qmail-queue")


@pytest.mark.parametrize("mode", [0o755, 0o700])
def test_our_own_qmail_queue_is_not_run_for_what_we_can_do_ourselves(home: Path, mode: int) -> None:
    put(home, OURS, mode)
    with qmail_send(home):
        assert asked(home) is None


def test_a_home_without_qmails_programs_is_ours(tmp_path: Path) -> None:
    assert asked(a_home(tmp_path / "home")) is None


def test_a_qmail_queue_that_nobody_can_run_is_none(home: Path) -> None:
    put(home, THEIRS, 0o600)
    assert asked(home) is None


def test_a_program_of_ours_brings_its_mail_to_the_qmail_that_it_was_put_into(home: Path, tmp_path: Path) -> None:
    put(home, f'#!/bin/sh\ncat >"{tmp_path}/message"\ncat <&1 >"{tmp_path}/envelope"\n')
    said = call(home, "qmail-inject", "joe@example.org", say=b"Subject: hello\n\n", environ={"USER": "me"})
    assert (said.status, said.errors) == (0, "")
    assert (tmp_path / "envelope").read_bytes() == b"Fme@ref.example.test\0Tjoe@example.org\0\0"
    assert b"Subject: hello\n" in (tmp_path / "message").read_bytes()
