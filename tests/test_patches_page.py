"""docs/patches.md, command by command, on a machine of the test's own with Debian's tcpserver, recordio and checkpw."""

from __future__ import annotations

import re
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import ClassVar

import pytest

from tests.machine import Machine, a_machine
from tests.peers import peer
from tests.server import until
from tests.terminal import Terminal

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "patches.md"
LOGINS = "SMTP AUTH: qmail-smtpd-auth and cmd5checkpw"
WORD = "correct horse battery staple"
# What a qmail has in bin, with modes as it installs them; none of these is run here.
QMAILS = {"qmail-smtpd": 0o755, "qmail-popup": 0o711, "qmail-pop3d": 0o755, "qmail-remote": 0o711, "qmail-send": 0o711}


@dataclass(frozen=True)
class Block:
    """Commands of the page; `kind` are the words behind ```sh."""

    kind: tuple[str, ...]
    text: str


@dataclass
class Place:
    """The machine, and where what the page names is there."""

    machine: Machine
    paths: dict[str, str] = field(default_factory=dict)
    done: list[str] = field(default_factory=list)

    def at(self, path: str) -> Path:
        return Path(self.translated(path))

    def translated(self, text: str) -> str:
        for named, ours in self.paths.items():
            text = re.sub(rf"(?<![\w/.]){re.escape(named)}(?![\w-])", ours, text)
        return text

    def log(self, name: str) -> Path:
        return self.machine.directory / f"log.{name}"


