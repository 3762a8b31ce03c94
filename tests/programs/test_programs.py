"""`pillarbox run NAME`: the catalogue, and the small programs in it, as qmail's manual pages have them."""

from __future__ import annotations

import importlib
import os
import stat
from pathlib import Path

import pytest

from pillarbox.cli.main import status
from pillarbox.delivery.aliases import Table
from pillarbox.programs.catalogue import PROGRAMS
from pillarbox.users import cdb

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def qmail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A qmail home."""
    for name in ("control", "users"):
        (tmp_path / name).mkdir()
    (tmp_path / "control" / "me").write_text("mx.example.org\n")
    monkeypatch.setenv("PILLARBOX_HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_program_of_the_catalogue_is_there(name: str) -> None:
    module = importlib.import_module(PROGRAMS[name])
    assert name == module.NAME
    assert callable(module.main)


# row: maildirmake
def test_a_program_gets_its_arguments_as_they_are(capsys: Captured) -> None:
    """Even those that look like ours."""
    assert status(["run", "splogger", "--help", "--home"]) == 100
    assert capsys.readouterr().err == "splogger: usage: splogger [tag [facility]]\n"


# row: maildirmake
def test_maildirmake_makes_what_only_its_owner_can_enter(tmp_path: Path) -> None:
    made = tmp_path / "Maildir"
    before = os.umask(0)
    try:
        assert status(["run", "maildirmake", str(made)]) == 0
    finally:
        os.umask(before)
    assert {file.name for file in made.iterdir()} == {"tmp", "new", "cur"}
    assert {stat.S_IMODE(file.stat().st_mode) for file in (made, *made.iterdir())} == {0o700}


# row: maildirmake
def test_maildirmake_takes_one_name_and_ignores_further_ones(tmp_path: Path, capsys: Captured) -> None:
    assert status(["run", "maildirmake"]) == 100
    assert capsys.readouterr().err == "maildirmake: usage: maildirmake name\n"
    assert status(["run", "maildirmake", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    assert [file.name for file in tmp_path.iterdir()] == ["a"]


# row: maildirmake
def test_maildirmake_touches_nothing_that_is_there(tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "Maildir").mkdir()
    assert status(["run", "maildirmake", str(tmp_path / "Maildir")]) == 111
    assert capsys.readouterr().err == f"maildirmake: fatal: unable to mkdir {tmp_path}/Maildir: file already exists\n"
    assert list((tmp_path / "Maildir").iterdir()) == []


# row: maildirmake
def test_maildirmake_says_why_it_cannot_in_qmails_words(tmp_path: Path, capsys: Captured) -> None:
    assert status(["run", "maildirmake", str(tmp_path / "no" / "Maildir")]) == 111
    assert capsys.readouterr().err.endswith("no/Maildir: file does not exist\n")
    (tmp_path / "file").write_text("")
    assert status(["run", "maildirmake", str(tmp_path / "file" / "Maildir")]) == 111
    assert capsys.readouterr().err.endswith("file/Maildir: not a directory\n")


def test_newu_compiles_the_table(qmail: Path) -> None:
    (qmail / "users" / "assign").write_bytes(b"=virt:joe:5:6:/h:::\n+virt-:u:5:5:/h:-:pre-:\n.\n")
    assert status(["run", "qmail-newu"]) == 0
    lookup = cdb.Reader(qmail / "users" / "cdb").current()
    assert lookup is not None
    assert lookup.get(b"!virt\0") == b"joe\x005\x006\0/h\0\0\0"
    assert lookup.get(b"!virt-") == b"u\x005\x005\0/h\0-\0pre-\0"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (None, "qmail-newu: fatal: unable to open users/assign: no such file or directory\n"),
        (b"=virt:u:5\n.\n", "qmail-newu: fatal: bad format in users/assign\n"),
        (b"=virt:u:5:5:/h:-:pre-:\n", "qmail-newu: fatal: bad format in users/assign\n"),
    ],
)
def test_newu_refuses_a_broken_table_and_keeps_the_old(
    qmail: Path, text: bytes | None, line: str, capsys: Captured
) -> None:
    (qmail / "users" / "assign").write_bytes(b".\n")
    status(["run", "qmail-newu"])
    before = (qmail / "users" / "cdb").read_bytes()
    if text is None:
        (qmail / "users" / "assign").unlink()
    else:
        (qmail / "users" / "assign").write_bytes(text)
    assert status(["run", "qmail-newu"]) == 111
    assert capsys.readouterr().err == line
    assert (qmail / "users" / "cdb").read_bytes() == before


def test_newu_without_a_home_says_where_it_looked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setenv("PILLARBOX_HOME", str(tmp_path / "none"))
    assert status(["run", "qmail-newu"]) == 111
    assert (
        capsys.readouterr().err == f"qmail-newu: fatal: unable to chdir to {tmp_path}/none: no such file or directory\n"
    )


def paragraph(text: str, name: str) -> str:
    return next(part for part in text.split("\n\n") if part.startswith(f"{name}: "))


def test_showctl_shows_every_control_file_with_what_is_in_force(qmail: Path, capsys: Captured) -> None:
    (qmail / "control" / "databytes").write_text("1000\n")
    (qmail / "control" / "virtualdomains").write_text("example.org:example.org\n.example.net:joe\n")
    assert status(["run", "qmail-showctl"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"qmail home directory: {qmail}.\nuser-ext delimiter: -.\npaternalism (in decimal): 2.\n")
    assert paragraph(shown, "databytes").splitlines()[0] == (
        "databytes: most octets of a message; 0: no limit (read by smtpd)"
    )
    assert paragraph(shown, "databytes").splitlines()[1:] == ["  1000"]
    assert paragraph(shown, "queuelifetime").splitlines()[0].startswith("queuelifetime: (Default.) ")
    assert paragraph(shown, "queuelifetime").splitlines()[1:] == ["  604800"]
    assert paragraph(shown, "virtualdomains").splitlines()[1:] == ["  example.org:example.org", "  .example.net:joe"]
    assert paragraph(shown, "locals").splitlines() == [
        "locals: (Default.) hosts whose users are this machine's (read by smtpd, queue)",
        "  mx.example.org",
    ]


# row: remote-showctl
def test_showctl_never_shows_a_relays_password(qmail: Path, capsys: Captured) -> None:
    (qmail / "control" / "smtproutes").write_text("example.com:relay.example.net:587 joe sesame open\n:other\n")
    assert status(["run", "qmail-showctl"]) == 0
    shown = capsys.readouterr().out
    assert "sesame" not in shown
    assert "open" not in paragraph(shown, "smtproutes").replace("opens", "")
    assert "  example.com:relay.example.net:587 joe (password not shown)\n  :other" in shown


def test_showctl_says_what_is_odd_and_what_it_does_not_know(qmail: Path, capsys: Captured) -> None:
    (qmail / "control" / "databytes").write_text("ten\n")
    (qmail / "control" / "rcpthots").write_text("example.org\n")
    assert status(["run", "qmail-showctl"]) == 0
    shown = capsys.readouterr().out
    assert "  control/databytes: line 1: not a number: 'ten'" in shown
    assert "\nrcpthots: I have no idea what this file does.\n" in shown


def test_showctl_shows_nothing_that_moves_the_cursor(qmail: Path, capsys: Captured) -> None:
    (qmail / "control" / "smtpgreeting").write_bytes(b"mx\x1b[2J\n")
    (qmail / "control" / "virtualdomains").write_bytes(b"example.org:\x1b[2J\n")
    assert status(["run", "qmail-showctl"]) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert r"  mx\x1b[2J" in paragraph(shown, "smtpgreeting").splitlines()
    assert r"  example.org:\x1b[2J" in paragraph(shown, "virtualdomains").splitlines()


def test_showctl_without_control_files_is_111(qmail: Path, capsys: Captured) -> None:
    (qmail / "control" / "me").unlink()
    os.rmdir(qmail / "control")
    assert status(["run", "qmail-showctl"]) == 111
    assert capsys.readouterr().err.startswith(f"qmail-showctl: fatal: unable to read {qmail}/control: ")


def test_newaliases_makes_the_table(qmail: Path) -> None:
    (qmail / "control" / "aliases").write_text("aliases\n")
    (qmail / "aliases").write_bytes(b"root: joe\nroot: ann\n")
    assert status(["run", "newaliases"]) == 0
    assert (qmail / "aliases.cdb").stat().st_mode & 0o777 == 0o644
    assert Table(qmail / "aliases").expand(b"root") == (b"joe@mx.example.org",)


@pytest.mark.parametrize(
    ("text", "ended", "line"),
    [
        (None, 111, "newaliases: fatal: unable to read {}/aliases: no such file or directory\n"),
        (
            b"x: |y\n",
            100,
            "newaliases: fatal: {}/aliases: line 1: the alias table runs no program: '|y': put that line",
        ),
    ],
)
def test_newaliases_refuses_what_it_cannot_read(
    qmail: Path, text: bytes | None, ended: int, line: str, capsys: Captured
) -> None:
    (qmail / "control" / "aliases").write_text("aliases\n")
    if text is not None:
        (qmail / "aliases").write_bytes(text)
    assert status(["run", "newaliases"]) == ended
    assert capsys.readouterr().err.startswith(line.format(qmail))
    assert not (qmail / "aliases.cdb").exists()


def test_newaliases_says_what_counts_only_once(qmail: Path, capsys: Captured) -> None:
    (qmail / "control" / "aliases").write_text("aliases\n")
    (qmail / "aliases").write_bytes(b"root: joe\nroot: ann\n")
    assert status(["run", "newaliases"]) == 0
    expected = f"newaliases: warning: {qmail}/aliases: line 2: 'root' is there already, in line 1, which counts\n"
    assert capsys.readouterr().err == expected
