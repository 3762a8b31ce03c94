"""Is it another program that queues mail here? $QMAILQUEUE says so; or the home is one of a C qmail, in which single
programs of ours have taken the places of its own, and mail has to reach the qmail-send that runs there.

The rule that must stay true: mail goes to a queue that somebody works on. Where both could, qmail-send decides if it
runs. Most who ask may not look into its queue: that the kernel keeps them out says nothing about who runs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

LAUNCHER: Final = b"Put here by pillarbox install"  # stands in each launcher of ours, and in no other program
SOCKET: Final = "run/inject"
_HEAD: Final = 4096  # octets of a launcher in which that stands, or of a process's status
_PATIENCE: Final = 5.0  # seconds that our server may take to let us in


def program(home: str, environ: Mapping[bytes, bytes]) -> bytes | None:
    """The program that takes the message, by its path; None: the server of `home`. It is $QMAILQUEUE, else HOME's own
    bin/qmail-queue if that is not ours, and qmail-send runs there or our server never did. It alone makes run/inject;
    run/ may be there for others, such as the checker."""
    named = environ.get(b"QMAILQUEUE")
    if named:
        return named
    own = f"{home}/bin/qmail-queue"
    if not os.access(own, os.X_OK) or _is_ours(own):
        return None
    if not os.path.lexists(f"{home}/{SOCKET}"):
        return os.fsencode(own)
    runs = _qmail_send_runs(home)
    if runs is None:
        runs = not _our_server_answers(home)
    return os.fsencode(own) if runs else None


def _is_ours(file: str) -> bool:
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False  # ours can be read by everybody; qmail's, mode 4711, can not
    try:
        return LAUNCHER in os.read(descriptor, _HEAD)
    finally:
        os.close(descriptor)


def _qmail_send_runs(home: str) -> bool | None:
    """As qmail-queue finds it to wake it up: it has the reading end of lock/trigger open. Who may not go there looks
    for its process. None: that cannot be seen either."""
    try:
        os.close(os.open(f"{home}/queue/lock/trigger", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    except PermissionError:
        return _process_of(home)
    except OSError:
        return False
    return True


def _process_of(home: str) -> bool | None:
    """Is there a qmail-send in the group that may enter the queue? A name alone anybody can give a process. None: we
    see nobody's processes but our own (proc(5), hidepid; a container)."""
    try:
        group = b"%d" % os.stat(f"{home}/queue").st_gid
        processes = [process for process in os.listdir("/proc") if process.isdigit()]
    except OSError:
        return None
    others = False
    for name, uid, gid in map(_facts, processes):
        if name == b"qmail-send" and gid == group:
            return True
        others = others or uid not in (b"", b"%d" % os.getuid())
    return False if others else None


def _facts(process: str) -> tuple[bytes, bytes, bytes]:
    """Name, effective uid and gid; empty when it has ended, or is not shown. The status is readable to everybody, as
    nothing else is of a program with mode 0711."""
    try:
        descriptor = os.open(f"/proc/{process}/status", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b"", b"", b""
    try:
        lines = dict(line.partition(b":\t")[::2] for line in os.read(descriptor, _HEAD).splitlines())
    except OSError:
        return b"", b"", b""
    finally:
        os.close(descriptor)
    return lines[b"Name"], lines[b"Uid"].split()[1], lines[b"Gid"].split()[1]


def _our_server_answers(home: str) -> bool:
    import socket

    from pillarbox.net import unix

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(_PATIENCE)
        try:
            unix.connect(sock, f"{home}/{SOCKET}")
        except TimeoutError:
            return True  # it has no time for us just now
        except OSError:
            return False
    return True
