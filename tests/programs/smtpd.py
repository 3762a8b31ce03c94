"""qmail-smtpd in a home of its own, with stand-ins for what it runs: a qmail-queue that keeps what it hears, and a
checker that knows joe with the password secret."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pillarbox
from tests.server import until
from tests.tcpserver import Tcpserver, tcpserver

PATIENCE = 30.0  # seconds
PROGRAM = (sys.executable, "-W", "error", "-m", "pillarbox", "run")
SOURCE = str(Path(pillarbox.__file__).parent.parent)

QUEUE = """#!/bin/sh
place=$(mktemp -d {queued}/XXXXXX) || exit 53
cat >$place/message
cat <&1 >$place/envelope
echo $$ >$place/pid
[ "$(tail -c 2 $place/envelope | od -An -tx1)" = " 00 00" ] || exit 54
: $(( n = $(ls {queued} | grep -c ^done) ))
mv $place {queued}/done$n
"""
CHECKER = """#!/bin/sh
asked=$(tr '\\0' '|' <&3)
printf '%s\\n' "$asked" >>{asked}
[ "$asked" = 'joe|secret||' ] || exit 1
exec "$@"
"""


class Home:
    """`control` files of a qmail home, and what came of its messages."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.home, self.queued, self.asked = place / "home", place / "queued", place / "asked"
        (self.home / "control").mkdir(parents=True)
        self.queued.mkdir()
        self.queue = self.program("queue", QUEUE.format(queued=self.queued))
        self.checker = self.program("checker", CHECKER.format(asked=self.asked))
        self.control("me", "mx.example.org\n")
        self.control("rcpthosts", "example.org\n")

    def control(self, name: str, text: str | None) -> Path:
        """Write a control file, or remove it."""
        file = self.home / "control" / name
        if text is None:
            file.unlink(missing_ok=True)
        else:
            file.write_text(text)
        return file

    def program(self, name: str, text: str) -> Path:
        """A program of this text."""
        file = self.place / name
        file.write_text(text)
        file.chmod(0o755)
        return file

    def environ(self, **more: str) -> dict[str, str]:
        """What qmail-smtpd is to find in its environment."""
        given = {"PYTHONPATH": SOURCE, "PILLARBOX_HOME": str(self.home), "QMAILQUEUE": str(self.queue)}
        return given | more

    def messages(self, least: int = 1) -> list[tuple[bytes, list[bytes], int]]:
        """Of each that was queued, in order: what was said, sender and recipients, the queuing program's process."""

        def look() -> list[Path]:
            found = sorted(self.queued.glob("done*"), key=lambda path: int(path.name[4:]))
            return found if len(found) >= least else []

        return [
            (
                (place / "message").read_bytes(),
                [part[1:] for part in (place / "envelope").read_bytes().split(b"\0")[:-2]],
                int((place / "pid").read_text()),
            )
            for place in until(look, f"{least} messages in {self.queued}")
        ]

    def nothing_queued(self) -> bool:
        """Was nothing queued so far?"""
        return not list(self.queued.glob("done*"))

    @contextmanager
    def serving(
        self, *arguments: str | Path, environ: Mapping[str, str] | None = None, ahead: str = ""
    ) -> Iterator[Tcpserver]:
        """qmail-smtpd with these arguments under tcpserver, its variables set over tcpserver's. `ahead`: shell that
        runs before tcpserver, to open a descriptor, say."""
        own = [f"{name}={value}" for name, value in (environ or {}).items()]
        command = ["env", *own, *PROGRAM, "qmail-smtpd", *map(str, arguments)]
        within = ("/bin/sh", "-c", f'{ahead} exec "$@"', "sh")
        with tcpserver(self.place, *command, options=["-H"], environment=self.environ(), within=within) as server:
            yield server


def connect(server: Tcpserver) -> Client:
    """A client that has heard nothing yet."""
    return Client(server.port)


def ends(server: Tcpserver, times: int = 1) -> list[int]:
    """The exit statuses of a server's programs, once so many have ended."""

    def look() -> list[int]:
        lines = [line.split() for line in server.log().splitlines() if line.startswith("tcpserver: end ")]
        return [os.waitstatus_to_exitcode(int(words[4])) for words in lines] if len(lines) >= times else []

    return until(look, f"{times} ends of programs:\n{server.log()}")


class Client:
    """A bare connection: what is sent is exactly what goes out."""

    def __init__(self, port: int, source: str = "127.0.0.1") -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE, source_address=(source, 0))
        self._heard = b""

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, octets: bytes) -> None:
        """All of it."""
        self.socket.sendall(octets)

    def line(self) -> bytes:
        """The next line without CR LF; what there is when the other side closes."""
        while b"\r\n" not in self._heard:
            octets = self.socket.recv(1 << 16)
            if not octets:
                break
            self._heard += octets
        line, _, self._heard = self._heard.partition(b"\r\n")
        return line

    def rest(self) -> bytes:
        """Everything until the other side closes."""
        while octets := self.socket.recv(1 << 16):
            self._heard += octets
        heard, self._heard = self._heard, b""
        return heard

    def tell(self, command: bytes) -> bytes:
        """Send a line; the last line of the answer."""
        self.send(command + b"\r\n")
        while (line := self.line())[3:4] == b"-":
            pass
        return line
