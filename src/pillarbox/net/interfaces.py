"""The IP addresses of this machine's interfaces (getifaddrs(3))."""

from __future__ import annotations

import ctypes
import os
import socket

ANYWHERE = frozenset({"0.0.0.0", "::"})
"""Connecting to these reaches this machine too."""


class _SockAddr(ctypes.Structure):
    """Either of Linux's sockaddr_in (address at octet 4) and sockaddr_in6 (at octet 8)."""

    _fields_ = (("family", ctypes.c_ushort), ("rest", ctypes.c_ubyte * 22))


class _Interface(ctypes.Structure):
    """struct ifaddrs, as far as it is read."""


_Interface._fields_ = (
    ("next", ctypes.POINTER(_Interface)),
    ("name", ctypes.c_char_p),
    ("flags", ctypes.c_uint),
    ("address", ctypes.POINTER(_SockAddr)),
)

_libc = ctypes.CDLL(None, use_errno=True)


def own_addresses() -> frozenset[str]:
    """Every address of every interface, and those that stand for all. Raises OSError."""
    first = ctypes.POINTER(_Interface)()
    if _libc.getifaddrs(ctypes.byref(first)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    try:
        found = set(ANYWHERE)
        entry = first
        while entry:
            if entry.contents.address:
                found.update(_address(entry.contents.address.contents))
            entry = entry.contents.next
        return frozenset(found)
    finally:
        _libc.freeifaddrs(first)


def _address(found: _SockAddr) -> tuple[str, ...]:
    octets = bytes(found.rest)
    if found.family == socket.AF_INET:
        return (socket.inet_ntop(socket.AF_INET, octets[2:6]),)
    if found.family == socket.AF_INET6:
        return (socket.inet_ntop(socket.AF_INET6, octets[6:22]),)
    return ()
