"""The run lines of a qmail with Debian's tcpserver, rblsmtpd, recordio and checkpw, our programs in their places, and
real clients. Users are there for the test alone; mail goes to a real server's queue."""

from __future__ import annotations

import base64
import os
import poplib
import pwd
import re
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.etc import everybody
from tests.peers import peer, run
from tests.people import People, some_people
from tests.programs.smtpd import Client, ends
from tests.scenarios.wire import token
from tests.server import Server, a_server, listen, until, unused_port
from tests.tcpserver import ME, Tcpserver, a_place, tcpserver

DES = b"0ZsfajRLIfp0w\n"  # the page's hash of `bar`
JOE = "joe@example.org"
SECRET = "tanstaaftanstaaf"
RULES = """\
127.0.0.2:deny
127.0.0.3:allow,RBLSMTPD="-you are listed"
127.0.0.4:allow,RELAYCLIENT=""
127.0.0.5:allow,DATABYTES="200"
:allow
"""
CR = r"\n"  # of our lines, as a log is read here
NOT_LISTED = b"553 sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)"
# Nobody may send there: DNS is in trouble at once, which lets in. Where only nobody listens it is tried for 11 seconds.
NO_DNS = {"DNSCACHEIP": "255.255.255.255"}


class Chain(NamedTuple):
    """The page's SMTP, and whose queue it brings mail to."""

    smtp: Tcpserver
    server: Server

    def arrived(self, word: bytes) -> bytes:
        """The message with this word, once joe has it; it is taken away."""
        file = self.server.await_delivered(word)
        content = file.read_bytes()
        file.unlink()
        return content


@pytest.fixture(scope="module")
def chain() -> Iterator[Chain]:
    """tcpserver with rules, recordio, rblsmtpd, qmail-smtpd with cmd5checkpw, as qmaild where we are root."""
    with a_server({"listen": listen("pop3")}, [JOE]) as server, a_place() as place:
        run(peer("tcprules"), place / "smtp.cdb", place / "smtp.tmp", say=RULES.encode())
        passwords = place / "smtp.passwd"
        passwords.write_text(f"tomclegg:{SECRET}\n")
        passwords.chmod(0o400)
        options = ["-x", str(place / "smtp.cdb"), "-H"]
        if os.getuid() == 0:
            user = pwd.getpwnam("qmaild")
            options += ["-u", str(user.pw_uid), "-g", str(user.pw_gid)]
            os.chown(passwords, user.pw_uid, user.pw_gid)
        line = [peer("recordio"), peer("rblsmtpd"), "-r", "bl.test", "qmail-smtpd", ME]
        line += ["cmd5checkpw", "-f", str(passwords), "/bin/true"]
        environment = NO_DNS | {"PILLARBOX_HOME": str(server.home)}
        with tcpserver(place, *line, options=options, environment=environment) as smtp:
            yield Chain(smtp, server)


@contextmanager
def called(server: Tcpserver, source: str) -> Iterator[Client]:
    """A client from this address of loopback."""
    with Client(server.port, source) as client:
        yield client


def letter(word: bytes, subject: str = "chain") -> bytes:
    return f"From: ann@example.net\nTo: {JOE}\nSubject: {subject}\n\n".encode() + word + b"\n"


# row: tcpserver-exit, rblsmtpd-chain
def test_mail_from_outside_goes_through_the_whole_chain(chain: Chain) -> None:
    before = chain.smtp.log().count("tcpserver: end ")
    word = token()
    with called(chain.smtp, "127.0.0.1") as client:
        assert client.line() == b"220 mx.example.org ESMTP"
        for command, answer in (
            (b"EHLO client.example", b"250 8BITMIME"),
            (b"MAIL FROM:<ann@example.net>", b"250 ok"),
            (b"RCPT TO:<anybody@far.example>", NOT_LISTED),
            (b"RCPT TO:<joe@example.org>", b"250 ok"),
            (b"DATA", b"354 go ahead"),
        ):
            assert client.tell(command) == answer
        assert re.fullmatch(rb"250 ok \d+ qp \d+", client.tell(letter(word).replace(b"\n", b"\r\n") + b"."))
        assert client.tell(b"QUIT") == b"221 mx.example.org"
        assert client.line() == b""
    assert b"HELO client.example" in chain.arrived(word)
    assert ends(chain.smtp, before + 1)[before:] == [0]
    with called(chain.smtp, "127.0.0.1") as client:
        client.line()
    assert ends(chain.smtp, before + 2)[before + 1 :] == [1]


