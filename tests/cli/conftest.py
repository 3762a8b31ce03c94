"""A place for homes that every user can enter (pytest's own is closed), and a way to be another user for a moment."""

from __future__ import annotations

import os
import shutil
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

NOBODY = 65534

AsNobody = Callable[[Callable[[], None]], None]


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home that does not exist yet, with a space in its path."""
    monkeypatch.delenv("PILLARBOX_HOME", raising=False)
    open_to_all = Path(tempfile.mkdtemp(prefix="pillarbox-test-"))
    open_to_all.chmod(0o755)
    yield open_to_all / "my home"
    shutil.rmtree(open_to_all)


@pytest.fixture
def as_nobody() -> AsNobody:
    """Runs a function in a child process as a user without rights; its failure is ours."""

    def run(function: Callable[[], None]) -> None:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                if os.getuid() == 0:
                    os.setgroups([])
                    os.setresgid(NOBODY, NOBODY, NOBODY)
                    os.setresuid(NOBODY, NOBODY, NOBODY)
                function()
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0

    return run
