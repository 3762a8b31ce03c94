"""Many system users for a measurement, in an /etc that this process and its children alone see."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

FIRST_UID = 30_000
CLONE_NEWNS = 0x00020000

_libc = ctypes.CDLL(None, use_errno=True)


def settle(directory: Path, names: list[str], maildirs: tuple[str, ...]) -> dict[str, Path]:
    """From here on these are system users, each with a home below `directory` that is closed to others and holds these
    Maildirs; name -> home. Needs root; lasts until this process ends, and leaves nothing behind but `directory`."""
    etc = directory / "etc"
    shutil.copytree("/etc", etc, symlinks=True)
    homes = {name: directory / "homes" / name for name in names}
    (directory / "homes").mkdir()
    with (etc / "passwd").open("a") as passwd, (etc / "group").open("a") as group:
        for uid, (name, home) in enumerate(homes.items(), FIRST_UID):
            passwd.write(f"{name}:x:{uid}:{uid}:bench:{home}:/bin/sh\n")
            group.write(f"{name}:x:{uid}:\n")
            for place in (home, *(home / maildir / part for maildir in maildirs for part in ("", "tmp", "new", "cur"))):
                place.mkdir(mode=0o700)
                os.chown(place, uid, uid)
    if _libc.unshare(CLONE_NEWNS) != 0:
        raise SystemExit(f"bench: no mount namespace to be had: {os.strerror(ctypes.get_errno())}")
    for command in (["--make-rprivate", "/"], ["--bind", str(etc), "/etc"]):
        subprocess.run(["mount", *command], check=True)
    return homes
