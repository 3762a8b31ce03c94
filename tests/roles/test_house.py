"""What a role reads of its home by itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pillarbox.control.table import SECRET, read
from pillarbox.roles.house import House, Unreadable


def house(home: Path) -> House:
    (home / "control").mkdir()
    (home / "control" / "me").write_text("mx.example.org\n")
    (home / "control" / "smtproutes").write_text(":relay.example joe secret\nodd line\n")
    return House(home, read(home / "control", closed=SECRET)[0], [], role="queue")


def test_the_queue_reads_the_files_with_secrets_that_whoever_forked_it_did_not(tmp_path: Path) -> None:
    seen = house(tmp_path)
    assert not seen.settings.smtproutes
    seen.settings = replace(seen.settings, concurrencyremote=7)
    (complaint,) = seen.read_secrets()
    assert seen.settings.smtproutes == {b"": b"relay.example joe secret"}
    assert seen.settings.concurrencyremote == 7
    assert complaint.startswith("control/smtproutes: line 2: ") and "odd line" not in complaint


def test_routes_that_are_there_and_cannot_be_read_are_not_taken_for_none(tmp_path: Path) -> None:
    seen = house(tmp_path)
    (tmp_path / "control" / "smtproutes").unlink()
    (tmp_path / "control" / "smtproutes").mkdir()
    with pytest.raises(Unreadable, match="control/smtproutes: cannot read it"):
        seen.read_secrets()
