"""control/checkers: /etc/shadow, and checkpassword programs as they are run."""

from __future__ import annotations

import os
import pwd
import shlex
import sys
import time
from pathlib import Path

import pytest

from pillarbox.auth import checkers
from pillarbox.auth import shadow as auth_shadow
from pillarbox.auth.checkers import CannotCheck, Verdict, check
from pillarbox.credentials import Digest, Password
from pillarbox.users.owner import Owner
from tests.server import until

BAR = (
    b"$6$rounds=1000$saltstring$fwZ4GLBgbx16IsudL3CkGvE65FmaXxJJqkXtZq2KMVCzzv8gRrJ8aYSD29TAYxczYI5z.PgB8ncIt3BIyd.sO."
)
TODAY = 20_000
YES, NO = Verdict(True), Verdict(False)
NOBODY = pwd.getpwnam("nobody")
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")


def owner(uid: int | None = None, home: str = "/", user: bytes = b"joe") -> Owner:
    return Owner(user, os.geteuid() if uid is None else uid, 7, os.fsencode(home), b"", b"")


def says(password: bytes = b"bar", name: bytes = b"joe") -> Password:
    return Password(name, password)


@pytest.fixture
def shadow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "shadow"
    file.write_bytes(b"joe:" + BAR + b":19000:0:99999:7:::\n")
    monkeypatch.setattr(auth_shadow, "FILE", file)
    return file


def test_the_password_in_shadow_is_right_and_no_other(shadow: Path) -> None:
    assert check([b"shadow"], b"joe", owner(), says(), TODAY) == YES
    for wrong in (b"", b"baz", b"bar\0"):
        assert check([b"shadow"], b"joe", owner(), says(wrong), TODAY) == NO


def test_a_name_that_is_nobodys_is_refused_with_the_right_password(shadow: Path) -> None:
    assert check([b"shadow"], b"joe", None, says(), TODAY) == NO


def test_a_digest_proves_nothing_where_only_a_hash_is_kept(shadow: Path) -> None:
    for response in (b"0" * 32, b"bar", b""):
        assert check([b"shadow"], b"joe", owner(), Digest(b"APOP", b"joe", b"<1@x>", response), TODAY) == NO


def test_a_shadow_that_cannot_be_read_is_trouble(shadow: Path) -> None:
    shadow.unlink()
    with pytest.raises(CannotCheck, match=r"cannot read .*shadow: No such file") as caught:
        check([b"shadow"], b"joe", owner(), says(), TODAY)
    assert not caught.value.refusal.permanent


# programs


def program(directory: Path, text: str) -> bytes:
    """A checkpassword program in Python; its command line."""
    directory.chmod(0o755)
    file = directory / "checkpassword"
    file.write_text("import os, sys\nsaid = os.read(3, 1024).split(b'\\0')\n" + text)
    return f"{sys.executable} {file} --option".encode()


ACCEPTS_BAR = """
if said[1] != b"bar":
    sys.exit(1)
os.execvp(sys.argv[2], sys.argv[2:])
"""
BECOMES_NOBODY = """
if said[1] != b"bar":
    sys.exit(1)
os.setgroups([])
os.setgid(%d)
os.setuid(%d)
os.chdir(%r)
os.execvp(sys.argv[2], sys.argv[2:])
"""


def test_a_program_says_yes_and_no(tmp_path: Path) -> None:
    command = program(tmp_path, ACCEPTS_BAR)
    assert check([command], b"joe", owner(), says(), TODAY) == YES
    assert check([command], b"joe", owner(), says(b"baz"), TODAY) == NO


@pytest.mark.parametrize(
    ("credentials", "fields"),
    [
        (Password(b"x", b"pass word"), [b"joe", b"pass word", b"", b""]),
        (Digest(b"CRAM-MD5", b"x", b"<1@x>", b"0a"), [b"joe", b"<1@x>", b"0a", b""]),
        (Digest(b"APOP", b"x", b"<1@x>", b"0a"), [b"joe", b"0a", b"<1@x>", b""]),
    ],
)
def test_a_program_is_told_name_and_proof_on_descriptor_3_and_nowhere_else(
    tmp_path: Path, credentials: Password | Digest, fields: list[bytes]
) -> None:
    told = tmp_path / "told"
    seen = "(said, sys.argv[1:2], sorted(os.environ), os.listdir('/proc/self/fd'))"
    note = f"open({str(told)!r}, 'w').write(repr({seen}))"
    check([program(tmp_path, note)], b"joe", owner(), credentials, TODAY)
    said, arguments, environment, descriptors = eval(told.read_text())
    assert said == fields
    assert arguments == ["--option"]
    assert set(environment) <= {"PATH", "PWD", "SHLVL", "_", "OLDPWD", "LC_CTYPE"}
    assert set(descriptors) <= {"0", "1", "2", "3", "4", "5"}


