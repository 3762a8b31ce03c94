"""Who queues what qmail-smtpd takes: $QMAILQUEUE and its exit statuses, a C qmail's qmail-queue, our own server."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pillarbox.envelope import Envelope
from pillarbox.programs import elsewhere
from tests.programs.calling import call
from tests.programs.smtpd import PROGRAM, Home, connect
from tests.server import a_home as served

SAY = b"MAIL FROM:<a@b.example>\r\nRCPT TO:<joe@example.org>\r\nDATA\r\nSubject: x\r\n\r\nhi\r\n.\r\nQUIT\r\n"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def answer(home: Home, script: str) -> bytes:
    """What the client hears of its message when this shell script is qmail-queue."""
    queue = home.program("other-queue", f"#!/bin/sh\n{script}\n")
    said = call(home.home, "qmail-smtpd", say=SAY, environ=home.environ(QMAILQUEUE=str(queue)))
    assert (said.status, said.errors) == (0, "")
    return said.output.split(b"354 go ahead\r\n")[1].removesuffix(b"221 mx.example.org\r\n")


# The interpreter, with nowhere to put a temporary file.
WITHOUT_ROOM = """
import errno, sys, tempfile
from pillarbox.programs import qmail_smtpd
def full():
    raise OSError(errno.ENOSPC, "full")
