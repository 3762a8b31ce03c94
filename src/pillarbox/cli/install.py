"""`pillarbox install`: our programs in the place of a qmail's own, one by one, and `--undo`.

Nothing of qmail's but programs is touched, and of those only what we have. Each is replaced at once (launchers.py) by a
few lines that start a copy of Pillarbox which only root can change (runtime.py).
"""

from __future__ import annotations

import grp
import os
import pwd
import re
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pillarbox.cli import runtime, setuid
from pillarbox.cli.home import NoHome, refuse_beside_qmail_send
from pillarbox.cli.launchers import KEPT, CannotInstall, Launcher, Programs
from pillarbox.cli.otherwise import otherwise
from pillarbox.cli.output import printable
from pillarbox.cli.trust import closed_to_others, writable_by_others
from pillarbox.programs.catalogue import PROGRAMS

BINS = ("bin", "sbin")
# Without a server of ours these leave mail where nobody takes it, or show a queue that is not there.
SERVER = ("qmail-queue", "qmail-start", "qmail-qread", "qmail-qstat")
# Nobody looks for these under a name of their own: they came with Pillarbox (`pillarbox run checker`).
OWN = ("checker",)
_COPY = re.compile(f"'([^']*)/{re.escape(KEPT)}/runtime/")  # in what a launcher tells the interpreter
_MOST = 100_000  # messages that are counted


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line says. `into`: a qmail's directory, or a directory of programs (.../sbin)."""

    into: Path
    only: tuple[str, ...] = ()
    dry_run: bool = False
    setuid: int | None = None

    @property
    def bin(self) -> Path:
        """Where the programs stand."""
        return self.into if self.into.name in BINS else self.into / "bin"

    @property
    def home(self) -> Path | None:
        """The qmail, if this is one."""
        home = self.bin.parent
        return home if (home / "control").is_dir() else None


def install(
    into: Path, only: Sequence[str] = (), *, dry_run: bool = False, owner: str = "", root: Path = Path("/")
) -> int:
    """Put our programs there, or say (`dry_run`) what that would do, and what behaves otherwise then, by the run lines
    below `root`. `owner` is whose rights a program with a set-uid bit gets. 0; raises CannotInstall, OSError."""
    uid = setuid.owner(owner) if owner else None
    asked = Asked(Path(os.path.abspath(into)), tuple(only), dry_run, uid)
    _refuse_names(asked.only)
    if uid is not None:
        _refuse_setuid(asked)
    _refuse_place(asked)
    runtime.refuse_unsafe()
    programs = Programs(asked.bin)
    programs.refuse_loose()
    names, held_back = _chosen(asked)
    if not dry_run:
        with programs.alone():
            _put(asked, programs, names)
    for line in (*_told(asked, programs, names), *held_back):
        print(printable(line))
    for line in otherwise(asked.home, asked.bin, {*names, *programs.ours()}, root):
        print(printable(f"otherwise: {line}"))
    return 0


def undo(into: Path, only: Sequence[str] = (), *, dry_run: bool = False) -> int:
    """Put back what was there. 0; raises CannotInstall, OSError."""
    asked = Asked(Path(os.path.abspath(into)), tuple(only), dry_run)
    _refuse_names(asked.only)
    _refuse_place(asked)
    programs = Programs(asked.bin)
    programs.refuse_loose()
    with programs.alone():
        for line in _taken_back(asked, programs):
            print(printable(line))
    return 0


def _put(asked: Asked, programs: Programs, names: Sequence[str]) -> None:
    """Launchers of these names, and those of ours that are there already, of this very version."""
    copy = runtime.build(asked.bin)
    for name in dict.fromkeys([*names, *(name for name in programs.ours() if name in PROGRAMS)]):
        programs.put(_launcher(asked, programs, name, copy))
    if not _somebody_runs_ours(asked.bin):
        _remove(runtime.others(asked.bin, copy))


def _launcher(asked: Asked, programs: Programs, name: str, copy: Path) -> Launcher:
    """One that has a set-uid bit keeps it."""
    facts = programs.facts(name)
    uid = asked.setuid if name in setuid.PROGRAMS and (not asked.only or name in asked.only) else None
    if uid is None and facts is not None and facts.st_mode & stat.S_ISUID and programs.is_ours(name):
        uid = facts.st_uid
    if uid is not None:
        return setuid.compiled(name, runtime.python_of(copy), asked.bin, uid, asked.home)
    return runtime.launcher(name, copy, asked.home)


def _told(asked: Asked, programs: Programs, names: Sequence[str]) -> Iterator[str]:
    """One line for each program, and one for those that stay."""
    kept = programs.replaced()
    for name in names:
        file = programs.directory / name
        facts = programs.facts(name)
        if not asked.dry_run and facts is not None and facts.st_mode & stat.S_ISUID:
            yield f"{file}: Pillarbox's, with a set-uid bit ({_owner(facts)} {stat.S_IMODE(facts.st_mode):04o})"
        elif not asked.dry_run:
            yield f"{file}: Pillarbox's; " + (
                f"{programs.kept}/replaced has the old one" if name in kept else "new here"
            )
        elif facts is not None and programs.is_ours(name):
            yield f"{file}: Pillarbox's already, would become this version"
        elif facts is not None:
            yield f"{file}: would be replaced and kept ({_owner(facts)} {stat.S_IMODE(facts.st_mode):04o})"
        else:
            yield f"{file}: would be new"
    stay = sorted(name for name in os.listdir(programs.directory) if name not in PROGRAMS and not name.startswith("."))
    if stay:
        yield f"stay as they are, Pillarbox has no such programs: {' '.join(stay)}"


