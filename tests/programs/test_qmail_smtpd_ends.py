"""qmail-smtpd by itself: what it reads at its start, what it says when it cannot go on, how it ends."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from pillarbox.control import table
from pillarbox.programs import qmail_smtpd, smtpd_settings
from pillarbox.smtp.receiver import Receiver
from tests.peers import peer, run
from tests.programs.calling import Ended, call
from tests.programs.smtpd import PATIENCE, PROGRAM, Home, connect, ends
from tests.server import until, unused_port

GREETING = b"220 mx.example.org ESMTP\r\n"
UNREADABLE = b"421 unable to read controls (#4.3.0)\r\n"
TAKEN = b"MAIL FROM:<a@b.example>\r\nRCPT TO:<joe@example.org>\r\n"
REFUSED = b"553 sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)\r\n"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def smtpd(home: Home, say: bytes, *arguments: str | Path, **environ: str) -> Ended:
    """A session over pipes."""
    return call(home.home, "qmail-smtpd", *map(str, arguments), say=say, environ=home.environ(**environ))


# row: smtpd-exit
def test_it_ends_with_0_after_quit_and_with_1_and_silently_at_the_end_of_input(home: Home) -> None:
    assert smtpd(home, b"QUIT\r\n") == (0, GREETING + b"221 mx.example.org\r\n", "")
    assert smtpd(home, b"") == (1, GREETING, "")
    assert smtpd(home, b"NOOP\r\n") == (1, GREETING + b"250 ok\r\n", "")


# row: smtpd-hangup
def test_a_client_that_goes_within_a_command_or_a_message_leaves_nothing(home: Home) -> None:
    assert smtpd(home, b"QUI") == (1, GREETING, "")
    said = smtpd(home, TAKEN + b"DATA\r\nSubject: x\r\n")
    assert said == (1, GREETING + b"250 ok\r\n250 ok\r\n354 go ahead\r\n", "")
    assert home.nothing_queued()


def test_a_stray_newline_ends_it_with_1(home: Home) -> None:
    said = smtpd(home, TAKEN + b"DATA\r\nSubject: x\n")
    assert (said.status, said.errors) == (1, "")
    assert said.output.endswith(b"354 go ahead\r\n451 See http://pobox.com/~djb/docs/smtplf.html.\r\n")
    assert home.nothing_queued()


# row: smtpd-broken-pipe
def test_a_client_that_has_gone_ends_it_with_1_and_not_by_a_signal(home: Home) -> None:
    with home.serving() as server:
        with connect(server) as client:
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset, no farewell
            client.send(b"NOOP\r\n" * 20_000)
        assert ends(server) == [1]
        assert "Traceback" not in server.log()
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([*PROGRAM, "qmail-smtpd"], input=b"", stdout=writing, env=home.environ(), timeout=PATIENCE)
    os.close(writing)
    assert done.returncode == 1


# row: smtpd-timeout
def test_a_client_that_says_nothing_is_told_so(home: Home) -> None:
    home.control("timeoutsmtpd", "1\n")
    with home.serving() as server, connect(server) as client:
        assert client.line() == b"220 mx.example.org ESMTP"
        assert client.rest() == b"451 timeout (#4.4.2)\r\n"
        assert ends(server) == [1]


# row: smtpd-timeout
@pytest.mark.parametrize(("text", "seconds"), [(None, 1200), ("77\n", 77), ("0\n", 1), ("-5\n", 1200), ("9 s\n", 9)])
def test_the_time_is_a_control_file(home: Home, text: str | None, seconds: int) -> None:
    home.control("timeoutsmtpd", text)
    assert smtpd_settings.read(str(home.home), {}).timeout == seconds


# row: smtpd-controls-once
def test_control_files_are_read_once(home: Home) -> None:
    with home.serving() as server, connect(server) as client:
        assert client.line() == b"220 mx.example.org ESMTP"
        home.control("rcpthosts", "")
        home.control("smtpgreeting", "another\n")
        assert client.tell(b"HELO x") == b"250 mx.example.org"
        assert client.tell(b"MAIL FROM:<a@b.example>") == b"250 ok"
        assert client.tell(b"RCPT TO:<joe@example.org>") == b"250 ok"


# row: smtpd-controls-unreadable
@pytest.mark.parametrize(
    "name",
    ["me", "smtpgreeting", "localiphost", "timeoutsmtpd", "rcpthosts", "badmailfrom", "databytes", "morercpthosts.cdb"],
)
def test_a_control_file_that_cannot_be_read_is_said_in_the_greetings_place(home: Home, name: str) -> None:
    file = home.control(name, None)
    file.mkdir()
    said = smtpd(home, b"QUIT\r\n")
    assert (said.status, said.output) == (1, UNREADABLE)
    assert said.errors.startswith(f"qmail-smtpd: warning: control/{name}: ") and said.errors.count("\n") == 1


# row: smtpd-no-greeting-file
def test_without_me_and_smtpgreeting_nobody_is_greeted(home: Home) -> None:
    home.control("me", None)
    said = smtpd(home, b"QUIT\r\n")
    assert (said.status, said.output) == (1, UNREADABLE)
    assert said.errors.startswith("qmail-smtpd: warning: neither control/smtpgreeting nor control/me is there")
    home.control("smtpgreeting", "hello \t\nnot this\n")
    assert smtpd(home, b"QUIT\r\n") == (0, b"220 hello ESMTP\r\n221 hello\r\n", "")
    home.control("smtpgreeting", "")
    assert smtpd(home, b"QUIT\r\n") == (0, b"220  ESMTP\r\n221 \r\n", "")


def test_a_home_that_is_not_there_is_said_in_the_greetings_place(home: Home) -> None:
    said = smtpd(home, b"QUIT\r\n", PILLARBOX_HOME="/proc/none")
    assert (said.status, said.output) == (1, UNREADABLE)
    assert said.errors == "qmail-smtpd: warning: /proc/none: No such file or directory\n"


# row: smtpd-rcpthosts-missing
def test_the_log_is_told_of_an_open_relay_unless_the_client_may_relay_anyway(home: Home) -> None:
    home.control("rcpthosts", None)
    said = smtpd(home, b"QUIT\r\n")
    assert said.errors == (
        "qmail-smtpd: warning: there is no control/rcpthosts: "
        "anybody may send mail to every domain through this server\n"
    )
    assert smtpd(home, b"QUIT\r\n", RELAYCLIENT="").errors == ""


# row: smtpd-morercpthosts
def test_more_hosts_are_in_a_cdb_and_one_that_is_damaged_ends_it(home: Home) -> None:
    file = home.control("morercpthosts.cdb", "")
    run(peer("cdb"), "-c", file, say=b"+12,0:more.example->\n+13,0:.wild.example->\n\n")
    mail = b"MAIL FROM:<>\r\n"
    listed = mail + b"RCPT TO:<a@More.example>\r\nRCPT TO:<a@b.wild.example>\r\n"
    said = smtpd(home, listed + b"RCPT TO:<a@wild.example>\r\nQUIT\r\n")
    assert said.output == GREETING + b"250 ok\r\n" * 3 + REFUSED + b"221 mx.example.org\r\n"
    file.write_bytes(file.read_bytes()[:2048])  # its tables are gone
    said = smtpd(home, mail + b"RCPT TO:<joe@example.org>\r\nRCPT TO:<a@more.example>\r\nQUIT\r\n")
    assert (said.status, said.output) == (1, GREETING + b"250 ok\r\n250 ok\r\n" + UNREADABLE)


# row: smtpd-morercpthosts
def test_more_hosts_count_only_beside_rcpthosts(home: Home) -> None:
    home.control("rcpthosts", None)
    home.control("morercpthosts.cdb", "nonsense")
    said = smtpd(home, b"MAIL FROM:<>\r\nRCPT TO:<a@far.example>\r\nQUIT\r\n")
    assert said.output == GREETING + b"250 ok\r\n250 ok\r\n221 mx.example.org\r\n"


# row: smtpd-databytes-variable
@pytest.mark.parametrize(
    ("file", "variable", "octets"),
    [
        (None, None, 0), ("20\n", None, 20), ("20\n", "30", 30), ("20\n", "30x", 30), ("20\n", "x", 0), ("20\n", "", 0),
        ("20\n", "0", 0), ("x\n", None, 0), (None, "4294967295", 4294967294),
    ],
)  # fmt: skip
def test_databytes_of_the_environment_goes_before_the_files(
    home: Home, file: str | None, variable: str | None, octets: int
) -> None:
    home.control("databytes", file)
    environ = {} if variable is None else {b"DATABYTES": variable.encode()}
    assert smtpd_settings.read(str(home.home), environ).admission.databytes == octets


# row: smtpd-localiphost
@pytest.mark.parametrize(
    ("host", "reached"),
    [
        (b"[127.0.0.1]", b"here.example"), (b"[0.0.0.0]", b"here.example"), (b"[IPv6:::1]", None),
        (b"[192.0.2.99]", None),
        (b"[127.000.00.001]", b"here.example"), (b"[383.256.0.1]", b"here.example"),
        (b"[127.0.0.1", None), (b"[127.0.0.1]x", None), (b"[127.1]", None),
    ],
)  # fmt: skip
def test_our_own_address_in_brackets_is_localiphost(home: Home, host: bytes, reached: bytes | None) -> None:
    home.control("localiphost", "here.example\n")
    home.control("rcpthosts", None)
    say = b"MAIL FROM:<>\r\nRCPT TO:<joe@" + host + b">\r\nDATA\r\n.\r\nQUIT\r\n"
    assert smtpd(home, say, RELAYCLIENT="").status == 0
    recipient = home.messages()[0][1][1]
    if host == b"[IPv6:::1]":  # where there is no such interface it is not ours
        assert recipient in (b"joe@here.example", b"joe@[IPv6:::1]")
    else:
        assert recipient == b"joe@" + (reached or host)


# row: smtpd-localiphost
def test_without_the_file_it_is_our_name(home: Home) -> None:
    home.control("rcpthosts", "mx.example.org\n")
    say = b"MAIL FROM:<joe@[127.0.0.1]>\r\nRCPT TO:<joe@[127.0.0.1]>\r\nDATA\r\n.\r\nQUIT\r\n"
    assert smtpd(home, say).status == 0
    assert home.messages()[0][1] == [b"joe@mx.example.org", b"joe@mx.example.org"]


# row: smtpd-environment
@pytest.mark.parametrize(
    ("environ", "trace"),
    [
        ({}, b"from unknown (unknown)\n  by unknown with SMTP; "),
        (
            {"TCPREMOTEIP": "192.0.2.1", "TCPLOCALIP": "192.0.2.2"},
            b"from unknown (192.0.2.1)\n  by 192.0.2.2 with SMTP; ",
        ),
        (
            {"TCPREMOTEHOST": "c.example", "TCPREMOTEINFO": "", "TCPLOCALIP": "192.0.2.2", "TCPLOCALHOST": "l.example"},
            b"from c.example (@unknown)\n  by l.example with SMTP; ",
        ),
        ({"REMOTE_ADDR": "192.0.2.9", "REMOTE_PORT": "99"}, b"from unknown (192.0.2.9)\n  by unknown with SMTP; "),
        ({"REMOTE_ADDR": "::ffff:192.0.2.9"}, b"from unknown (192.0.2.9)\n  by unknown with SMTP; "),
        ({"REMOTE_ADDR": "2001:db8::1"}, b"from unknown (2001:db8::1)\n  by unknown with SMTP; "),
        (
            {"REMOTE_ADDR": "192.0.2.9", "TCPREMOTEIP": "192.0.2.1"},
            b"from unknown (192.0.2.1)\n  by unknown with SMTP; ",
        ),
    ],
)
def test_who_is_who_stands_in_the_environment(home: Home, environ: dict[str, str], trace: bytes) -> None:
    assert smtpd(home, TAKEN + b"DATA\r\n.\r\nQUIT\r\n", **environ).status == 0
    assert home.messages()[0][0].startswith(b"Received: " + trace)


# row: smtpd-socket-activation
def test_under_systemds_sockets_the_client_is_known(home: Home) -> None:
    activate = peer("systemd-socket-activate")
    port = unused_port()
    variables = [f"--setenv={name}={value}" for name, value in home.environ().items()]
    process = subprocess.Popen(
        [activate, "--accept", "--inetd", f"--listen=127.0.0.1:{port}", *variables, *PROGRAM, "qmail-smtpd"],
        stderr=subprocess.DEVNULL,
    )
    try:
        heard = until_greeted(port, TAKEN + b"DATA\r\n.\r\nQUIT\r\n")
    finally:
        process.terminate()
        process.wait(PATIENCE)
    assert heard.startswith(GREETING) and heard.endswith(b"221 mx.example.org\r\n")
    trace = home.messages()[0][0].partition(b";")[0]
    assert trace == b"Received: from unknown (127.0.0.1)\n  by 127.0.0.1 with SMTP"


def until_greeted(port: int, say: bytes) -> bytes:
    """All that is heard, once somebody listens there."""

    def connected() -> list[socket.socket]:
        try:
            return [socket.create_connection(("127.0.0.1", port), PATIENCE)]
        except ConnectionRefusedError:
            return []

    with until(connected, "systemd-socket-activate")[0] as client:
        client.sendall(say)
        heard = b""
        while octets := client.recv(1 << 16):
            heard += octets
        return heard


def test_the_settings_mean_what_the_table_says(home: Home) -> None:
    texts = {
        "smtpgreeting": "hello there \n", "localiphost": "here.example\n", "timeoutsmtpd": "0\n", "databytes": "12x\n",
        "rcpthosts": "# no\nExample.org \n\n.Wild.example\n", "badmailfrom": "A@b.example\n@C.example",
    }  # fmt: skip
    for name, text in texts.items():
        home.control(name, text)
    there, _complaints = table.read(home.home / "control")
    here = smtpd_settings.read(str(home.home), {})
    admission = here.admission
    assert (here.greeting, here.localiphost) == (there.smtpgreeting, there.localiphost)
    assert (here.timeout, admission.databytes) == (there.timeoutsmtpd, there.databytes)
    assert (admission._hosts, admission._bad) == (there.rcpthosts, there.badmailfrom)
    defaults = {each.name: each.default for each in fields(table.Settings)}
    assert defaults["timeoutsmtpd"] == smtpd_settings.SECONDS


def test_it_says_nothing_on_standard_error_in_a_session_without_trouble(home: Home) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pillarbox", "run", "qmail-smtpd"],
        input=TAKEN + b"DATA\r\nhi\r\n.\r\nQUIT\r\n", capture_output=True, env=home.environ(), timeout=PATIENCE,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    assert re.fullmatch(
        GREETING + rb"250 ok\r\n250 ok\r\n354 go ahead\r\n250 ok [0-9]{10} qp [0-9]+\r\n221 mx\.example\.org\r\n",
        done.stdout,
    )


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        (MemoryError(), b"421 out of memory (#4.3.0)\r\n"),
        (qmail_smtpd.AddressesUnknown("x"), b"421 unable to figure out my IP addresses (#4.3.0)\r\n"),
    ],
)
def test_what_ends_a_session_is_said_behind_what_was_answered(
    home: Home,
    monkeypatch: pytest.MonkeyPatch,
    capfdbinary: pytest.CaptureFixture[bytes],
    trouble: Exception,
    said: bytes,
) -> None:
    def troubled(machine: Receiver, *_: object) -> None:
        machine.greet()
        raise trouble

    monkeypatch.setattr(qmail_smtpd, "converse", troubled)
    monkeypatch.setenv("PILLARBOX_HOME", str(home.home))
    monkeypatch.chdir(home.place)
    assert qmail_smtpd.main([]) == 1
    assert capfdbinary.readouterr().out == GREETING + said
