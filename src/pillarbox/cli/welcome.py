"""What `serve` prints when it has started: what runs, how to log in, and command lines that send and fetch a mail.

The rule that must stay true: every command line works as printed, pasted into any shell, in any folder, again and
again, and none of them turns verification off.
"""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Sequence
from pathlib import Path

from pillarbox.cli.shell import command, quoted
from pillarbox.control.table import Listener, Settings


def welcome(
    home: Path, settings: Settings, bound: Sequence[Listener], login: bytes | str | None, password: str | None
) -> list[str]:
    """Lines of text. `bound`: the listeners with their real ports. `login` is None when there is no account yet;
    `password` is None when it is not to be shown (every start but the first)."""
    me = settings.me.decode("ascii", "replace")
    lines = [f"Pillarbox serves {me} from {home}"]
    if login is None:
        return [*lines, f"There is no account yet: {command()} account add NAME@DOMAIN --home {quoted(home)}"]
    name = login.decode("ascii", "backslashreplace") if isinstance(login, bytes) else login
    lines += _account(home, name, password)
    trust = _Trust.of(home / settings.tlscert, me)
    user = f"{name}:{password}" if password else name
    return [*lines, *_send(bound, trust, name, user), *_fetch(bound, trust, user)]


def _account(home: Path, name: str, password: str | None) -> list[str]:
    renewal = f"{command()} account password {quoted(name)} --home {quoted(home)}"
    if password:
        return [f"login     {name}", f"password  {password}", f"The password is shown this once; a new one: {renewal}"]
    return [f"login     {name}", f"A new password: {renewal}"]


class _Trust:
    """How a client can verify us: by our own certificate at an address it holds, or by a bought one under our name."""

    def __init__(self, certificate: Path | None, host: str) -> None:
        self.options = f" --cacert {quoted(certificate)}" if certificate else ""
        self._own = certificate is not None
        self._host = host

    @classmethod
    def of(cls, certificate: Path, me: str) -> _Trust:
        """By what is in the file: a certificate that is its own authority and holds localhost is ours."""
        try:
            authority = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            authority.load_verify_locations(certificate)
            held = [name for one in authority.get_ca_certs() for name in one.get("subjectAltName", ())]
        except (OSError, ssl.SSLError):
            held = []
        return cls(certificate if ("DNS", "localhost") in held else None, me)

    def at(self, listener: Listener) -> tuple[str, str]:
        """(host and port for a URL, further options for curl) that reach this listener under a certified name."""
        address = ipaddress.ip_address(listener.address)
        if not self._own:
            return f"{self._host}:{listener.port}", ""
        if address.is_unspecified:
            return f"localhost:{listener.port}", ""
        if str(address) in ("127.0.0.1", "::1"):
            return (f"[{address}]" if address.version == 6 else str(address)) + f":{listener.port}", ""
        # Any other address stands in no certificate of ours; curl is told that it is localhost.
        resolved = f"[{address}]" if address.version == 6 else str(address)
        return f"localhost:{listener.port}", f" --resolve {quoted(f'localhost:{listener.port}:{resolved}')}"


def _send(bound: Sequence[Listener], trust: _Trust, name: str, user: str) -> list[str]:
    listener = _first(bound, "submission", "submissions")
    if listener is None:
        return []
    at, resolve = trust.at(listener)
    scheme = "smtps" if listener.service == "submissions" else "smtp"
    address = quoted(name)
    fields = [f"From: <{name}>", f"To: <{name}>", "Subject: Hello"]
    headers = "".join(f" -H {quoted(field)}" for field in fields)
    # -F makes curl write the message with CRLF line ends, which --upload-file does not.
    return [
        "Send a mail:",
        f"  curl --ssl-reqd{trust.options}{resolve} --user {quoted(user)} --mail-from {address} --mail-rcpt {address}"
        f"{headers} -F {quoted('=Hello from Pillarbox')} {quoted(f'{scheme}://{at}')}",
    ]


def _fetch(bound: Sequence[Listener], trust: _Trust, user: str) -> list[str]:
    listener = _first(bound, "pop3s", "pop3")
    if listener is None:
        return []
    at, resolve = trust.at(listener)
    reach = f"curl --ssl-reqd{trust.options}{resolve} --user {quoted(user)}"
    return ["Read it:", f"  {reach} {quoted(f'{listener.service}://{at}/1')}"]


def _first(bound: Sequence[Listener], *services: str) -> Listener | None:
    found = (listener for service in services for listener in bound if listener.service == service)
    return next(found, None)
