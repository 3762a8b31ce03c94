"""qmail-popup with programs behind the login that tell what they were given."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import pillarbox
from pillarbox.auth.checkpassword import CannotStart
from pillarbox.credentials import Password
from pillarbox.programs import qmail_popup
from pillarbox.sessions.effects import HandOver
from pillarbox.status import Refusal
from tests.programs.calling import Ended

HOST = "mx.example.org"
LOGIN = b"USER joe\r\nPASS secret\r\n"
SOURCE = str(Path(pillarbox.__file__).parent.parent)
# Everything that it was given, in files; then it ends as its argument says.
TELLER = """
import os, signal, sys
said = os.read(3, 1 << 16)
assert not os.read(3, 1)
open("said", "wb").write(said)
open("environment", "wb").write(open("/proc/self/environ", "rb").read() + open("/proc/self/cmdline", "rb").read())
open("above", "wb").write(open(f"/proc/{os.getppid()}/environ", "rb").read())
open("above", "ab").write(open(f"/proc/{os.getppid()}/cmdline", "rb").read())
os.write(2, b"for the log\\n")
how = sys.argv[1]
if how.startswith("-"):
    os.kill(os.getpid(), -int(how))
os.write(1, b"served\\r\\n" if how == "0" else b"")
sys.exit(int(how))
"""


@pytest.fixture
def teller(tmp_path: Path) -> list[str]:
    """The words of that program."""
    (tmp_path / "teller").write_text(TELLER)
    return [sys.executable, "-I", str(tmp_path / "teller")]


def popup(directory: Path, *words: str, say: bytes = LOGIN, wrapped: tuple[str, ...] = (), **how: Any) -> Ended:
    """Run it; `wrapped`: words ahead of it."""
    environment = {"PATH": os.defpath, "PYTHONPATH": SOURCE, "LC_ALL": "C.UTF-8"}
    command = [*wrapped, sys.executable, "-W", "error", "-m", "pillarbox", "run", "qmail-popup", *words]
    done = subprocess.run(command, input=say, capture_output=True, env=environment, cwd=directory, timeout=60, **how)
    return Ended(done.returncode, done.stdout, done.stderr.decode())


def stamp(output: bytes) -> bytes:
    """The greeting's timestamp."""
    found = re.match(rb"\+OK (<[0-9]+\.[0-9]+@mx\.example\.org>)\r\n", output)
    assert found is not None, output
    return found[1]


# row: popup-greeting
def test_the_greeting_has_process_time_and_host(tmp_path: Path, teller: list[str]) -> None:
    before = int(time.time())
    ended = popup(tmp_path, HOST, *teller, "0", say=b"QUIT\r\n")
    process, at = stamp(ended.output)[1:].partition(b"@")[0].split(b".")
    assert before <= int(at) <= time.time() and int(process) > 1
    assert ended.output.endswith(b"\r\n+OK \r\n") and ended.errors == ""


# row: popup-fd3
def test_the_program_hears_name_password_and_the_greetings_stamp(tmp_path: Path, teller: list[str]) -> None:
    ended = popup(tmp_path, HOST, *teller, "0", say=b"user  joe@example.org\r\nPASS  two  words \r\n")
    assert (tmp_path / "said").read_bytes() == b"joe@example.org\0two  words \0" + stamp(ended.output) + b"\0"


# row: popup-fd3, popup-apop
@pytest.mark.parametrize("digest", [b"c4c9334bac560ecc979e58001b3e22fb", b"anything at all"])
def test_of_apop_the_digest_is_the_second_field(tmp_path: Path, teller: list[str], digest: bytes) -> None:
    ended = popup(tmp_path, HOST, *teller, "0", say=b"APOP joe %s\r\n" % digest)
    assert (tmp_path / "said").read_bytes() == b"joe\0" + digest + b"\0" + stamp(ended.output) + b"\0"


# row: popup-child
def test_the_program_has_the_connection_and_leads_the_session(tmp_path: Path, teller: list[str]) -> None:
    ended = popup(tmp_path, HOST, *teller, "0")
    assert ended.output.endswith(b"+OK \r\nserved\r\n")