def test_rules_of_tcpserver_reach_qmail_smtpd(chain: Chain) -> None:
    with called(chain.smtp, "127.0.0.2") as client:
        assert client.line() == b""
    with called(chain.smtp, "127.0.0.4") as client:
        assert client.line().startswith(b"220 ")
        assert client.tell(b"MAIL FROM:<ann@example.net>") == b"250 ok"
        assert client.tell(b"RCPT TO:<anybody@far.example>") == b"250 ok"
    with called(chain.smtp, "127.0.0.5") as client:
        assert client.line().startswith(b"220 ")
        for command in (b"MAIL FROM:<ann@example.net>", b"RCPT TO:<joe@example.org>", b"DATA"):
            client.tell(command)
        assert client.tell(b"x" * 300 + b"\r\n.") == b"552 sorry, that message size exceeds my databytes limit (#5.3.4)"


# row: rblsmtpd-chain
def test_who_is_listed_hears_rblsmtpd_and_never_us(chain: Chain) -> None:
    with called(chain.smtp, "127.0.0.3") as client:
        assert client.line() == b"220 rblsmtpd.local"
        assert client.tell(b"MAIL FROM:<ann@example.net>") == b"250 rblsmtpd.local"
        assert client.tell(b"RCPT TO:<joe@example.org>") == b"553 you are listed"
        assert client.tell(b"QUIT") == b"221 rblsmtpd.local"
    until(
        lambda: re.search(r"^rblsmtpd: 127\.0\.0\.3 pid \d+: 553 you are listed$", chain.smtp.log(), re.M), "its line"
    )


# row: recordio-lines
@pytest.mark.parametrize("mechanism", ["LOGIN", "PLAIN", "CRAM-MD5"])
def test_swaks_logs_in_and_recordio_shows_who(chain: Chain, mechanism: str) -> None:
    word = token()
    said = run(
        peer("swaks"), "--server", "127.0.0.1", "--port", str(chain.smtp.port), "--auth", mechanism,
        "--auth-user", "tomclegg", "--auth-password", SECRET, "--from", "ann@example.net", "--to", JOE,
        "--data", "-", say=letter(word),
    )  # fmt: skip
    assert b"235 ok, tomclegg, go ahead (#2.0.0)" in said
    arrived = chain.arrived(word)
    assert re.search(rb"^Received: from .* \(tomclegg@127\.0\.0\.1\)\n  by mx\.example\.org ", arrived, re.M), arrived
    log = chain.smtp.log()
    session = re.search(rf"^(\d+) < AUTH {mechanism}", log, re.M)
    assert session is not None
    assert re.search(rf"^{session[1]} > 235 ok, tomclegg, go ahead \(#2\.0\.0\){CR} $", log, re.M)
    assert re.search(rf"^{session[1]} > 250 ok \d+ qp \d+{CR} $", log, re.M)


def test_a_wrong_password_opens_nothing(chain: Chain) -> None:
    plain = base64.b64encode(b"\0tomclegg\0wrong")
    with called(chain.smtp, "127.0.0.1") as client:
        client.line()
        assert client.tell(b"AUTH PLAIN " + plain) == b"535 authorization failed (#5.7.0)"
        assert client.tell(b"MAIL FROM:<ann@example.net>") == b"250 ok"
        assert client.tell(b"RCPT TO:<anybody@far.example>") == NOT_LISTED


def test_curl_and_msmtp_choose_what_works(chain: Chain, tmp_path: Path) -> None:
    word = token()
    file = tmp_path / "letter"
    file.write_bytes(letter(word).replace(b"\n", b"\r\n"))
    run(
        peer("curl"), "--silent", "--show-error", "--user", f"tomclegg:{SECRET}", "--mail-from", "ann@example.net",
        "--mail-rcpt", JOE, "--upload-file", file, f"smtp://127.0.0.1:{chain.smtp.port}",
    )  # fmt: skip
    assert b"tomclegg@127.0.0.1" in chain.arrived(word)
    settings = tmp_path / "msmtprc"
    settings.write_text(
        f"account default\nhost 127.0.0.1\nport {chain.smtp.port}\nfrom ann@example.net\nauth cram-md5\n"
        f"user tomclegg\n"
        f'password "{SECRET}"\ntls off\n'
    )
    settings.chmod(0o600)
    word = token()
    run(peer("msmtp"), f"--file={settings}", JOE, say=letter(word))
    assert b"tomclegg@127.0.0.1" in chain.arrived(word)


# POP3


class Mailboxes(NamedTuple):
    """joe, with mail in Maildir and in Maildir-lists, whose password is `bar`; and the run lines' place."""

    people: People
    place: Path


