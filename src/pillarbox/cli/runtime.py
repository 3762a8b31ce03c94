"""A copy of all that our programs run on, which only root can change: this package and the libraries it needs.

Launchers start it with the interpreter's -I and -S: no variable, no directory of the caller's and no other package of
the machine has a say in what they load. The copy has its name only when it is whole and on disk, and the name says what
is in it, so that a newer version comes beside it and running programs keep theirs. One that is there already is never
trusted: each installation builds its own and puts it in that one's place at once.
"""

from __future__ import annotations

import compileall
import hashlib
import os
import py_compile
import re
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path

import pillarbox
from pillarbox.cli.launchers import KEPT, CannotInstall, Launcher
from pillarbox.cli.shell import quoted
from pillarbox.cli.trust import closed_to_others, loose, loose_within, writable_by_others
from pillarbox.mailbox.durable import exchange, sync_file_system
from pillarbox.programs.other_queue import LAUNCHER
from pillarbox.users.replace import sync_directory

# As pyproject.toml has them; a checkout that was never installed has no metadata of its own to ask.
LIBRARIES = ("argon2-cffi", "cdbx", "click", "cryptography", "dnspython", "rich", "uvloop")
_OPTIONAL = ("uvloop",)
_SITES = frozenset({"site-packages", "dist-packages"})  # what -S leaves out
_LONGEST_LINE = 250  # octets of `#!` and what follows, which kernels since 5.1 read
_NAME = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)
_SAFE = "install Python and Pillarbox where only root writes (docs/install.md)"

# Whatever keeps it from starting is temporary: of qmail-remote, qmail takes other statuses for a refusal.
_FIRST = """\
import sys
sys.path.append({runtime!r})
try:
    from pillarbox.cli.launch import installed
except BaseException as trouble:
    if sys.stderr:
        sys.stderr.write("{name}: cannot start: %r\\n" % trouble)
    sys.exit(111)
installed({told})
"""
_LAUNCHER = """\
#!{python} -IS
# {mark}: {name}. `pillarbox install --into {into} --undo` takes it back.
{first}"""
# An interpreter that is gone, or that ends before it comes to our first line, has a status of its own for that: 127,
# 126, 1, 2. To qmail-lspawn and qmail-rspawn these are refusals. So a shell tries it, and then becomes it: there is no
# parent of ours that signals and statuses would have to go through.
_BEHIND_SHELL = """\
#!/bin/sh
# {mark}: {name}. `pillarbox install --into {into} --undo` takes it back.
trap 'exit 111' EXIT
{python} -IS -c '' </dev/null >/dev/null || exit
exec {python} -IS -c {first} "$@"
"""
_REFUSES = ("qmail-local", "qmail-remote")  # whose other statuses are refusals

Files = dict[str, Path]


def interpreter() -> Path:
    """The program that runs this one, without the environment it was installed in."""
    return Path(os.path.realpath(getattr(sys, "_base_executable", sys.executable)))


def refuse_unsafe() -> None:
    """Raises CannotInstall when another user than root can change the interpreter, its library or ours, or when not
    everybody may run them."""
    python = interpreter()
    closed = closed_to_others(python)
    if closed is not None:
        raise CannotInstall(
            f"{python}: other users cannot run it (stopped at {closed}), and programs run as many users; "
            "install Pillarbox with the system's Python (docs/install.md)"
        )
    places = [Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")]
    for place in (python, *places, Path(pillarbox.__file__).parent):
        found = writable_by_others(place)
        if found is not None:
            raise CannotInstall(
                f"{found}: others than root may write there, and root would run what lies there; {_SAFE}"
            )
    for place in dict.fromkeys(places):
        found = loose_within(place, _SITES)
        if found is not None:
            raise CannotInstall(f"{found}: others than root may write it, and root would run it; {_SAFE}")


def build(into: Path) -> Path:
    """A copy in into/KEPT/runtime, in the place of one of this name: what was compiled there can be compared with
    nothing. Nobody else may write in into/KEPT (Programs.refuse_loose). Raises CannotInstall, OSError."""
    files = _files()
    shelf = into / KEPT / "runtime"
    built = shelf / _name(files)
    fresh = shelf / ".next"
    _remove(fresh)
    umask = os.umask(0o022)
    try:
        fresh.mkdir(parents=True)
        with _synced(fresh):
            for name, source in files.items():
                _copy(source, fresh / name)
            _compile(fresh, built)
            _environment(fresh)
    finally:
        os.umask(umask)
    _put_in_place(fresh, built)
    sync_directory(shelf)
    for replaced in (fresh, fresh.with_name(".older")):
        _remove(replaced)
    return built


def _put_in_place(fresh: Path, built: Path) -> None:
    """Then `fresh` is what was there, if there was something. Programs that start meanwhile find one or the other, but
    on a file system that cannot exchange names. Raises OSError."""
    if os.path.lexists(built) and not exchange(str(fresh), str(built)):
        older = fresh.with_name(".older")
        _remove(older)
        os.rename(built, older)
    if not os.path.lexists(built):
        os.rename(fresh, built)


def _remove(place: Path) -> None:
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)


