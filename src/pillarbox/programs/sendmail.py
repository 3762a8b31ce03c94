"""sendmail: as the programs of others call it, sendmail(8). A message on standard input becomes qmail-inject's.

With -bi or -I it makes the alias table, with -bp it lists the queue, with -bs it speaks SMTP. Exit statuses: 0
queued, 75 (EX_TEMPFAIL) not now, 100 it cannot be.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from importlib import import_module
from typing import NamedTuple

from pillarbox.programs import diagnosis, options, qmail_inject
from pillarbox.programs.qmail_inject import Call

NAME = "sendmail"
TEMPFAIL = 75  # sysexits.h: what callers of sendmail know as "try again"
USAGE = "[ -t ] [ -fsender ] [ -Fname ] [ -bp ] [ -bs ] [ arg ... ]"
# Those of qmail's sendmail, and what others have had since: -r is -f; the rest says how to do what is done our way.
_LETTERS = "vimte:f:r:p:o:B:F:EJxb:N:R:V:L:h:O:X:GUnI"
_ELSEWHERE = {
    "i": "pillarbox.programs.newaliases",
    "p": "pillarbox.programs.qmail_qread",
    "s": "pillarbox.programs.smtp_session",
}


class Asked(NamedTuple):
    """What the options say. `mode` is -b's letter."""

    mode: str
    header: bool
    sender: bytes | None
    name: bytes | None
    recipients: list[bytes]


def main(arguments: list[str]) -> int:
    """The exit status."""
    try:
        asked = understand(options.read(arguments, _LETTERS))
    except options.BadOption:
        return diagnosis.usage(NAME, USAGE)
    if asked.mode in _ELSEWHERE:
        status = import_module(_ELSEWHERE[asked.mode]).main([])
        assert isinstance(status, int)
    else:
        call = Call(NAME, asked.recipients, asked.header, asked.sender, crlf=True, several=True, needs_one=True)
        status = qmail_inject.run(call, environment(asked, os.environb))
    return TEMPFAIL if status == diagnosis.TEMPORARY else status


def understand(read: Iterable[tuple[str, str]]) -> Asked:
    """Options and words. Raises BadOption for a -b that is not ours."""
    mode, header, sender, name = "m", False, None, None
    recipients = []
    for option, argument in read:
        if option == "":
            recipients.append(os.fsencode(argument))
        elif option == "t":
            header = True
        elif option in "fr":
            sender = b"" if argument == "<>" else os.fsencode(argument)
        elif option == "F":
            name = os.fsencode(argument)
        elif option == "I":
            mode = "i"
        elif option == "b":
            mode = argument
    if mode not in ("m", *_ELSEWHERE):
        raise options.BadOption("b")
    return Asked(mode, header, sender, name, recipients)


def environment(asked: Asked, environ: qmail_inject.Environment) -> qmail_inject.Environment:
    """qmail-inject's variables: who is named with -f or -F is meant, whatever the caller's own variables say."""
    made = dict(environ)
    if asked.sender:
        for variable in (b"QMAILNAME", b"MAILNAME", b"NAME", b"QMAILHOST", b"MAILHOST"):
            made.pop(variable, None)
        user, at, host = asked.sender.rpartition(b"@")
        made[b"QMAILUSER"] = user if at else asked.sender
        if at:
            made[b"QMAILHOST"] = host
    if not any(variable in made for variable in (b"QMAILUSER", b"MAILUSER", b"USER", b"LOGNAME")):
        made[b"QMAILUSER"] = _login()
    if asked.name is not None:
        made[b"QMAILNAME"] = asked.name
    return made


def _login() -> bytes:
    """Who calls, by the password database: a web server or cron may have no variable that says so."""
    import pwd

    try:
        return os.fsencode(pwd.getpwuid(os.getuid()).pw_name)
    except KeyError:
        return b"anonymous"
