"""A program of ours with a set-uid bit, for who wants no daemon beside it: share/launcher.c, compiled for one program.

Only a program that gives the rights up before it runs anything else may have one (users/become.py): cmd5checkpw.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from importlib.resources import files
from pathlib import Path

from pillarbox.cli.launchers import CannotInstall, Launcher
from pillarbox.programs.other_queue import LAUNCHER

PROGRAMS = ("cmd5checkpw",)
MODE = 0o4755
_COMPILERS = "/usr/bin:/bin:/usr/local/bin"  # never where the caller's $PATH leads
_PATIENCE = 120.0  # seconds
_OTHERWISE = "or leave --setuid out: cmd5checkpw then asks the checker (pillarbox run checker)"


def owner(name: str) -> int:
    """The uid of who may read what the program reads. Raises CannotInstall."""
    try:
        uid = pwd.getpwnam(name).pw_uid
    except KeyError:
        raise CannotInstall(f"--setuid: there is no user {name!r}; make one: useradd -r {name}") from None
    if uid == 0:
        raise CannotInstall("--setuid: not root; a user of its own owns the password file, such as smtppasswd")
    return uid


def compiled(name: str, python: Path, directory: Path, uid: int, home: Path | None) -> Launcher:
    """The launcher of a program, to be put into `directory`. `python` finds Pillarbox by itself; `home` is the one
    that it takes for its own, else the machine's. Raises CannotInstall, OSError."""
    if any(character in f"{python}{home}" for character in '"\\'):
        raise CannotInstall(f"{home or python}: a path with such characters fits into no launcher; choose another")
    if os.statvfs(directory).f_flag & os.ST_NOSUID:
        raise CannotInstall(f"{directory}: its file system is mounted nosuid; mount it without, {_OTHERWISE}")
    compiler = next((found for cc in ("cc", "gcc", "clang") if (found := shutil.which(cc, path=_COMPILERS))), None)
    if compiler is None:
        raise CannotInstall(f"there is no C compiler; apt-get install gcc libc6-dev, {_OTHERWISE}")
    source = files("pillarbox").joinpath("share", "launcher.c").read_bytes()
    with tempfile.TemporaryDirectory(prefix="pillarbox-") as place:
        made = Path(place, name)
        fixed = [f'-DPYTHON="{python}"', f'-DPROGRAM="{name}"', *([f'-DHOME="{home}"'] if home else [])]
        words = ["-O2", "-xc", *fixed, "-o", str(made), "-"]
        done = subprocess.run(
            [compiler, *words], input=source, capture_output=True, timeout=_PATIENCE,
            env={"PATH": _COMPILERS, "LC_ALL": "C", "TMPDIR": place},
        )  # fmt: skip
        if done.returncode != 0:
            first = next(iter(done.stderr.decode("utf-8", "replace").splitlines()), "it says nothing")
            raise CannotInstall(f"{compiler} could not compile share/launcher.c: {first}; mend that, {_OTHERWISE}")
        octets = made.read_bytes()
    if LAUNCHER not in octets:
        octets += b"\n" + LAUNCHER + b"\n"  # how --undo knows it; nothing behind the sections of a program matters
    return Launcher(name, octets, MODE, uid)
