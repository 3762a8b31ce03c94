"""qmail-start [DEFAULTDELIVERY [LOGGER [ARGUMENTS...]]]: the server as an old /var/qmail/rc starts it.

`pillarbox serve` without ports: mail comes from local programs and from qmail-smtpd under tcpserver. DEFAULTDELIVERY
(default ./Mailbox) says what happens to mail of users without a .qmail file. The log goes to LOGGER's standard input,
without one to our standard output.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from pillarbox.cli.home import require, resolve
from pillarbox.control import reading
from pillarbox.control.table import read
from pillarbox.programs import diagnosis
from pillarbox.roles.log import STANDARD_ERROR
from pillarbox.roles.logger import Logger
from pillarbox.status import Failure
from pillarbox.users.become import Ids
from pillarbox.users.roles import role_user

NAME = "qmail-start"
MAILBOX = "./Mailbox"


def main(arguments: list[str]) -> int:
    """0 when it was told to stop; 100 called wrongly; 111 it cannot start."""
    delivery = os.fsencode(arguments[0] if arguments else MAILBOX)
    if not delivery.endswith(b"\n"):
        delivery += b"\n"
    fault = reading.delivery(delivery).fault
    if fault is not None:
        return diagnosis.usage(NAME, f"[defaultdelivery [logger [args]]]: defaultdelivery: {fault.problem}")
    try:
        home = resolve(None, os.environ)
        require(home)
        logger = _logger(home, arguments[1:])
        return _serve(home, delivery, logger)
    except Failure as failure:
        return diagnosis.fatal(NAME, failure.text)
    except OSError as problem:
        return diagnosis.fatal(NAME, f"unable to start: {problem.filename or 'the server'}", problem)


def _logger(home: Path, command: list[str]) -> Logger | None:
    """Runs as qmaill, or whom control/roleusers calls `log`."""
    if not command:
        return None
    if shutil.which(command[0]) is None:
        raise FileNotFoundError(2, os.strerror(2), command[0])
    if os.getuid() != 0:
        return Logger(command, None)
    settings, _complaints = read(home / "control")
    user = role_user("log", settings)
    return Logger(command, Ids(user.uid, user.gid))


def _serve(home: Path, delivery: bytes, logger: Logger | None) -> int:
    from pillarbox.cli.serve import serve

    if logger is None:
        os.dup2(1, STANDARD_ERROR)
        return serve(home, delivery)
    logger.start()
    try:
        return serve(home, delivery)
    except Failure as failure:
        return diagnosis.fatal(NAME, failure.text)  # before the logger's end, so that the log has it too
    finally:
        logger.end()
