"""Connections to Unix sockets."""

from __future__ import annotations

import os
import socket

_LONGEST_PATH = 100  # octets: the kernel takes 107


def connect(sock: socket.socket, path: str) -> None:
    """Paths of any length: through a descriptor of the directory. Raises OSError."""
    if len(os.fsencode(path)) <= _LONGEST_PATH:
        sock.connect(path)
        return
    directory, name = os.path.split(path)
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sock.connect(f"/proc/self/fd/{descriptor}/{name}")
    finally:
        os.close(descriptor)
