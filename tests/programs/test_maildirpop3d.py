"""maildirpop3d with real users: whose mailbox a name means, who asks for what password, and whom the next program is
run as."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import pillarbox
from pillarbox.auth import checkpassword, hashes
from pillarbox.programs import become, maildirpop3d
from tests.etc import everybody
from tests.people import People, some_people

SOURCE = str(Path(pillarbox.__file__).parent.parent)
DES = b"0ZsfajRLIfp0w\n"  # the page's hash of `bar`
YESCRYPT = b"$y$j9T$.2U.1EE/4Q.07ck0AoU1D.$Tu6EFLhoJt6g/7doXnofrddJveIoXLY0ufMMJ4z6WFC\n"
STAMP = b"<1.2@mx.example.org>"

# In the place of qmail-pop3d: as whom, where and with what it runs.
POP3D = """#!/bin/sh
echo "arguments $#: $*"
echo "ids $(id -u) $(id -g) $(id -G)"
echo "in $(pwd)"
echo "$USER $HOME $SHELL $TCPREMOTEIP"
for number in 3 4 5 6 7 8 9; do [ ! -e /proc/$$/fd/$number ] || echo "descriptor $number"; done
tr '\\0' '\\n' </proc/$$/environ | grep -c bar
read word && echo "heard $word"
"""
# In the place of checkpassword.
CHECKER = """#!/bin/sh
echo "checker $#: $*"
echo "ids $(id -u)"
od -An -v -tx1 <&3 | tr -d ' \\n'
echo
exit 7
"""


class Ended(NamedTuple):
    status: int
    output: str
    errors: str


class Machine(NamedTuple):
    """People with mailboxes, and what stands beside maildirpop3d in the run line."""

    people: People
    pop3d: str
    checker: str

    def run(
        self,
        login: bytes,
        password: bytes = b"bar",
        *more: str,
        said: bytes | None = None,
        words: list[str] | None = None,
        caller: str = "",
    ) -> Ended:
        """Run it as qmail-popup does, with `said` or these on descriptor 3. `caller`: by another user than root."""
        octets = b"%s\0%s\0%s\0" % (login, password, STAMP) if said is None else said
        file = self.people.place / "said"
        file.write_bytes(octets)
        program = [everybody() if caller else sys.executable, "-W", "error", "-m", "pillarbox", "run", "maildirpop3d"]
        line = [*program, *(words if words is not None else [self.pop3d, "Maildir", *more])]
        environ = {"PATH": f"{self.people.place}/bin:{os.defpath}", "PYTHONPATH": SOURCE, "TCPREMOTEIP": "192.0.2.7"}
        command = ["sh", "-euc", 'said=$1; shift; exec "$@" 3<"$said"', "sh", str(file), *line]
        done = subprocess.run(
            self.people.as_user(caller, *command) if caller else self.people.within(*command),
            input=b"QUIT\n", capture_output=True, timeout=60, env=environ,
        )  # fmt: skip
        return Ended(done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    """joe with Maildir-lists, joe-foo without any, toor who is root, ghost without a home."""
    with some_people("joe", "joe-foo", "ghost", without=("toor", "noone-here")) as people:
        people.add("toor", uid=0)
        people.put("joe", people.homes / "joe" / "Maildir-lists" / "passwd", DES)
        people.put("joe", people.homes / "joe" / "Maildir-foo" / "passwd", DES)
        people.put("joe", people.homes / "joe" / "Maildir-foo-bar" / "passwd", DES)
        people.put("toor", people.homes / "toor" / "Maildir-lists" / "passwd", DES)
        shutil.rmtree(people.homes / "ghost")
        bin = people.place / "bin"
        bin.mkdir()
        for name, text in (("pop3d", POP3D), ("checkpassword", CHECKER), ("other", CHECKER)):
            (bin / name).write_text(text)
            (bin / name).chmod(0o755)
        yield Machine(people, str(bin / "pop3d"), str(bin / "other"))


def mailbox(machine: Machine, name: str, text: bytes) -> str:
    """joe has a mailbox of this extension, its passwd file is this; the login."""
    machine.people.put("joe", machine.people.homes / "joe" / f"Maildir-{name}" / "passwd", text)
    return f"joe-{name}"


# row: maildirpop3d-extension, maildirpop3d-des
def test_joe_lists_is_joe_in_his_home_with_the_mailboxs_own_password(machine: Machine) -> None:
    uid, gid = machine.people.ids("joe")
    home = machine.people.homes / "joe"
    assert machine.run(b"joe-lists") == Ended(
        0,
        f"arguments 1: Maildir-lists\nids {uid} {gid} {gid}\nin {home}\njoe {home} /bin/sh 192.0.2.7\n0\nheard QUIT\n",
        "",
    )


@pytest.mark.parametrize("stored", [DES, DES.strip(), YESCRYPT], ids=["DES", "no newline", "yescrypt"])
def test_hashes_old_and_new_are_taken(machine: Machine, stored: bytes) -> None:
    login = mailbox(machine, "hashes", stored).encode()
    assert machine.run(login).status == 0
    assert machine.run(login, b"baz") == Ended(1, "", "")


# row: maildirpop3d-refused
@pytest.mark.parametrize(
    ("login", "password"),
    [
        (b"joe-lists", b"baz"), (b"joe-lists", b"bar "), (b"joe-lists", b""), (b"joe-lists", DES.strip()),
        (b"joe-none", b"bar"), (b"joe-", b"bar"), (b"noone-here", b"bar"), (b"-", b"bar"), (b"-lists", b"bar"),
    ],
)  # fmt: skip
def test_a_wrong_password_and_a_missing_mailbox_are_the_same(machine: Machine, login: bytes, password: bytes) -> None:
    assert machine.run(login, password) == Ended(1, "", "")


# row: maildirpop3d-first-user
@pytest.mark.parametrize("login", [b"joe-foo-bar", b"joe-foo-bar-baz", b"joe-foo-", b"JOE-FOO-bar"])
def test_the_first_user_is_final_even_without_the_mailbox(machine: Machine, login: bytes) -> None:
    """joe has a Maildir-foo-bar with that password; joe-foo has nothing."""
    assert machine.run(login, b"bar", machine.checker) == Ended(1, "", "")


def test_the_first_user_opens_his_mailbox_and_not_the_shorter_names(machine: Machine) -> None:
    file = machine.people.homes / "joe-foo" / "Maildir-mine" / "passwd"
    machine.people.put("joe-foo", file, DES)
    done = machine.run(b"joe-foo-mine")
    assert done.output.splitlines()[:3] == [
        "arguments 1: Maildir-mine",
        "ids {0} {1} {1}".format(*machine.people.ids("joe-foo")),
        f"in {machine.people.homes}/joe-foo",
    ]


# row: maildirpop3d-whole-name, maildirpop3d-checkpassword
@pytest.mark.parametrize(
    "said",
    [
        b"joe\0bar\0<1.2@mx.example.org>\0",
        b"joe\0bar\0",
        b"joe-foo\0\xffx\0stamp\0and more",
        b"joe\0" + b"x" * 507 + b"\0",
        b"somebody@example.org\0bar\0\0",
    ],
)
def test_a_whole_name_is_checkpasswords_with_the_same_octets(machine: Machine, said: bytes) -> None:
    done = machine.run(b"", said=said)
    assert done == Ended(7, f"checker 2: {machine.pop3d} Maildir\nids 0\n{said.hex()}\n", "")


# row: maildirpop3d-checkpassword
def test_another_checkpassword_is_named_with_its_arguments(machine: Machine) -> None:
    done = machine.run(b"joe", b"bar", machine.checker, "-x", "two words")
    assert done.output.splitlines()[0] == f"checker 4: -x two words {machine.pop3d} Maildir"
    missing = machine.run(b"joe", b"bar", "/nowhere/checkpassword")
    assert missing == Ended(
        111, "", "maildirpop3d: fatal: unable to run /nowhere/checkpassword: no such file or directory\n"
    )


# row: maildirpop3d-names
@pytest.mark.parametrize("login", [b"toor", b"toor-lists", b"root", b"root-lists"])
def test_root_has_no_mailbox(machine: Machine, login: bytes) -> None:
    assert machine.run(login, b"bar", machine.checker) == Ended(1, "", "")


# row: maildirpop3d-names
@pytest.mark.parametrize("name", ["a/b", "a/../Maildir-lists", "a/..", ".lists", "a..b", "..", "/", "a/"])
def test_extensions_that_lead_elsewhere_are_refused(machine: Machine, name: str) -> None:
    joe = machine.people.homes / "joe"
    machine.people.put("joe", joe / "Maildir-a" / "passwd", DES)
    if Path(name).name not in ("..", ""):
        mailbox(machine, name, DES)
    assert machine.run(f"joe-{name}".encode()) == Ended(1, "", "")


def a_link(file: Path) -> None:
    file.symlink_to("../Maildir-lists/passwd")


def a_socket(file: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(file))


NO_HASH = "its first line is no password hash of a kind that is taken"
NO_FILE = "it is no regular file"


# row: maildirpop3d-bad-files, maildirpop3d-passwd-file
@pytest.mark.parametrize(
    ("make", "why"),
    [
        (b"", "it is empty"),
        (b"\n", "it is empty"),
        (b"x" * (1 << 20), NO_HASH),
        (b"x" * (1 << 20) + b"\n" + DES, NO_HASH),
        (b"bar\n", NO_HASH),
        (os.mkfifo, NO_FILE),
        (os.mkdir, NO_FILE),
        (a_link, NO_FILE),
        (a_socket, NO_FILE),
    ],
)
def test_a_passwd_file_that_is_none_lets_nobody_in_and_is_named(
    machine: Machine, make: bytes | Callable[[Path], None], why: str
) -> None:
    file = machine.people.homes / "joe" / "Maildir-bad" / "passwd"
    shutil.rmtree(file.parent, ignore_errors=True)
    mailbox(machine, "bad", make if isinstance(make, bytes) else b"")
    if not isinstance(make, bytes):
        file.unlink()
        make(file)
    expected = f"maildirpop3d: warning: nobody logs in by {file}: {why}\n"
    assert machine.run(b"joe-bad") == Ended(1, "", expected)


# row: maildirpop3d-passwd-file
def test_passwd_is_read_with_the_users_rights_and_no_others(machine: Machine) -> None:
    file = machine.people.homes / "joe" / "Maildir-roots" / "passwd"
    mailbox(machine, "roots", DES)
    os.chown(file, 0, 0)
    done = machine.run(b"joe-roots")
    assert done == Ended(1, "", f"maildirpop3d: fatal: unable to read {file}: permission denied\n")


# row: maildirpop3d-refused
def test_a_user_whose_home_is_missing_is_told_from_nobody_by_the_log_alone(machine: Machine) -> None:
    assert machine.run(b"ghost-lists") == Ended(
        1, "", "maildirpop3d: fatal: unable to enter the home directory: no such file or directory\n"
    )
    assert machine.run(b"nobodyshere-lists") == Ended(1, "", "")


def test_who_may_not_become_the_user_names_none(machine: Machine) -> None:
    done = machine.run(b"joe-lists", caller="ghost")
    uid, _gid = machine.people.ids("joe")
    assert done == Ended(1, "", f"maildirpop3d: fatal: unable to become uid {uid}: operation not permitted\n")
    assert machine.run(b"nobodyshere-lists", caller="ghost") == Ended(1, "", "")


def test_trouble_behind_the_right_password_is_111_and_one_line(machine: Machine) -> None:
    done = machine.run(b"joe-lists", words=["/nowhere/qmail-pop3d", "Maildir"])
    assert done == Ended(
        111, "", "maildirpop3d: fatal: unable to run /nowhere/qmail-pop3d: no such file or directory\n"
    )


USAGE = "maildirpop3d: usage: maildirpop3d qmail-pop3d Maildir [ checkpassword [ arg ... ] ]\n"


@pytest.mark.parametrize("words", [[], ["qmail-pop3d"]])
def test_called_wrongly_it_ends_with_2(machine: Machine, words: list[str]) -> None:
    assert machine.run(b"joe-lists", words=words) == Ended(2, "", USAGE)


@pytest.mark.parametrize(
    ("said", "status"), [(b"", 2), (b"joe-lists", 2), (b"joe-lists\0bar", 2), (b"joe-lists\0" + b"x" * 502 + b"\0", 1)]
)
def test_what_is_said_wrongly_is_checkpasswords_error(machine: Machine, said: bytes, status: int) -> None:
    done = machine.run(b"", said=said)
    assert (done.status, done.output, done.errors.count("\n")) == (status, "", 1)


def test_another_directory_is_the_run_lines(machine: Machine) -> None:
    machine.people.put("joe", machine.people.homes / "joe" / "mail" / "Box-lists" / "passwd", DES)
    done = machine.run(b"joe-lists", words=[machine.pop3d, "./mail/Box"])
    assert done.output.startswith("arguments 1: ./mail/Box-lists\n")


def test_time_does_not_tell_whether_the_mailbox_or_its_user_is_there(machine: Machine) -> None:
    mailbox(machine, "modern", YESCRYPT)
    logins = (b"joe-modern", b"joe-lists", b"joe-none", b"noone-here", b"toor-lists", b"joe-..")
    worked: list[bytes | None] = []

    def counting(stored: bytes | None, password: bytes) -> bool:
        worked.append(stored)
        return False

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hashes, "matches_crypt", counting)
        patch.setattr(become, "enter", lambda name, user: 0)
        for login in logins:
            patch.setattr(checkpassword, "read", lambda login=login: checkpassword.Asked(login, b"wrong", None, b""))
            patch.chdir(machine.people.homes / "joe")
            assert maildirpop3d.main(["pop3d", "Maildir"]) == 1
    assert len(worked) == len(logins), "one of them cost no hash"
