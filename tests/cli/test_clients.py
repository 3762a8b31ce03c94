"""What `check` says of control/tcprules and control/rbl."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pillarbox.cli.clients import clients
from pillarbox.cli.create import create
from pillarbox.cli.finding import Premises
from pillarbox.cli.layout import passwords_reader, settings_of, users_of
from tests.peers import peer, run


def said(home: Path) -> list[str]:
    settings = settings_of(home)
    return [
        str(finding) for finding in clients(Premises(home, users_of(settings), passwords_reader(settings), settings))
    ]


def compiled(home: Path, text: str) -> Path:
    """The home's rules, by the real tcprules."""
    file = home / "tcp.cdb"
    run(peer("tcprules"), file, home / "tcp.tmp", say=text.encode())
    (home / "control" / "tcprules").write_text("tcp.cdb\n")
    return file


@pytest.fixture
def made(home: Path) -> Path:
    create(home, "mx.example.org")
    return home


def test_a_home_without_these_files_has_no_finding(made: Path) -> None:
    assert said(made) == []


def test_lists_are_named(made: Path) -> None:
    (made / "control" / "rbl").write_text("-a wl.test -r bl.test\n")
    assert said(made) == [
        "ok: control/rbl: wl.test: asked for A records about every client of port 25",
        "ok: control/rbl: bl.test: asked for TXT records about every client of port 25",
    ]


def test_rules_are_counted_and_what_is_ignored_is_named(made: Path) -> None:
    file = compiled(
        made, 'joe@10.0.0.1:deny\n10.:allow,RELAYCLIENT="",QMAILQUEUE="/q",BADMIME="1"\n:deny,QMAILQUEUE="/r"\n'
    )
    assert said(made) == [
        f"ok: {file}: rules about clients: 3",
        f"note: {file}: sets BADMIME, QMAILQUEUE, which mean nothing to serve",
        f"note: {file}: serve asks no identd: rules such as joe@10.0.0.1 hold for nobody",
    ]


def test_a_relay_for_everybody_is_a_problem(made: Path) -> None:
    file = compiled(made, ':allow,RELAYCLIENT=""\n')
    assert said(made) == [
        f"problem: {file}: its rule for everybody sets RELAYCLIENT: anybody may send anywhere through this server: "
        "give RELAYCLIENT to the addresses that may, and make it again with tcprules"
    ]
    compiled(made, ':deny,RELAYCLIENT=""\n')
    assert said(made) == [f"ok: {file}: rules about clients: 1"]


def test_a_table_that_keeps_everybody_out_is_a_problem(made: Path) -> None:
    file = compiled(made, ":allow\n")
    file.write_bytes(b"nonsense")
    assert said(made) == [
        f"problem: {file}: cannot read it: Format Error: nobody is let in: "
        f"tcprules '{file}' '{file}.tmp' < RULES, or remove control/tcprules"
    ]
    file.unlink()
    assert said(made) == [
        f"problem: {file}: missing, but control/tcprules names it: nobody is let in: "
        f"tcprules '{file}' '{file}.tmp' < RULES, or remove control/tcprules"
    ]


@pytest.mark.skipif(os.getuid() != 0, reason="needs root")
def test_a_table_that_the_roles_cannot_read_is_a_problem(made: Path) -> None:
    file = compiled(made, ":allow\n")
    file.chmod(0o600)
    assert f"problem: {file}: qmaild cannot read it: nobody is let in: chmod o+r '{file}'" in said(made)
