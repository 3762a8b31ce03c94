"""cmd5checkpw [-f FILE] SUBPROG [ARGUMENTS]: is descriptor 3 about a user of FILE, with his password or the digest of
CRAM-MD5? Then SUBPROG runs, as whom it was called. FILE is control/smtppasswd's, else /usr/local/etc/smtp.passwd.

As cmd5checkpw 0.22: 1 wrong, 2 misused or no good file, 111 cannot say. Who may not read the file asks the checker
(programs/checker.py) over run/checker. The rule that must stay true (CVE-2005-0580): a right to read the file that the
caller has not, from a set-uid bit, is given up before SUBPROG runs; and with such a right neither options nor the
environment say which file or home is meant.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from pillarbox.auth import smtppasswd
from pillarbox.auth.checkpassword import MISUSED, TROUBLE, WRONG, Asked, NotAsked
from pillarbox.control import table
from pillarbox.programs import asked as descriptor_3
from pillarbox.programs import options, whereabouts
from pillarbox.programs.become import give_way
from pillarbox.programs.diagnosis import fatal
from pillarbox.status import Failure
from pillarbox.users.become import gained, give_up

NAME = "cmd5checkpw"
SETTING = "smtppasswd"


def main(arguments: list[str]) -> int:
    """SUBPROG's, or an exit status of cmd5checkpw."""
    try:
        file, argv = _read(arguments)
    except options.BadOption:
        file, argv = None, []
    if not argv:
        return descriptor_3.misused(NAME, f"usage: {NAME} [-f file] subprog [arguments], asked on descriptor 3")
    if file is not None and gained():
        return descriptor_3.misused(NAME, "fatal: -f is not for a program with rights that its caller has not")
    try:
        status = _verdict(file, descriptor_3.read())
    except NotAsked as problem:
        return descriptor_3.not_asked(NAME, problem)
    try:
        give_up()
    except OSError as problem:
        return fatal(NAME, "unable to give up rights", problem)
    return status or give_way(NAME, argv)


def _read(arguments: list[str]) -> tuple[str | None, list[str]]:
    """(-f's FILE, SUBPROG and its arguments). Raises BadOption."""
    file, argv = None, []
    for letter, word in options.read(arguments, "f:"):
        if letter:
            file = word
        else:
            argv.append(word)
    return file, argv


def _verdict(file: str | None, asked: Asked) -> int:
    """0, or why not. Raises NotAsked."""
    safe = gained()
    home = _compiled_in() or whereabouts.of_machine() if safe else whereabouts.find(os.environ)
    try:
        setting = file if file is not None else table.one(Path(home, "control"), SETTING)
        text = smtppasswd.read(Path(home, setting))
    except smtppasswd.CannotRead as problem:
        return _no_file(problem, None if safe or file is not None else home, asked)
    except Failure as problem:
        fatal(NAME, problem.text)
        return MISUSED
    try:
        return 0 if smtppasswd.right(text, asked) else WRONG
    except smtppasswd.Malformed as problem:
        fatal(NAME, f"{Path(home, setting)}: {problem.text}")
        return MISUSED


def _compiled_in() -> str:
    """The home that share/launcher.c has of whoever installed it; the caller has no say in an interpreter's options."""
    home = sys._xoptions.get("pillarbox_home")
    return home if isinstance(home, str) else ""


def _no_file(problem: Failure, home: str | None, asked: Asked) -> int:
    """The checker of the home may read what we may not. None: it is not to be asked."""
    from pillarbox.programs import checking

    if home is None:
        fatal(NAME, problem.text)
        return MISUSED
    try:
        status = checking.ask(home, asked.raw)
    except checking.NoChecker as none:
        fatal(NAME, f"{problem.text}, and no checker to ask: {none.text}")
        return MISUSED
    except Failure as trouble:
        return fatal(NAME, f"{problem.text}, and {trouble.text}")
    if status == TROUBLE:
        fatal(NAME, f"{problem.text}, and the checker cannot say either: its log says why")
    return status
