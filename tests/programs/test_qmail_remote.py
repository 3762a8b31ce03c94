"""qmail-remote as a program: arguments, descriptors, and reports octet for octet as its callers read them."""

from __future__ import annotations

import asyncio
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import pillarbox
from tests import etc
from tests.nameserver import nameserver
from tests.programs.remotely import WIRE, bring, control, home, run
from tests.roles.hosts import good, hosts, says

__all__ = ["home"]


# row: remote-transcripts
def test_a_message_that_was_taken(home: Path) -> None:
    said: list[bytes] = []
    report = b"r\0K127.0.0.2 accepted message.\nRemote host said: 250 queued\n\0"
    assert bring(home, good(said)) == report
    assert said[:2] == [b"EHLO helo.example.org\r\n", WIRE]


# row: remote-transcripts
def test_nobody_was_taken(home: Path) -> None:
    report = b"h127.0.0.2 does not like recipient.\nRemote host said: 550 no\n\0DGiving up on 127.0.0.2.\n\0"
    assert bring(home, good([], {b"joe": b"550 no\r\n"})) == report


# row: remote-chunks
def test_each_recipient_has_his_chunk_in_order(home: Path) -> None:
    refused = {b"gone": b"550-no\r\n550 never\r\n", b"full": b"452 full\r\n"}
    report = bring(home, good([], refused), recipients=("gone@far.example", "joe@far.example", "full@far.example"))
    assert report.split(b"\0")[:-1] == [
        b"h127.0.0.2 does not like recipient.\nRemote host said: 550-no\n550 never\n",
        b"r",
        b"s127.0.0.2 does not like recipient.\nRemote host said: 452 full\n",
        b"K127.0.0.2 accepted message.\nRemote host said: 250 queued\n",
    ]


def test_a_host_that_fails_ahead_of_the_recipients_names_none_of_them(home: Path) -> None:
    report = b"ZConnected to 127.0.0.2 but greeting failed.\nRemote host said: 554 go away\n\0"
    assert bring(home, says(b"554 go away\r\n")) == report
    assert bring(home, None) == b"ZSorry, I wasn't able to establish an SMTP connection. (#4.4.1)\n\0"


def test_the_message_may_come_through_a_pipe(home: Path) -> None:
    said: list[bytes] = []

    async def brought() -> bytes:
        async with hosts(good(said)) as (port, _names):
            control(home, smtproutes=f":127.0.0.2:{port}\n")
            return await run(home, "far.example", "", "joe@far.example", piped=True)

    assert asyncio.run(brought()).startswith(b"r\0K") and said[1] == WIRE


def test_a_message_out_of_a_pipe_needs_no_more_than_some_folder(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/proc")  # no file can be made there; tempfile knows other places
    test_the_message_may_come_through_a_pipe(home)


# row: remote-arguments
@pytest.mark.parametrize("arguments", [(), ("far.example",), ("far.example", "me@example.org")])
def test_too_few_arguments(home: Path, arguments: tuple[str, ...]) -> None:
    assert asyncio.run(run(home, *arguments)) == b"DI (qmail-remote) was invoked improperly. (#5.3.5)\n\0"


# row: remote-partial-line
def test_a_message_whose_last_line_has_no_end(home: Path) -> None:
    report = asyncio.run(run(home, "far.example", "", "joe@far.example", message=b"Subject: x\n\nhalf"))
    assert report == b"DSMTP cannot transfer messages with partial final lines. (#5.6.2)\n\0"


def test_no_home_and_no_control_files(home: Path) -> None:
    assert asyncio.run(run(home / "control", "far.example", "", "joe@far.example")).startswith(b"ZUnable to switch to")
    control(home, me="\n", helohost="\n")
    report = asyncio.run(run(home, "far.example", "", "joe@far.example"))
    assert report == b"ZUnable to read control files. (#4.3.0)\n\0"


# row: remote-texts
@pytest.mark.parametrize("file", ["smtproutes", "timeoutremote", "helohost"])
def test_a_control_file_that_cannot_be_read_sends_nothing_another_way(home: Path, file: str) -> None:
    (home / "control" / file).unlink(missing_ok=True)
    (home / "control" / file).mkdir()
    report = asyncio.run(run(home, "127.0.0.9", "", "joe@far.example"))
    assert report == b"ZUnable to read control files. (#4.3.0)\n\0"


# row: remote-readable
@pytest.mark.skipif(os.getuid() != 0, reason="needs root")
@pytest.mark.parametrize(
    ("group", "report"),
    [
        (60701, b"ZSorry, I wasn't able to establish an SMTP connection. (#4.4.1)\n\0"),
        (60702, b"ZUnable to read control files. (#4.3.0)\n\0"),
    ],
)
def test_routes_with_passwords_need_be_readable_for_qmail_remotes_group_alone(group: int, report: bytes) -> None:
    python, source = etc.everybody(), str(Path(pillarbox.__file__).parent.parent)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        (directory / "control").mkdir()
        control(directory, me="mx.example.org\n", smtproutes=":127.0.0.9:1 foo bar\n")
        os.chown(directory / "control" / "smtproutes", 0, 60701)
        (directory / "control" / "smtproutes").chmod(0o640)
        done = subprocess.run(
            [python, "-m", "pillarbox", "run", "qmail-remote", "far.example", "a", "b"], stdin=subprocess.DEVNULL,
            capture_output=True, timeout=60, cwd="/", user=60703, group=group, extra_groups=(),
            env={"PATH": os.defpath, "PILLARBOX_HOME": name, "PYTHONPATH": source},
        )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, report, b"")


# row: remote-texts
def test_a_message_that_cannot_be_read(home: Path) -> None:
    environment = {**os.environ, "PILLARBOX_HOME": str(home), "PYTHONPATH": str(Path(pillarbox.__file__).parent.parent)}
    command = f"exec {shlex.quote(sys.executable)} -m pillarbox run qmail-remote far.example a b <&-"
    done = subprocess.run(["sh", "-c", command], capture_output=True, env=environment, timeout=60)
    assert (done.returncode, done.stdout) == (0, b"ZUnable to read message. (#4.3.0)\n\0")


def test_a_route_with_a_login_and_no_relay(home: Path) -> None:
    control(home, smtproutes=":127.0.0.2\n.example: joe secret\n")
    report = asyncio.run(run(home, "far.example", "", "joe@far.example"))
    assert report.startswith(b"Zcontrol/smtproutes: the line '.example:' has a login") and b"secret" not in report


def test_a_host_that_dns_does_not_know(home: Path) -> None:
    with nameserver("null.example. MX 0 .\n") as port:
        control(home, resolvers=f"127.0.0.1:{port}\n")
        report = asyncio.run(run(home, "gone.example", "", "joe@gone.example"))
        assert report == b"DSorry, I couldn't find any host named gone.example. (#5.1.2)\n\0"
        report = asyncio.run(run(home, "NULL.example", "", "joe@null.example"))
        assert report == b"DSorry, that domain says that it takes no mail. (#5.1.10)\n\0"
