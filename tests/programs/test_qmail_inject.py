"""qmail-inject as a program: options, variables, what it prints, and how it ends."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pillarbox.control import table
from pillarbox.programs import hosts
from tests.programs.calling import a_home, call


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return a_home(tmp_path / "home", defaulthost="ref.example.test", defaultdomain="example.test", idhost="id.test")


# row: vectors-inject
def test_n_prints_the_letter_with_its_sender_first(home: Path) -> None:
    said = call(home, "qmail-inject", "-n", say=b"To: bob\nSubject: x\nBcc: c\n\nbody", environ={"USER": "me"})
    assert (said.status, said.errors) == (0, "")
    pattern = (
        rb"Return-Path: <me@ref\.example\.test>\nDate: \d+ \w+ \d+ [\d:]+ -0000\n"
        rb"Message-ID: <\d{14}\.\d+\.qmail@id\.test>\nFrom: me@ref\.example\.test\nTo: bob@ref\.example\.test\n"
        rb"Subject: x\n\nbody\n"
    )
    assert re.fullmatch(pattern, said.output), said.output


def test_a_header_alone_gets_no_empty_line(home: Path) -> None:
    assert call(home, "qmail-inject", "-n", say=b"To: bob@a.b").output.endswith(b"\nTo: bob@a.b\n")


@pytest.mark.parametrize(
    ("variables", "sender", "author"),
    [
        ({}, b"anonymous@ref.example.test", b"anonymous@ref.example.test"),
        ({"LOGNAME": "l"}, b"l@ref.example.test", b"l@ref.example.test"),
        ({"LOGNAME": "l", "USER": "u"}, b"u@ref.example.test", b"u@ref.example.test"),
        ({"USER": "u", "MAILUSER": "m"}, b"m@ref.example.test", b"m@ref.example.test"),
        ({"MAILUSER": "m", "QMAILUSER": "q"}, b"q@ref.example.test", b"q@ref.example.test"),
        ({"USER": "u", "MAILHOST": "h"}, b"u@h.example.test", b"u@h.example.test"),
        ({"USER": "u", "MAILHOST": "h", "QMAILHOST": "q.q"}, b"u@q.q", b"u@q.q"),
        ({"USER": "u", "QMAILSUSER": "s", "QMAILSHOST": "t.t"}, b"s@t.t", b"u@ref.example.test"),
        ({"USER": "u", "NAME": "N"}, b"u@ref.example.test", b'"N" <u@ref.example.test>'),
        ({"USER": "u", "NAME": "N", "MAILNAME": "M"}, b"u@ref.example.test", b'"M" <u@ref.example.test>'),
        ({"USER": "u", "MAILNAME": "M", "QMAILNAME": "Q"}, b"u@ref.example.test", b'"Q" <u@ref.example.test>'),
        ({"USER": "u", "NAME": "N", "QMAILINJECT": "c"}, b"u@ref.example.test", b"u@ref.example.test (N)"),
        ({"USER": "u", "QMAILDEFAULTHOST": "e.e"}, b"u@e.e", b"u@e.e"),
        ({"USER": "u", "QMAILDEFAULTDOMAIN": "d", "MAILHOST": "h"}, b"u@h.d", b"u@h.d"),
        ({"USER": "u", "QMAILPLUSDOMAIN": "p", "MAILHOST": "h+"}, b"u@h.p", b"u@h.p"),
        ({"USER": "u", "NAME": "N\nBcc: spy"}, b"u@ref.example.test", b'"N Bcc: spy" <u@ref.example.test>'),
    ],
)
def test_variables_say_who_sends(home: Path, variables: dict[str, str], sender: bytes, author: bytes) -> None:
    said = call(home, "qmail-inject", "-n", say=b"To: a@b.c\n\n", environ=variables)
    assert said.output.startswith(b"Return-Path: <" + sender + b">\n")
    assert b"\nFrom: " + author + b"\n" in said.output


def test_f_says_the_sender_alone(home: Path) -> None:
    said = call(home, "qmail-inject", "-n", "-f", "f@host", say=b"To: a@b.c\n\n", environ={"USER": "u"})
    assert said.output.startswith(b"Return-Path: <f@host.example.test>\n")
    assert b"\nFrom: u@ref.example.test\n" in said.output


# row: vectors-inject
def test_a_file_names_lists_for_mail_followup_to(home: Path, tmp_path: Path) -> None:
    (tmp_path / "lists").write_text("# mine\nList@l.l \n")
    variables = {"QMAILMFTFILE": str(tmp_path / "lists")}
    said = call(home, "qmail-inject", "-n", say=b"To: list@l.l\n\n", environ=variables)
    assert b"\nMail-Followup-To: list@l.l\n" in said.output
    none = call(home, "qmail-inject", "-n", say=b"To: x@l.l\n\n", environ={"QMAILMFTFILE": str(tmp_path / "none")})
    assert none.status == 0 and b"Followup" not in none.output


# row: vectors-inject
@pytest.mark.parametrize(
    ("words", "message", "status", "errors"),
    [
        (["-x"], b"", 100, "qmail-inject: usage: qmail-inject [ -nNaAhH ] [ -f sender ] [ recip ... ]\n"),
        (["-f"], b"", 100, "qmail-inject: usage: qmail-inject [ -nNaAhH ] [ -f sender ] [ recip ... ]\n"),
        ([], b'To: a,\n "b\n\n', 100, 'qmail-inject: fatal: unable to parse this line:\nTo: a,\n "b\n'),
        (["a@]"], b"\n", 100, "qmail-inject: fatal: unable to parse address: a@]\n"),
    ],
)
def test_what_cannot_be_is_said_in_qmails_words(
    home: Path, words: list[str], message: bytes, status: int, errors: str
) -> None:
    assert call(home, "qmail-inject", *words, say=message) == (status, b"", errors)


# row: known-inject-a
def test_recipients_in_arguments_make_an_unreadable_header_harmless(home: Path) -> None:
    said = call(home, "qmail-inject", "-n", "a@b.c", say=b'To: "\n\n')
    assert (said.status, said.errors) == (0, "")


def test_a_home_that_is_not_set_up_is_said_with_the_remedy(tmp_path: Path) -> None:
    said = call(tmp_path, "qmail-inject", say=b"To: a@b.c\n\n")
    expected = f"{tmp_path}: not set up; set PILLARBOX_HOME, or ask root for /etc/pillarbox/home"
    assert said == (111, b"", f"qmail-inject: fatal: {expected}\n")


def test_a_server_that_is_not_running_is_said_and_temporary(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = call(home, "qmail-inject", say=b"To: a@b.c\n\n")
    assert (said.status, said.output) == (111, b"")
    assert said.errors == f"qmail-inject: fatal: {home}/run/inject: the mail server is not running (#4.4.1)\n"


@pytest.mark.parametrize(
    "given", [{}, {"defaulthost": "h.h", "idhost": ""}, {"plusdomain": "p  \nmore", "me": "x.y \t"}]
)
def test_the_control_files_mean_what_the_table_says(tmp_path: Path, given: dict[str, str]) -> None:
    """They are read past the table, which takes too long to import."""
    home = a_home(tmp_path / "home", **given)
    found = hosts.read(str(home), {})
    settings, _ = table.read(home / "control")
    assert found.hosts == (settings.defaulthost, settings.defaultdomain, settings.plusdomain)
    assert found.idhost == settings.idhost


def test_another_program_takes_the_place_of_qmail_queue(home: Path, tmp_path: Path) -> None:
    program = tmp_path / "queue"
    program.write_text(f'#!/bin/sh\ncat >"{tmp_path}/message"\ncat <&1 >"{tmp_path}/envelope"\nexit 0\n')
    program.chmod(0o755)
    variables = {"QMAILQUEUE": str(program), "USER": "me"}
    said = call(home, "qmail-inject", "x@y.z", "q@r.s", say=b"Subject: s\n\nbody\n", environ=variables)
    assert said == (0, b"", "")
    assert (tmp_path / "envelope").read_bytes() == b"Fme@ref.example.test\0Tx@y.z\0Tq@r.s\0\0"
    assert (tmp_path / "message").read_bytes().endswith(b"Subject: s\n\nbody\n")


@pytest.mark.parametrize(
    ("script", "status", "text"),
    [
        ("exit 31", 100, "mail server permanently rejected message (#5.3.0)"),
        ("exit 11", 100, "envelope address too long for qq (#5.1.3)"),
        ("exit 35", 100, "qq permanent problem (#5.3.0)"),
        ("cat >/dev/null; exit 53", 111, "qq write error or disk full (#4.3.0)"),
        ("exit 99", 111, "qq temporary problem (#4.3.0)"),
        ("kill -9 $$", 111, "qq crashed (#4.3.0)"),
    ],
)
def test_its_exit_status_is_told_in_qmails_words(
    home: Path, tmp_path: Path, script: str, status: int, text: str
) -> None:
    program = tmp_path / "queue"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    said = call(home, "qmail-inject", say=b"To: a@b.c\n\n" + b"x" * 500_000, environ={"QMAILQUEUE": str(program)})
    assert said == (status, b"", f"qmail-inject: fatal: {text}\n")


def test_such_a_program_that_is_not_there_is_a_temporary_trouble(home: Path) -> None:
    said = call(home, "qmail-inject", say=b"To: a@b.c\n\n", environ={"QMAILQUEUE": "/does/not/exist"})
    assert said == (111, b"", "qmail-inject: fatal: unable to exec qq (#4.3.0)\n")
