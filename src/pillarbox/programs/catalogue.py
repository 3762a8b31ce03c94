"""qmail's programs by name, for `pillarbox run NAME`. Each is one module with `main(arguments) -> exit status`."""

from __future__ import annotations

import sys
from importlib import import_module

USAGE = 100

PROGRAMS = {
    "checker": "pillarbox.programs.checker",
    "checkpassword": "pillarbox.programs.checkpassword",
    "cmd5checkpw": "pillarbox.programs.cmd5checkpw",
    "maildirmake": "pillarbox.programs.maildirmake",
    "maildirpasswd": "pillarbox.programs.maildirpasswd",
    "maildirpop3d": "pillarbox.programs.maildirpop3d",
    "newaliases": "pillarbox.programs.newaliases",
    "qmail-inject": "pillarbox.programs.qmail_inject",
    "qmail-local": "pillarbox.programs.qmail_local",
    "qmail-newmrh": "pillarbox.programs.qmail_newmrh",
    "qmail-newu": "pillarbox.programs.newu",
    "qmail-pop3d": "pillarbox.programs.qmail_pop3d",
    "qmail-popup": "pillarbox.programs.qmail_popup",
    "qmail-qread": "pillarbox.programs.qmail_qread",
    "qmail-qstat": "pillarbox.programs.qmail_qstat",
    "qmail-queue": "pillarbox.programs.qmail_queue",
    "qmail-start": "pillarbox.programs.qmail_start",
    "qmail-remote": "pillarbox.programs.qmail_remote",
    "qmail-smtpd": "pillarbox.programs.qmail_smtpd",
    "qmail-showctl": "pillarbox.programs.showctl",
    "splogger": "pillarbox.programs.splogger",
    "sendmail": "pillarbox.programs.sendmail",
}

# Names by which `pillarbox` may be called, and what each means.
LINKS: dict[str, tuple[str, ...]] = {name: (name,) for name in PROGRAMS} | {"mailq": ("sendmail", "-bp")}


def run(name: str | None, arguments: list[str]) -> int:
    """Run one program with these arguments (without its name); its exit status, 100 when there is none of that name."""
    if name not in PROGRAMS:
        said = f"there is no program {name!r}" if name else "say which program"
        print(f"pillarbox: run: {said}; there are: {', '.join(PROGRAMS)}", file=sys.stderr)
        return USAGE
    status = import_module(PROGRAMS[name]).main(arguments)
    assert isinstance(status, int)
    return status
