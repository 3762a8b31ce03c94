"""Who is at the other end of descriptors 0 and 1: what tcpserver says of it in the environment (tcp-environ(5)), what
systemd says to an Accept=yes service (REMOTE_ADDR), else what the socket itself knows (inetd)."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass

UNKNOWN = b"unknown"
_MAPPED = "::ffff:"  # an IPv4 address on an IPv6 socket


@dataclass(frozen=True, slots=True)
class Client:
    """`ip`, `host` and `info` (its user, None: not known) are the client's, `local` is our name or address for it."""

    ip: bytes
    host: bytes
    info: bytes | None
    local: bytes


def find(environ: Mapping[bytes, bytes], descriptor: int = 0) -> Client:
    """What is not known is `unknown`."""
    ip = environ.get(b"TCPREMOTEIP")
    local = environ.get(b"TCPLOCALHOST", environ.get(b"TCPLOCALIP"))
    if ip is None:
        theirs, ours = _ends(descriptor)
        ip = _plain(environ.get(b"REMOTE_ADDR", theirs))
        local = ours if local is None else local
    host, info = environ.get(b"TCPREMOTEHOST", UNKNOWN), environ.get(b"TCPREMOTEINFO")
    return Client(ip, host, info, UNKNOWN if local is None else local)


def _ends(descriptor: int) -> tuple[bytes, bytes]:
    """The addresses of a connected socket; unknown where it is none, or none with addresses."""
    try:
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            return UNKNOWN, UNKNOWN
        import socket

        with socket.socket(fileno=os.dup(descriptor)) as connected:
            if connected.family not in (socket.AF_INET, socket.AF_INET6):
                return UNKNOWN, UNKNOWN
            return _plain(connected.getpeername()[0].encode()), _plain(connected.getsockname()[0].encode())
    except OSError:
        return UNKNOWN, UNKNOWN


def _plain(ip: bytes) -> bytes:
    return ip.removeprefix(_MAPPED.encode()) if b"." in ip else ip
