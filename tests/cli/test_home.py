from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from pillarbox.cli.home import Lock, NoHome, Running, existing, resolve


@pytest.fixture
def qmail(tmp_path: Path) -> Path:
    """A /var/qmail that is set up, with the lock file of its qmail-send."""
    (tmp_path / "control").mkdir()
    (tmp_path / "control" / "me").write_text("mx.example.org\n")
    (tmp_path / "queue" / "lock").mkdir(parents=True)
    (tmp_path / "queue" / "lock" / "sendmutex").touch()
    return tmp_path


def test_the_option_wins_over_everything(qmail: Path) -> None:
    assert resolve("/somewhere", {"PILLARBOX_HOME": "/else"}, qmail) == Path("/somewhere")


def test_a_relative_home_is_made_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve("./var", {}) == tmp_path / "var"


def test_the_environment_wins_over_var_qmail(qmail: Path) -> None:
    assert resolve(None, {"PILLARBOX_HOME": "/else"}, qmail) == Path("/else")


def test_var_qmail_is_taken_where_it_is_set_up(qmail: Path) -> None:
    assert resolve(None, {}, qmail) == qmail


def test_without_any_of_them_the_home_is_the_users_own(tmp_path: Path) -> None:
    assert resolve(None, {"XDG_DATA_HOME": "/data"}, tmp_path) == Path("/data/pillarbox")
    assert resolve(None, {"HOME": "/x"}, tmp_path) == Path.home() / ".local/share/pillarbox"


def test_var_qmail_is_refused_while_qmail_send_runs_there(qmail: Path) -> None:
    descriptor = os.open(qmail / "queue" / "lock" / "sendmutex", os.O_WRONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(NoHome, match="qmail-send runs there; stop it, or say --home"):
        resolve(None, {}, qmail)
    assert existing({}, qmail) == qmail  # qmail's own programs work beside it
    os.close(descriptor)
    assert resolve(None, {}, qmail) == qmail


def test_a_qmail_without_a_queue_has_no_qmail_send(qmail: Path) -> None:
    (qmail / "queue" / "lock" / "sendmutex").unlink()
    assert resolve(None, {}, qmail) == qmail


def test_the_lock_is_refused_to_a_second_and_names_the_first(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with Lock(tmp_path), pytest.raises(Running, match=f"in use by process {os.getpid()}; stop it first"):
        Lock(tmp_path).take()
    Lock(tmp_path).take()


def test_the_lock_of_a_dead_holder_is_free_and_shows_the_new_one(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "lock").write_text("4194303999\n")
    with Lock(tmp_path):
        assert (tmp_path / "run" / "lock").read_text() == f"{os.getpid()}\n"


def test_a_child_that_inherits_the_lock_keeps_it(tmp_path: Path) -> None:
    """The queue role may outlive the supervisor; no second server may start meanwhile."""
    (tmp_path / "run").mkdir()
    lock = Lock(tmp_path)
    lock.take()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writer)
        os.read(reader, 1)
        os._exit(0)
    os.close(reader)
    lock.release()
    with pytest.raises(Running):
        Lock(tmp_path).take()
    os.close(writer)
    os.waitpid(child, 0)
    Lock(tmp_path).take()


def test_the_lock_of_a_home_that_is_none_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(NoHome, match="not set up; run: pillarbox init"):
        Lock(tmp_path).take()


def test_the_lock_follows_no_symbolic_link(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "precious").write_text("keep me")
    (tmp_path / "run" / "lock").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="symbolic"):
        Lock(tmp_path).take()
    assert (tmp_path / "precious").read_text() == "keep me"
