"""qmail-newmrh, with Debian's tinycdb on the other side of the file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pillarbox.control.morercpthosts import MoreHosts
from tests.peers import peer, run
from tests.programs.calling import a_home, call

LINES = "# hosts of others\n\nBackup.Example \t\n.Wild.example\n  blank.example\nlast.example"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    made = a_home(tmp_path / "home")
    (made / "control" / "morercpthosts").write_text(LINES)
    return made


# row: newmrh-cdb
def test_tinycdb_reads_what_it_compiles(home: Path) -> None:
    assert call(home, "qmail-newmrh") == (0, b"", "")
    file = home / "control" / "morercpthosts.cdb"
    listed = run(peer("cdb"), "-d", file)
    assert listed == (
        b"+14,0:backup.example->\n+13,0:.wild.example->\n+15,0:  blank.example->\n+12,0:last.example->\n\n"
    )
    assert file.stat().st_mode & 0o777 == 0o644
    assert [name for name in os.listdir(home / "control") if "tmp" in name] == []


# row: newmrh-cdb
def test_we_read_what_tinycdb_makes(home: Path) -> None:
    file = home / "control" / "morercpthosts.cdb"
    run(peer("cdb"), "-c", file, say=b"+14,0:backup.example->\n+13,0:.wild.example->\n\n")
    listed = MoreHosts(file)
    assert listed(b"backup.example") and listed(b".wild.example")
    assert not listed(b"wild.example") and not listed(b"Backup.example")


def test_a_file_that_is_missing_leaves_the_old_table(home: Path) -> None:
    assert call(home, "qmail-newmrh").status == 0
    (home / "control" / "morercpthosts").unlink()
    said = call(home, "qmail-newmrh")
    assert (said.status, said.output) == (111, b"")
    assert said.errors == ("qmail-newmrh: fatal: unable to read control/morercpthosts: no such file or directory\n")
    assert MoreHosts(home / "control" / "morercpthosts.cdb")(b"last.example")


def test_a_home_that_is_not_there_is_said(tmp_path: Path) -> None:
    said = call(tmp_path / "none", "qmail-newmrh")
    assert said.status == 111
    assert said.errors == f"qmail-newmrh: fatal: unable to chdir to {tmp_path}/none: no such file or directory\n"


def test_a_table_that_cannot_be_written_is_said(home: Path) -> None:
    (home / "control" / "morercpthosts.cdb").mkdir()
    said = call(home, "qmail-newmrh")
    assert said.status == 111
    assert said.errors.startswith("qmail-newmrh: fatal: unable to write control/morercpthosts.cdb: ")
