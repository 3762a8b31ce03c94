"""What each program imports until it has said its first words: nobody waits for what is not needed then.

By program, `imports` are packages of ours (pillarbox.NAME) and modules of the standard library or of others;
what COMMON holds every program may import, what OF_OTHERS holds comes along with a module of the standard library and
costs nothing worth a word. A program that needs something new gets it in its line here, or imports it where it is
needed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

import pillarbox
from pillarbox.programs.catalogue import PROGRAMS


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


COMMON = _names("""
    pillarbox.cli pillarbox.programs pillarbox.status abc array collections contextlib copyreg datetime enum errno
    functools importlib io itertools keyword math operator os re reprlib runpy select selectors signal socket stat
    struct sys time types typing warnings
""")
# What these bring with them, of Python 3.11 to 3.13.
OF_OTHERS = {
    "dataclasses": "ast copy dis inspect linecache opcode token tokenize weakref",
    "pathlib": "fnmatch fcntl glob grp ipaddress ntpath pwd urllib",
    "subprocess": "locale threading weakref fcntl",
    "tempfile": "bisect bz2 hashlib lzma random shutil weakref zlib fnmatch",
    "hmac": "hashlib",
    "threading": "weakref",
    "cdbx": "",
}
# Nothing else of the standard library or of others is so slow; no program needs one of these to say its first words.
SLOW = _names("asyncio argon2 cffi click cryptography dns email http idna json logging pydoc rich ssl uvloop")


@dataclass(frozen=True)
class Begun:
    """How a program is begun, and what it may import until it speaks or ends for want of input. `third`: descriptor 3.
    `says`: how what it prints begins, where it greets."""

    arguments: tuple[str, ...] = ()
    imports: str = ""
    third: bytes = b""
    says: bytes = b""

    def may(self) -> frozenset[str]:
        """All that may be imported."""
        named = set(self.imports.split())
        brought = {each for name in named for each in OF_OTHERS.get(name, "").split()}
        return COMMON | named | brought


_WORDS = "pillarbox.address pillarbox.envelope pillarbox.quoting"
_SETTINGS = "pillarbox.control pillarbox.blocklists dataclasses pathlib"
_POP3 = (
    "pillarbox.pop3 pillarbox.sasl pillarbox.sessions pillarbox.credentials pillarbox.envelope pillarbox.scan"
    " binascii dataclasses"
)
_CHECKING = "pillarbox.auth pillarbox.users pillarbox.credentials ctypes dataclasses fcntl pathlib pwd threading"
_INJECTING = "pillarbox.envelope pillarbox.net pillarbox.roles"
_WRONG = b"nosuchuser\0wrong\0<1.2@mail.example.org>\0"

_SMTP = f"""{_WORDS} pillarbox.admission pillarbox.content pillarbox.control pillarbox.credentials pillarbox.header
    pillarbox.outcome pillarbox.routing pillarbox.sasl pillarbox.scan pillarbox.sessions pillarbox.smtp binascii
    dataclasses"""

_DELIVERING = f"""{_WORDS} pillarbox.compose pillarbox.content pillarbox.delivery pillarbox.header pillarbox.mailbox
    pillarbox.net pillarbox.outcome pillarbox.roles pillarbox.users cdbx ctypes dataclasses pathlib subprocess tempfile
    threading"""
_CALLING = f"""{_WORDS} {_SETTINGS} pillarbox.attempt pillarbox.content pillarbox.credentials pillarbox.net
    pillarbox.outcome pillarbox.roles pillarbox.routes pillarbox.routing pillarbox.sasl pillarbox.sessions
    pillarbox.smtp binascii"""

BEGUN = {
    "checkpassword": Begun(("/bin/true",), f"{_CHECKING} hmac", _WRONG),
    "cmd5checkpw": Begun(("-f", "smtp.passwd", "/bin/true"), f"{_CHECKING} {_SETTINGS} hmac", _WRONG),
    "maildirmake": Begun(("/proc/none",), "pillarbox.content pillarbox.mailbox ctypes"),
    "maildirpasswd": Begun((), "pillarbox.auth pillarbox.users ctypes hmac pathlib"),
    "maildirpop3d": Begun(("qmail-pop3d", "Maildir"), f"{_CHECKING} hmac", b"joe-x\0bar\0\0"),
    "newaliases": Begun((), f"{_WORDS} {_SETTINGS} pillarbox.compose pillarbox.delivery pillarbox.users cdbx"),
    "qmail-inject": Begun(("-n",), f"{_INJECTING} pillarbox.compose pillarbox.header pillarbox.quoting"),
    "qmail-newmrh": Begun((), "pillarbox.control pillarbox.users dataclasses pathlib cdbx"),
    "qmail-local": Begun(("-n", "joe", "/", "joe", "", "", "example.org", "", "./Maildir/"), _DELIVERING),
    "qmail-remote": Begun(("far.example", "a@example.org", "b@far.example"), _CALLING, says=b"Z"),
    "qmail-newu": Begun((), "pillarbox.users dataclasses pathlib cdbx"),
    "qmail-pop3d": Begun(("Maildir",), f"{_POP3} pillarbox.content pillarbox.mailbox ctypes fcntl"),
    "qmail-popup": Begun(("mx.example.org", "true"), f"{_POP3} pillarbox.auth fcntl threading", says=b"+OK <"),
    "qmail-queue": Begun((), _INJECTING),
    "qmail-showctl": Begun((), f"{_SETTINGS} pillarbox.routes pillarbox.routing"),
    "qmail-smtpd": Begun((), _SMTP, says=b"220 mx.example.org ESMTP\r\n"),
    "sendmail": Begun(("-t",), f"{_INJECTING} pillarbox.compose pillarbox.header pillarbox.quoting"),
    "splogger": Begun((), "syslog"),
}
# These run for a while, or answer nobody who waits.
PATIENT = {"checker", "qmail-start", "qmail-qread", "qmail-qstat"}


def begin(words: tuple[str, ...], begun: Begun, directory: Path) -> tuple[set[str], bytes]:
    """What a program imported, and what it printed."""
    (directory / "control").mkdir(exist_ok=True)
    (directory / "control" / "me").write_text("mx.example.org\n")
    (directory / "control" / "smtproutes").write_text(":127.0.0.1:1\n")  # where nobody listens
    (directory / "smtp.passwd").write_text("joe:secret\n")
    for name in ("tmp", "new", "cur"):
        (directory / "Maildir" / name).mkdir(parents=True, exist_ok=True)
    (directory / "third").write_bytes(begun.third)
    environment = {
        "PATH": os.defpath,
        "PYTHONPATH": str(Path(pillarbox.__file__).parent.parent),
        "PILLARBOX_HOME": str(directory),
        "LC_ALL": "C.UTF-8",
    }
    command = ["/bin/sh", "-c", 'exec "$@" 3<"$0"', str(directory / "third"), sys.executable, "-X", "importtime"]
    done = subprocess.run(
        [*command, *words, *begun.arguments], input=b"", capture_output=True, env=environment, cwd=directory, timeout=60
    )
    lines = [line.rpartition("|")[2].strip() for line in done.stderr.decode().splitlines() if "import time:" in line]
    return {_package(name) for name in lines[1:]}, done.stdout


def _package(name: str) -> str:
    parts = name.split(".")
    return ".".join(parts[:2]) if parts[0] == "pillarbox" else parts[0]


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """What the interpreter imports by itself."""
    return begin(("-c", ""), Begun(), tmp_path_factory.mktemp("bare"))[0]


def is_there(name: str) -> bool:
    """Not a module that was looked for in vain, nor one that only Python itself uses."""
    return not name.startswith("_") and name != "pillarbox" and find_spec(name) is not None


@pytest.mark.parametrize("name", BEGUN)
def test_a_program_imports_what_its_list_has(name: str, bare: set[str], tmp_path: Path) -> None:
    begun = BEGUN[name]
    imported, said = begin(("-m", "pillarbox", "run", name), begun, tmp_path)
    surplus = {each for each in imported - bare - begun.may() if is_there(each)}
    assert not surplus, f"{name} imports {sorted(surplus)}: too much to wait for, or not yet in its list"
    assert said.startswith(begun.says)


@pytest.mark.parametrize("name", BEGUN)
def test_no_list_has_what_is_slow(name: str) -> None:
    assert not BEGUN[name].may() & SLOW


def test_every_program_has_its_list() -> None:
    assert BEGUN.keys() | PATIENT == PROGRAMS.keys()


def test_what_is_imported_is_seen(bare: set[str], tmp_path: Path) -> None:
    imported, _said = begin(("-c", "import asyncio, pillarbox.smtp.reply"), Begun(), tmp_path)
    assert {"asyncio", "ssl", "pillarbox.smtp"} <= imported - bare - COMMON
