"""The architecture is a test: who may import whom, what each layer may touch, and how long anything may get.

Read from the syntax trees, so nothing is imported and nothing can hide behind a lazy import inside a function.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "pillarbox"


def names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Every package, and every module at the top level that is not a word, stands in exactly one layer.
LAYER_OF = {
    "compose": "words",
    "smtp": "protocols",
    "pop3": "protocols",
    "sasl": "protocols",
    "control": "domain",
    "users": "domain",
    "auth": "domain",
    "queue": "domain",
    "delivery": "domain",
    "mailbox": "domain",
    "routing": "domain",
    "routes": "domain",
    "admission": "domain",
    "accounts": "domain",
    "tcprules": "domain",
    "blocklists": "domain",
    "sessions": "sessions",
    "net": "net",
    "roles": "everything",
    "programs": "everything",
    "cli": "everything",
    "__main__": "everything",
}

MAY_USE = {
    "words": {"words"},
    "protocols": {"words", "protocols"},
    "domain": {"words", "domain"},
    "sessions": {"words", "protocols", "sessions"},
    "net": {"words", "net"},
}

# The pure part of the domain: decisions over settings already in memory. Sessions may use these and no others.
PURE_POLICY = {"admission", "routing"}

# Words, protocols and sessions touch nothing: of the standard library they may have only what computes.
COMPUTES = names("""
    __future__ abc base64 binascii bisect collections contextlib dataclasses datetime enum errno functools hashlib heapq
    hmac ipaddress itertools json math operator re string struct textwrap types typing unicodedata zlib
""")
NETWORK = names("asyncio http poplib select selectors smtplib socket socketserver ssl urllib uvloop")
# What a layer must keep its hands off, where it may have the rest of the standard library.
FORBIDDEN = {
    "domain": NETWORK | names("time signal logging sched subprocess multiprocessing"),
    "net": names("email mailbox pwd smtplib poplib sqlite3 subprocess multiprocessing random"),
}
MAY_RUN_PROGRAMS = {"delivery", "auth"}
# Built-ins and methods that reach the world, or its clock, without an import.
REACHES_OUT = names("open print input exec eval compile __import__ breakpoint")
READS_THE_CLOCK = names("now utcnow today")

BANNED_WORDS = names("manager helper helpers util utils base misc handler context processor")
LONGEST_FILE = 700
LONGEST_FUNCTION = 60


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def own_files() -> list[Path]:
    return sorted([*modules(), *(ROOT / "tests").rglob("*.py")])


def dotted(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room(module: str) -> str:
    """`pillarbox.queue.sqlite` is in the room `queue`; the package itself is a word."""
    return module.split(".")[1] if "." in module else "__init__"


def is_package(name: str) -> bool:
    return (PACKAGE / name).is_dir()


def layer(module: str) -> str:
    name = room(module)
    if name in LAYER_OF:
        return LAYER_OF[name]
    assert not is_package(name), f"{name}/ stands in no layer: place it in LAYER_OF"
    return "words"


def imports(tree: ast.AST, module: str, *, package: bool = False) -> Iterator[str]:
    """Every module named by an import anywhere in the file; `from pillarbox import smtp` counts as pillarbox.smtp."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = node.module or ""
            if node.level:
                steps = module.split(".")
                steps = steps[: len(steps) - node.level + (1 if package else 0)]
                start = ".".join([*steps, *([node.module] if node.module else [])])
            if start == "pillarbox":
                yield from (f"pillarbox.{alias.name}" for alias in node.names)
            else:
                yield start


def wrong_arrow(module: str, imported: str) -> str | None:
    """Why `module` may not import `imported` (a module of ours), or None."""
    here, there = layer(module), layer(imported)
    if here == "everything" or there in MAY_USE[here]:
        return None
    if here == "sessions" and room(imported) in PURE_POLICY:
        return None
    return f"{module} ({here}) imports {imported} ({there})"


def wrong_touch(module: str, imported: str) -> str | None:
    """Why `module` may not use this module of the standard library or of somebody else, or None."""
    here, top = layer(module), imported.split(".")[0]
    if here in ("words", "protocols", "sessions"):
        return None if top in COMPUTES else f"{module} ({here}) touches {imported}"
    if top in FORBIDDEN.get(here, ()) and not (top == "subprocess" and room(module) in MAY_RUN_PROGRAMS):
        return f"{module} ({here}) touches {imported}"
    return None


def offences(source: str, module: str, *, package: bool = False) -> list[str]:
    tree = ast.parse(source)
    found = []
    for imported in imports(tree, module, package=package):
        ours = imported == "pillarbox" or imported.startswith("pillarbox.")
        found.append((wrong_arrow if ours else wrong_touch)(module, imported))
    found.extend(calls_outside(tree, module))
    return [offence for offence in found if offence]


