"""qmail's POP3 chain with a real user: Debian's tcpserver, our qmail-popup, a checkpassword program (ours, or Debian's
checkpw and checkapoppw), our qmail-pop3d as that user; and real mail programs that read by it, as they are."""

from __future__ import annotations

import hashlib
import os
import poplib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.peers import bundle, peer, run
from tests.people import People, some_people
from tests.tcpserver import ME, Tcpserver, a_place, tcpserver

USER = "pbjoe"
SECRET = "Tr0ub4dor &3"
# What `openssl passwd -6 -salt pillarboxsalt` makes of it.
HASH = "$6$pillarboxsalt$U4tQZmfI5zH.7DzV31GoI8VT8SF/U3ZlJCnekirQQp9geZ.Ml0v2GRL7vMoDYuj2.QYQo7jzIol85IXTclldY1"
BODIES = [b"first\n", b".\n..\n.dot first\n\nspaces at the end:  \n\xe9 is not ASCII\n", b"third\n"]
AT = 1_700_000_000


class Chain(NamedTuple):
    """Who reads, where, and by which port."""

    people: People
    place: Path
    server: Tcpserver

    @property
    def home(self) -> Path:
        """His."""
        return self.people.homes / USER

    @property
    def box(self) -> list[str]:
        """What is in his new/ and cur/."""
        return sorted(f"{at}/{file.name}" for at in ("new", "cur") for file in (self.home / "Maildir" / at).iterdir())


@contextmanager
def chain(checker: Callable[[], str]) -> Iterator[Chain]:
    with some_people(USER) as people, a_place() as place:
        shadow = people.place / "etc" / "shadow"
        shadow.write_text(re.sub(f"(?m)^{USER}:[^:]*", lambda _: f"{USER}:{HASH}", shadow.read_text()))
        run(*people.as_user(USER, str(place / "bin" / "maildirmake"), str(people.homes / USER / "Maildir")))
        people.put(USER, people.homes / USER / "Maildir" / ".password", SECRET.encode() + b"\n")
        for number, body in enumerate(BODIES):
            content = b"From: ann@example.net\nTo: joe@example.org\nSubject: number %d\n\n" % number + body
            letter = people.put(USER, people.homes / USER / "Maildir" / "new" / f"{AT + number}.{number}", content)
            os.utime(letter, (AT + number,) * 2)
            os.chown(letter, *people.ids(USER))
        words = ("qmail-popup", ME, checker(), "qmail-pop3d", "Maildir")
        with tcpserver(place, *words, within=people.within()) as server:
            yield Chain(people, place, server)
            assert "Traceback" not in server.log()


def debians(program: str) -> Callable[[], str]:
    return lambda: str(bundle("checkers") / "usr" / "bin" / program)


# The page's own run line has maildirpop3d, which asks checkpassword about a user's own name.
CHECKERS = pytest.mark.parametrize(
    "checker",
    [lambda: "checkpassword", lambda: "maildirpop3d", debians("checkpw")],
    ids=["checkpassword", "maildirpop3d", "checkpw"],
)


def body(content: bytes) -> bytes:
    """Without the empty line that qmail-pop3d sends behind every message."""
    return content.replace(b"\r\n", b"\n").partition(b"\n\n")[2].removesuffix(b"\n")


# row: pop3d-checkpw, pop3d-clients, pop3d-tcpserver
@CHECKERS
def test_poplib_reads_and_deletes(checker: Callable[[], str]) -> None:
    with chain(checker) as there:
        client = poplib.POP3("127.0.0.1", there.server.port, timeout=30)
        assert client.capa() == {"TOP": [], "USER": [], "LAST": [], "UIDL": []}
        assert client.user(USER) == b"+OK "
        assert client.pass_(SECRET) == b"+OK "
        assert client.stat() == (3, sum(len(letter.read_bytes()) for letter in (there.home / "Maildir/new").iterdir()))
        assert client.capa() == {"TOP": [], "USER": [], "LAST": [], "UIDL": []}
        for number, expected in enumerate(BODIES, 1):
            assert body(b"\n".join(client.retr(number)[1]) + b"\n") == expected
        assert client.uidl()[1] == [b"1 1700000000.0", b"2 1700000001.1", b"3 1700000002.2"]
        client.dele(2)
        client.quit()
        assert there.box == ["cur/1700000000.0:2,", "cur/1700000002.2:2,"]
        assert {(file.stat().st_uid) for file in (there.home / "Maildir" / "cur").iterdir()} == {
            there.people.ids(USER)[0]
        }


# row: pop3d-checkpw
@CHECKERS
@pytest.mark.parametrize(
    ("name", "password"), [(USER, "wrong"), (USER, ""), ("nobody-here", SECRET), ("root", SECRET), ("", SECRET)]
)
def test_nobody_else_gets_in(checker: Callable[[], str], name: str, password: str) -> None:
    with chain(checker) as there:
        client = poplib.POP3("127.0.0.1", there.server.port, timeout=30)
        with pytest.raises(poplib.error_proto, match=r"authorization failed|syntax error|USER first"):
            client.user(name)
            client.pass_(password)
        client.close()
        assert len(there.box) == 3


