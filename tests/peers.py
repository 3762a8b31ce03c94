"""The real mail programs that tests talk to. Where one is missing the test is skipped and the package is named; where
CI is set that is a failure. `make test-peers` brings all of them in."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# Debian's packages, where the name is not the program's.
PACKAGES = {"getmail": "getmail6", "smtp-source": "postfix", "smtp-sink": "postfix", "setpriv": "util-linux"}
PACKAGES |= {"cdb": "tinycdb", "ip": "iproute2"}
PACKAGES |= dict.fromkeys(("supervise", "svc", "multilog"), "daemontools")
PACKAGES |= dict.fromkeys(("tcpserver", "tcprules", "tcprulescheck", "recordio", "rblsmtpd"), "ucspi-tcp")
PACKAGES |= dict.fromkeys(("runsv", "sv", "svlogd"), "runit")
PACKAGES |= dict.fromkeys(("s6-supervise", "s6-svc", "s6-log"), "s6")
PACKAGES |= {"setforward": "fastforward", "git-send-email": "git-email", "php": "php-cli"}
PACKAGES |= dict.fromkeys(("systemd-analyze", "systemd-socket-activate"), "systemd")


def unpacked() -> Path:
    """Where tools/peers puts the programs of mail servers, which are never installed."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("PILLARBOX_PEERS") or Path(cache, "pillarbox", "peers"))


def find(program: str) -> Path | None:
    """Beside our interpreter, else installed, else unpacked."""
    places = [
        str(Path(sys.executable).parent),
        os.environ.get("PATH", os.defpath),
        "/usr/sbin",
        str(unpacked() / "bin"),
    ]
    found = shutil.which(program, path=os.pathsep.join(places))
    return Path(found) if found else None


def peer(program: str) -> str:
    """The path of a program; without it the test ends here."""
    found = find(program)
    if found is not None:
        return str(found)
    missing = f"needs {program} of Debian's package {PACKAGES.get(program, program)}: make test-peers brings it in"
    if os.environ.get("CI"):
        pytest.fail(missing)
    pytest.skip(missing)


def bundle(name: str) -> Path:
    """Where a mail server is unpacked, with what belongs to it; without it the test ends here."""
    prefix = unpacked() / name
    if prefix.is_dir():
        return prefix.resolve()
    missing = f"needs {name} unpacked from Debian's package: make test-peers brings it in"
    if os.environ.get("CI"):
        pytest.fail(missing)
    pytest.skip(missing)


def run(*command: str | Path, say: bytes = b"") -> bytes:
    """Run a peer with `say` on its standard input; it must succeed. What it printed on both outputs."""
    done = subprocess.run(command, input=say, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60)
    assert done.returncode == 0, f"{command}: status {done.returncode}: {done.stdout.decode(errors='replace')}"
    return done.stdout
