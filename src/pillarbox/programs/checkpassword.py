"""checkpassword PROG [ARGUMENTS]: is descriptor 3 about a system user and his password? Then PROG runs as him.

As checkpassword 0.90: no options; 1 wrong, 2 misused, 111 cannot say. Passwords are those of /etc/shadow, which root
alone reads. The rule that must stay true: root is nobody here, and who there is cannot be told by time.
"""

from __future__ import annotations

import time

from pillarbox.auth import shadow
from pillarbox.auth.checkpassword import WRONG, Asked, NotAsked
from pillarbox.programs import asked as descriptor_3
from pillarbox.programs.become import log_in
from pillarbox.programs.diagnosis import fatal
from pillarbox.status import Failure
from pillarbox.users import system
from pillarbox.users.system import SystemUser

NAME = "checkpassword"


def main(arguments: list[str]) -> int:
    """PROG's, or an exit status of checkpassword."""
    if not arguments:
        return descriptor_3.misused(NAME, f"usage: {NAME} prog [arguments], asked on descriptor 3")
    try:
        user = _user(descriptor_3.read())
    except NotAsked as problem:
        return descriptor_3.not_asked(NAME, problem)
    except Failure as problem:
        return fatal(NAME, problem.text)
    return WRONG if user is None else log_in(NAME, user, arguments)


def _user(asked: Asked) -> SystemUser | None:
    """Who is meant, if it is he. Raises Failure."""
    user = system.find(asked.login)
    known = user is not None and user.uid != 0
    right = shadow.right(asked.login if known else None, asked.second, int(time.time()) // 86400)
    return user if right else None
