"""cmd5checkpw as a program: what it ends with, what it says, and what the next program gets."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pillarbox.auth.checkers import check
from pillarbox.credentials import Digest, Password
from pillarbox.programs import asked
from pillarbox.users.owner import Owner
from tests.programs.asking import LOOK, OURS, SOURCE, ask
from tests.programs.calling import Ended

YES = Ended(0, b"in\n", "")
CHALLENGE = b"<1896.697170952@postoffice.reston.mci.net>"
DIGEST = b"b913a602c7eda7a495b4e6e7334d3890"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "smtp.passwd"
    file.write_bytes(b"joe:secret\ntim:tanstaaftanstaaf\n")
    file.chmod(0o400)
    return file


def says(file: Path, octets: bytes | None, *subprogram: str) -> Ended:
    return ask(octets, "cmd5checkpw", "-f", str(file), *(subprogram or ("echo", "in")))


# row: cmd5checkpw-plain, cmd5checkpw-cram-md5, cmd5checkpw-unknown, cmd5checkpw-misuse
@pytest.mark.parametrize(
    ("octets", "expected"),
    [
        (b"joe\0secret\0\0", YES),
        (b"tim\0" + CHALLENGE + b"\0" + DIGEST + b"\0", YES),
        (b"tim\0" + DIGEST + b"\0" + CHALLENGE + b"\0", YES),
        (b"joe\0secreT\0\0", Ended(1, b"", "")),
        (b"nobody\0secret\0\0", Ended(1, b"", "")),
        (b"tim\0" + CHALLENGE + b"\0" + DIGEST[1:] + b"0\0", Ended(1, b"", "")),
        (b"joe\0secret\0".ljust(511, b"x") + b"\0", YES),
    ],
)
def test_yes_runs_the_program_and_no_is_1_and_silent(file: Path, octets: bytes, expected: Ended) -> None:
    assert says(file, octets) == expected


# row: cmd5checkpw-misuse, checkpassword-512
@pytest.mark.parametrize(
    ("octets", "status"),
    [
        (b"", 2),
        (b"joe", 2),
        (b"joe\0secret", 2),
        (b"joe\0secret\0".ljust(512, b"x") + b"\0", 1),
        (b"x" * 5000, 1),
        (None, 111),
    ],
)
def test_what_is_no_question_is_one_line(file: Path, octets: bytes | None, status: int) -> None:
    ended = says(file, octets)
    assert (ended.status, ended.output) == (status, b"")
    assert ended.errors.startswith("cmd5checkpw: fatal: ")
    assert ended.errors.count("\n") == 1
    assert "secret" not in ended.errors


# row: cmd5checkpw-misuse
def test_without_the_third_field_it_is_misused(file: Path) -> None:
    for octets in (b"joe\0secret\0", b"joe\0secret\0without end"):
        assert says(file, octets) == Ended(
            2, b"", "cmd5checkpw: fatal: asked without a third field with a NUL behind it\n"
        )


@pytest.mark.parametrize("words", [[], ["-f"], ["-x", "true"], ["-f", "/etc/passwd"]])
def test_without_a_program_it_is_misused(words: list[str]) -> None:
    usage = "cmd5checkpw: usage: cmd5checkpw [-f file] subprog [arguments], asked on descriptor 3\n"
    assert ask(b"joe\0secret\0\0", "cmd5checkpw", *words) == Ended(2, b"", usage)


# row: cmd5checkpw-file
def test_the_file_is_what_control_says(tmp_path: Path, file: Path) -> None:
    (tmp_path / "control").mkdir()
    home = {"PILLARBOX_HOME": str(tmp_path)}
    (tmp_path / "control" / "smtppasswd").write_text("smtp.passwd\n")
    assert ask(b"joe\0secret\0\0", "cmd5checkpw", "echo", "in", environ=home) == YES
    (tmp_path / "control" / "smtppasswd").write_text(f"{file}\n")
    assert ask(b"joe\0secret\0\0", "cmd5checkpw", "echo", "in", environ=home) == YES
    (tmp_path / "control" / "smtppasswd").write_text("\n")
    ended = ask(b"joe\0secret\0\0", "cmd5checkpw", "echo", "in", environ=home)
    assert (ended.status, ended.output) == (2, b"")
    assert ended.errors.startswith("cmd5checkpw: fatal: control/smtppasswd: line 1: not a file name")


# row: cmd5checkpw-file
def test_without_control_it_is_the_file_of_the_patches_page(tmp_path: Path) -> None:
    there = Path("/usr/local/etc/smtp.passwd")
    if there.exists():
        pytest.skip(f"needs a machine without {there}")
    ended = ask(b"joe\0secret\0\0", "cmd5checkpw", "true", environ={"PILLARBOX_HOME": str(tmp_path)})
    assert ended == Ended(
        2,
        b"",
        "cmd5checkpw: fatal: /usr/local/etc/smtp.passwd: No such file or directory, and no checker to ask: "
        f"{tmp_path}/run/checker: No such file or directory\n",
    )


# row: cmd5checkpw-bad-files, cmd5checkpw-file
@pytest.mark.parametrize(
    ("kind", "status", "error"),
    [
        ("missing", 2, "cmd5checkpw: fatal: {}: No such file or directory\n"),
        ("link", 2, "cmd5checkpw: fatal: {}: Too many levels of symbolic links\n"),
        ("fifo", 2, "cmd5checkpw: fatal: {}: not a regular file\n"),
        ("empty", 1, ""),
        ("without newline", 0, ""),
        ("1 MB line", 2, "cmd5checkpw: fatal: {}: line 1: not USER:PASSWORD of at most 256 octets\n"),
        ("no colon", 2, "cmd5checkpw: fatal: {}: line 1: not USER:PASSWORD of at most 256 octets\n"),
    ],
)
def test_a_bad_file_is_one_line_and_a_documented_exit(tmp_path: Path, kind: str, status: int, error: str) -> None:
    file = tmp_path / "smtp.passwd"
    texts = {
        "empty": b"",
        "without newline": b"joe:secret",
        "1 MB line": b"joe:" + b"x" * (1 << 20),
        "no colon": b"x\n",
    }
    if kind == "link":
        (tmp_path / "other").write_bytes(b"joe:secret\n")
        file.symlink_to("other")
    elif kind == "fifo":
        os.mkfifo(file)
    elif kind in texts:
        file.write_bytes(texts[kind])
    assert says(file, b"joe\0secret\0\0", "true") == Ended(status, b"", error.format(file))


# row: cmd5checkpw-exec
@pytest.mark.parametrize("path", ["/no/such/program", "no-such-program", "/etc/passwd", ""])
def test_a_program_that_cannot_be_run_is_111(file: Path, path: str) -> None:
    ended = says(file, b"joe\0secret\0\0", path)
    assert (ended.status, ended.output) == (111, b"")
    assert ended.errors.startswith(f"cmd5checkpw: fatal: unable to run {path}: ")
    assert ended.errors.count("\n") == 1


# row: cmd5checkpw-exec, checkpassword-fd3
def test_nothing_is_set_up_for_the_program_and_descriptor_3_is_not_its(file: Path) -> None:
    ours = {"USER": "u", "HOME": "/h", "SHELL": "/s"}
    ended = ask(b"joe\0secret\0\0", "cmd5checkpw", "-f", str(file), "sh", "-c", LOOK, environ=ours)
    groups = " ".join(map(str, dict.fromkeys([os.getgid(), *os.getgroups()])))
    assert ended == Ended(0, f"in\n{os.getuid()}\n{groups}\n/\nu /h /s\n".encode(), "")


def test_the_secret_is_in_no_argument_and_in_no_environment(file: Path) -> None:
    look = "cat /proc/self/cmdline /proc/self/environ"
    assert b"secret" not in says(file, b"joe\0secret\0\0", "sh", "-c", look).output


def test_whoever_holds_descriptor_3_open_does_not_hold_us_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asked, "PATIENCE", 1)
    text = (
        "import sys; from pillarbox.programs import asked, cmd5checkpw; asked.PATIENCE = 1; "
        "sys.exit(cmd5checkpw.main(['true']))"
    )
    holding = subprocess.Popen(
        ["/bin/sh", "-c", 'exec "$@" 3<&0 </dev/null', "sh", sys.executable, "-c", text],
        stdin=subprocess.PIPE, stderr=subprocess.PIPE, env={"PYTHONPATH": SOURCE, "PATH": os.defpath},
    )  # fmt: skip
    begun = time.monotonic()
    assert holding.stdin is not None and holding.stderr is not None
    assert holding.wait(30) == 111
    assert time.monotonic() - begun < 20
    assert holding.stderr.read() == b"cmd5checkpw: fatal: cannot read descriptor 3: Connection timed out\n"
    holding.stdin.close()
    holding.stderr.close()


def test_no_alarm_of_ours_is_left_to_the_program(file: Path) -> None:
    look = "import signal, sys; sys.exit(signal.alarm(0) or signal.getsignal(signal.SIGPIPE) is None)"
    assert signal.alarm(0) == 0
    assert says(file, b"joe\0secret\0\0", sys.executable, "-c", look).status == 0


def test_it_is_there_by_its_own_name(tmp_path: Path, file: Path) -> None:
    launcher = tmp_path / "cmd5checkpw"
    launcher.write_text(f"#!{sys.executable}\nimport sys\nfrom pillarbox.cli.launch import main\nsys.exit(main())\n")
    launcher.chmod(0o755)
    assert ask(b"joe\0secret\0\0", "-f", str(file), "echo", "in", command=[str(launcher)]) == YES
    assert OURS[-1] == "run"


@pytest.mark.parametrize(
    ("credentials", "expected"),
    [
        (Password(b"tim", b"tanstaaftanstaaf"), True),
        (Password(b"tim", b"tanstaaf"), False),
        (Digest(b"CRAM-MD5", b"tim", CHALLENGE, DIGEST), True),
        (Digest(b"CRAM-MD5", b"tim", CHALLENGE, DIGEST[::-1]), False),
    ],
)
def test_serve_takes_it_as_a_line_of_control_checkers(
    file: Path, credentials: Password | Digest, expected: bool
) -> None:
    """For system users: it becomes nobody, so it says only that the name is right."""
    command = f"/usr/bin/env PYTHONPATH={SOURCE} {sys.executable} -m pillarbox run cmd5checkpw -f {file}"
    owner = Owner(b"tim", 54321, 54321, b"/nonexistent", b"", b"")
    assert check([command.encode()], b"tim", owner, credentials, 20000).right is expected
    assert not check([command.encode()], b"tim", None, credentials, 20000).right