def test_no_client_can_write_fields(tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    command = program(tmp_path, f"open({str(asked)!r}, 'w')\nos.execvp(sys.argv[2], sys.argv[2:])")
    for password in (b"bar\0x", b"\0", b"", b"x" * 510):
        assert check([command], b"joe", owner(), says(password), TODAY) == NO
    assert not asked.exists()


@needs_root
def test_a_program_that_becomes_the_owner_in_his_home_is_believed(tmp_path: Path) -> None:
    command = program(tmp_path, BECOMES_NOBODY % (NOBODY.pw_gid, NOBODY.pw_uid, "/tmp"))
    assert check([command], b"nobody", owner(NOBODY.pw_uid, "/tmp"), says(), TODAY) == YES
    assert check([command], b"nobody", owner(NOBODY.pw_uid, "/tmp"), says(b"baz"), TODAY) == NO


@needs_root
@pytest.mark.parametrize(("uid", "home"), [(NOBODY.pw_uid + 1, "/tmp"), (NOBODY.pw_uid, "/usr"), (0, "/tmp")])
def test_a_program_that_becomes_somebody_else_is_not_believed(tmp_path: Path, uid: int, home: str) -> None:
    command = program(tmp_path, BECOMES_NOBODY % (NOBODY.pw_gid, NOBODY.pw_uid, "/tmp"))
    verdict = check([command], b"joe", owner(uid, home), says(), TODAY)
    assert not verdict.right
    assert "became another user than the owner of the mailbox" in verdict.remark


def test_a_program_that_knows_somebody_who_is_no_user_lets_nobody_in(tmp_path: Path) -> None:
    verdict = check([program(tmp_path, ACCEPTS_BAR)], b"joe", None, says(), TODAY)
    assert not verdict.right
    assert "knows a name that no system user has" in verdict.remark


@pytest.mark.parametrize(
    ("text", "how"),
    [
        ("sys.exit(111)", "ended with status 111"),
        ("sys.exit(2)", "ended with status 2"),
        ("os.kill(os.getpid(), 9)", "ended with signal 9"),
    ],
)
def test_a_program_that_cannot_say_is_trouble_and_no_refusal(tmp_path: Path, text: str, how: str) -> None:
    with pytest.raises(CannotCheck, match=how):
        check([program(tmp_path, text)], b"joe", owner(), says(), TODAY)


def test_a_program_that_is_not_there_is_trouble() -> None:
    with pytest.raises(CannotCheck, match="/no/such/checkpassword ended with status 127"):
        check([b"/no/such/checkpassword x"], b"joe", owner(), says(), TODAY)


def test_a_program_that_does_not_end_is_ended_with_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkers, "TIME", 2.0)
    pid = tmp_path / "pid"
    command = f"/bin/sh {tmp_path}/endless".encode()
    (tmp_path / "endless").write_text(f"sleep 1000 & echo $! > {shlex.quote(str(pid))}; wait\n")
    begun = time.monotonic()
    with pytest.raises(CannotCheck, match=r"/bin/sh took more than 2 seconds"):
        check([command], b"joe", owner(), says(), TODAY)
    assert time.monotonic() - begun < 20
    child = int(pid.read_text())
    until(lambda: not _runs(child), "the child of a program that was ended to be over")


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_what_a_program_prints_is_bounded(tmp_path: Path) -> None:
    flood = "os.set_inheritable(1, True)\ntry:\n    while True:\n        os.write(1, b'x' * 65536)\n"
    flood += "except OSError:\n    sys.exit(0)"
    verdict = check([program(tmp_path, flood)], b"joe", owner(), says(), TODAY)
    assert not verdict.right


# several


def test_the_first_that_says_yes_is_enough(tmp_path: Path, shadow: Path) -> None:
    broken = b"/no/such/checkpassword"
    assert check([broken, b"shadow"], b"joe", owner(), says(), TODAY) == YES
    assert check([b"shadow", broken], b"joe", owner(), says(), TODAY) == YES


def test_when_none_says_yes_and_one_cannot_say_it_is_not_a_refusal(shadow: Path) -> None:
    with pytest.raises(CannotCheck, match="status 127"):
        check([b"shadow", b"/no/such/checkpassword", b"shadow"], b"joe", owner(), says(b"baz"), TODAY)


def test_without_checkers_nobody_is_right() -> None:
    assert check([], b"joe", owner(), says(), TODAY) == NO
