"""Users of the system who are there for a test alone: in an /etc that only the processes started here see, so that
nothing of them stays on the machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.etc import copy_etc

_HOLD = 'mount --bind "$1" /etc && echo held && exec sleep 600'


class People:
    """`homes`/NAME is the home of each; `place` is a directory that everybody may enter."""

    def __init__(self, place: Path, holder: int) -> None:
        self.place, self.homes = place, place / "homes"
        self._holder = holder

    def within(self, *command: str) -> list[str]:
        """The words that run a command where these users are, as root."""
        return ["nsenter", "-m", "-t", str(self._holder), *command]

    def as_user(self, name: str, *command: str) -> list[str]:
        """The words that run a command as one of them, without any group but his own."""
        uid, gid = self.ids(name)
        return self.within("setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--", *command)

    def add(self, name: str, *options: str, uid: int | None = None) -> Path:
        """Make a user and his home, with mode 0700; the home. `options` are useradd's."""
        number = [] if uid is None else ["--non-unique", "--uid", str(uid)]
        home = self.homes / name
        words = ["useradd", "--home-dir", str(home), "--no-create-home", "--shell", "/bin/sh", *number, *options, name]
        subprocess.run(self.within(*words), check=True, timeout=60)
        home.mkdir(mode=0o700)
        os.chown(home, *self.ids(name))
        return home

    def ids(self, name: str) -> tuple[int, int]:
        """uid and gid."""
        lines = (self.place / "etc" / "passwd").read_text().splitlines()
        entry = next(line for line in lines if line.startswith(f"{name}:"))
        return int(entry.split(":")[2]), int(entry.split(":")[3])

    def put(self, name: str, file: Path, octets: bytes, mode: int = 0o600) -> Path:
        """Write a file of one of them, with the directories above it."""
        for directory in [*reversed(file.parents), file]:
            if self.homes / name in directory.parents and not directory.exists():
                directory.mkdir(mode=0o700) if directory != file else directory.write_bytes(octets)
                os.chown(directory, *self.ids(name))
        file.write_bytes(octets)
        file.chmod(mode)
        return file


@contextmanager
def some_people(*names: str, without: Collection[str] = ()) -> Iterator[People]:
    """These users and no others of their names, made as `add` makes them; `without`: who shall not be there."""
    if os.getuid() != 0 or subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("needs root, and leave to unshare mounts")
    place = Path(tempfile.mkdtemp(prefix="pillarbox-test-"))
    place.chmod(0o755)
    copy_etc(place / "etc", without=[*names, *without])
    (place / "homes").mkdir()
    command = ["unshare", "-m", "sh", "-euc", _HOLD, "sh", str(place / "etc")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
            people = People(place, holder.pid)
            for name in names:
                people.add(name)
            yield people
        finally:
            holder.kill()
            shutil.rmtree(place)