def blocks(section: str) -> list[Block]:
    """The commands under the heading that begins so."""
    (text,) = re.findall(rf"^## {re.escape(section)}.*?$(.*?)(?=^## |\Z)", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    found = re.findall(r"^```sh(?: ([\w ]+))?\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [Block(tuple(kind.split()), commands) for kind, commands in found]


def sections() -> list[str]:
    return re.findall(r"^## ([^:\n]+)", PAGE.read_text(), re.MULTILINE)


def carry_out(place: Place, block: Block) -> str:
    """Run one block, as root or as joe; one that is a run line is started, and greets."""
    shell = ("sh", "-euc", place.translated(block.text))
    match block.kind:
        case ():
            return place.machine.run(*shell)
        case ("joe",):
            return place.machine.run(*as_joe(place), *shell)
        case ("joe", "types"):
            return at_a_terminal(place, shell)
        case ("cc",):
            return place.machine.run(*shell) if shutil.which("cc") else ""
        case ("machine",):  # which systemd runs
            return ""
        case ("run", "checker"):
            place.machine.start(*shell, log=place.log("checker"))
            until(place.at("/var/qmail/run/checker").exists, "the checker's socket")
        case ("run", service, *port):
            number = int(port[0]) if port else {"smtp": 25, "pop3": 110}[service]
            place.machine.start(*shell, log=place.log(str(number)))
            until(lambda: place.machine.greets(number).startswith((b"220 ", b"+OK")), f"port {number}")
        case _:
            raise AssertionError(f"the page has commands of a kind that nobody runs: {block.kind}")
    return ""


def as_joe(place: Place) -> list[str]:
    home = place.machine.directory / "home" / "joe"
    return [
        "setpriv",
        "--reuid=joe",
        "--regid=joe",
        "--clear-groups",
        "env",
        f"--chdir={home}",
        f"HOME={home}",
        "USER=joe",
    ]


def carry_out_all(place: Place, section: str) -> None:
    """All commands of a section, unless an earlier test has done them."""
    if section not in place.done:
        place.done.append(section)
        for block in blocks(section):
            carry_out(place, block)


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    """A machine with something like a qmail, whose programs would fail, and ours in their place; our queue works for
    it."""
    for program in ("tcpserver", "recordio", "tcprules", "mpop", "curl"):
        peer(program)
    with a_machine(users=("joe",)) as machine:
        home = machine.directory
        named = ("/var/qmail", "/usr/local/sbin", "/usr/local/etc", "/var/lib/pillarbox")
        relays = {"relay.example.net:2500": "127.0.0.1:2500", "smarthost.example.net": "127.0.0.1:2700"}
        place = Place(machine, {path: f"{home}{path}" for path in named} | relays)
        for path in (*named, "/var/qmail/bin"):
            place.at(path).mkdir(parents=True)
        place.at("/var/lib/pillarbox").rmdir()
        for program, mode in QMAILS.items():
            file = place.at(f"/var/qmail/bin/{program}")
            file.write_text("#!/bin/sh\nexit 1\n")
            file.chmod(mode)
        machine.run("pillarbox", "init", "--home", place.at("/var/qmail"), "--me", "mail.example.org")
        for name in ("locals", "rcpthosts"):
            (place.at("/var/qmail/control") / name).write_text("mail.example.org\nexample.org\n")
        place.at("/var/qmail/control/smtppasswd").write_text(place.translated("/usr/local/etc/smtp.passwd\n"))
        (home / "etc/pillarbox").mkdir(exist_ok=True)
        (home / "etc/pillarbox/home").write_text(f"{place.at('/var/qmail')}\n")
        machine.environment["PATH"] = f"{place.at('/usr/local/sbin')}:{machine.environment['PATH']}"
        yield place


@pytest.fixture(scope="module")
def installed(place: Place) -> Place:
    """Our programs are there, and qmail-start works on the queue."""
    carry_out_all(place, "Into an existing qmail")
    place.machine.start(place.at("/var/qmail/bin/qmail-start"), "./Maildir/", log=place.log("queue"))
    until(lambda: place.at("/var/qmail/run/inject").exists(), "the queue")
    return place


def at_a_terminal(place: Place, command: tuple[str, ...]) -> str:
    """joe runs a command and types the password `bar` twice; what he sees."""
    words = place.machine.command(*as_joe(place), *command)
    words[0] = peer(words[0])
    terminal = Terminal(words, place.machine.environment)
    for prompt in (b"New password: ", b"New password (again): "):
        terminal.await_text(prompt)
        terminal.type(b"bar\n")
    assert terminal.wait() == 0
    return terminal.screen.decode()


def curl(place: Place, *words: str | Path, say: bytes = b"", status: int = 0) -> str:
    return place.machine.run(peer("curl"), "--silent", "--show-error", *words, say=say, status=status)


def submit(
    place: Place, url: str, login: str, recipient: str, *ways: str | Path, word: str = "x", status: int = 0
) -> str:
    """Mail from tomclegg@example.org, with a login."""
    way = ["--user", login, "--mail-from", "tomclegg@example.org", "--mail-rcpt", recipient, "--upload-file", "-"]
    return curl(place, *way, *ways, url, say=f"Subject: {word}\r\n\r\n".encode(), status=status)


def connected(place: Place, port: int) -> socket.socket:
    return place.machine.within(lambda: socket.create_connection(("127.0.0.1", port), 30))


def converse(place: Place, port: int, *lines: str) -> list[str]:
    """Say lines to a server there, each when the reply to the one before is heard; the last line of every reply."""
    replies = []
    with connected(place, port) as client, client.makefile("rb") as replying:
        for line in ("", *lines):
            client.sendall(f"{line}\r\n".encode() if line else b"")
            while (reply := replying.readline().decode())[3:4] == "-":
                pass
            replies.append(reply.rstrip("\r\n"))
    return replies[1:]


class Relay:
    """A host that wants a login and takes one message; `lines` is all that it heard."""

    ANSWERS: ClassVar = {
        b"EHLO": b"250-relay\r\n250 AUTH LOGIN PLAIN\r\n",
        b"AUTH": b"334 VXNlcm5hbWU6\r\n",
        b"Zm9v": b"334 UGFzc3dvcmQ6\r\n",
        b"YmFy": b"235 ok\r\n",
        b"DATA": b"354 go on\r\n",
        b"QUIT": b"221 bye\r\n",
    }

    def __init__(self, machine: Machine, port: int) -> None:
        self.lines: list[bytes] = []
        self._door = machine.within(lambda: socket.create_server(("127.0.0.1", port)))
        self._thread = Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        self._door.settimeout(60)
        client, _address = self._door.accept()
        self._door.close()
        client.settimeout(60)
        with suppress(ConnectionError), client, client.makefile("rb") as said:  # nobody waits for the end
            client.sendall(b"220 relay\r\n")
            content = False
            while line := said.readline():
                self.lines.append(line.rstrip(b"\r\n"))
                content = (content or line.startswith(b"DATA")) and line != b".\r\n"
                if not content or line.startswith(b"DATA"):
                    client.sendall(self.ANSWERS.get(line[:4], b"250 ok\r\n"))

    def heard(self) -> list[bytes]:
        """All lines, once the client has gone."""
        self._thread.join(60)
        return self.lines


def delivered(place: Place, maildir: str, word: str) -> bool:
    """And not in this very second: qmail-pop3d does not show such a message yet."""
    new = place.machine.directory / "home" / "joe" / maildir / "new"
    return any(word in file.read_text() and file.stat().st_mtime < int(time.time()) for file in new.iterdir())


def test_the_page_has_a_section_for_each_patch_of_the_page() -> None:
    assert sections() == [
        "Into an existing qmail",
        "SMTP AUTH",
        "The morercpthosts bug",
        "smtpauthlog",
        "qmail-remote-auth",
        "badmailfrom wildcards",
        "maildirpop3d and maildirpasswd",
        "qmail-capa-popup and qmail-capa-pop3d",
        "Without tcpserver",
        "Under systemd",
    ]


def test_no_command_of_the_page_is_left_out_below() -> None:
    """All other sections are carried out whole."""
    assert len(blocks("maildirpop3d and maildirpasswd")) == 6
    assert blocks("qmail-capa-popup and qmail-capa-pop3d") == []


def test_programs_take_the_place_of_qmails_and_give_it_back(installed: Place) -> None:
    bin_ = installed.at("/var/qmail/bin")
    assert (bin_ / "qmail-send").read_text() == "#!/bin/sh\nexit 1\n"
    assert (bin_ / "qmail-smtpd").read_text() != "#!/bin/sh\nexit 1\n"


def test_who_logs_in_sends_anywhere_and_nobody_else_does(installed: Place) -> None:
    carry_out_all(installed, LOGINS)
    queue = ("pillarbox", "queue", "list", "--home", installed.at("/var/qmail"))
    until(lambda: "friend@far.example" in installed.machine.run(*queue), "the message")
    assert "denied" in submit(installed, "smtp://127.0.0.1", "tomclegg:wrong", "friend@far.example", status=67)
    assert converse(installed, 25, "MAIL FROM:<a@b.example>", "RCPT TO:<friend@far.example>") == [
        "250 ok",
        "553 sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)",
    ]


def test_after_a_failed_login_morercpthosts_is_read_as_before(installed: Place) -> None:
    carry_out_all(installed, LOGINS)
    carry_out_all(installed, "The morercpthosts bug")
    said = (
        "AUTH PLAIN AHRvbWNsZWdnAHdyb25n",
        "MAIL FROM:<>",
        "RCPT TO:<x@nowhere.example>",
        "RCPT TO:<x@more.example>",
    )
    assert converse(installed, 25, *said) == [
        "535 authorization failed (#5.7.0)",
        "250 ok",
        "553 sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)",
        "250 ok",
    ]


def test_recordio_shows_who_logged_in(installed: Place) -> None:
    carry_out_all(installed, LOGINS)
    carry_out_all(installed, "smtpauthlog")
    submit(installed, "smtp://127.0.0.1:2626", f"tomclegg:{WORD}", "friend@far.example")
    until(lambda: " > 235 ok, tomclegg, go ahead (#2.0.0)" in installed.log("2626").read_text(), "the login in the log")


def test_mail_goes_out_by_the_relays_of_the_page_with_their_login(installed: Place) -> None:
    relays = {"example.com": Relay(installed.machine, 2500), "other.example": Relay(installed.machine, 2700)}
    carry_out_all(installed, "qmail-remote-auth")
    installed.machine.run("sh", "-c", 'kill -HUP "$(cat "$0")"', installed.at("/var/qmail/run/lock"))
    for domain, relay in relays.items():
        installed.machine.run(installed.at("/var/qmail/bin/qmail-inject"), f"x@{domain}", say=b"Subject: out\n\n")
        heard = relay.heard()
        assert heard[1:4] == [b"AUTH LOGIN", b"Zm9v", b"YmFy"]
        assert b"RCPT TO:<x@%s>" % domain.encode() in heard and b"Subject: out" in heard


def test_senders_are_refused_as_the_page_says(installed: Place) -> None:
    carry_out_all(installed, LOGINS)
    carry_out_all(installed, "badmailfrom wildcards")
    said = ("MAIL FROM:<x@a.b.example.com>", "MAIL FROM:<x@example.com>", "MAIL FROM:<x@example.net>")
    answers = converse(installed, 25, *[line for one in said for line in (one, "RCPT TO:<joe@example.org>")])
    refused = "553 sorry, your envelope sender is in my badmailfrom list (#5.7.1)"
    assert answers == ["250 ok", refused, "250 ok", refused, "250 ok", "250 ok"]


# row: maildirpop3d-page, tcpserver-page
def test_joe_has_a_mailbox_for_his_lists(installed: Place) -> None:
    *before, types, fetch = blocks("maildirpop3d and maildirpasswd")[:5]
    for block in before:
        carry_out(installed, block)
    seen = carry_out(installed, types).replace("\r\n", "\n")
    assert seen.startswith("Changing password for POP mailbox joe-lists@mail.example.org\nNew password: ")
    assert re.search(r"^Ok, putting encrypted password \S+ in ~/Maildir-lists/passwd$", seen, re.MULTILINE)
    inject = installed.at("/var/qmail/bin/qmail-inject")
    installed.machine.run(inject, "joe-lists@mail.example.org", say=b"Subject: for the lists\n\n")
    until(lambda: delivered(installed, "Maildir-lists", "for the lists"), "the message")
    carry_out(installed, fetch)
    assert "Subject: for the lists" in (installed.machine.directory / "home/joe/Fetched").read_text()
    assert converse(installed, 110, "USER joe-lists", "PASS wrong")[1] == "-ERR authorization failed"


def test_joe_himself_is_let_in_by_checkpassword(installed: Place) -> None:
    installed.machine.run("chpasswd", say=f"joe:{WORD}\n".encode())
    home = installed.machine.directory / "home" / "joe" / "Maildir"
    installed.machine.run(*as_joe(installed), installed.at("/var/qmail/bin/maildirmake"), home)
    for port in (110, 1110):
        assert converse(installed, port, "USER joe", f"PASS {WORD}", "STAT")[1:] == ["+OK ", "+OK 0 0"]


def test_capa_is_answered_as_the_page_shows(installed: Place) -> None:
    (shown,) = re.findall(r"^```\n(\+OK Capability.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    with connected(installed, 110) as client, client.makefile("rb") as said:
        assert said.readline().startswith(b"+OK <")
        client.sendall(b"CAPA\r\nUSER joe-lists\r\nPASS bar\r\n")
        before = [said.readline() for _ in shown.splitlines()]
        assert [said.readline(), said.readline()] == [b"+OK \r\n", b"+OK \r\n"]
        client.sendall(b"CAPA\r\nQUIT\r\n")
        after = [said.readline() for _ in shown.splitlines()]
    assert before == after == [line.encode() + b"\r\n" for line in shown.splitlines()]


def test_serve_does_the_same_by_itself(installed: Place) -> None:
    carry_out_all(installed, LOGINS)
    carry_out_all(installed, "Without tcpserver")
    carry_out(installed, blocks("maildirpop3d and maildirpasswd")[5])
    machine, home = installed.machine, installed.at("/var/lib/pillarbox")
    machine.start("pillarbox", "serve", "--home", home, log=installed.log("serve"))
    until(lambda: "\nready\n" in installed.log("serve").read_text(), "serve")
    trust = ("--cacert", home / "tls/cert.pem")
    submit(installed, "smtps://localhost:2465", f"tomclegg@example.org:{WORD}", "tomclegg-lists@example.org", *trust)
    new = home / "mail/example.org/tomclegg/Maildir-lists/new"
    until(lambda: list(new.iterdir()), "the message")
    lists = ("--user", "tomclegg-lists@example.org:another battery staple")
    assert curl(installed, *trust, *lists, "pop3s://localhost:2995/").split()[:1] == ["1"]
    assert converse(installed, 2525, "EHLO c", "MAIL FROM:<a@b.example>", "RCPT TO:<x@far.example>")[2][:3] == "250"


def test_systemd_can_start_them_too(installed: Place) -> None:
    units = installed.machine.directory / "etc/systemd/system"
    units.mkdir(parents=True, exist_ok=True)
    carry_out_all(installed, "Under systemd")
    assert "ListenStream=25\n" in (units / "qmail-smtpd.socket").read_text()
    assert f"ExecStart=-{installed.at('/var/qmail/bin/qmail-smtpd')}\n" in (units / "qmail-smtpd@.service").read_text()
    assert str(installed.at("/var/qmail/bin/qmail-popup")) in (units / "qmail-pop3d@.service").read_text()


def test_what_was_replaced_comes_back_as_it_was(installed: Place) -> None:
    installed.machine.run("pillarbox", "install", "--into", installed.at("/var/qmail"), "--undo")
    for program, mode in QMAILS.items():
        file = installed.at(f"/var/qmail/bin/{program}")
        assert file.read_text() == "#!/bin/sh\nexit 1\n" and file.stat().st_mode & 0o7777 == mode