def others(into: Path, keep: Path | None) -> list[Path]:
    """The copies that are there beside this one."""
    with suppress(FileNotFoundError):
        shelf = into / KEPT / "runtime"
        return sorted(shelf / name for name in os.listdir(shelf) if shelf / name != keep)
    return []


def launcher(name: str, runtime: Path, home: Path | None) -> Launcher:
    """The program that starts `name` of this copy. `home`: what it takes for its home unless $PILLARBOX_HOME says
    otherwise. Raises CannotInstall."""
    python = str(interpreter())
    for text in (python, str(runtime), str(home or "")):
        if not text.isprintable() or not text.isascii():
            raise CannotInstall(f"{text!r}: a path with such characters fits into no launcher; choose another")
    if len(f"#!{python} -IS") > _LONGEST_LINE or " " in python:
        raise CannotInstall(f"{python}: the kernel cannot start a program by this path; use /usr/bin/python3")
    told = f"{name!r}, {str(home)!r}" if home else repr(name)
    first = _FIRST.format(name=name, runtime=str(runtime), told=told)
    form = _LAUNCHER
    if name in _REFUSES:
        form, python, first = _BEHIND_SHELL, quoted(python), quoted(first)
    text = form.format(python=python, mark=LAUNCHER.decode(), name=name, into=into_of(runtime), first=first)
    return Launcher(name, text.encode("ascii"))


def into_of(runtime: Path) -> str:
    """What to say to --into for the programs of this copy, for a shell."""
    directory = runtime.parent.parent.parent
    return quoted(directory.parent if directory.name == "bin" else directory)


def _files() -> Files:
    """What is to be copied, by its name there. Raises CannotInstall when others could have changed any of it."""
    package = Path(pillarbox.__file__).resolve().parent
    files = {f"pillarbox/{file.relative_to(package)}": file for file in package.rglob("*") if file.is_file()}
    for library in _libraries():
        files |= _files_of(library)
    files = {name: files[name] for name in sorted(files) if "__pycache__" not in name}
    directories: set[Path] = set()
    for file in files.values():
        directories.add(file.parent)
        if loose(file, os.stat(file)):
            raise CannotInstall(f"{file}: others than root may write it, and root would run it; {_SAFE}")
    for directory in directories:
        found = writable_by_others(directory)
        if found is not None:
            raise CannotInstall(
                f"{found}: others than root may write there, and root would run what lies there; {_SAFE}"
            )
    return files


def _libraries() -> Iterator[metadata.Distribution]:
    """What is needed, and what that needs."""
    wanted, seen = list(LIBRARIES), set[str]()
    while wanted:
        name = wanted.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            found = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            if name in LIBRARIES and name not in _OPTIONAL:
                raise CannotInstall(f"the library {name} is not there; install Pillarbox with pip first") from None
            continue  # for another system or version
        yield found
        required = [line for line in found.requires or () if "extra ==" not in line]
        wanted += [match[0] for line in required if (match := _NAME.match(line))]


def _files_of(library: metadata.Distribution) -> Files:
    listed = library.files
    if listed is None:
        raise CannotInstall(
            f"{library.name} was installed without a list of its files; install Pillarbox with pip first"
        )
    found = {str(name): Path(str(library.locate_file(name))) for name in listed if ".." not in name.parts}
    return {name: file for name, file in found.items() if file.is_file()}


def _name(files: Files) -> str:
    """Version and digest of all that the copy consists of."""
    digest = hashlib.sha256(f"{interpreter()} {sys.version}\n".encode())
    for name, file in files.items():
        octets = file.read_bytes()
        digest.update(b"%s\0%d\0" % (os.fsencode(name), len(octets)))
        digest.update(octets)
    return f"{pillarbox.__version__}-{digest.hexdigest()[:16]}"


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(0o755 if source.stat().st_mode & 0o100 else 0o644)


def _compile(fresh: Path, final: Path) -> None:
    """Users cannot keep what they compile there. Nothing in a copy ever changes, so nobody has to compare times."""
    compileall.compile_dir(
        fresh, quiet=2, stripdir=str(fresh), prependdir=str(final), workers=1,
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )  # fmt: skip


def python_of(runtime: Path) -> Path:
    """An interpreter that finds the copy by itself, for a launcher that can say no more than -I."""
    return runtime / "bin" / "python"


def _environment(fresh: Path) -> None:
    """What makes it find that: a virtual environment whose packages are the copy (site, PEP 405)."""
    python = interpreter()
    packages = fresh / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    packages.parent.mkdir(parents=True)
    packages.symlink_to("../..")
    (fresh / "bin").mkdir()
    (fresh / "bin" / "python").symlink_to(python)
    (fresh / "pyvenv.cfg").write_text(f"home = {python.parent}\ninclude-system-site-packages = false\n")


@contextmanager
def _synced(directory: Path) -> Iterator[None]:
    """What is written meanwhile is on disk then. Raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield
        sync_file_system(descriptor)
    finally:
        os.close(descriptor)
