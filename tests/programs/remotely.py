"""qmail-remote as its callers have it: arguments, a message on descriptor 0, chunks on descriptor 1."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

import pillarbox
from tests.roles.hosts import Script, hosts

MESSAGE = b"Subject: hello\n\n.dot\nend\n"
WIRE = b"Subject: hello\r\n\r\n..dot\r\nend\r\n.\r\n"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "control").mkdir()
    control(tmp_path, me="mx.example.org\n", helohost="helo.example.org\n")
    return tmp_path


def control(home: Path, **files: str) -> None:
    for name, text in files.items():
        (home / "control" / name).write_text(text)


async def run(home: Path, *arguments: str, message: bytes = MESSAGE, piped: bool = False) -> bytes:
    """What it reports; it ends with 0 and says nothing on standard error."""
    said, complained = await begin(home, *arguments, message=message, piped=piped)
    assert complained == b""
    return said


async def begin(
    home: Path, *arguments: str, message: bytes = MESSAGE, piped: bool = False, python: tuple[str, ...] = ()
) -> tuple[bytes, bytes]:
    """What it says on its two outputs; it ends with 0. `python`: options of the interpreter."""
    environment = {**os.environ, "PILLARBOX_HOME": str(home), "PYTHONPATH": str(Path(pillarbox.__file__).parent.parent)}
    file = home / "message"
    file.write_bytes(message)
    with open(file, "rb") as stream:
        process = await asyncio.create_subprocess_exec(
            sys.executable, *python, "-W", "error", "-m", "pillarbox", "run", "qmail-remote", *arguments,
            env=environment, stdin=asyncio.subprocess.PIPE if piped else stream, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        said, complained = await asyncio.wait_for(process.communicate(message if piped else None), 60)
    assert process.returncode == 0, complained
    return said, complained


def bring(
    home: Path, *scripts: Script | None, recipients: tuple[str, ...] = ("joe@far.example",), login: str = ""
) -> bytes:
    """The report on a message for hosts that say what they say; `login` stands behind the relay in smtproutes."""

    async def brought() -> bytes:
        async with hosts(*scripts) as (port, _names):
            control(home, smtproutes=f":127.0.0.2:{port} {login}\n")
            return await run(home, "far.example", "me@example.org", *recipients)

    return asyncio.run(brought())
