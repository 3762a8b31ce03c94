"""`pillarbox unit`: the files by which systemd, supervise, runit or s6 run the server, filled in for one home.

The templates lie in the package (share/), so that an installation without the checkout has them. Lines that listen
come from control/listen, which stays the one place that says what is served.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib.resources import files
from pathlib import Path

from pillarbox.cli.home import require
from pillarbox.cli.shell import quoted
from pillarbox.cli.trust import writable_by_others
from pillarbox.control.table import Settings, read
from pillarbox.programs.injector import SOCKET
from pillarbox.status import Failure, Status
from pillarbox.users.roles import POSTS, name_of

LONGEST = 107  # octets of a Unix socket's path that is bound from elsewhere
MARGIN = 15  # seconds beyond control/draintime until systemd kills
UNITS = (
    "pillarbox.service", "pillarbox.socket", "run", "log-run", "qmail-smtpd.socket", "qmail-smtpd@.service",
    "qmail-pop3d.socket", "qmail-pop3d@.service",
)  # fmt: skip

_NO_PROGRAM = re.compile(r"""['"\\$]""")
_PLAIN = re.compile(r"[A-Za-z0-9_/.,:+=@-]+", re.ASCII)


class CannotFill(Failure):
    """A unit cannot be written for this home; the text says why."""

    status = Status(5, 3, 5)


def unit(home: Path, name: str | None) -> int:
    """Print one file, or without a name the names there are."""
    if name is None:
        print("\n".join(UNITS))
        return 0
    if name not in UNITS:
        raise CannotFill(f"there is no unit {name!r}; there are: {', '.join(UNITS)}")
    require(home)
    print(filled(name, home, _command()), end="")
    for line in _writable_by_others(Path(_command()[0])):
        print(f"pillarbox: warning: {line}", file=sys.stderr)
    return 0


def filled(name: str, home: Path, command: list[str]) -> str:
    """The file of that name. `command` starts `pillarbox`, by its whole path. Raises CannotFill."""
    settings, _complaints = read(home / "control")
    me = settings.me.decode("ascii", "backslashreplace")
    for text in (str(home), me, *command):
        if not text.isprintable():
            raise CannotFill(f"{text!r}: a path with such characters fits into no unit; choose another")
    quote = _for_systemd if name.endswith((".service", ".socket")) else quoted
    programs = {
        "@SMTPD@": "qmail-smtpd", "@POPUP@": "qmail-popup", "@MAILDIRPOP@": "maildirpop3d", "@POP@": "qmail-pop3d",
        "@CHECKPASSWORD@": "checkpassword",
    }  # fmt: skip
    values: dict[str, Callable[[], str]] = {
        "@COMMAND@": lambda: " ".join(map(quote, command)),
        "@HOME@": lambda: quote(str(home)),
        "@ME@": lambda: quote(me),
        "@SMTPUSER@": lambda: quote(name_of(next(post for post in POSTS if post.role == "smtpd"), settings)),
        "@LISTEN@": lambda: "\n".join(_listen(home, settings)),
        "@LOGGER@": lambda: quote(name_of(next(post for post in POSTS if post.role == "log"), settings)),
        "@PATIENCE@": lambda: str(settings.draintime + MARGIN),
        "@TARGET@": lambda: "multi-user.target" if os.getuid() == 0 else "default.target",
    }
    values |= {word: partial(_program, home / "bin" / program) for word, program in programs.items()}
    text = files("pillarbox").joinpath("share", name).read_text("ascii")
    return re.sub("@[A-Z]+@", lambda found: values[found[0]](), text)


def _listen(home: Path, settings: Settings) -> Iterator[str]:
    fixed = [listener for listener in settings.listen if listener.port]
    if not fixed:
        raise CannotFill(f"{home}/control/listen: names no port that systemd could listen on")
    for listener in fixed:
        yield f"# {listener.service}"
        yield f"ListenStream={str(listener).partition(' ')[2]}"
    injection = home / SOCKET
    if len(os.fsencode(injection)) <= LONGEST:
        yield "# programs on this machine that send mail"
        yield f"ListenStream={str(injection).replace('%', '%%')}"


def _for_systemd(text: str) -> str:
    """One word of ExecStart= (systemd.service(5), COMMAND LINES)."""
    plain = text.replace("%", "%%")
    if _PLAIN.fullmatch(text):
        return plain
    return '"' + plain.replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$") + '"'


def _program(file: Path) -> str:
    """A program that systemd is to start: it takes no such name, quoted or not."""
    if _NO_PROGRAM.search(str(file)):
        raise CannotFill(f"{file}: systemd starts no program whose path holds a quote, a backslash or a $")
    return _for_systemd(str(file))


def _command() -> list[str]:
    """What starts this very program, by its whole path."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py":
        return [sys.executable, "-m", "pillarbox"]
    found = shutil.which(called.name) if len(called.parts) == 1 else str(called)
    return [os.path.abspath(found or called)]


def _writable_by_others(program: Path) -> Iterator[str]:
    """Root will run this program at every start: whoever may change it, or what it loads, may become root."""
    if os.getuid() != 0:
        return
    for place in (program, Path(__file__).resolve().parent.parent):
        found = writable_by_others(place)
        if found is not None:
            yield (
                f"{found}: others than root may write there, and root will run what lies there; "
                "install it where only root writes, such as /opt/pillarbox"
            )
            return