def _chosen(asked: Asked) -> tuple[list[str], list[str]]:
    """The programs that will be put there, and a line about those that will not, or that leave mail behind. Raises
    CannotInstall when one that was asked for cannot be."""
    names = list(asked.only or (name for name in PROGRAMS if name not in OWN))
    held = [name for name in names if name in SERVER]
    if asked.home is None or not held:
        return names, []
    reason = _qmail_send_works(asked.home)
    if reason and asked.only:
        raise CannotInstall(f"{asked.home}: {reason}")
    waiting = _waiting(asked.home)
    if not reason and waiting:
        reason = f"{waiting} messages wait in qmail-send's queue, which ours does not read; let it deliver them first"
        if asked.only:
            return names, [f"otherwise: {asked.home}: {reason}"]
    if not reason:
        return names, []
    return [name for name in names if name not in SERVER], [f"not yet {' '.join(held)}: {reason}"]


def _qmail_send_works(home: Path) -> str | None:
    try:
        refuse_beside_qmail_send(home)
    except NoHome:
        return "qmail-send runs there, and would not get the mail of our qmail-queue; stop qmail, and install again"
    return None


def _waiting(home: Path) -> int:
    """Messages in the queue of a qmail, at most _MOST."""
    count = 0
    for directory in (home / "queue" / "mess").glob("*"):
        with suppress(OSError):
            count += len(os.listdir(directory))
        if count >= _MOST:
            break
    return count


def _taken_back(asked: Asked, programs: Programs) -> Iterator[str]:
    names = sorted({*programs.ours(), *programs.replaced()})
    if asked.only:
        names = [name for name in names if name in asked.only]
    for name in names:
        file = programs.directory / name
        if asked.dry_run:
            yield f"{file}: would be put back" if name in programs.replaced() else f"{file}: would go"
        elif not programs.take_back(name):
            yield f"{file}: another one by now, and stays; {programs.kept}/replaced/{name} is the one that was here"
        else:
            yield f"{file}: put back" if programs.facts(name) is not None else f"{file}: gone"
    if asked.dry_run or programs.ours():
        return
    if _somebody_runs_ours(asked.bin):
        yield f"{programs.kept}/runtime: programs still run from it; say --undo again when they have ended"
        return
    _remove(runtime.others(asked.bin, None))
    with suppress(FileNotFoundError):
        (programs.kept / "runtime").rmdir()
    programs.clear()
    if not names:
        yield f"{programs.directory}: nothing to undo"
    elif asked.home is not None and (asked.home / "queue" / "queue.db").exists():
        yield f"{asked.home}/queue/queue.db: has what Pillarbox did not deliver yet: see pillarbox queue list"


def _remove(copies: Sequence[Path]) -> None:
    for copy in copies:
        shutil.rmtree(copy)


def _somebody_runs_ours(directory: Path) -> bool:
    """Does a process of one of the launchers there run? It may still have to import something."""
    return any(_runs_from(directory, process) for process in os.listdir("/proc") if process.isdigit())


def _runs_from(directory: Path, process: str) -> bool:
    with suppress(OSError):
        words = [os.fsdecode(word) for word in Path("/proc", process, "cmdline").read_bytes().split(b"\0")]
        if words[0].startswith(f"{os.path.realpath(directory)}/{KEPT}/"):
            return True
        if words[1:3] == ["-IS", "-c"]:
            copy = _COPY.search(words[3])
            return copy is not None and os.path.realpath(copy[1]) == os.path.realpath(directory)
        if words[1:2] == ["-IS"] or words[0] == "/bin/sh":  # the kernel adds the launcher's path as its caller wrote it
            word = words[1] if words[0] == "/bin/sh" else words[2]
            script = os.path.realpath(os.path.join(os.readlink(f"/proc/{process}/cwd"), word))
            return os.path.dirname(script) == os.path.realpath(directory)
    return False


def _refuse_setuid(asked: Asked) -> None:
    if asked.only and not set(asked.only) & set(setuid.PROGRAMS):
        raise CannotInstall(f"--setuid is for {', '.join(setuid.PROGRAMS)} alone; name it with --only")


def _refuse_names(only: Sequence[str]) -> None:
    unknown = [name for name in only if name not in PROGRAMS]
    if unknown:
        raise CannotInstall(f"there is no program {unknown[0]!r}; there are: {', '.join(PROGRAMS)}")


def _refuse_place(asked: Asked) -> None:
    if not asked.bin.is_dir():
        raise CannotInstall(f"{asked.bin}: no such directory; say --into /var/qmail, or wherever your qmail is")
    if os.geteuid() != 0 and not asked.dry_run:
        raise CannotInstall(f"{asked.bin}: only root can put programs there for everybody; run this as root")
    found = writable_by_others(asked.bin)
    if found is not None:
        remedy = f"chown root {found}" if os.stat(found).st_uid else f"chmod go-w {found}"
        raise CannotInstall(f"{found}: others than root may write there, and could change the programs; {remedy}")
    closed = closed_to_others(asked.bin)
    if closed is not None:
        raise CannotInstall(
            f"{closed}: not everybody may enter it, and programs run as many users; chmod go+x {closed}"
        )


def _owner(facts: os.stat_result) -> str:
    user, group = str(facts.st_uid), str(facts.st_gid)
    with suppress(KeyError):
        user = pwd.getpwuid(facts.st_uid).pw_name
    with suppress(KeyError):
        group = grp.getgrgid(facts.st_gid).gr_name
    return f"{user}:{group}"
