"""The first start of a server, as somebody sees who typed one command: what is printed works when it is pasted."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.peers import peer
from tests.server import Server, a_home, until


@pytest.fixture
def started() -> Iterator[Server]:
    """A home without accounts, served for the first time."""
    with a_home(accounts=()) as server:
        server.start()
        until(lambda: "Read it:" in server.output, "the welcome")
        yield server
        assert server.stop() == 0


def line_behind(title: str, server: Server) -> str:
    lines = server.output.splitlines()
    return lines[lines.index(title) + 1]


def pasted(line: str, where: Path, say: bytes = b"") -> bytes:
    """What the line prints, pasted into a shell in that folder."""
    ended = subprocess.run(["sh", "-c", line], cwd=where, input=say, capture_output=True, timeout=60)
    assert ended.returncode == 0, ended.stderr.decode()
    return ended.stdout


def test_the_printed_lines_send_and_fetch_a_mail_the_second_time_too(started: Server, tmp_path: Path) -> None:
    peer("curl")
    login = re.findall(r"^login     (\S+)$", started.output, re.MULTILINE)[0]
    local, domain = login.split("@")
    maildir = started.home / "mail" / domain / local / "Maildir"
    for times in (1, 2):
        pasted(line_behind("Send a mail:", started), tmp_path)
        until(partial(holds, maildir, times), "the mail")
        fetched = pasted(line_behind("Read it:", started), tmp_path)
        assert f"Delivered-To: {login}".encode() in fetched
        assert b"\r\nSubject: Hello\r\n" in fetched
        assert b"Hello from Pillarbox" in fetched


def holds(maildir: Path, count: int) -> bool:
    return len([*(maildir / "new").iterdir(), *(maildir / "cur").iterdir()]) == count


def test_the_printed_line_sets_a_new_password(started: Server, tmp_path: Path) -> None:
    peer("curl")
    (line,) = re.findall(r"The password is shown this once; a new one: (.*)", started.output)
    (secret,) = re.findall(r"^password  (\S+)$", started.output, re.MULTILINE)
    source = shlex.quote(str(Path(__file__).parent.parent.parent / "src"))
    pasted(f"PYTHONPATH={source} {line} --password-stdin", tmp_path, b"another one")
    send = line_behind("Send a mail:", started)
    pasted(
        send.replace(secret, "another one").replace("--user ", "--user '").replace(" --mail-from", "' --mail-from"),
        tmp_path,
    )
    with pytest.raises(AssertionError, match="denied"):
        pasted(send, tmp_path)


def test_the_second_start_shows_no_password_and_the_same_login(started: Server) -> None:
    first = started.output
    (login,) = re.findall(r"^login     (\S+)$", first, re.MULTILINE)
    assert started.stop() == 0
    started.start()
    until(lambda: "Read it:" in started.output, "the welcome")
    assert f"login     {login}\n" in started.output
    assert "password  " not in started.output
    assert started.output.count("created") == 0


def test_the_lines_that_other_programs_parse_come_before_everything_for_people(started: Server) -> None:
    lines = started.output.splitlines()
    ready = lines.index("ready")
    assert all(re.fullmatch(r"listening (smtp|submissions?|pop3s?) 127\.0\.0\.1:\d+", line) for line in lines[:ready])
    assert ready == 5
