"""qmail-smtpd HOST CHECKER PROGRAM: who is asked, what about, over which descriptors, and what his answer means."""

from __future__ import annotations

import base64
import hmac
import os
import re
import time
from pathlib import Path

import pytest

from pillarbox.programs import qmail_smtpd
from pillarbox.programs.qmail_smtpd import Logins, understand
from tests.peers import peer, run
from tests.programs.calling import Ended, call
from tests.programs.smtpd import PROGRAM, Home, connect, ends
from tests.server import until
from tests.tcpserver import tcpserver

HOST = "auth.example.org"
LOGIN = b"AUTH PLAIN AGpvZQBzZWNyZXQ="  # joe, secret
NOT_LISTED = b"553 sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)"
FAILED = b"535 authorization failed (#5.7.0)"
TROUBLE = b"454 oops, problem with child and I can't auth (#4.3.0)"
UNAVAILABLE = b"503 auth not available (#5.3.3)"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Failed logins do not wait in this process."""
    monkeypatch.setattr(qmail_smtpd, "PENALTY", 0.0)


def smtpd(home: Home, say: bytes, *arguments: str | Path, **environ: str) -> Ended:
    """A session over pipes."""
    return call(home.home, "qmail-smtpd", *map(str, arguments), say=say, environ=home.environ(**environ))


def lines(said: Ended) -> list[bytes]:
    """What was heard, without the greeting."""
    return said.output.split(b"\r\n")[1:-1]


# row: auth-fd3
@pytest.mark.parametrize(
    ("say", "asked"),
    [
        (LOGIN, b"joe\0secret\0\0"),
        (b"AUTH PLAIN c29tZWJvZHkAam9lAHNlY3JldA==", b"joe\0secret\0\0"),
        (b"AUTH LOGIN\r\nam9l\r\nc2VjcmV0", b"joe\0secret\0\0"),
        (b"AUTH LOGIN am9l\r\nIHR3byBzcGFjZXM6IA==", b"joe\0 two spaces: \0\0"),
        (b"AUTH LOGIN am9l\r\n/wA=", b"joe\0\xff\0\0"),
    ],
)
def test_the_checker_reads_name_and_password_on_descriptor_3(home: Home, say: bytes, asked: bytes) -> None:
    checker = home.program("keeps", f"#!/bin/sh\ncat <&3 >{home.asked}\n")
    assert lines(smtpd(home, say + b"\r\nQUIT\r\n", HOST, checker, "/bin/true"))[-2].startswith(b"235 ok, joe, ")
    assert home.asked.read_bytes() == asked


# row: auth-cram-md5, auth-fd3-cram-md5
def test_cram_md5_tells_the_checker_name_challenge_and_digest(home: Home) -> None:
    checker = home.program("keeps", f"#!/bin/sh\ncat <&3 >{home.asked}\n")
    with home.serving(HOST, checker, "/bin/true") as server, connect(server) as client:
        client.line()
        began = int(time.time())
        asked = client.tell(b"AUTH CRAM-MD5 ignored")
        challenge = base64.b64decode(asked.removeprefix(b"334 "), validate=True)
        parts = re.fullmatch(rb"<([0-9]+)\.([0-9]+)@auth\.example\.org>", challenge)
        assert parts is not None and began <= int(parts[2]) <= time.time()
        assert f"pid {int(parts[1])} from" in server.log()
        digest = hmac.new(b"tanstaaftanstaaf", challenge, "md5").hexdigest().encode()
        said = client.tell(base64.b64encode(b"tim  " + digest))
        assert said == b"235 ok, tim, go ahead (#2.0.0)"
    assert home.asked.read_bytes() == b"tim\0" + challenge + b"\0" + digest + b"\0"


@pytest.mark.parametrize("response", [b"tim", b"tim ", b" b913a602", b"", b"tim x\0y"])
def test_cram_md5_wants_a_name_and_a_digest(home: Home, response: bytes) -> None:
    say = b"AUTH CRAM-MD5\r\n" + base64.b64encode(response) + b"\r\nQUIT\r\n"
    assert lines(smtpd(home, say, HOST, home.checker, "/bin/true"))[1] == b"501 malformed auth input (#5.5.4)"
    assert not home.asked.exists()


# row: auth-arguments
@pytest.mark.parametrize(
    "arguments",
    [
        (),
        (HOST,),
        (HOST, "/bin/true"),
        ("/usr/local/sbin/cmd5checkpw", "/bin/true"),
        ("/usr/local/sbin/cmd5checkpw", "/bin/true", "with", "words"),
        ("cat", "/bin/true", "/bin/true"),
        ("./checker", "true", "true"),
        ("cmd5checkpw", "/usr/bin/true", "with", "words"),
        (HOST, "true", "true"),
        ("", "/bin/true", "/bin/true"),
    ],
    ids=lambda arguments: " ".join(arguments) or "none",
)
def test_without_three_arguments_or_with_the_host_name_forgotten_nobody_gets_in(
    home: Home, arguments: tuple[str, ...]
) -> None:
    said = smtpd(home, b"EHLO x\r\n" + LOGIN + b"\r\nMAIL FROM:<>\r\nRCPT TO:<a@far>\r\nQUIT\r\n", *arguments)
    assert lines(said) == [
        b"250-mx.example.org", b"250-PIPELINING", b"250 8BITMIME", UNAVAILABLE, b"250 ok", NOT_LISTED,
        b"221 mx.example.org",
    ]  # fmt: skip
    assert said.errors.count("\n") == (1 if arguments else 0)
    assert said.errors.startswith("qmail-smtpd: warning: nobody can log in: " if arguments else "")


# row: auth-arguments
@pytest.mark.parametrize("target", ["/bin/true", "other", "bin/true"])
def test_true_is_no_checker_under_another_name_either(home: Home, target: str) -> None:
    """A link to it, over another link, by path and by PATH, also where `true` itself is a link to a program of many."""
    (home.place / "bin").mkdir()
    (home.place / "bin" / "true").symlink_to("/bin/sh")
    (home.place / "other").symlink_to("/usr/bin/true")
    checker = home.place / "checks"
    checker.symlink_to(target)
    for word, path in ((str(checker), os.defpath), ("checks", f"/nowhere:{home.place}:{os.defpath}")):
        words = [HOST.encode(), word.encode(), b"/bin/true"]
        assert understand(words, {b"PATH": path.encode()}) == Logins(b"", ())
    said = smtpd(home, LOGIN + b"\r\nQUIT\r\n", HOST, checker, "/bin/true")
    assert lines(said)[0] == UNAVAILABLE
    assert said.errors == (
        f"qmail-smtpd: warning: nobody can log in: {checker} is no checker: to it every password is good\n"
    )


def test_a_link_to_a_checker_is_one(home: Home) -> None:
    """Also one of the program that `true` is a link to."""
    (home.place / "true").symlink_to(home.checker)
    for name, target in (("a", home.checker), ("b", "a"), ("loop", "loop")):
        (home.place / name).symlink_to(target)
        word = os.fsencode(home.place / name)
        assert understand([b"mail.example.org", word, b"true"], os.environb) == Logins(
            b"mail.example.org", (word, b"true")
        )


def test_a_directory_of_path_makes_no_program_of_a_host(home: Home) -> None:
    (home.place / "mail.example.org").mkdir()
    environ = {b"PATH": os.fsencode(home.place)}
    assert understand([b"mail.example.org", b"a", b"b"], environ) == Logins(b"mail.example.org", (b"a", b"b"))


def test_a_name_that_is_no_program_is_a_host() -> None:
    words = [b"mail.example.org", b"cmd5checkpw", b"/bin/true", b"more"]
    assert understand(words, os.environb) == Logins(b"mail.example.org", (b"cmd5checkpw", b"/bin/true", b"more"))
    assert understand([b"localhost", b"a", b"b"], {b"PATH": b"/bin:/usr/bin"}).checker == (b"a", b"b")
    assert understand([b"cat", b"a", b"b"], {b"PATH": b"/bin:/usr/bin"}) == Logins(b"", ())


# row: auth-refused
def test_a_refusal_takes_five_seconds_and_what_was_said_before_does_not_wait_for_it(home: Home) -> None:
    with home.serving(HOST, home.checker, "/bin/true") as server, connect(server) as client:
        client.line()
        began = time.monotonic()
        client.send(b"NOOP\r\nAUTH PLAIN AGpvZQB3cm9uZw==\r\n")
        assert client.line() == b"250 ok"
        assert time.monotonic() - began < 4
        assert client.line() == FAILED
        assert time.monotonic() - began >= 5
    assert home.asked.read_text() == "joe|wrong||\n"


# row: auth-checker-crashed, auth-checker-111, auth-refused
@pytest.mark.parametrize(
    ("checker", "said"),
    [
        ("exit 1", FAILED),
        ("exit 2", FAILED),
        ("exit 100", FAILED),
        ("exit 111", TROUBLE),
        ("kill -9 $$", TROUBLE),
        ("kill -15 $$", TROUBLE),
    ],
)
def test_what_a_checkers_end_means(home: Home, checker: str, said: bytes) -> None:
    program = home.program("ends", f"#!/bin/sh\n{checker}\n")
    began = time.monotonic()
    heard = lines(smtpd(home, LOGIN + b"\r\nMAIL FROM:<>\r\nRCPT TO:<a@far>\r\nQUIT\r\n", HOST, program, "/bin/true"))
    assert heard == [said, b"250 ok", NOT_LISTED, b"221 mx.example.org"]
    assert time.monotonic() - began >= 5, "trouble must not be cheaper to bring about than a refusal"


# row: auth-checker-missing
def test_a_checker_that_cannot_be_run_is_a_refusal_and_the_log_says_why(home: Home) -> None:
    said = smtpd(home, LOGIN + b"\r\nQUIT\r\n", HOST, "/nowhere/checker", "/bin/true")
    assert lines(said) == [FAILED, b"221 mx.example.org"]
    assert said.errors == "qmail-smtpd: warning: cannot run /nowhere/checker: No such file or directory\n"


# row: auth-checker-hangs
@pytest.mark.parametrize("text", ["exec sleep 1000", "sleep 1000 & wait"])
def test_a_checker_that_hangs_is_ended_with_what_it_started(
    home: Home, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pillarbox.credentials import Password

    monkeypatch.setattr(qmail_smtpd, "CHECKING", 0.2)
    checker = home.program("hangs", f"#!/bin/sh\necho $$ >{home.asked}\n{text}\n")
    refused = qmail_smtpd.check([os.fsencode(checker), b"true"], Password(b"joe", b"secret"))
    assert refused == ((4, 3, 0), "oops, problem with child and I can't auth")
    group = int(home.asked.read_text())
    until(lambda: not run_in_group(group), "the end of the checker's processes")


def run_in_group(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


# row: auth-checker-hangs
def test_a_checker_that_floods_descriptor_2_and_does_not_read_holds_nobody_up(home: Home) -> None:
    checker = home.program("floods", "#!/bin/sh\nexec 3<&-\nhead -c 1000000 /dev/zero >&2\nexit 0\n")
    said = smtpd(home, LOGIN + b"\r\nQUIT\r\n", HOST, checker, "/bin/true")
    assert lines(said) == [b"235 ok, joe, go ahead (#2.0.0)", b"221 mx.example.org"]


def test_more_than_512_octets_ask_nobody(home: Home, at_once: None) -> None:
    from pillarbox.credentials import Password

    checker = home.program("keeps", f"#!/bin/sh\ncat <&3 >{home.asked}\n")
    command = [os.fsencode(checker), b"true"]
    refused = qmail_smtpd.check(command, Password(b"joe", b"x" * 507))
    assert refused == ((5, 7, 8), "authorization failed") and not home.asked.exists()
    assert qmail_smtpd.check(command, Password(b"joe", b"x" * 506)) != refused
    assert len(home.asked.read_bytes()) == 512


# row: auth-checker-streams
def test_the_checker_has_the_network_on_0_and_1_and_the_log_on_2(home: Home) -> None:
    text = (
        "#!/bin/sh\necho word for the log >&2\nprintf 'network\\r\\n'\n"
        "ends=$(readlink /proc/$$/fd/0 /proc/$$/fd/1)\nprintf '%s\\n' \"$ends\" >&2\n"
    )
    checker = home.program("speaks", text)
    with home.serving(HOST, checker, "/bin/true") as server, connect(server) as client:
        client.line()
        client.send(LOGIN + b"\r\n")
        assert client.line() == b"network"
        assert client.line() == b"235 ok, joe, go ahead (#2.0.0)"
        assert "word for the log\n" in server.log()
        assert len(re.findall(r"^socket:", server.log(), re.MULTILINE)) == 2


# row: auth-secret-places, auth-fd3-taken
def test_the_checker_gets_no_descriptor_but_its_own_and_no_secret_elsewhere(home: Home) -> None:
    text = f"#!/bin/sh\nls /proc/$$/fd >{home.asked}\ntr '\\0' ' ' </proc/$$/cmdline >&2\nenv >&2\ncat <&3 >&2\n"
    checker = home.program("looks", text)
    ahead = f"exec 3</dev/null 4>{home.place}/other 7</dev/null;"
    with home.serving(HOST, checker, "/bin/true", ahead=ahead) as server, connect(server) as client:
        client.line()
        assert client.tell(LOGIN) == b"235 ok, joe, go ahead (#2.0.0)"
        said, _, asked = server.log().rpartition("joe\0")
        assert "secret" not in said and asked.startswith("secret\0\0")
    # 10 and above are the shell's own, for its script.
    assert [number for number in home.asked.read_text().split() if int(number) < 10] == ["0", "1", "2", "3"]


# row: auth-close3, auth-fd3-taken, auth-refused
def test_after_a_failed_login_more_hosts_are_still_read(home: Home) -> None:
    file = home.control("morercpthosts.cdb", "")
    run(peer("cdb"), "-c", file, say=b"+12,0:more.example->\n\n")
    for ahead in ("", f"exec 3<{file};"):
        with home.serving(HOST, home.checker, "/bin/true", ahead=ahead) as server, connect(server) as client:
            client.line()
            assert client.tell(b"AUTH PLAIN AGpvZQB3cm9uZw==") == FAILED
            assert client.tell(b"MAIL FROM:<a@b.example>") == b"250 ok"
            assert client.tell(b"RCPT TO:<a@far.example>") == NOT_LISTED
            assert client.tell(b"RCPT TO:<a@more.example>") == b"250 ok"
            assert client.tell(b"RSET") == b"250 flushed"
            assert client.tell(LOGIN) == b"235 ok, joe, go ahead (#2.0.0)"
            assert client.tell(b"MAIL FROM:<a@b.example>") == b"250 ok"
            assert client.tell(b"RCPT TO:<a@far.example>") == b"250 ok"
            assert client.tell(b"QUIT") == b"221 mx.example.org"
            assert ends(server) == [0]


# row: auth-accepted-octets
def test_a_name_cannot_forge_a_line_of_the_log(home: Home) -> None:
    login = base64.b64encode(b"\0joe\r\n250 ok\x7f\xff\0secret")
    checker = home.program("yes", "#!/bin/sh\nexit 0\n")
    said = smtpd(home, b"AUTH PLAIN " + login + b"\r\nQUIT\r\n", HOST, checker, "/bin/true")
    assert lines(said)[0] == b"235 ok, joe??250?ok??, go ahead (#2.0.0)"


# row: auth-accepted-logged
def test_recordio_shows_who_logged_in(home: Home) -> None:
    command = [peer("recordio"), *PROGRAM, "qmail-smtpd", HOST, home.checker, "/bin/true"]
    with tcpserver(home.place, *map(str, command), options=["-H"], environment=home.environ()) as server:
        with connect(server) as client:
            client.line()
            for line in (b"EHLO client.example", b"AUTH LOGIN", b"am9l", b"c2VjcmV0", b"QUIT"):
                client.tell(line)
        until(lambda: " > 221 mx" in server.log(), "the end of the session in the log")
        spoken = [line.partition(" ")[2] for line in server.log().splitlines() if re.match(r"\d+ [<>] ", line)]
    assert [line.rstrip("\r ") for line in spoken if "[EOF]" not in line] == [
        "> 220 mx.example.org ESMTP",
        "< EHLO client.example",
        "> 250-mx.example.org",
        "> 250-AUTH LOGIN CRAM-MD5 PLAIN",
        "> 250-AUTH=LOGIN CRAM-MD5 PLAIN",
        "> 250-PIPELINING",
        "> 250 8BITMIME",
        "< AUTH LOGIN",
        "> 334 VXNlcm5hbWU6",
        "< am9l",
        "> 334 UGFzc3dvcmQ6",
        "< c2VjcmV0",
        "> 235 ok, joe, go ahead (#2.0.0)",
        "< QUIT",
        "> 221 mx.example.org",
    ]


# row: auth-tries
def test_who_goes_on_guessing_is_sent_away() -> None:
    from dataclasses import replace

    from pillarbox.admission import QmailAdmission
    from pillarbox.programs.smtpd_settings import Controls
    from pillarbox.smtp.reply import Dialect
    from tests.smtp.connection import Connection

    controls = Controls(b"mx.example.org", None, 1200, False, QmailAdmission(frozenset(), frozenset()))
    facts = qmail_smtpd.exchange(controls, Logins(b"h.example", (b"checker", b"true")), {})
    assert facts.penalty == 5.0 and facts.failures == 20
    connection = Connection(replace(facts, failures=3), dialect=Dialect.QMAIL)
    wrong = b"AUTH PLAIN AGpvZQB3cm9uZw=="
    heard = connection.say(wrong, wrong, wrong, b"NOOP")
    assert heard.split(b"\r\n")[1:] == [FAILED] * 3 + [b"421 too many failed logins (#4.7.0)", b""]
    assert connection.machine.closing


# row: auth-tries
def test_trouble_that_a_client_brings_about_again_and_again_sends_it_away_too() -> None:
    from dataclasses import replace

    from pillarbox.admission import QmailAdmission
    from pillarbox.programs.smtpd_settings import Controls
    from pillarbox.sessions.effects import Authenticate, Pause
    from pillarbox.smtp.reply import Dialect
    from tests.smtp.connection import Connection, World

    controls = Controls(b"mx.example.org", None, 1200, False, QmailAdmission(frozenset(), frozenset()))
    facts = qmail_smtpd.exchange(controls, Logins(b"h.example", (b"checker", b"true")), {})
    world = World(refusing={Authenticate: qmail_smtpd._BAD_CHILD})
    connection = Connection(replace(facts, failures=3), world, dialect=Dialect.QMAIL)
    heard = connection.say(*[LOGIN] * 3, b"NOOP")
    assert heard.split(b"\r\n")[1:] == [TROUBLE] * 3 + [b"421 too many failed logins (#4.7.0)", b""]
    assert connection.machine.closing
    assert world.done.count(Pause(5.0)) == 3


# row: auth-checks-order
def test_the_checks_of_auth_come_in_their_order(home: Home) -> None:
    mail = b"MAIL FROM:<>\r\nAUTH FOO\r\n"
    assert lines(smtpd(home, mail + b"QUIT\r\n"))[1] == UNAVAILABLE
    heard = lines(
        smtpd(home, mail + b"RSET\r\nAUTH FOO\r\n" + LOGIN + b"\r\n" + mail + b"QUIT\r\n", HOST, home.checker, "true")
    )
    assert heard[1] == b"503 no auth during mail transaction (#5.5.0)"
    assert heard[3] == b"504 auth type unimplemented (#5.5.1)"
    assert heard[6] == b"503 you're already authenticated (#5.5.0)"