# row: popup-early
def test_what_comes_right_behind_the_password_is_the_programs(tmp_path: Path) -> None:
    """A client may say all that it has to say in one write."""
    ended = popup(tmp_path, HOST, "/bin/cat", say=LOGIN + b"STAT\r\nQUIT\r\n")
    assert ended.output.endswith(b">\r\n+OK \r\nSTAT\r\nQUIT\r\n")


def test_the_program_has_descriptor_3_and_nothing_else_that_was_open(tmp_path: Path) -> None:
    """A program that is not ours shall not find what tcpserver had open; a 3 that was open is in nobody's way."""
    (tmp_path / "open").write_text("not for the checker\n")
    wrapped = ("/bin/sh", "-c", f'exec "$@" 3<{tmp_path}/open 5<{tmp_path}/open 7<{tmp_path}/open', "sh")
    ended = popup(tmp_path, HOST, "/bin/sh", "-c", "tr '\\0' ' ' <&3; ls -1 /proc/self/fd", wrapped=wrapped)
    said, listed = ended.output.removeprefix(b"+OK " + stamp(ended.output) + b"\r\n+OK \r\n").split(b"> ")
    assert said == b"joe secret " + stamp(ended.output)[:-1]
    assert listed in (b"0\n1\n2\n3\n4\n", b"0\n1\n2\n3\n")  # the listing's own, and ours


def test_the_password_stands_nowhere_else(tmp_path: Path, teller: list[str]) -> None:
    ended = popup(tmp_path, HOST, *teller, "1", say=b"USER joe\r\nPASS Tr0ub4dor\r\n")
    assert b"Tr0ub4dor" in (tmp_path / "said").read_bytes()
    for place in ("environment", "above"):
        assert b"teller" in (tmp_path / place).read_bytes()
        assert b"Tr0ub4dor" not in (tmp_path / place).read_bytes()
    assert b"Tr0ub4dor" not in ended.output and "Tr0ub4dor" not in ended.errors


def test_the_program_finds_signals_as_it_expects_them(tmp_path: Path) -> None:
    """Python ignores SIGPIPE; what comes behind the login must end by it."""
    ended = popup(tmp_path, HOST, "grep", "SigIgn", "/proc/self/status")
    ignored = int(ended.output.split()[-1], 16)
    assert ignored & (1 << (signal.SIGPIPE - 1)) == 0


# row: popup-failed
@pytest.mark.parametrize("status", ["1", "2", "100", "111", "255"])
def test_whatever_else_the_program_ends_with_the_login_failed(tmp_path: Path, teller: list[str], status: str) -> None:
    ended = popup(tmp_path, HOST, *teller, status, say=LOGIN + b"USER joe\r\nPASS again\r\n")
    assert ended.output.endswith(b"\r\n+OK \r\n-ERR authorization failed\r\n")
    assert ended.status == 1


# row: popup-crashed
@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL, signal.SIGTERM])
def test_a_program_that_is_killed_has_crashed(tmp_path: Path, teller: list[str], number: signal.Signals) -> None:
    ended = popup(tmp_path, HOST, *teller, f"-{int(number)}")
    assert ended.output.endswith(b"\r\n+OK \r\n-ERR aack, child crashed\r\n")
    assert ended.status == 1


# row: popup-usage
@pytest.mark.parametrize("words", [(), (HOST,)])
def test_without_arguments_it_says_how_it_is_called(tmp_path: Path, words: tuple[str, ...]) -> None:
    ended = popup(tmp_path, *words)
    assert ended == Ended(1, b"-ERR usage: popup hostname subprogram\r\n", "")


# row: popup-exit
@pytest.mark.parametrize("say", [b"", b"QUIT\r\n", b"USER jo", LOGIN])
def test_it_always_ends_with_1(tmp_path: Path, teller: list[str], say: bytes) -> None:
    ended = popup(tmp_path, HOST, *teller, "0", say=say)
    assert ended.status == 1
    assert ended.errors == ("for the log\n" if say == LOGIN else "")


# row: popup-stderr
def test_standard_error_of_the_program_is_the_logs_and_not_the_clients(tmp_path: Path, teller: list[str]) -> None:
    ended = popup(tmp_path, HOST, *teller, "1")
    assert ended.errors == "for the log\n"
    assert b"log" not in ended.output


