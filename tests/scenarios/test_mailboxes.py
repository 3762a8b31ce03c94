"""Several POP mailboxes for one user, from the making to the reading, as the patches' page tells it: under tcpserver
with qmail-popup, maildirpop3d and qmail-pop3d, and the same mailboxes in `serve`. joe is a real user of the system, in
an /etc of the test's own."""

from __future__ import annotations

import base64
import os
import poplib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from tests import server as servers
from tests.peers import peer, run
from tests.people import People, some_people
from tests.scenarios.wire import Wire, deliver, login, pop3, token
from tests.server import ME, SECRET, Server, a_home, until
from tests.tcpserver import Tcpserver, a_place, tcpserver
from tests.terminal import Terminal

LOCAL = "sys.example.org"
OWN = "correct horse"
# Of that; crypt(3) made it.
HASH = "$6$rounds=1000$saltstring$YiR6NSM0LQXmu7vAhkMXfkdYk7qtFouVx1"
HASH += "Mdr3HmzXspT8kONjlpU3CsV7ezCB62uXJoAdaagsH4ck7/tB9js."


class Town(NamedTuple):
    """joe's machine: `place`/bin has the programs, `server` takes his mail in."""

    people: People
    place: Path
    server: Server

    @property
    def home(self) -> Path:
        return self.people.homes / "joe"

    def as_joe(self, script: str) -> list[str]:
        """The words that have joe's shell carry out a script in his home."""
        path = f"PATH={self.place}/bin:/usr/bin:/bin"
        shell = ["env", "-i", f"HOME={self.home}", "LC_ALL=C.UTF-8", path, "sh", "-euc", f"cd; {script}"]
        return self.people.as_user("joe", *shell)

    def post(self, *recipients: str) -> list[bytes]:
        """Send each a message, and wait until it is in the Maildir of its extension, where no other is then, and can
        be seen: qmail-pop3d hides messages of the present second. Words that no other message has."""
        words = []
        for recipient in recipients:
            words.append(token())
            deliver(self.server, b"Subject: hello\r\n\r\n%s\r\n" % words[-1], f"{recipient}@{LOCAL}".encode())
        found = [until(partial(self.holding, word), f"a message with {word!r}")[0] for word in words]
        last = max(int(file.stat().st_mtime) for file in found)
        until(lambda: int(time.time()) > last, "the next second")
        return words

    def empty(self) -> None:
        """Take away all of joe's mail."""
        for file in self.home.glob("Maildir*/[cn][ue][rw]/*"):
            file.unlink()

    def holding(self, word: bytes) -> list[Path]:
        """joe's messages with this word."""
        return [file for file in self.home.glob("Maildir*/[cn][ue][rw]/*") if word in file.read_bytes()]


@pytest.fixture
def town(whole_town: Town) -> Town:
    """Without mail."""
    whole_town.empty()
    return whole_town


@pytest.fixture(scope="module")
def whole_town() -> Iterator[Town]:
    """joe has a shadow password, and has made Maildir and Maildir-lists as the page says."""
    control = {"locals": f"localhost\n{LOCAL}\n", "rcpthosts": f"localhost\n{LOCAL}\n", "checkers": "shadow\n"}
    with some_people() as people, a_place() as place:
        home = people.add("joe", "--password", HASH)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(servers, "_COMMAND", tuple(people.within(*servers._COMMAND)))
            with a_home(control) as server:
                (people.place / "etc" / "pillarbox").mkdir(exist_ok=True)
                (people.place / "etc" / "pillarbox" / "home").write_text(f"{server.home}\n")
                server.start()
                town = Town(people, place, server)
                run(*town.as_joe("maildirmake Maildir"))
                run(*town.as_joe("maildirmake Maildir-lists; echo ./Maildir-lists/ >.qmail-lists"))
                assert home.stat().st_uid == people.ids("joe")[0]
                assert set_password(town, "lists", b"bar") == 0
                yield town
                assert server.stop() == 0


def set_password(town: Town, extension: str, password: bytes) -> int:
    """joe does it at a terminal; the exit status."""
    terminal = Terminal(town.as_joe(f"maildirpasswd {extension}"), os.environ)
    terminal.await_text(f"Changing password for POP mailbox joe-{extension}@{ME}\r\nNew password: ".encode())
    terminal.type(password + b"\n")
    terminal.await_text(b"New password (again): ")
    terminal.type(password + b"\n")
    terminal.await_text(f" in ~/Maildir-{extension}/passwd\r\n".encode())
    assert b"\r\nOk, putting encrypted password $" in terminal.screen and password not in terminal.screen
    return terminal.wait()


@contextmanager
def popup(town: Town, *more: str) -> Iterator[Tcpserver]:
    """The page's run line."""
    bin = town.place / "bin"
    line = [str(bin / "qmail-popup"), ME, str(bin / "maildirpop3d"), str(bin / "qmail-pop3d"), "Maildir", *more]
    with tcpserver(town.place, *line, within=town.people.within()) as listening:
        yield listening