# row: pop3d-clients
def test_fetchmail_reads_and_deletes(tmp_path: Path) -> None:
    """It insists on STLS unless it is told that there is none."""
    with chain(lambda: "checkpassword") as there:
        file = tmp_path / "fetchmailrc"
        file.write_text(
            f"poll 127.0.0.1 protocol pop3 port {there.server.port} user '{USER}' password '{SECRET}'\n"
            "sslproto ''\n"
            f"""mda "/bin/sh -c 'cat >{tmp_path}/got.$$'"\n"""
        )
        file.chmod(0o600)
        words = (peer("fetchmail"), "--fetchmailrc", file, "--nodetach", "--nosyslog", "--verbose")
        run("env", f"FETCHMAILHOME={tmp_path}", *words)
        got = sorted(file.read_bytes().partition(b"\n\n")[2] for file in tmp_path.glob("got.*"))
        assert got == sorted(each + b"\n" for each in BODIES)
        assert there.box == []


# row: pop3d-clients
@pytest.mark.parametrize("pipelining", ["auto", "on"])
def test_mpop_reads_and_deletes(tmp_path: Path, pipelining: str) -> None:
    """It wants to be told that the password may go in clear; the program offers no TLS, as qmail's did not."""
    with chain(lambda: "checkpassword") as there:
        for name in ("new", "cur", "tmp"):
            (tmp_path / "Maildir" / name).mkdir(parents=True)
        file = tmp_path / "mpoprc"
        file.write_text(
            f'account default\nhost 127.0.0.1\nport {there.server.port}\nuser {USER}\npassword "{SECRET}"\ntls off\n'
            f"auth user\npipelining {pipelining}\nuidls_file {tmp_path}/uidls\ndelivery maildir {tmp_path}/Maildir\n"
        )
        file.chmod(0o600)
        run(peer("mpop"), f"--file={file}")
        assert sorted(body(each.read_bytes()) for each in (tmp_path / "Maildir" / "new").iterdir()) == sorted(BODIES)
        assert there.box == []


# row: pop3d-clients
def test_getmail_reads_and_deletes(tmp_path: Path) -> None:
    with chain(lambda: "checkpassword") as there:
        file = tmp_path / "getmailrc"
        file.write_text(
            f"[retriever]\ntype = SimplePOP3Retriever\nserver = 127.0.0.1\nport = {there.server.port}\n"
            f"username = {USER}\npassword = {SECRET}\n"
            f"""[destination]\ntype = MDA_external\npath = /bin/sh\narguments = ("-c", "cat >{tmp_path}/got.$$")\n"""
            "allow_root_commands = true\n[options]\ndelete = true\ndelivered_to = false\nreceived = false\n"
        )
        run(peer("getmail"), f"--getmaildir={tmp_path}", f"--rcfile={file}")
        got = sorted(each.read_bytes().partition(b"\n\n")[2] for each in tmp_path.glob("got.*"))
        assert got == sorted(each + b"\n" for each in BODIES)
        assert there.box == []


# row: pop3d-clients
def test_curl_reads_and_deletes_by_apop() -> None:
    """curl takes APOP where a greeting has a timestamp, as qmail-popup's always has; Debian's checkapoppw can check
    that."""
    with chain(debians("checkapoppw")) as there:
        curl = (peer("curl"), "--silent", "--show-error", "--user", f"{USER}:{SECRET}")
        at = f"pop3://127.0.0.1:{there.server.port}"
        assert [line.split()[0] for line in run(*curl, at).splitlines()] == [b"1", b"2", b"3"]
        for number, expected in enumerate(BODIES, 1):
            assert body(run(*curl, f"{at}/{number}")) == expected
        run(*curl, "--request", "DELE", "--head", f"{at}/2")
        assert there.box == ["cur/1700000000.0:2,", "cur/1700000002.2:2,"]


# row: popup-apop
def test_an_apop_digest_is_good_for_its_greeting_alone() -> None:
    with chain(debians("checkapoppw")) as there:
        first, second = (poplib.POP3("127.0.0.1", there.server.port, timeout=30) for _ in range(2))
        stamp = first.getwelcome().split()[1]
        digest = hashlib.md5(stamp + SECRET.encode()).hexdigest()
        with pytest.raises(poplib.error_proto, match="authorization failed"):
            second._shortcmd(f"APOP {USER} {digest}")  # type: ignore[attr-defined]  # typeshed has it not
        assert first._shortcmd(f"APOP {USER} {digest}") == b"+OK "  # type: ignore[attr-defined]  # typeshed has it not
        first.quit()
        second.close()
