"""Listening sockets."""

from __future__ import annotations

import os
import socket
from pathlib import Path

BACKLOG = 1024


def tcp(address: str, port: int) -> socket.socket:
    """A listening TCP socket on an IPv4 or IPv6 address; port 0 lets the system choose. Raises OSError."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((address, port))
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    sock.setblocking(False)
    return sock


def client(address: str) -> str:
    """The client's address as we write it: an IPv6 socket that takes IPv4 too calls 192.0.2.1 ::ffff:192.0.2.1."""
    return address[7:] if address.startswith("::ffff:") and "." in address else address


def unix(path: Path, mode: int) -> socket.socket:
    """A listening Unix socket in place of whatever was left at `path`. It is bound relative to its directory, because
    the kernel takes only 108 bytes. Raises OSError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.chdir(path.parent)
        path.unlink(missing_ok=True)
        mask = os.umask(0o777 & ~mode)
        try:
            sock.bind(path.name)
        finally:
            os.umask(mask)
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    finally:
        os.fchdir(before)
        os.close(before)
    sock.setblocking(False)
    return sock