tempfile.TemporaryFile = full
sys.exit(qmail_smtpd.main([]))
"""
READ = "cat >/dev/null; cat <&1 >/dev/null;"


# row: smtpd-qmail-queue-codes
@pytest.mark.parametrize(
    ("status", "said"),
    [
        (11, b"554 envelope address too long for qq (#5.1.3)"),
        (115, b"554 envelope address too long for qq (#5.1.3)"),
        (31, b"554 mail server permanently rejected message (#5.3.0)"),
        (51, b"451 qq out of memory (#4.3.0)"),
        (52, b"451 qq timeout (#4.3.0)"),
        (53, b"451 qq write error or disk full (#4.3.0)"),
        (54, b"451 qq read error (#4.3.0)"),
        (55, b"451 qq unable to read configuration (#4.3.0)"),
        (56, b"451 qq trouble making network connection (#4.3.0)"),
        (61, b"451 qq trouble in home directory (#4.3.0)"),
        (62, b"451 qq trouble creating files in queue (#4.3.0)"),
        (66, b"451 qq trouble creating files in queue (#4.3.0)"),
        (71, b"451 mail server temporarily rejected message (#4.3.0)"),
        (72, b"451 connection to mail server timed out (#4.4.1)"),
        (73, b"451 connection to mail server rejected (#4.4.1)"),
        (74, b"451 communication with mail server failed (#4.4.2)"),
        (81, b"451 qq internal bug (#4.3.0)"),
        (91, b"451 qq internal bug (#4.3.0)"),
        (120, b"451 unable to exec qq (#4.3.0)"),
        (12, b"554 qq permanent problem (#5.3.0)"),
        (40, b"554 qq permanent problem (#5.3.0)"),
        (41, b"451 qq temporary problem (#4.3.0)"),
        (1, b"451 qq temporary problem (#4.3.0)"),
        (82, b"451 qq temporary problem (#4.3.0)"),
    ],
)
def test_the_exit_status_is_told_in_qmails_words(home: Home, status: int, said: bytes) -> None:
    assert answer(home, f"{READ} exit {status}") == said + b"\r\n"


# row: smtpd-qmail-queue-codes
def test_one_that_crashes_or_takes_nothing_is_told_too(home: Home) -> None:
    assert answer(home, f"{READ} kill -9 $$") == b"451 qq crashed (#4.3.0)\r\n"
    assert answer(home, "exec <&-; exit 53") == b"451 qq write error or disk full (#4.3.0)\r\n"


# row: smtpd-qmailqueue
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("Dgo away (#5.7.1)", b"554 go away (#5.7.1)\r\n"),
        ("Znot now", b"451 not now\r\n"),
        ("Zone\\r\\n250 two\\n", b"451 one??250 two\r\n"),
        ("nonsense", b"451 qq temporary problem (#4.3.0)\r\n"),
        ("", b"451 qq temporary problem (#4.3.0)\r\n"),
    ],
)
def test_exit_code_82_has_words_of_its_own_on_descriptor_4(home: Home, words: str, said: bytes) -> None:
    assert answer(home, f"{READ} printf '{words}' >&4; exit 82") == said


def test_a_program_that_leaves_something_running_holds_nobody_up(home: Home) -> None:
    began = time.monotonic()
    assert answer(home, f"{READ} sleep 40 2>/dev/null & exit 82") == b"451 qq temporary problem (#4.3.0)\r\n"
    assert time.monotonic() - began < 30


def test_words_on_descriptor_4_count_with_82_alone(home: Home) -> None:
    assert answer(home, f"{READ} printf 'Dno' >&4; exit 71").startswith(b"451 mail server temporarily ")
    assert answer(home, f"{READ} printf 'Dno' >&4; exit 0").startswith(b"250 ok ")


# row: smtpd-354
def test_the_program_runs_before_354_is_said_and_hears_the_message_as_it_comes(home: Home) -> None:
    heard = home.place / "heard"
    queue = home.program("streams", f"#!/bin/sh\n: >{heard}\nhead -c 70000 >>{heard}\n{READ}\n")
    with home.serving(environ={"QMAILQUEUE": str(queue)}) as server, connect(server) as client:
        client.line()
        for line in (b"MAIL FROM:<>", b"RCPT TO:<joe@example.org>"):
            assert client.tell(line) == b"250 ok"
        assert client.tell(b"DATA") == b"354 go ahead"
        client.send(b"x" * 200_000)
        end = time.monotonic() + 20
        while not (heard.exists() and heard.stat().st_size == 70_000):
            assert time.monotonic() < end
            time.sleep(0.01)
        client.send(b"\r\n.\r\n")
        assert client.line().startswith(b"250 ok ")


# row: smtpd-354
def test_when_no_process_can_be_made_data_is_refused_for_now_and_mail_is_needed_again(home: Home) -> None:
    say = b"MAIL FROM:<>\r\nRCPT TO:<joe@example.org>\r\nDATA\r\nDATA\r\nQUIT\r\n"
    shell = home.program("few", '#!/bin/sh\nulimit -n 12\nexec "$@"\n')
    done = subprocess.run([shell, *PROGRAM, "qmail-smtpd"], input=say, capture_output=True, env=home.environ())
    assert done.stdout.split(b"\r\n")[3:] == [
        b"451 qqt failure (#4.3.0)", b"503 MAIL first (#5.5.1)", b"221 mx.example.org", b""
    ]  # fmt: skip
    assert done.stderr == b""


def test_a_program_that_is_not_there_is_told_at_the_end(home: Home) -> None:
    said = call(home.home, "qmail-smtpd", say=SAY, environ=home.environ(QMAILQUEUE="/nowhere/queue"))
    assert b"354 go ahead\r\n451 unable to exec qq (#4.3.0)\r\n221 " in said.output


# row: smtpd-accepted
def test_250_has_the_time_and_the_programs_process(home: Home) -> None:
    began = int(time.time())
    said = call(home.home, "qmail-smtpd", say=SAY, environ=home.environ())
    parts = re.search(rb"\r\n250 ok ([0-9]+) qp ([0-9]+)\r\n", said.output)
    assert parts is not None and began <= int(parts[1]) <= time.time()
    assert int(parts[2]) == home.messages()[0][2]


def test_a_message_that_is_refused_or_given_up_has_no_end_of_its_envelope(home: Home) -> None:
    script = f"#!/bin/sh\ncat >/dev/null; cat <&1 >>{home.asked}; echo . >>{home.asked}; exit 54\n"
    queue = home.program("keeps", script)
    home.control("databytes", "10\n")
    say = SAY.replace(b"QUIT", b"MAIL FROM:<>\r\nRCPT TO:<joe@example.org>\r\nDATA\r\nx")
    said = call(home.home, "qmail-smtpd", say=say, environ=home.environ(QMAILQUEUE=str(queue)))
    assert b"552 sorry, that message size exceeds my databytes limit (#5.3.4)\r\n" in said.output
    assert home.asked.read_bytes() == b".\n.\n"


def test_a_message_that_was_not_taken_whole_is_not_queued_whatever_the_program_says(home: Home) -> None:
    injection = elsewhere.Injection(os.fsencode(home.program("deaf", "#!/bin/sh\nexec 0<&-\nsleep 1\nexit 0\n")))
    for _ in range(20):
        injection.write(b"x" * 100_000)
    result = injection.finish(Envelope(b"", (b"joe@example.org",)))
    assert result.status == 54


# row: smtpd-qmail-queue-codes
@pytest.mark.parametrize(
    "script",
    [
        "exit 0",
        "exec <&-; exit 0",
        "cat >/dev/null; exit 0",
        "cat <&1 >/dev/null; exit 0",
        "head -c 10 >/dev/null; cat <&1 >/dev/null; exit 0",
        "cat >/dev/null; dd bs=1 count=30 <&1 >/dev/null 2>&1; exit 0",  # all but the end
    ],
)
def test_what_was_left_in_the_pipe_was_not_taken(home: Home, script: str) -> None:
    assert answer(home, script) == b"451 qq read error (#4.3.0)\r\n"


def test_what_was_taken_to_the_last_octet_is_queued(home: Home) -> None:
    assert answer(home, "cat >/dev/null; dd bs=1 count=31 <&1 >/dev/null 2>&1; exit 0").startswith(b"250 ok ")
    assert answer(home, "cat <&1 >/dev/null; cat >/dev/null; exit 0").startswith(b"250 ok ")


def test_one_that_hears_only_the_envelope_holds_nobody_up(home: Home) -> None:
    """It closes the message, of which more comes than a pipe holds, and waits for the envelope's end."""
    injection = elsewhere.Injection(os.fsencode(home.program("half", "#!/bin/sh\nexec 0<&-\ncat <&1 >&2\nexit 31\n")))
    began = time.monotonic()
    for _ in range(20):
        injection.write(b"x" * 100_000)
    assert injection.finish(Envelope(b"", (b"joe@example.org",))).status == 31
    assert time.monotonic() - began < 30


