"""Whether somebody reads what is printed: where nobody does, no password may be printed."""

from __future__ import annotations

import os
import pty
from pathlib import Path

import pytest

from pillarbox.cli import audience, first
from pillarbox.control.table import Settings
from tests.home import make_home


def test_a_terminal_a_file_and_a_pipe_have_readers(tmp_path: Path) -> None:
    screen, terminal = pty.openpty()
    reader, pipe = os.pipe()
    file = os.open(tmp_path / "output", os.O_WRONLY | os.O_CREAT)
    found = [audience.nobody({}, descriptor) for descriptor in (terminal, pipe, file)]
    for descriptor in (screen, terminal, reader, pipe, file):
        os.close(descriptor)
    assert found == [False, False, False]


def test_nobody_reads_a_device_that_is_no_terminal_or_what_is_closed() -> None:
    descriptor = os.open(os.devnull, os.O_WRONLY)
    assert audience.nobody({}, descriptor)
    os.close(descriptor)
    assert audience.nobody({}, descriptor)


def test_systemd_s_journal_is_known_by_its_numbers() -> None:
    reader, journal = os.pipe()
    facts = os.fstat(journal)
    assert audience.nobody({"JOURNAL_STREAM": f"{facts.st_dev}:{facts.st_ino}"}, journal)
    assert not audience.nobody({"JOURNAL_STREAM": f"{facts.st_dev}:{facts.st_ino + 1}"}, journal)
    os.close(reader)
    os.close(journal)


def test_no_account_is_made_whose_password_would_be_printed_into_a_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = make_home(tmp_path)
    monkeypatch.setattr(audience, "nobody", lambda environ: True)
    assert first.first_account(home, Settings(me=b"example.org", locals=frozenset())) == (None, None)
    assert not (home / "users" / "passwords").exists()
