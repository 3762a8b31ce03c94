"""The certificates of control/tlscert, control/tlskey and tls/NAME.pem, read by the supervisor alone and handed to
the network roles as sealed memfds: they can be used there, not changed, and no path leads to the key.

The rule that must stay true: no octet of a key comes into the supervisor's own memory, which every role inherits, the
ones that run as users and the one that talks to the world too. The kernel copies, and a process that is gone when it
has said its verdict looks at them."""

from __future__ import annotations

import fcntl
import os
import ssl
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from pillarbox.net import tls
from pillarbox.roles.process import apart
from pillarbox.status import Failure

LIMIT = 1 << 20  # octets of one file
INIT_MADE = ("cert.pem", "key.pem")
AT_ONCE = 200  # certificates in one frame, which carries no more descriptors
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


class BadCertificate(Failure):
    """A certificate or key that cannot serve."""


def files(home: Path, tlscert: str, tlskey: str) -> dict[str, tuple[Path, ...]]:
    """Name ("" for the default) -> the files that make its PEM. A default that is not there is left out."""
    certificate, key = home / tlscert, home / tlskey
    found: dict[str, tuple[Path, ...]] = {}
    if certificate.exists() or key.exists():
        found[""] = (key, certificate)
    for file in sorted((home / "tls").glob("*.pem")):
        # init's pair stays there when control/tlscert comes to name another.
        if file not in (certificate, key) and file.name not in INIT_MADE:
            found[file.stem] = (file,)
    return found


def marks(home: Path, tlscert: str, tlskey: str) -> dict[Path, tuple[int, int, int]]:
    """What shows that a file was renewed: inode, size, mtime in ns."""
    seen = {}
    for several in files(home, tlscert, tlskey).values():
        for file in several:
            if file.exists():
                facts = file.stat()
                seen[file] = (facts.st_ino, facts.st_size, facts.st_mtime_ns)
    return seen


def read(home: Path, tlscert: str, tlskey: str) -> dict[str, int]:
    """Name -> sealed memfd with key and chain. Raises BadCertificate: one line with file and remedy."""
    named = files(home, tlscert, tlskey)
    certificates = {}
    with ExitStack() as opened:
        for name, several in named.items():
            certificates[name] = _sealed(several)
            opened.callback(os.close, certificates[name])
        try:
            wrong = apart(lambda: _wrong(named, certificates))
        except OSError as problem:
            wrong = f"{home / tlscert}: cannot be looked at: {problem.strerror}"
        if wrong:
            raise BadCertificate(wrong)
        opened.pop_all()
    return certificates


def _wrong(named: Mapping[str, tuple[Path, ...]], certificates: Mapping[str, int]) -> str:
    """Why one of them cannot serve; "" when all can."""
    for name, several in named.items():
        try:
            tls.contexts({"": certificates[name]})
        except ssl.SSLError as problem:
            return _line(several, problem)
        except OSError as problem:
            return f"{several[-1]}: {problem.strerror}"
    return ""


def _line(several: tuple[Path, ...], problem: ssl.SSLError) -> str:
    key, certificate = several[0], several[-1]
    if problem.reason == "KEY_VALUES_MISMATCH":
        return f"{certificate}: does not match the key in {key}: install the pair that belongs together"
    if isinstance(problem, tls.KeyEncrypted):
        return f"{key}: the key is encrypted, and nobody is here to say its passphrase: store it without one"
    # Which of these, or none, is said of a file that is no PEM differs from one OpenSSL and Python to the next.
    why = f" ({problem.reason})" if problem.reason not in (None, "PEM_LIB", "NO_START_LINE") else ""
    return f"{certificate}: no usable certificate and key{why}: install a PEM certificate and its key"


def _sealed(several: tuple[Path, ...]) -> int:
    """The files, one behind the other, in a memfd; the kernel copies."""
    with ExitStack() as opened:
        descriptor = os.memfd_create("certificate", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        opened.callback(os.close, descriptor)
        for file in several:
            try:
                with open(file, "rb", buffering=0) as source:
                    left = LIMIT
                    while left and (count := os.sendfile(descriptor, source.fileno(), None, left)):
                        left -= count
            except OSError as problem:
                why = f"{file}: {problem.strerror}: let this server read it, or make a new one"
                raise BadCertificate(why) from None
            os.write(descriptor, b"\n")
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
        opened.pop_all()
    return descriptor