def calls_outside(tree: ast.AST, module: str) -> Iterator[str]:
    here = layer(module)
    if here not in ("words", "protocols", "sessions", "domain"):
        return
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = node.func
        if isinstance(name, ast.Name) and name.id in REACHES_OUT and here != "domain":
            yield f"{module} ({here}) calls {name.id}()"
        if isinstance(name, ast.Attribute) and name.attr in READS_THE_CLOCK:
            yield f"{module} ({here}) reads the clock with .{name.attr}()"


def functions(tree: ast.AST) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield node.name, node.end_lineno - node.lineno + 1


def words_of(name: str) -> set[str]:
    """`SessionHandler` and `session_handler` are both {session, handler}."""
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)}


def short(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", modules(), ids=short)
def test_every_import_follows_the_arrows(path: Path) -> None:
    assert offences(path.read_text(), dotted(path), package=path.name == "__init__.py") == []


def test_every_placed_room_exists() -> None:
    """A row for a package long gone would hide a new one of the same name in the wrong layer."""
    not_yet = {"__main__", "routing", "admission", "accounts"}
    gone = [name for name in LAYER_OF if not is_package(name) and not (PACKAGE / f"{name}.py").exists()]
    assert set(gone) <= not_yet


def test_only_the_standard_library_computes() -> None:
    assert sys.stdlib_module_names >= COMPUTES


@pytest.mark.parametrize("path", own_files(), ids=short)
def test_no_file_outgrows_its_reader(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LONGEST_FILE


@pytest.mark.parametrize("path", own_files(), ids=short)
def test_no_function_outgrows_its_reader(path: Path) -> None:
    long = {name: lines for name, lines in functions(ast.parse(path.read_text())) if lines > LONGEST_FUNCTION}
    assert long == {}


@pytest.mark.parametrize("path", modules(), ids=short)
def test_names_say_what_a_thing_is(path: Path) -> None:
    classes = [node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef)]
    assert [name for name in [path.stem, *classes] if words_of(name) & BANNED_WORDS] == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("pillarbox.smtp.receiver", "import os"),
        ("pillarbox.smtp.receiver", "from os import urandom"),
        ("pillarbox.smtp.receiver", "def f():\n    import time"),
        ("pillarbox.smtp.receiver", "from pillarbox.queue import engine"),
        ("pillarbox.smtp.receiver", "from pillarbox import queue"),
        ("pillarbox.smtp.receiver", "from ..queue import engine"),
        ("pillarbox.smtp.receiver", "from .. import queue"),
        ("pillarbox.smtp.receiver", "open('x')"),
        ("pillarbox.smtp.receiver", "from datetime import datetime\ndatetime.now()"),
        ("pillarbox.smtp.receiver", "import cryptography"),
        ("pillarbox.address", "import logging"),
        ("pillarbox.address", "import pillarbox.smtp"),
        ("pillarbox.queue.sqlite", "import pillarbox.smtp.reply"),
        ("pillarbox.queue.sqlite", "import socket"),
        ("pillarbox.queue.sqlite", "import time"),
        ("pillarbox.queue.sqlite", "import subprocess"),
        ("pillarbox.sessions.reception", "import pillarbox.queue.engine"),
        ("pillarbox.sessions.reception", "import os"),
        ("pillarbox.net.streams", "import pillarbox.smtp"),
        ("pillarbox.net.streams", "import pillarbox.roles"),
        ("pillarbox.accounts", "import pillarbox.cli.home"),
    ],
)
def test_an_arrow_that_points_the_wrong_way_is_found(module: str, source: str) -> None:
    assert len(offences(source, module)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("pillarbox.smtp.receiver", "import re\nfrom pillarbox.status import Status\nfrom .reply import Reply"),
        ("pillarbox.sessions.reception", "import pillarbox.admission, pillarbox.routing, pillarbox.smtp.receiver"),
        ("pillarbox.delivery.program", "import subprocess, os"),
        ("pillarbox.auth.checkers", "import subprocess"),
        ("pillarbox.net.streams", "import socket, ssl, asyncio, time"),
        ("pillarbox.roles.queue", "import pillarbox.queue.engine, pillarbox.cli.home, signal"),
    ],
)
def test_an_arrow_that_points_the_right_way_passes(module: str, source: str) -> None:
    assert offences(source, module) == []


def test_names_are_taken_apart_in_both_spellings() -> None:
    assert words_of("SessionHandler") == {"session", "handler"}
    assert words_of("smtp_util") == {"smtp", "util"}
    assert not words_of("Database") & BANNED_WORDS