def mpop(port: int, user: str, password: str, directory: Path, *more: str) -> list[bytes]:
    """What mpop fetches; the server's copies are gone."""
    for place in ("new", "cur", "tmp"):
        (directory / "fetched" / place).mkdir(parents=True, exist_ok=True)
    file = directory / "mpoprc"
    file.write_text(
        f"account default\nhost localhost\nport {port}\nuser {user}\npassword {password}\n"
        + "".join(f"{line}\n" for line in more)
        + f"uidls_file {directory}/uidls\ndelivery maildir {directory}/fetched\n"
    )
    file.chmod(0o600)
    run(peer("mpop"), f"--file={file}")
    return [found.read_bytes() for found in (directory / "fetched" / "new").iterdir()]


def fetchmail(port: int, user: str, password: str, directory: Path) -> list[bytes]:
    """What fetchmail fetches, with the mechanism of its own choice."""
    file = directory / "fetchmailrc"
    file.write_text(
        f"poll 127.0.0.1 protocol pop3 port {port} user '{user}' password '{password}' sslproto ''\n"
        f"""mda "/bin/sh -c 'cat >{directory}/got.$$'"\n"""
    )
    file.chmod(0o600)
    run("env", f"FETCHMAILHOME={directory}", peer("fetchmail"), "--fetchmailrc", file, "--nodetach", "--nosyslog")
    return [found.read_bytes() for found in directory.glob("got.*")]


def answer(port: int, user: str, password: str) -> tuple[str, list[str]]:
    """What PASS brings under tcpserver, and the answer to UIDL then."""
    client = poplib.POP3("127.0.0.1", port, timeout=30)
    try:
        client.user(user)
        said = client.pass_(password).decode()
        return said, [line.decode() for line in client.uidl()[1]]
    except poplib.error_proto as refused:
        return str(refused.args[0], "ascii"), []
    finally:
        client.close()


WRONG = "-ERR authorization failed"


# row: maildirpop3d-page, tcpserver-page
def test_the_pages_example_under_tcpserver(town: Town, tmp_path: Path) -> None:
    words = town.post("joe-lists", "joe-lists")
    with popup(town) as listening:
        found = fetchmail(listening.port, "joe-lists", "bar", tmp_path)
        assert len(found) == 2 and all(any(word in content for content in found) for word in words)
        (word,) = town.post("joe-lists")
        (content,) = mpop(listening.port, "joe-lists", "bar", tmp_path, "auth user", "tls off")
        assert word in content and f"Delivered-To: joe-lists@{LOCAL}".encode() in content
        assert town.holding(word) == []


def test_each_mailbox_has_its_own_password_under_tcpserver(town: Town) -> None:
    (lists,), (first,) = map(town.holding, town.post("joe-lists", "joe"))
    assert lists.parent == town.home / "Maildir-lists/new" and first.parent == town.home / "Maildir/new"
    with popup(town) as listening:
        assert answer(listening.port, "joe-lists", "bar") == ("+OK ", [f"1 {lists.name}"])
        assert answer(listening.port, "joe", OWN) == ("+OK ", [f"1 {first.name}"])  # by our checkpassword
        for user, password in (("joe-lists", OWN), ("joe", "bar"), ("joe-none", "bar")):
            assert answer(listening.port, user, password) == (WRONG, []), user
        assert "warning" not in listening.log() and "fatal" not in listening.log()


# row: maildirpop3d-checkpassword
def test_another_checkpassword_under_tcpserver(town: Town) -> None:
    """The page's second run line, with Debian's checkpw, which has the password in ~/Maildir."""
    town.people.put("joe", town.home / "Maildir" / ".password", b"mine alone")
    with popup(town, peer("checkpw")) as listening:
        assert answer(listening.port, "joe", "mine alone") == ("+OK ", [])
        assert answer(listening.port, "joe", OWN) == (WRONG, [])
        assert answer(listening.port, "joe-lists", "bar") == ("+OK ", [])


# row: maildirpop3d-bad-files
def test_a_fifo_in_the_place_of_passwd_is_one_line_in_tcpservers_log(town: Town) -> None:
    os.mkfifo(town.people.put("joe", town.home / "Maildir-fifo" / "x", b"").with_name("passwd"))
    with popup(town) as listening:
        assert answer(listening.port, "joe-fifo", "bar") == (WRONG, [])
        said = [line for line in listening.log().splitlines() if line.startswith("maildirpop3d")]
        file = town.home / "Maildir-fifo" / "passwd"
        assert said == [f"maildirpop3d: warning: nobody logs in by {file}: it is no regular file"]


