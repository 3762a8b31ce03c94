"""A real name server on loopback for a test: Debian's nsd, with a root zone of the test's own.

What the zone does not name does not exist. Names below `broken.` are a zone that cannot be loaded: SERVFAIL.
"""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.peers import peer
from tests.server import until, unused_port

_HEAD = """$ORIGIN .
$TTL 60
@ SOA ns.test. root.test. 1 60 60 60 60
@ NS ns.test.
ns.test. A 127.0.0.1
"""
_CONFIGURATION = """server:
  ip-address: 127.0.0.1
  port: {port}
  username: ""
  zonesdir: "{directory}"
  database: ""
  pidfile: "{directory}/pid"
  xfrdfile: "{directory}/xfrd"
  xfrdir: "{directory}"
  zonelistfile: "{directory}/zonelist"
  logfile: "{directory}/log"
  server-count: 1
remote-control:
  control-enable: no
zone:
  name: "."
  zonefile: "root.zone"
zone:
  name: "broken"
  zonefile: "missing.zone"
"""


@contextmanager
def nameserver(records: str) -> Iterator[int]:
    """Serve these records (lines of a zone file, absolute names); gives the port on 127.0.0.1."""
    program = peer("nsd")
    port = _free_port()
    with tempfile.TemporaryDirectory(prefix="pillarbox-dns-") as name:
        directory = Path(name)
        configuration = configured(directory, records, port)
        serving = subprocess.Popen([program, "-d", "-c", configuration], stderr=subprocess.DEVNULL)
        try:
            until(lambda: serving.poll() is not None or _answers(port), "the name server's first answer")
            assert serving.poll() is None, (directory / "log").read_text()
            yield port
        finally:
            serving.terminate()
            serving.wait(30)


def configured(directory: Path, records: str, port: int) -> Path:
    """nsd's configuration, in an empty directory."""
    (directory / "root.zone").write_text(_HEAD + records)
    file = directory / "nsd.conf"
    file.write_text(_CONFIGURATION.format(port=port, directory=directory))
    return file


def _free_port() -> int:
    """One that nobody has for TCP or UDP just now."""
    while True:
        port = unused_port()
        with suppress(OSError), socket.socket(type=socket.SOCK_DGRAM) as datagram:
            datagram.bind(("127.0.0.1", port))
            return port


def _answers(port: int) -> bool:
    """It answers for the root zone's own name."""
    question = os.urandom(2) + b"\1\0\0\1\0\0\0\0\0\0" + b"\0\0\6\0\1"
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.settimeout(0.2)
        try:
            sock.sendto(question, ("127.0.0.1", port))
            return sock.recv(512)[3] & 15 == 0
        except OSError:
            return False
