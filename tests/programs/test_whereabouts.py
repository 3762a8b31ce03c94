"""Which home a program means."""

from __future__ import annotations

from pathlib import Path

import pytest

from pillarbox.programs import whereabouts


def set_up(home: Path) -> str:
    (home / "control").mkdir(parents=True)
    (home / "control" / "me").write_text("mx.example.org\n")
    return str(home)


def test_the_environment_comes_first(tmp_path: Path) -> None:
    qmail = set_up(tmp_path / "qmail")
    assert whereabouts.find({"PILLARBOX_HOME": "/there"}, qmail=qmail) == "/there"


def test_the_home_of_the_machine_comes_before_qmails(tmp_path: Path) -> None:
    qmail, ours = set_up(tmp_path / "qmail"), set_up(tmp_path / "ours")
    named = tmp_path / "home"
    named.write_text(f"{ours}\nwhatever follows\n")
    assert whereabouts.find({}, qmail=qmail, named=str(named)) == ours


@pytest.mark.parametrize("text", ["", "\n", "relative/path\n", "/not/set/up\n", "\0\n"])
def test_a_name_that_leads_nowhere_is_passed_over(tmp_path: Path, text: str) -> None:
    qmail = set_up(tmp_path / "qmail")
    named = tmp_path / "home"
    named.write_text(text)
    assert whereabouts.find({}, qmail=qmail, named=str(named)) == qmail
    assert whereabouts.find({}, qmail=qmail, named=str(tmp_path / "none")) == qmail


def test_without_any_it_is_the_users_own(tmp_path: Path) -> None:
    none = str(tmp_path / "none")
    assert whereabouts.find({"XDG_DATA_HOME": "/x"}, qmail=none, named=none) == "/x/pillarbox"
    assert whereabouts.find({}, qmail=none, named=none).endswith("/.local/share/pillarbox")
