"""A delivery that is killed anywhere and repeated has delivered everything exactly once.

The child runs under a line tracer that kills it (SIGKILL, so nothing is cleaned up) ahead of the N-th line of the
delivery code; N counts up until the child survives, so every point between two system calls has its turn.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from pillarbox.delivery.job import Job
from pillarbox.mailbox import durable, maildir
from pillarbox.mailbox.maildrop import Maildrop
from pillarbox.outcome import Verdict
from tests.delivery.conftest import LINES, MESSAGE, Joe, job

WATCHED = {module.__file__ for module in (maildir, durable)}
COMPUTES = {"_tail", "_escaped", "stem", "<lambda>", "_read"}  # nothing on the disk can change between their lines
BOXES = ("Maildir", "second")
LARGE = MESSAGE + b"line\n" * 14_000  # two blocks


@pytest.fixture
def joe() -> Iterator[Joe]:
    """In memory where that is possible: killing a process loses nothing that a file system holds."""
    top = Path(tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
    joe = Joe(top / "joe")
    joe.make("second")
    joe.instruct(".qmail", b"./Maildir/\n./second/\n")
    yield joe
    shutil.rmtree(top)


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[list[Job]]:
    (tmp_path / "spool").write_bytes(LARGE)
    spool = os.open(tmp_path / "spool", os.O_RDONLY)
    yield [job(1), job(2, content=spool), job(3, content=MESSAGE + b"three\n")]
    os.close(spool)


WHOLE = sorted(LINES + text for text in (MESSAGE, LARGE, MESSAGE + b"three\n"))


def survives(step: int, work: Callable[[], object]) -> bool:
    """Run `work` in a child that dies ahead of its `step`-th line; whether it came to the end before."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking beside threads of other tests
        child = os.fork()
    if not child:
        try:
            sys.settrace(_killer(step))
            work()
            sys.settrace(None)
            os._exit(0)
        finally:
            os._exit(1)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return not os.WIFSIGNALED(status)


def _killer(step: int) -> Callable[[FrameType, str, Any], Any]:
    lines = 0

    def trace(frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal lines
        if frame.f_code.co_filename not in WATCHED or frame.f_code.co_name in COMPUTES:
            return None
        if event == "line":
            lines += 1
            if lines == step:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    return trace


def clear(joe: Joe) -> None:
    for name in joe.everything():
        (joe.home / name).unlink()


def mail(joe: Joe, box: str) -> list[bytes]:
    return sorted(file.read_bytes() for part in ("new", "cur") for file in (joe.home / box / part).iterdir())


def nobody(_joe: Joe) -> None:
    return None


def reads_everything(joe: Joe) -> None:
    for box in BOXES:
        drop = Maildrop.open(str(joe.home / box), 0)
        drop.update([])
        drop.close()


def flags_at_random(joe: Joe) -> None:
    for box in BOXES:
        for number, file in enumerate(sorted((joe.home / box / "new").iterdir())):
            if number % 2:
                file.rename(joe.home / box / "cur" / (file.name + ":2,FS"))


@pytest.mark.parametrize("reader", [nobody, reads_everything])
def test_a_delivery_killed_anywhere_and_repeated_delivers_each_message_once(
    joe: Joe, jobs: list[Job], reader: Callable[[Joe], None]
) -> None:
    repeated = [each._replace(again=True) for each in jobs]
    step = 1
    seen = set()
    while not survives(step, lambda: joe.deliver(*jobs)):
        for box in BOXES:
            assert set(mail(joe, box)) <= set(WHOLE), f"half a message in {box}, killed at line {step}"
            seen.add(len(mail(joe, box)))
        reader(joe)
        assert [outcome.verdict for outcome in joe.deliver(*repeated)] == [Verdict.DONE] * 3
        assert [mail(joe, box) for box in BOXES] == [WHOLE, WHOLE], f"killed at line {step}"
        clear(joe)
        step += 1
    assert step > 100
    assert seen == {0, 1, 2, 3}, "kills before, between and after the renames"


def test_a_delivery_killed_again_and_again_delivers_each_message_once(joe: Joe, jobs: list[Job]) -> None:
    repeated = [each._replace(again=True) for each in jobs]
    chance = random.Random(1)
    for turn in range(40):
        kills = 0
        while not survives(chance.randrange(1, 500), partial(joe.deliver, *(repeated if kills else jobs))):
            kills += 1
            (nobody, flags_at_random, reads_everything)[chance.randrange(3)](joe)
            if kills == 20:
                break
        joe.deliver(*repeated)
        assert [mail(joe, box) for box in BOXES] == [WHOLE, WHOLE], f"turn {turn}, {kills} kills"
        clear(joe)


def test_what_a_killed_delivery_leaves_in_tmp_is_swept_away_in_time(joe: Joe, jobs: list[Job]) -> None:
    step = 1
    while not list((joe.home / "Maildir" / "tmp").iterdir()):
        survives(step, lambda: joe.deliver(*jobs))
        step += 1
    (left,) = (joe.home / "Maildir" / "tmp").iterdir()
    for age, kept in ((129_000, [left]), (130_000, [])):
        Maildrop.open(str(joe.home / "Maildir"), left.stat().st_mtime + age if not kept else 0).close()
        assert list((joe.home / "Maildir" / "tmp").iterdir()) == kept