@pytest.mark.parametrize("missing", ["/nowhere/checkpassword", "no-such-program", "", "/etc", "/etc/passwd"])
def test_a_program_that_cannot_be_run_lets_nobody_in_and_the_log_says_why(tmp_path: Path, missing: str) -> None:
    ended = popup(tmp_path, HOST, missing, "qmail-pop3d", "Maildir")
    assert ended.output.endswith(b"\r\n+OK \r\n-ERR authorization failed\r\n")
    assert ended.errors.startswith(f"qmail-popup: fatal: unable to run {missing}: ") and ended.errors.count("\n") == 1


@pytest.mark.parametrize(("surplus", "asked"), [(0, True), (1, False)])
def test_a_program_is_told_no_more_than_512_octets(
    tmp_path: Path, teller: list[str], surplus: int, asked: bool
) -> None:
    ours, theirs = socket.socketpair()
    ours.settimeout(30)
    with ours, theirs, subprocess.Popen(
        [sys.executable, "-m", "pillarbox", "run", "qmail-popup", HOST, *teller, "0"],
        stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=subprocess.DEVNULL, cwd=tmp_path,
        env={"PATH": os.defpath, "PYTHONPATH": SOURCE},
    ) as process:  # fmt: skip
        stream = ours.makefile("rb")
        room = 512 - len(b"joe\0" + b"\0" + stamp(stream.readline()) + b"\0") + surplus
        ours.sendall(b"USER joe\r\nPASS " + b"p" * room + b"\r\n")
        assert stream.readline() == b"+OK \r\n"
        assert stream.readline() == (b"served\r\n" if asked else b"-ERR authorization failed\r\n")
        assert process.wait(30) == 1
        stream.close()
    assert (tmp_path / "said").exists() == asked


# row: popup-exit
def test_a_client_that_says_nothing_is_left_without_a_word(tmp_path: Path) -> None:
    ended = silent(tmp_path, b"")
    assert ended.status == 1 and ended.errors == ""
    assert ended.output.count(b"\n") == 1


def silent(directory: Path, say: bytes) -> Ended:
    """With a fifth of a second of patience, and a client that says this and no more, but stays."""
    program = (
        "import sys; from pillarbox.programs import qmail_popup; qmail_popup.PATIENCE = 0.2;"
        f"sys.exit(qmail_popup.main([{HOST!r}, 'false']))"
    )
    reading, writing = os.pipe()
    os.write(writing, say)
    try:
        done = subprocess.run(
            [sys.executable, "-c", program], stdin=reading, capture_output=True, cwd=directory, timeout=60,
            env={"PATH": os.defpath, "PYTHONPATH": SOURCE},
        )  # fmt: skip
    finally:
        os.close(reading)
        os.close(writing)
    return Ended(done.returncode, done.stdout, done.stderr.decode())


def test_a_client_that_is_gone_ends_it_without_a_word(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pillarbox", "run", "qmail-popup", HOST, "false"],
            input=LOGIN, stdout=writing, stderr=subprocess.PIPE, cwd=tmp_path, timeout=60,
            env={"PATH": os.defpath, "PYTHONPATH": SOURCE},
        )  # fmt: skip
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")


# Programs that do not end, and none at all


def asked(*argv: bytes) -> Refusal | None:
    """What becomes of joe's login."""
    program = qmail_popup.Program(argv, b"<1.2@mx.example.org>")
    return program.execute(HandOver(Password(b"joe", b"secret")))


def test_a_program_that_never_ends_is_ended(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(qmail_popup, "TOTAL", 0.3)
    file = tmp_path / "pid"
    assert asked(b"/bin/sh", b"-c", b"echo $$ >" + bytes(file) + b"; exec sleep 600") is None
    assert capfd.readouterr().err == "qmail-popup: fatal: /bin/sh took more than 0.3 seconds\n"
    with pytest.raises(ProcessLookupError):
        os.kill(int(file.read_text()), 0)


@pytest.mark.parametrize(("pipe", "words"), [(True, "unable to open pipe"), (False, "unable to fork")])
def test_without_a_pipe_or_a_process_the_client_hears_so(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], pipe: bool, words: str
) -> None:
    def failing(*_given: object, **_how: object) -> None:
        raise CannotStart("cannot start a process: Resource temporarily unavailable", pipe=pipe)

    monkeypatch.setattr(qmail_popup, "start", failing)
    refusal = asked(b"true")
    assert refusal is not None and refusal.text == words and not refusal.permanent
    assert capfd.readouterr().err.count("\n") == 1
