"""The part of `pillarbox check` that looks at certificates, ports and names."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pillarbox.cli import port
from pillarbox.cli.certificate import expiry
from pillarbox.cli.finding import Finding, Premises, note, ok, problem
from pillarbox.cli.home import Lock, Running
from pillarbox.cli.layout import mode
from pillarbox.cli.shell import quoted
from pillarbox.control.table import Listener, Settings
from pillarbox.net import listening
from pillarbox.roles import certificates as served

SOON = timedelta(days=14)
TIMEOUT = 5.0  # seconds for a running server to take a connection
RENEWAL = "install a new one (it is taken without a restart)"


def certificates(premises: Premises) -> Iterator[Finding]:
    """Every certificate that would be served: usable, with its key, not over."""
    files = served.files(premises.home, premises.settings.tlscert, premises.settings.tlskey)
    if "" not in files:
        yield problem(
            str(premises.home / premises.settings.tlscert), "missing, so nothing is encrypted and nobody can log in",
            f"install one, or: pillarbox init --home {quoted(premises.home)}",
        )  # fmt: skip
    try:
        for descriptor in served.read(premises.home, premises.settings.tlscert, premises.settings.tlskey).values():
            os.close(descriptor)
    except served.BadCertificate as failure:
        yield Finding("problem", failure.text)
        return
    for several in files.values():
        yield _expiry(several[-1])
        if several[0].stat().st_mode & 0o077 & ~0o040:
            wrong = f"mode {mode(several[0].stat()):04o}: others can read the key"
            yield problem(str(several[0]), wrong, f"chmod o= {quoted(several[0])}")


def _expiry(file: Path) -> Finding:
    left = expiry(file.read_bytes()) - datetime.now(UTC)
    if left < timedelta():
        return problem(str(file), f"over since {-left.days} days", RENEWAL)
    if left < SOON:
        return problem(str(file), f"ends in {left.days} days", RENEWAL)
    return ok(str(file), f"valid for {left.days} days")


def ports(premises: Premises) -> Iterator[Finding]:
    """Every line of control/listen: it answers when the server runs, and is to be had when it does not."""
    if not premises.settings.listen:
        yield problem("control/listen", "names no listener", "write a line such as: smtp 127.0.0.1:2525")
    try:
        with Lock(premises.home):
            running = False
    except Running:
        running = True
    for listener in premises.settings.listen:
        if not running:
            yield _free(listener)
        elif listener.port:
            yield _answering(listener)


def _free(listener: Listener) -> Finding:
    try:
        listening.tcp(listener.address, listener.port).close()
    except OSError as trouble:
        return problem(f"control/listen: {listener}", str(trouble.strerror), port.remedy(trouble))
    return ok(f"control/listen: {listener}", "free")


def _answering(listener: Listener) -> Finding:
    address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(listener.address, listener.address)
    try:
        socket.create_connection((address, listener.port), TIMEOUT).close()
    except OSError as trouble:
        wrong = f"does not answer: {trouble.strerror or trouble}"
        return problem(f"control/listen: {listener}", wrong, "restart the server: it listens since its start only")
    return ok(f"control/listen: {listener}", "answers")


def records(settings: Settings) -> Iterator[Finding]:
    """What the DNS should say; it is not asked."""
    me = settings.me.decode("ascii", "replace")
    taken = settings.rcpthosts
    domains = [key for key in settings.virtualdomains if b"@" not in key and key and (taken is None or key in taken)]
    yield note("DNS (not asked)", f"{me} needs an address record, and that address should point back to {me}")
    for domain in sorted(domains):
        yield note("DNS (not asked)", f"{domain.decode('ascii', 'replace')} needs: MX 10 {me}")
