"""tests/dialogues/qmail-smtpd/*.txt: conversations with qmail-smtpd, for the machine alone and for the program.

Facts: rcpthosts and badmailfrom (words; rcpthosts: none is an empty file, missing is none, else example.org),
databytes, smtpgreeting, localiphost; relayclient (empty: set to nothing), remotehost, info: of tcpserver; host: logins
are offered, and joe's password is secret. We are mx.example.org, the client is 192.0.2.1. Happenings about the last
message: `queued SENDER RECIPIENT…` (<> for nothing, \\x20 for a blank), `content …` without any Received, `trace …`:
what stands behind `Received: ` in our field, and `nothing queued`.
"""

from __future__ import annotations

from pathlib import Path

from tests.dialogue import facts, parse

FILES = sorted((Path(__file__).parent / "dialogues" / "qmail-smtpd").glob("*.txt"))
CONTROL = ("badmailfrom", "databytes", "smtpgreeting", "localiphost")
ENVIRONMENT = {"relayclient": "RELAYCLIENT", "remotehost": "TCPREMOTEHOST", "info": "TCPREMOTEINFO"}


def stated(file: Path) -> dict[str, str]:
    """The facts of a dialogue."""
    said = facts(parse(file))
    assert said.keys() <= {"rcpthosts", "host", *CONTROL, *ENVIRONMENT}
    return said


def rcpthosts(said: dict[str, str]) -> list[str] | None:
    """The lines of control/rcpthosts."""
    words = said.get("rcpthosts", "example.org").split()
    return None if words == ["missing"] else [] if words == ["none"] else words


def relayclient(said: dict[str, str]) -> str | None:
    """The variable, None where it is not set."""
    value = said.get("relayclient")
    return "" if value == "empty" else value


def envelope(argument: str) -> list[bytes]:
    """Sender and recipients of `queued`."""
    words = [word.encode().decode("unicode_escape") for word in argument.split()]
    return [b"" if word == "<>" else word.encode("latin-1") for word in words]
