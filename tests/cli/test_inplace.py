"""`pillarbox check` of a qmail with programs of ours, healthy and not."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from pillarbox.cli import check, inplace
from pillarbox.cli.finding import Finding
from pillarbox.cli.launchers import Launcher, Programs
from tests import qmail

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="programs for everybody are root's")


@pytest.fixture
def home(open_path: Path) -> Path:
    made = qmail.make(open_path / "qmail")
    programs = Programs(made / "bin")
    (programs.kept / "runtime" / "0.1.0-aa" / "bin").mkdir(parents=True)
    (programs.kept / "runtime" / "0.1.0-aa" / "bin" / "python").symlink_to("/bin/sh")
    for name in ("qmail-smtpd", "qmail-newer"):
        programs.put(launcher(made, name))
    octets = b"\x7fELF\0Put here by pillarbox install\0%s/bin/python\0" % os.fsencode(copy(made))
    programs.put(Launcher("cmd5checkpw", octets, 0o4755, qmail.ALIAS))
    return made


def copy(home: Path) -> Path:
    return home / "bin" / ".pillarbox" / "runtime" / "0.1.0-aa"


def launcher(home: Path, name: str) -> Launcher:
    text = f"#!/usr/bin/python3 -IS\n# Put here by pillarbox install: {name}.\nsys.path.append('{copy(home)}')\n"
    return Launcher(name, text.encode())


def said(home: Path) -> list[str]:
    return [str(finding) for finding in check.findings(home)]


def about(home: Path, word: str) -> list[str]:
    return [line.replace(str(home), "Q") for line in said(home) if word in line]


def test_a_healthy_one_has_no_problem_and_is_not_asked_for_what_only_our_server_needs(home: Path) -> None:
    assert [line for line in said(home) if line.startswith("problem")] == []
    assert about(home, "qmail-send;") == [
        "note: Q: the home of qmail-send; what only `pillarbox serve` needs is left out here (pillarbox init --home Q)"
    ]
    assert about(home, "Pillarbox's:") == ["ok: Q/bin: Pillarbox's: cmd5checkpw qmail-newer qmail-smtpd"]
    assert about(home, "aa:") == ["ok: Q/bin/.pillarbox/runtime/0.1.0-aa: what they start, and only root can change"]


def test_its_control_files_and_routes_are_looked_at(home: Path) -> None:
    (home / "control" / "databytes").write_text("ten\n")
    (home / "control" / "smtproutes").write_text("example.net: bar s3cret\n")
    lines = [line for line in said(home) if line.startswith("problem")]
    assert any("databytes" in line for line in lines)
    assert any("has a login but no relay" in line for line in lines)
    assert "s3cret" not in "".join(lines)


def test_a_copy_that_is_gone_is_found(home: Path) -> None:
    shutil.rmtree(copy(home))
    assert about(home, "is gone") == [
        "problem: Q/bin: cmd5checkpw qmail-newer qmail-smtpd: the copy that they start is gone: "
        "pillarbox install --into Q"
    ]


def test_an_interpreter_that_is_gone_is_found(home: Path) -> None:
    """An upgrade of the system took it away."""
    file = home / "bin" / "qmail-newer"
    file.write_bytes(file.read_bytes().replace(b"/usr/bin/python3 ", b"/usr/bin/python2.99 "))
    assert about(home, "python2.99") == [
        "problem: /usr/bin/python2.99: gone, and what Q/bin has of Pillarbox cannot run without it: "
        "pillarbox install --into Q"
    ]


def test_a_copy_that_others_can_change_is_found(home: Path) -> None:
    (copy(home) / "loose").touch()
    (copy(home) / "loose").chmod(0o666)
    assert len(about(home, "others than root could change what everybody runs")) == 1
    (home / "bin").chmod(0o777)
    assert about(home, "could change the programs there")[0].startswith("problem: Q/bin: ")


def test_an_older_version_is_worth_a_note(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inplace, "__version__", "0.2.0")
    assert about(home, "another version") == [
        "note: Q/bin/.pillarbox/runtime/0.1.0-aa: another version than this one; "
        "pillarbox install --into Q brings 0.2.0"
    ]


def test_one_that_was_broken_off_is_found(home: Path) -> None:
    os.link(home / "bin" / "qmail-remote", home / "bin" / ".pillarbox" / "replaced" / "qmail-remote")
    assert about(home, "broken off") == [
        "problem: Q/bin/qmail-remote: an install was broken off here: pillarbox install --into Q, or with --undo"
    ]


def test_one_that_came_after_ours_is_worth_a_note(home: Path) -> None:
    (home / "bin" / "qmail-smtpd").unlink()
    qmail.add(home / "bin", "qmail-smtpd")
    assert about(home, "came after") == [
        "note: Q/bin/qmail-smtpd: came after Pillarbox's; .pillarbox/replaced has the one from before"
    ]


def test_the_queue_of_a_qmail_is_none_of_our_servers_business(home: Path) -> None:
    """Its files belong to several users, and must keep to."""
    (home / "run").mkdir()  # the checker does that
    assert inplace.is_qmail_sends(home)
    (home / "control" / "listen").write_text("smtp 127.0.0.1:2525\n")
    assert about(home, "queue/") == []
    assert not inplace.is_qmail_sends(home)


def test_a_home_that_our_server_has_run_in_is_looked_at_as_its_own(home: Path) -> None:
    (home / "run").mkdir()
    (home / "run" / "inject").touch()
    assert not inplace.is_qmail_sends(home)


def test_without_programs_of_ours_nothing_is_said_of_them(home: Path) -> None:
    shutil.rmtree(home / "bin" / ".pillarbox")
    found: list[Finding] = list(inplace.programs(home))
    assert found == []