# row: maildirpop3d-page, maildirpop3d-serve
def test_the_pages_example_in_serve(town: Town, tmp_path: Path) -> None:
    word, own = town.post("joe-lists", "joe")
    trust, port = str(town.server.authority), town.server.ports["pop3s"]
    curl = [peer("curl"), "--silent", "--show-error", "--cacert", trust]
    assert word in run(*curl, "--user", "joe-lists:bar", f"pop3s://localhost:{port}/1")
    assert own in run(*curl, "--user", f"joe:{OWN}", f"pop3s://localhost:{port}/1")
    starttls = ("tls on", f"tls_trust_file {trust}")
    (content,) = mpop(town.server.ports["pop3"], "joe-lists", "bar", tmp_path, *starttls)
    assert word in content
    assert town.holding(word) == []


REFUSED = b"-ERR [AUTH] authorization failed"


def logged_in(server: Server, name: bytes, password: bytes, source: str) -> bytes:
    """What PASS brings in `serve`."""
    with pop3(server, source=source) as wire:
        wire.tell(b"USER " + name)
        return wire.tell(b"PASS " + password)


# row: maildirpop3d-serve, maildirpop3d-refused
def test_serve_lets_nobody_else_into_a_mailbox_of_its_own(town: Town) -> None:
    tried = [
        (b"joe-lists", OWN.encode()),
        (b"joe", b"bar"),
        (b"joe-none", b"bar"),
        (b"joe-..", b"bar"),
        (b"joe-", b"bar"),
    ]
    for number, (name, password) in enumerate(tried):
        assert logged_in(town.server, name, password, f"127.0.8.{number + 1}") == REFUSED, name
    assert logged_in(town.server, b"joe-lists", b"bar", "127.0.8.9").startswith(b"+OK")
    assert logged_in(town.server, b"JOE-lists@" + LOCAL.encode(), b"bar", "127.0.8.9").startswith(b"+OK")


# row: maildirpop3d-bad-files
@pytest.mark.parametrize("make", ["mkfifo passwd", "ln -s ../Maildir-lists/passwd passwd", "mkdir passwd", ": >passwd"])
def test_what_stands_in_the_place_of_passwd_holds_serve_up_for_nobody(town: Town, make: str) -> None:
    run(*town.as_joe(f"rm -rf Maildir-odd; mkdir Maildir-odd; cd Maildir-odd; {make}"))
    seen = len(town.server.log())
    assert logged_in(town.server, b"joe-odd", b"bar", f"127.0.9.{len(make)}") == REFUSED
    warning = f"owner: warning: {town.home}/Maildir-odd/passwd: "
    until(lambda: warning in town.server.log()[seen:], "a line in the log")


def may_send(server: Server, name: bytes, password: bytes, *senders: bytes) -> list[bytes]:
    """The first three octets of the answer to AUTH in `serve`, and to MAIL from each sender."""
    with Wire(server, "submissions") as wire:
        wire.reply()
        wire.tell(b"EHLO client.example")
        said = [wire.tell(b"AUTH PLAIN " + base64.b64encode(b"\0%s\0%s" % (name, password)))[:3]]
        for sender in senders if said == [b"235"] else ():
            said.append(wire.tell(b"MAIL FROM:<%s>" % sender)[:3])
            wire.tell(b"RSET")
        return said


# row: maildirpop3d-serve
def test_joe_lists_is_a_login_for_sending_as_joe_lists(town: Town) -> None:
    lists, joe = b"joe-lists@" + LOCAL.encode(), b"joe@" + LOCAL.encode()
    assert may_send(town.server, b"joe-lists", b"bar", lists, joe, b"") == [b"235", b"250", b"550", b"250"]
    assert may_send(town.server, b"joe", OWN.encode(), lists, joe) == [b"235", b"250", b"250"]
    assert may_send(town.server, b"joe-lists", OWN.encode()) == [b"535"]


# row: maildirpop3d-serve
def test_an_account_has_mailboxes_of_its_own_too(town: Town, tmp_path: Path) -> None:
    server = town.server
    mine = server.mailbox()
    server.put(mine / ".qmail-lists", b"./Maildir-lists/\n")
    for name in ("Maildir-lists", "Maildir-lists/tmp", "Maildir-lists/new", "Maildir-lists/cur"):
        (mine / name).mkdir(mode=0o700)
        os.chown(mine / name, *town.people.ids("vmail"))
    said = server.pillarbox("account", "password", "joe-lists@example.org", "--password-stdin", say="apart\n")
    assert said == "joe-lists@example.org: has a new password\n"
    word = token()
    deliver(server, b"Subject: %s\r\n\r\n" % word, b"joe-lists@example.org")
    server.await_delivered(word, maildir="Maildir-lists")
    with login(server, b"joe-lists@example.org", b"apart") as wire:
        assert wire.tell(b"STAT").startswith(b"+OK 1 ")
    assert may_send(server, b"joe-lists@example.org", b"apart", b"joe-lists@example.org", b"joe@example.org") == [
        b"235",
        b"250",
        b"550",
    ]
    with login(server, b"joe@example.org", SECRET.encode()) as wire:
        assert wire.tell(b"STAT") == b"+OK 0 0"
    assert logged_in(server, b"joe-lists@example.org", SECRET.encode(), "127.0.8.20") == REFUSED
