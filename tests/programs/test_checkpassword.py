"""checkpassword as a program, about users of an /etc that only it sees."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.etc import copy_etc
from tests.peers import peer
from tests.programs.asking import LOOK, OURS, SOURCE, ask
from tests.programs.calling import Ended

BAR = "$6$rounds=1000$saltstring$fwZ4GLBgbx16IsudL3CkGvE65FmaXxJJqkXtZq2KMVCzzv8gRrJ8aYSD29TAYxczYI5z.PgB8ncIt3BIyd.sO."
UID, GID = 54321, 54322
pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="needs root: only root may read /etc/shadow and become a user")

Says = Callable[..., Ended]


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that every user can enter."""
    directory = Path(tempfile.mkdtemp(prefix="pillarbox-test-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def says(place: Path) -> Says:
    """Asks checkpassword about joe and others, whose home is `place`/joe."""
    etc = place / "etc"
    copy_etc(etc, without=("joe", "toor", "empty", "locked", "homeless", "old"))
    home = place / "joe"
    home.mkdir(mode=0o700)
    os.chown(home, UID, GID)
    with (etc / "passwd").open("a") as passwd, (etc / "shadow").open("a") as shadow:
        for name, uid, where, hashed, rest in (
            ("joe", UID, home, BAR, "19000:0:99999:7:::"),
            ("toor", 0, home, BAR, "19000:0:99999:7:::"),
            ("empty", UID, home, "", "19000:0:99999:7:::"),
            ("locked", UID, home, "!" + BAR, "19000:0:99999:7:::"),
            ("homeless", UID, "/no/such/home", BAR, "19000:0:99999:7:::"),
            ("old", UID, home, BAR, "19000:0:99999:7::19001:"),
        ):
            passwd.write(f"{name}:x:{uid}:{GID}::{where}:/bin/zsh\n")
            shadow.write(f"{name}:{hashed}:{rest}\n")
    mount = f'mount --bind {etc} /etc && exec "$@"'
    command = [peer("unshare"), "-m", "/bin/sh", "-c", mount, "sh", *OURS, "checkpassword"]

    def say(octets: bytes | None, *words: str) -> Ended:
        return ask(octets, *words, command=command, environ={"USER": "qmaild", "KEPT": "yes"})

    return say


# row: checkpassword-login, checkpassword-fd3
def test_the_right_password_runs_the_program_as_the_user_in_his_home(place: Path, says: Says) -> None:
    expected = f"in\n{UID}\n{GID}\n{place}/joe\njoe {place}/joe /bin/zsh\nyes\n"
    for octets in (b"joe\0bar\0", b"joe\0bar\0\0", b"joe\0bar\0<1.2@h>\0more"):
        assert says(octets, "sh", "-c", LOOK + "; echo $KEPT") == Ended(0, expected.encode(), "")


# row: checkpassword-refused, checkpassword-root
@pytest.mark.parametrize(
    "octets",
    [
        b"joe\0baz\0\0",
        b"joe\0\0\0",
        b"nobodys\0bar\0\0",
        b"\0bar\0\0",
        b"Joe\0bar\0\0",
        b"empty\0\0\0",
        b"empty\0bar\0\0",
        b"locked\0bar\0\0",
        b"old\0bar\0\0",
        b"root\0bar\0\0",
        b"toor\0bar\0\0",
    ],
)
def test_who_is_not_let_in_is_1_and_silence(says: Says, octets: bytes) -> None:
    assert says(octets, "echo", "in") == Ended(1, b"", "")


# row: checkpassword-misuse, checkpassword-512, checkpassword-trouble
@pytest.mark.parametrize(
    ("octets", "words", "status"),
    [
        (b"joe\0bar\0\0", [], 2),
        (b"joe\0bar", ["true"], 2),
        (b"joe", ["true"], 2),
        (b"", ["true"], 2),
        (b"joe\0bar\0".ljust(513, b"x"), ["true"], 1),
        (None, ["true"], 111),
        (b"joe\0bar\0\0", ["/no/such/program"], 111),
        (b"homeless\0bar\0\0", ["true"], 111),
    ],
)
def test_what_goes_wrong_is_one_line_and_checkpasswords_status(
    says: Says, octets: bytes | None, words: list[str], status: int
) -> None:
    ended = says(octets, *words)
    assert (ended.status, ended.output) == (status, b"")
    assert ended.errors.startswith("checkpassword: ")
    assert ended.errors.count("\n") == 1


def test_512_octets_are_a_question(says: Says) -> None:
    assert says(b"joe\0bar\0".ljust(512, b"x"), "echo", "in") == Ended(0, b"in\n", "")


# row: checkpassword-trouble
def test_who_may_not_read_shadow_cannot_say() -> None:
    from tests.etc import everybody

    command = [everybody(), "-m", "pillarbox", "run", "checkpassword"]
    ended = ask(b"nobody\0bar\0\0", "true", command=command, user=65534)
    expected = "checkpassword: fatal: cannot read /etc/shadow: Permission denied\n"
    assert ended == Ended(111, b"", expected)


def test_serve_takes_it_as_a_line_of_control_checkers(place: Path, says: Says) -> None:
    """The checkers of the auth role start it as they start anybody's, and believe it when it became the owner."""
    look = f"""
from pillarbox.auth.checkers import check
from pillarbox.credentials import Password
from pillarbox.users.owner import Owner
command = b"/usr/bin/env PYTHONPATH={SOURCE} {sys.executable} -m pillarbox run checkpassword"
owner = Owner(b"joe", {UID}, {GID}, b"{place}/joe", b"", b"")
for password in (b"bar", b"baz"):
    print(check([command], b"joe", owner, Password(b"joe", password), 20000))
"""
    within = [peer("nsenter"), "-m", "-t"]
    holder = subprocess.Popen(
        [peer("unshare"), "-m", "/bin/sh", "-c", f"mount --bind {place}/etc /etc && echo && exec sleep 60"],
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == b"\n"
        done = subprocess.run(
            [*within, str(holder.pid), sys.executable, "-c", look], capture_output=True, timeout=60,
            env={"PYTHONPATH": SOURCE, "PATH": os.defpath},
        )  # fmt: skip
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    assert done.stderr == b""
    assert done.stdout == b"Verdict(right=True, remark='')\nVerdict(right=False, remark='')\n"