@pytest.fixture
def mailboxes() -> Iterator[Mailboxes]:
    with some_people("joe") as people, a_place() as place:
        for maildir in ("Maildir", "Maildir-lists"):
            for part in ("tmp", "new", "cur"):
                (people.homes / "joe" / maildir / part).mkdir(parents=True)
            people.put(
                "joe", people.homes / "joe" / maildir / "new" / "1.1.mx", f"Subject: {maildir}\n\nhello\n".encode()
            )
            os.utime(people.homes / "joe" / maildir / "new" / "1.1.mx", (1, 1))
        people.put("joe", people.homes / "joe" / "Maildir-lists" / "passwd", DES)
        run("chown", "-R", ":".join(map(str, people.ids("joe"))), people.homes / "joe")
        subprocess.run(people.within("chpasswd"), input=b"joe:secret\n", check=True, timeout=60)
        yield Mailboxes(people, place)


def fetched(port: int, login: str, password: str) -> list[bytes]:
    """The lines of the first message."""
    with closing(poplib.POP3("127.0.0.1", port, timeout=30)) as client:
        client.user(login)
        client.pass_(password)
        lines = client.retr(1)[1]
        client.quit()
        return lines


def refused(port: int, login: str, password: str) -> str:
    with pytest.raises(poplib.error_proto) as caught:
        fetched(port, login, password)
    return str(caught.value)


# row: tcpserver-page
def test_joe_lists_and_joe_log_in_by_the_page_s_line(mailboxes: Mailboxes) -> None:
    people, place = mailboxes
    line = ("qmail-popup", ME, "maildirpop3d", "qmail-pop3d", "Maildir")
    with tcpserver(place, *line, within=people.within()) as server:
        assert fetched(server.port, "joe-lists", "bar") == [b"Subject: Maildir-lists", b"", b"hello", b""]
        assert fetched(server.port, "joe", "secret") == [b"Subject: Maildir", b"", b"hello", b""]
        for login, password in (("joe-lists", "secret"), ("joe", "bar"), ("joe-none", "bar"), ("root", "x")):
            assert refused(server.port, login, password) == "b'-ERR authorization failed'"


PAGE = """
"$3" link set lo up
tcpserver -vRl mx.example.org 0 pop3 \\
  qmail-popup mx.example.org \\
  maildirpop3d qmail-pop3d Maildir &
server=$!
for _ in 1 2 3 4 5 6 7 8 9; do "$1" -I -c "$2" && break; sleep 0.3; done
kill $server
wait $server
"""
READ = """
import poplib
client = poplib.POP3("127.0.0.1")
client.user("joe-lists")
client.pass_("bar")
for line in client.retr(1)[1]:
    print(line.decode())
client.quit()
"""


# row: tcpserver-page
def test_the_page_s_line_word_for_word(mailboxes: Mailboxes) -> None:
    """On port 110 of every address, in a network of its own."""
    people, place = mailboxes
    path = f"{place}/bin:{Path(peer('tcpserver')).parent}:{os.defpath}:/usr/sbin:/sbin"
    done = subprocess.run(
        [*people.within("unshare", "-n"), "sh", "-uc", PAGE, "sh", everybody(), READ, peer("ip")],
        env={"PATH": path, "LC_ALL": "C.UTF-8"}, capture_output=True, timeout=60,
    )  # fmt: skip
    assert done.stdout == b"Subject: Maildir-lists\n\nhello\n\n", done.stderr.decode()
    log = done.stderr.decode()
    assert "tcpserver: status: 0/40\n" in log
    # row: tcpserver-exit
    assert re.search(r"^tcpserver: ok \d+ mx\.example\.org:127\.0\.0\.1:110 \S*:127\.0\.0\.1::\d+$", log, re.M), log
    assert re.search(r"^tcpserver: end \d+ status 256$", log, re.M), log  # qmail-popup's 1, whatever became of it


def test_debian_s_checkpw_is_a_checker(mailboxes: Mailboxes) -> None:
    people, place = mailboxes
    people.put("joe", people.homes / "joe" / "Maildir" / ".password", b"hush\n")
    os.chown(people.homes / "joe" / "Maildir" / ".password", *people.ids("joe"))
    checkpw = peer("checkpw")
    with tcpserver(place, "qmail-popup", ME, checkpw, "qmail-pop3d", "Maildir", within=people.within()) as server:
        assert fetched(server.port, "joe", "hush") == [b"Subject: Maildir", b"", b"hello", b""]
        assert refused(server.port, "joe", "secret") == "b'-ERR authorization failed'"
    line = ("qmail-popup", ME, "maildirpop3d", "qmail-pop3d", "Maildir", checkpw)
    with tcpserver(place, *line, within=people.within()) as server:
        assert fetched(server.port, "joe-lists", "bar")[0] == b"Subject: Maildir-lists"
        assert fetched(server.port, "joe", "hush")[0] == b"Subject: Maildir"


