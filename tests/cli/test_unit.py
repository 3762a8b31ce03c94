"""The files for systemd, supervise, runit and s6: what systemd's own program and a shell make of them."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from pillarbox.cli import unit
from pillarbox.cli.unit import CannotFill
from tests.peers import peer, run

STRANGE = "a home %h $HOME 'with' \"quotes\" \\and more"
COMMAND = ["/bin/true", "-m", "pillarbox"]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return made(tmp_path / "home")


def made(home: Path) -> Path:
    (home / "control").mkdir(parents=True)
    (home / "control" / "me").write_text("mx.example.org\n")
    (home / "control" / "listen").write_text("smtp 0.0.0.0:25\nsmtp [::]:25\npop3s 127.0.0.1:0\n")
    (home / "control" / "draintime").write_text("100\n")
    return home


def test_systemd_finds_nothing_wrong_with_its_units(home: Path, tmp_path: Path) -> None:
    places = [tmp_path / name for name in ("pillarbox.service", "pillarbox.socket")]
    for place in places:
        place.write_text(unit.filled(place.name, made(tmp_path / STRANGE / place.name), COMMAND))
    assert run(peer("systemd-analyze"), "verify", *places) == b""


def test_systemd_finds_nothing_wrong_with_the_units_of_programs(tmp_path: Path) -> None:
    home = made(tmp_path / "a home %h")
    (home / "bin").mkdir()
    for program in ("qmail-smtpd", "qmail-popup"):
        (home / "bin" / program).symlink_to("/bin/true")
    places = [tmp_path / name for name in unit.UNITS if name.startswith("qmail-")]
    for place in places:
        place.write_text(unit.filled(place.name, home, COMMAND))
    assert run(peer("systemd-analyze"), "verify", *places) == b""


def test_a_home_whose_programs_systemd_cannot_start_has_no_units_of_programs(tmp_path: Path) -> None:
    with pytest.raises(CannotFill, match=r"systemd starts no program whose path holds a quote, a backslash or a \$"):
        unit.filled("qmail-smtpd@.service", made(tmp_path / STRANGE), COMMAND)


def test_systemd_starts_the_page_s_line_for_every_connection(home: Path) -> None:
    bin = home / "bin"
    line = f"{bin}/qmail-popup mx.example.org {bin}/maildirpop3d {bin}/qmail-pop3d Maildir {bin}/checkpassword"
    assert f"\nExecStart=-{line}\n" in unit.filled("qmail-pop3d@.service", home, COMMAND)
    smtp = unit.filled("qmail-smtpd@.service", home, COMMAND)
    assert f"\nExecStart=-{bin}/qmail-smtpd\nUser=qmaild\nStandardInput=socket\n" in smtp


def test_systemd_starts_exactly_the_command_for_exactly_this_home(tmp_path: Path) -> None:
    """By what it says of the unit when it is told to explain it: its own reading of quotes, % and $."""
    text = unit.filled("pillarbox.service", made(tmp_path / STRANGE), COMMAND)
    (line,) = [line.partition("=")[2] for line in text.splitlines() if line.startswith("ExecStart=")]
    assert "%%h" in line and "$$HOME" in line
    assert shlex.split(line.replace("%%", "%").replace("$$", "$")) == [
        *COMMAND, "serve", "--home", str(tmp_path / STRANGE)
    ]  # fmt: skip


def test_the_socket_unit_has_every_port_of_control_listen_that_is_fixed(home: Path) -> None:
    lines = unit.filled("pillarbox.socket", home, COMMAND).splitlines()
    assert [line for line in lines if line.startswith("ListenStream")] == [
        "ListenStream=0.0.0.0:25",
        "ListenStream=[::]:25",
        f"ListenStream={home}/run/inject",
    ]
    assert "BindIPv6Only=ipv6-only" in lines  # or the second could not be bound beside the first


def test_systemd_waits_longer_than_deliveries_are_given(home: Path) -> None:
    assert "\nTimeoutStopSec=115\n" in unit.filled("pillarbox.service", home, COMMAND)


def test_a_home_without_fixed_ports_has_no_socket_unit(home: Path) -> None:
    (home / "control" / "listen").write_text("smtp 127.0.0.1:0\n")
    with pytest.raises(CannotFill, match="control/listen: names no port that systemd could listen on"):
        unit.filled("pillarbox.socket", home, COMMAND)


@pytest.mark.parametrize("name", unit.UNITS)
@pytest.mark.parametrize("home", ["a\nb", "a\x7fb", "a\udcffb"])
def test_a_path_cannot_bring_lines_of_its_own(name: str, home: str, tmp_path: Path) -> None:
    with pytest.raises(CannotFill, match="a path with such characters fits into no unit"):
        unit.filled(name, tmp_path / home, COMMAND)


def test_the_run_script_starts_exactly_the_command_and_keeps_what_people_read_out_of_the_log(tmp_path: Path) -> None:
    shown = tmp_path / "shown"
    shown.write_text('#!/bin/sh\necho for people\nfor word; do printf "%s\\n" "$word" >&2; done\n')
    shown.chmod(0o755)
    script = unit.filled("run", made(tmp_path / STRANGE), [str(shown), "-m"])
    done = subprocess.run(["/bin/sh", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    assert done.stdout.decode().splitlines() == ["-m", "serve", "--home", str(tmp_path / STRANGE)]


@pytest.mark.parametrize("name", ["run", "log-run"])
def test_the_scripts_are_a_shell_s(name: str, home: Path) -> None:
    run("/bin/sh", "-n", say=unit.filled(name, home, COMMAND).encode())


def test_a_unit_that_does_not_exist_is_named_with_those_that_do(home: Path) -> None:
    with pytest.raises(CannotFill, match=r"there is no unit 'run\.bat'; there are: pillarbox.service, "):
        unit.unit(home, "run.bat")


@pytest.mark.skipif(os.getuid() != 0, reason="only root is warned: others run as who they are")
def test_root_is_warned_of_a_program_that_others_can_change(tmp_path: Path) -> None:
    program = tmp_path / "pillarbox"
    program.touch()
    program.chmod(0o757)
    (warning,) = unit._writable_by_others(program)
    assert warning.startswith(f"{program}: others than root may write there")
    program.chmod(0o755)
    os.chown(program, 65534, 0)
    assert list(unit._writable_by_others(program)) != []
    os.chown(program, 0, 0)
    os.chown(tmp_path, 65534, 0)
    assert list(unit._writable_by_others(program)) != []
    os.chown(tmp_path, 0, 0)
    assert list(unit._writable_by_others(program)) == []