def test_the_program_finds_no_descriptor_of_ours(home: Home) -> None:
    queue = home.program("looks", f"#!/bin/sh\nls /proc/$$/fd >{home.asked}\n{READ}\n")
    with home.serving(environ={"QMAILQUEUE": str(queue)}) as server, connect(server) as client:
        client.send(SAY)
        assert b"250 ok 1" in client.rest()
    assert [number for number in home.asked.read_text().split() if int(number) < 10] == ["0", "1", "2", "4"]


def test_a_c_qmails_own_program_queues_where_nothing_else_is_said(home: Home) -> None:
    (home.home / "bin").mkdir()
    own = home.home / "bin" / "qmail-queue"
    own.write_text(home.queue.read_text())
    own.chmod(0o755)
    environ = home.environ()
    environ["QMAILQUEUE"] = ""
    assert b"\r\n250 ok " in call(home.home, "qmail-smtpd", say=SAY, environ=environ).output
    assert home.messages()[0][1] == [b"a@b.example", b"joe@example.org"]


def test_without_any_queue_a_message_is_refused_for_now(home: Home) -> None:
    environ = home.environ()
    environ["QMAILQUEUE"] = ""
    said = call(home.home, "qmail-smtpd", say=SAY, environ=environ)
    assert b"354 go ahead\r\n451 connection to mail server rejected (#4.4.1)\r\n221 " in said.output


def test_no_room_for_a_large_message_is_told_as_a_full_queue_and_the_session_goes_on(home: Home) -> None:
    large = SAY.replace(b"hi", b"x" * 300_000)
    environ = home.environ()
    environ["QMAILQUEUE"] = ""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", WITHOUT_ROOM], input=large, capture_output=True, env=environ, timeout=60
    )
    assert b"354 go ahead\r\n451 qq write error or disk full (#4.3.0)\r\n221 " in done.stdout, done


def test_our_own_server_queues_and_delivers_and_names_the_same_process() -> None:
    with served({}, ("joe@example.org",)) as server:
        server.start()
        said = call(server.home, "qmail-smtpd", say=SAY, environ={"TCPREMOTEIP": "192.0.2.7"})
        parts = re.search(rb"\r\n250 ok [0-9]+ qp ([0-9]+)\r\n", said.output)
        assert parts is not None, said
        text = server.await_delivered(b"hi\n").read_bytes()
    trace = rb"Received: \(qmail %s invoked [^\n]*\n?[^\n]*\n" % parts[1]
    assert re.search(trace + rb"Received: from unknown \(192\.0\.2\.7\)\n  by unknown with SMTP; ", text), text
