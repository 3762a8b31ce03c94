"""Telling systemd how we are (sd_notify(3)): one datagram to $NOTIFY_SOCKET."""

from __future__ import annotations

import socket
import time
from collections.abc import MutableMapping
from contextlib import suppress
from dataclasses import dataclass

from pillarbox.roles.supervisor import Moment

_STATES = {
    Moment.SERVING: "READY=1",
    Moment.RELOADING: "RELOADING=1",
    Moment.RELOADED: "READY=1",
    Moment.STOPPING: "STOPPING=1",
}


@dataclass(frozen=True, slots=True)
class Notifier:
    """Whom to tell; an empty address is nobody, and nobody listening is no trouble of ours."""

    address: str

    @classmethod
    def taken(cls, environ: MutableMapping[str, str]) -> Notifier:
        """As the environment says. The variable goes: what is told of us is no business of the programs we run."""
        address = environ.pop("NOTIFY_SOCKET", "")
        return cls(address if address.startswith(("/", "@")) else "")

    def tell(self, moment: Moment) -> None:
        """One datagram."""
        state = _STATES[moment]
        if moment is Moment.RELOADING:
            state += f"\nMONOTONIC_USEC={time.monotonic_ns() // 1000}"
        if not self.address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock, suppress(OSError):
            sock.settimeout(1)
            sock.connect("\0" + self.address[1:] if self.address.startswith("@") else self.address)
            sock.send(state.encode("ascii"))
