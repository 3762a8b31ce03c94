"""maildirpop3d POP3D MAILDIR [CHECKPASSWORD [ARGUMENTS]]: several POP mailboxes for one user (maildirpop3d 0.8, qmail
patches). It stands between qmail-popup and qmail-pop3d, where checkpassword would.

joe-lists is ~joe/MAILDIR-lists, whose password is in the file passwd there; joe himself is left to CHECKPASSWORD. The
rules that must stay true: the first of joe-foo-bar, joe-foo, joe that is a user decides, whatever becomes of the rest;
nothing of a user's is read before this process is that user; and whether it is the user, the mailbox or the password
that is not there can be told neither from the answer nor from the time it takes. So trouble with one user (no home, a
passwd file that he may not read) is 1 as well, and the log says why: callers tell their clients of 111 something else.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from pillarbox.auth import checkpassword, extension, hashes
from pillarbox.auth.checkpassword import WRONG, Asked, NotAsked
from pillarbox.cli.output import printable
from pillarbox.programs import asked as descriptor_3
from pillarbox.programs import become, diagnosis
from pillarbox.status import Failure
from pillarbox.users.first import FirstUser, first_user

NAME = "maildirpop3d"
CHECKPASSWORD = "checkpassword"  # looked for in PATH


def main(arguments: list[str]) -> int:
    """1 wrong password, no such mailbox or none that can be used, 2 called wrongly, 111 trouble whoever logs in; else
    it becomes the next program."""
    if len(arguments) < 2:
        return descriptor_3.misused(NAME, f"usage: {NAME} qmail-pop3d Maildir [ checkpassword [ arg ... ] ]")
    pop3d, base, *checker = arguments
    try:
        asked = descriptor_3.read()
        found = first_user(asked.login)
    except NotAsked as problem:
        return descriptor_3.not_asked(NAME, problem)
    except Failure as failure:
        return diagnosis.fatal(NAME, failure.text)
    if _is_plain(asked.login, found):
        return _ask_checker(asked, [*(checker or [CHECKPASSWORD]), pop3d, base])
    return _log_in(asked, found, pop3d, os.fsencode(base))


def _is_plain(login: bytes, found: FirstUser | None) -> bool:
    """Whether this is no name of ours: the checker may know more users than the system. Root has no mailbox."""
    if found is None:
        return b"-" not in login
    return not found.dash and found.user.uid != 0


def _ask_checker(asked: Asked, argv: Sequence[str]) -> int:
    try:
        checkpassword.hand_on(asked.raw)
    except OSError as problem:
        return diagnosis.fatal(NAME, "unable to open a pipe", problem)
    return become.give_way(NAME, argv)


def _log_in(asked: Asked, found: FirstUser | None, pop3d: str, base: bytes) -> int:
    """Into a mailbox with a password of its own; `found` is None where the name is nobody's."""
    directory, stored = b"", None
    if found is not None and found.user.uid != 0 and extension.allowed(found.ext):
        directory = extension.maildir(base, found.ext)
        if not become.enter(NAME, found.user):
            stored = _stored(found.user.home, directory)
    if not hashes.matches_crypt(stored, asked.second):
        return WRONG
    return become.give_way(NAME, [pop3d, os.fsdecode(directory)])


def _stored(home: bytes, directory: bytes) -> bytes | None:
    """The hash in the mailbox's passwd file; None where there is none, with a line that says why when there should be
    one."""
    file = printable(os.path.join(home, directory, extension.PASSWD))
    try:
        return extension.read(directory)
    except extension.UnusablePasswd as failure:
        print(f"{NAME}: warning: nobody logs in by {file}: {failure.text}", file=sys.stderr)
    except OSError as problem:
        diagnosis.fatal(NAME, f"unable to read {file}", problem)
    return None