# row: recordio-lines
def test_recordio_shows_a_pop3_session_line_by_line(mailboxes: Mailboxes) -> None:
    people, place = mailboxes
    line = (peer("recordio"), "qmail-popup", ME, "maildirpop3d", "qmail-pop3d", "Maildir")
    with tcpserver(place, *line, within=people.within()) as server:
        fetched(server.port, "joe-lists", "bar")
        log = until(lambda: log if re.search(r"status 256$", log := server.log(), re.M) else "", "the end")
    said = [found[1] for found in re.finditer(rf"^\d+ ([<>] .*){CR} $", log, re.M)]
    assert [re.sub(r"<.*>", "<stamp>", line) for line in said] == [
        "> +OK <stamp>", "< USER joe-lists", "> +OK ", "< PASS bar", "> +OK ", "< RETR 1", "> +OK ",
        "> Subject: Maildir-lists", "> ", "> hello", "> ", "> .", "< QUIT", "> +OK ",
    ]  # fmt: skip


def test_a_mailbox_is_served_to_whoever_comes_where_nobody_asks_who_it_is(mailboxes: Mailboxes) -> None:
    """qmail-pop3d alone: the transaction state, as the user that tcpserver became."""
    people, place = mailboxes
    uid, gid = people.ids("joe")
    maildir = str(people.homes / "joe" / "Maildir")
    options = ["-u", str(uid), "-g", str(gid)]
    with tcpserver(place, "qmail-pop3d", maildir, options=options, within=people.within()) as server:
        with Client(server.port) as client:
            assert client.line() == b"+OK "
            assert client.tell(b"STAT") == b"+OK 1 24"
            assert client.tell(b"QUIT") == b"+OK "
        assert ends(server) == [0]


def test_sendmail_speaks_smtp_too(chain: Chain) -> None:
    """sendmail -bs, which is for programs on this machine: it says nothing of the client to qmail-smtpd."""
    with a_place() as place, tcpserver(
        place, "sendmail", "-bs", environment={"PILLARBOX_HOME": str(chain.server.home)}
    ) as server:  # fmt: skip
        with Client(server.port) as client:
            assert client.line() == b"220 mx.example.org ESMTP"
            assert client.tell(b"MAIL FROM:<ann@example.net>") == b"250 ok"
            assert client.tell(b"RCPT TO:<anybody@far.example>") == NOT_LISTED
            assert client.tell(b"RCPT TO:<joe@example.org>") == b"250 ok"
            assert client.tell(b"QUIT") == b"221 mx.example.org"
        assert ends(server) == [0]


# systemd


@contextmanager
def activated(place: Path, *command: str, within: list[str], environment: dict[str, str]) -> Iterator[int]:
    """systemd's socket activation with Accept=yes: a process for every connection, which is its descriptors 0 and 1."""
    port = unused_port()
    given = {"PATH": f"{place}/bin:{os.defpath}:/usr/sbin:/sbin", **environment}
    kept = [f"--setenv={name}" for name in given]
    line = [*within, peer("systemd-socket-activate"), "-a", "--inetd", "-l", f"127.0.0.1:{port}", *kept, *command]
    with (place / "activated").open("wb") as log, subprocess.Popen(line, stderr=log, cwd=place, env=given) as process:
        try:
            until(lambda: b"Listening" in (place / "activated").read_bytes(), "systemd-socket-activate listens")
            yield port
        finally:
            process.terminate()
            process.wait(30)


def test_qmail_smtpd_is_started_by_systemd(chain: Chain) -> None:
    word = token()
    with a_place() as place:
        environment = {"PILLARBOX_HOME": str(chain.server.home)}
        command = (str(place / "bin" / "qmail-smtpd"),)
        with activated(place, *command, within=[], environment=environment) as port, Client(port) as client:
            assert client.line() == b"220 mx.example.org ESMTP"
            for said in (b"HELO client.example", b"MAIL FROM:<>", b"RCPT TO:<joe@example.org>", b"DATA"):
                assert client.tell(said)[:1] in (b"2", b"3")
            assert client.tell(letter(word).replace(b"\n", b"\r\n") + b".").startswith(b"250 ok ")
            assert client.tell(b"QUIT") == b"221 mx.example.org"
    assert b"Received: from unknown (HELO client.example) (127.0.0.1)\n" in chain.arrived(word)


def test_pop3_is_started_by_systemd(mailboxes: Mailboxes) -> None:
    people, place = mailboxes
    line = (str(place / "bin" / "qmail-popup"), ME, "maildirpop3d", "qmail-pop3d", "Maildir")
    with activated(place, *line, within=people.within(), environment={}) as port:
        assert fetched(port, "joe-lists", "bar") == [b"Subject: Maildir-lists", b"", b"hello", b""]
