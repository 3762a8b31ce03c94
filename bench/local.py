"""How fast mail reaches system users, each delivery as its own user: from the first message in to the last in new/.

200 users, one recipient a message, the users in turn; messages by ten clients at once, each on one connection.
"""

from __future__ import annotations

import os
import smtplib
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import population, postfix, server
from bench.machine import until
from bench.relay import CLIENTS, OCTETS, PATIENCE, Through

USERS, MESSAGES = 200, 2000
HOST = "users.example.test"
CONTENT = b"Subject: bench\r\n\r\n" + (b"x" * 78 + b"\r\n") * (OCTETS // 80)


@dataclass(frozen=True, slots=True)
class _Way:
    name: str
    port: int
    maildir: str


@contextmanager
def _ways(home: Path, prefix: Path | None) -> Iterator[list[_Way]]:
    with ExitStack() as stack:
        ways = []
        if prefix is not None:
            stack.enter_context(postfix.users())
            settings = {"mydestination": HOST, "home_mailbox": "Maildir.postfix/", "mailbox_command": ""}
            port, _pid = stack.enter_context(postfix.running(prefix, home / "local-postfix", [], settings))
            ways.append(_Way("Postfix", port, "Maildir.postfix"))
        control = {"locals": f"{HOST}\n", "rcpthosts": f"{HOST}\n", "defaultdelivery": "./Maildir.pillarbox/\n"}
        serving = stack.enter_context(server.running(home / "local-pillarbox", ["joe"], control))
        ways.append(_Way("Pillarbox", serving.ports["smtp"], "Maildir.pillarbox"))
        yield ways


def _send(port: int, recipients: list[str], troubles: list[BaseException]) -> None:
    try:
        with smtplib.SMTP("127.0.0.1", port, "client.example.test") as client:
            for recipient in recipients:
                client.sendmail("a@sender.test", recipient, CONTENT)
    except (OSError, smtplib.SMTPException) as trouble:
        troubles.append(trouble)


def _arrived(homes: dict[str, Path], maildir: str) -> int:
    return sum(len(os.listdir(home / maildir / "new")) for home in homes.values())


def _pass(way: _Way, homes: dict[str, Path], messages: int) -> tuple[float, float]:
    """Seconds until the last message was in its Maildir, and until the last was accepted."""
    names = list(homes)
    recipients = [f"{names[at % len(names)]}@{HOST}" for at in range(messages)]
    before = _arrived(homes, way.maildir)
    troubles: list[BaseException] = []
    start = time.monotonic()
    clients = [
        threading.Thread(target=_send, args=(way.port, recipients[at::CLIENTS], troubles)) for at in range(CLIENTS)
    ]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    if troubles:
        raise SystemExit(f"bench: {way.name}: {troubles[0]}")
    accepted = time.monotonic() - start
    everything = f"{messages} messages of {way.name} in {len(homes)} Maildirs"
    there = until(lambda: _arrived(homes, way.maildir) >= before + messages, PATIENCE, everything)
    return there - start, accepted


def measure(
    home: Path, passes: int, prefix: Path | None, users: int = USERS, messages: int = MESSAGES
) -> list[Through]:
    """Both servers, `passes` times in turn; needs root, and gives this process an /etc of its own."""
    names = [f"bench{number:03}" for number in range(USERS)]
    homes = population.settle(home / "population", names, ("Maildir.postfix", "Maildir.pillarbox"))
    with _ways(home, prefix) as ways:
        results: dict[str, list[tuple[float, float]]] = {way.name: [] for way in ways}
        for _ in range(passes):
            for way in ways:
                results[way.name].append(_pass(way, homes, messages))
    return [
        Through(name, tuple(messages / there for there, _in in found), tuple(messages / into for _there, into in found))
        for name, found in results.items()
    ]
