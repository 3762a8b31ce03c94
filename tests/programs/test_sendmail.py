"""sendmail's options, and what becomes of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from pillarbox.programs import options
from pillarbox.programs.options import BadOption, read
from pillarbox.programs.sendmail import Asked, environment, understand
from tests.programs.calling import a_home, call


def asked(*words: str) -> Asked:
    return understand(read(words, "vimte:f:r:p:o:B:F:EJxb:N:R:V:L:h:O:X:GUnI"))


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["-t"], Asked("m", True, None, None, [])),
        (["-t", "-i"], Asked("m", True, None, None, [])),
        (["-i", "-fa@b.c", "x", "y@z"], Asked("m", False, b"a@b.c", None, [b"x", b"y@z"])),
        (["-f", "a@b.c", "--", "-x"], Asked("m", False, b"a@b.c", None, [b"-x"])),
        (["-f", "<>", "x"], Asked("m", False, b"", None, [b"x"])),
        (["-f", "", "x"], Asked("m", False, b"", None, [b"x"])),
        (["-r", "a@b.c", "x"], Asked("m", False, b"a@b.c", None, [b"x"])),
        (["-FCronDaemon", "-i", "-odi", "-oem", "-oi", "-t"], Asked("m", True, None, b"CronDaemon", [])),
        (["-oi", "-oem", "-bm", "-v", "-B8BITMIME", "x"], Asked("m", False, None, None, [b"x"])),
        (["-it", "-N", "failure,delay", "-Rhdrs"], Asked("m", True, None, None, [])),
        (["-bp"], Asked("p", False, None, None, [])),
        (["-bs"], Asked("s", False, None, None, [])),
        (["-bi"], Asked("i", False, None, None, [])),
        (["-I"], Asked("i", False, None, None, [])),
        (["-ti", "gr\udcf6\udcdfe"], Asked("m", True, None, None, [b"gr\xf6\xdfe"])),
    ],
)
def test_options_are_understood(words: list[str], found: Asked) -> None:
    assert asked(*words) == found


@pytest.mark.parametrize("words", [["-bd"], ["-b"], ["-f"], ["-Z"], ["-tZ"]])
def test_what_it_cannot_do_is_refused(words: list[str], tmp_path: Path) -> None:
    with pytest.raises(BadOption):
        asked(*words)
    said = call(tmp_path, "sendmail", *words)
    assert said.status == 100
    assert said.errors == "sendmail: usage: sendmail [ -t ] [ -fsender ] [ -Fname ] [ -bp ] [ -bs ] [ arg ... ]\n"


# row: known-sendmail-f
def test_f_names_the_author_too_whoever_calls() -> None:
    caller = {b"USER": b"www", b"MAILHOST": b"m", b"NAME": b"Web", b"OTHER": b"x"}
    assert environment(asked("-fjoe@example.org"), caller) == {
        b"USER": b"www", b"OTHER": b"x", b"QMAILUSER": b"joe", b"QMAILHOST": b"example.org",
    }  # fmt: skip
    assert environment(asked("-fjoe"), caller)[b"QMAILUSER"] == b"joe"
    assert environment(asked("-fjoe", "-F", "Joe"), caller)[b"QMAILNAME"] == b"Joe"
    assert environment(asked("-f", ""), caller) == caller


def test_without_variables_the_password_database_says_who_calls() -> None:
    assert b"QMAILUSER" in environment(asked("x"), {})
    assert b"QMAILUSER" not in environment(asked("x"), {b"LOGNAME": b"joe"})


@pytest.mark.parametrize("message", [b"Subject: x\n\nbody\n", b"To: nobody:;\n\n"])
def test_a_message_for_nobody_is_an_error(tmp_path: Path, message: bytes) -> None:
    said = call(a_home(tmp_path / "home"), "sendmail", "-t", say=message)
    assert said.status == 100
    assert said.errors == "sendmail: fatal: no recipients: name them, or say -t and write To, Cc or Bcc\n"


def test_a_server_that_is_not_running_is_75(tmp_path: Path) -> None:
    said = call(a_home(tmp_path / "home"), "sendmail", "joe", say=b"\nx\n")
    assert said.status == 75
    assert said.errors.endswith("/run/inject: the mail server is not running (#4.4.1)\n")


def test_options_end_as_in_getopt() -> None:
    assert list(options.read(["-a", "-", "-b"], "ab")) == [("a", ""), ("", "-"), ("", "-b")]
    assert list(options.read(["-ab", "c", "--", "-d"], "ab:")) == [("a", ""), ("b", "c"), ("", "-d")]
    with pytest.raises(BadOption):
        list(options.read(["-:"], "a:"))
