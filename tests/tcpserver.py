"""Debian's tcpserver with programs of ours under their own names, as a qmail's run script starts them."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pillarbox
from pillarbox.programs.catalogue import LINKS
from tests.etc import everybody
from tests.peers import peer

NOBODY = 65534
ME = "mx.example.org"

_LAUNCHER = """#!{python} -I
import sys
sys.path.insert(0, {source!r})
from pillarbox.cli.launch import main
main()
"""


def put_program(file: Path, text: str) -> Path:
    """Write a Python program that everybody can run."""
    file.write_text(f"#!{everybody()} -I\n{text}")
    file.chmod(0o755)
    return file


@contextmanager
def a_place() -> Iterator[Path]:
    """A directory that everybody may enter, with all programs of the catalogue in bin/."""
    place = Path(tempfile.mkdtemp(prefix="pillarbox-test-"))
    try:
        place.chmod(0o755)
        (place / "bin").mkdir()
        launcher = _LAUNCHER.format(python=everybody(), source=str(Path(pillarbox.__file__).parent.parent))
        for name in LINKS:
            (place / "bin" / name).write_text(launcher)
            (place / "bin" / name).chmod(0o755)
        yield place
    finally:
        shutil.rmtree(place)


class Tcpserver:
    """One that listens on `port` of 127.0.0.1; what it and its programs log can be read."""

    def __init__(self, port: int, file: Path, process: subprocess.Popen[bytes]) -> None:
        self.port = port
        self.process = process
        self._log = file

    def log(self) -> str:
        """All of it so far."""
        return self._log.read_text(errors="replace")


@contextmanager
def tcpserver(
    place: Path, *command: str, options: Sequence[str] = (), environment: Mapping[str, str] | None = None,
    within: Sequence[str] = (),
) -> Iterator[Tcpserver]:  # fmt: skip
    """`tcpserver -vRl HOST … command` in `place`, whose bin/ is in PATH. `options`: -u and -g; `within`: words ahead of
    the command line."""
    given = {"PATH": f"{place}/bin:{os.defpath}:/usr/sbin:/sbin", "LC_ALL": "C.UTF-8"} | dict(environment or {})
    line = [*within, peer("tcpserver"), "-1vRl", ME, *options, "127.0.0.1", "0", *command]
    file = place / "log"
    with (
        file.open("wb") as log,
        subprocess.Popen(line, stdout=subprocess.PIPE, stderr=log, cwd=place, env=given) as process,
    ):
        try:
            assert process.stdout is not None
            yield Tcpserver(int(process.stdout.readline()), file, process)
        finally:
            process.terminate()
            process.wait(30)
