"""`pillarbox install` into a qmail as the reference has it: the command as root gives it, and the programs as users
then run them."""

from __future__ import annotations

import fcntl
import os
import pwd
import re
import shutil
import signal
import stat
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

import pillarbox
from pillarbox.cli import install, runlines, runtime
from pillarbox.cli.launchers import CannotInstall
from pillarbox.cli.trust import loose_within
from pillarbox.programs.catalogue import PROGRAMS
from tests import qmail
from tests.installing import ENVIRONMENT, NOBODY, ROOT, Ended, a_qmail, pillarbox_command, run
from tests.peers import peer
from tests.server import until

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="programs for everybody are root's")

EVERY = sorted(set(PROGRAMS) - {"checker"})
THEIRS = sorted(set(qmail.MODES) - set(PROGRAMS))


@pytest.fixture
def home() -> Iterator[Path]:
    with a_qmail() as made:
        yield made


@pytest.fixture(scope="module")
def replaced() -> Iterator[Path]:
    """A qmail with all of our programs in it."""
    with a_qmail() as made:
        done = pillarbox_command("install", "--into", made)
        assert (done.status, done.errors) == (0, "")
        yield made


@pytest.fixture
def ready(home: Path, replaced: Path) -> Path:
    """A qmail beside which the copy of what programs load lies already: to make one takes seconds."""
    there = Path("bin", ".pillarbox", "runtime")
    shutil.copytree(replaced / there, home / there, copy_function=os.link, symlinks=True)
    return home


def lines(text: str, word: str) -> list[str]:
    return [line for line in text.splitlines() if word in line]


# row: install-dry-run
def test_a_dry_run_says_of_every_program_what_would_be_done_and_does_nothing(home: Path) -> None:
    before, names = qmail.programs(home / "bin"), os.listdir(home / "bin")
    done = pillarbox_command("install", "--into", home, "--dry-run")
    assert (done.status, done.errors) == (0, "")
    assert f"{home}/bin/qmail-queue: would be replaced and kept (61007:61000 4711)" in done.output.splitlines()
    assert all(lines(done.output, f"{home}/bin/{name}: would be ") for name in EVERY)
    assert f"stay as they are, Pillarbox has no such programs: {' '.join(THEIRS)}" in done.output.splitlines()
    assert (qmail.programs(home / "bin"), os.listdir(home / "bin")) == (before, names)


# row: install-dry-run
def test_a_dry_run_says_what_would_behave_otherwise(home: Path) -> None:
    (home / "rc").write_text("exec softlimit -m 2000000 qmail-start ./Mailbox\n")
    (home / "control" / "smtproutes").write_text("example.com:relay.example.net foo s3cret\n")
    (home / "control" / "smtproutes").chmod(0o640)
    done = pillarbox_command("install", "--into", home, "--dry-run")
    assert (
        lines(done.output, f"otherwise: {home}/rc:1: softlimit -m 2000000 is too little for Pillarbox's programs") != []
    )
    assert lines(done.output, "serve says its password to relay.example.net:25 only over TLS") != []
    assert "s3cret" not in done.output


# row: install-names
def test_every_program_is_ours_then_and_no_other_was_touched(replaced: Path) -> None:
    for name in EVERY:
        file = replaced / "bin" / name
        assert b"Put here by pillarbox install: " + name.encode() in file.read_bytes()
        assert (file.stat().st_uid, stat.S_IMODE(file.stat().st_mode)) == (0, 0o755)
    for name in THEIRS:
        assert (replaced / "bin" / name).read_text() == f"#!/bin/sh\necho their {name}\n"
        assert stat.S_IMODE((replaced / "bin" / name).stat().st_mode) == qmail.MODES[name]


def test_a_user_runs_them_and_this_qmail_is_their_home(replaced: Path) -> None:
    done = run(replaced / "bin" / "qmail-inject", "-n", "joe@example.net", environ={"QMAILNAME": "Ann", "USER": "ann"})
    assert (done.status, done.errors) == (0, "")
    assert 'From: "Ann" <ann@mail.example.org>\n' in done.output
    assert f"qmail home directory: {replaced}." in run(replaced / "bin" / "qmail-showctl").output


def test_the_environment_may_name_another_home(replaced: Path) -> None:
    done = run(replaced / "bin" / "qmail-showctl", environ={"PILLARBOX_HOME": "/nonexistent"})
    assert "/nonexistent" in done.output + done.errors


def test_neither_the_callers_directory_nor_his_environment_has_a_say_in_what_they_load(
    replaced: Path, open_path: Path
) -> None:
    """A program that root runs in a user's directory must not import what the user put there."""
    for name in ("pillarbox", "click", "signal", "sitecustomize", "usercustomize"):
        (open_path / f"{name}.py").write_text("raise SystemExit(77)\n")
    traps = {"PYTHONPATH": str(open_path), "PYTHONHOME": str(open_path), "PYTHONSTARTUP": f"{open_path}/click.py"}
    done = run(replaced / "bin" / "maildirmake", environ=traps | {"HOME": str(open_path)}, cwd=open_path)
    assert done == (100, "", "maildirmake: usage: maildirmake name\n")


def test_one_that_cannot_start_ends_with_the_status_for_later(ready: Path) -> None:
    """1 from qmail-remote is a bounce to qmail-rspawn."""
    assert pillarbox_command("install", "--into", ready, "--only", "qmail-remote").status == 0
    (copy,) = (ready / "bin" / ".pillarbox" / "runtime").iterdir()
    copy.rename(ready / "away")
    done = run(ready / "bin" / "qmail-remote", "example.net", "a@example.org", "b@example.net")
    assert (done.status, done.output) == (111, "")
    assert done.errors == "qmail-remote: cannot start: ModuleNotFoundError(\"No module named 'pillarbox'\")\n"


REFUSING = {
    "qmail-remote": ["nowhere.invalid", "a@example.org", "b@nowhere.invalid"],
    "qmail-local": ["--", "nobody", "/nonexistent", "nobody", "", "", "example.org", "a@example.org", "./Maildir/"],
}
# An interpreter that ends by itself, with these statuses, before it has come to a line of ours.
SICK = "#!/bin/sh\necho no encodings >&2\nexit {status}\n"


@pytest.mark.parametrize(
    "sick", ["gone", "no program", "directory", *(SICK.format(status=n) for n in (1, 2, 126, 127))]
)
@pytest.mark.parametrize("name", REFUSING)
def test_an_interpreter_that_is_gone_or_cannot_start_is_no_refusal(
    replaced: Path, open_path: Path, name: str, sick: str
) -> None:
    """qmail-lspawn and qmail-rspawn send the message back for 1, 2, 126 and 127, and when there is none to start."""
    file, python = open_path / name, open_path / "python"
    shutil.copy(replaced / "bin" / name, file)
    text = file.read_bytes()
    file.write_bytes(text.replace(os.fsencode(runtime.interpreter()), os.fsencode(python)))
    assert file.read_bytes() != text
    if sick == "directory":
        python.mkdir()
    elif sick != "gone":
        python.write_text(sick)
        python.chmod(0o644 if sick == "no program" else 0o755)
    done = run(file, *REFUSING[name])
    assert (done.status, done.output, done.errors != "") == (111, "", True)


@pytest.mark.parametrize("limit", ["-d 2000", "-v 9000", "-n 12"])
@pytest.mark.parametrize("name", REFUSING)
def test_limits_in_which_python_cannot_start_are_no_refusal(replaced: Path, name: str, limit: str) -> None:
    """Either it ends as always, with a report that says why, or for now."""
    done = run(Path("/bin/sh"), "-c", f'ulimit {limit}; exec "$@"', "sh", str(replaced / "bin" / name), *REFUSING[name])
    assert done.status == 111 or (name, done.status, done.output[:1]) == ("qmail-remote", 0, "Z"), done


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
def test_signals_go_to_the_program_itself_and_it_ends_by_them(replaced: Path, number: signal.Signals) -> None:
    """There is no parent of ours that could be stopped and leave a delivery behind, or turn a crash into a refusal."""
    called: list[str | Path] = [replaced / "bin" / "qmail-remote", *REFUSING["qmail-remote"]]
    with subprocess.Popen(called, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as waiting:
        until(lambda: b"-IS" in Path(f"/proc/{waiting.pid}/cmdline").read_bytes(), "the program")
        until(lambda: _sleeps(waiting.pid), "it to wait for the message")
        waiting.send_signal(number)
        status = waiting.wait(30)
    assert status == -number


def _sleeps(process: int) -> bool:
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "S"


@pytest.mark.parametrize(
    ("name", "words", "status"),
    [
        ("qmail-inject", ["-n", "joe@example.net"], 0),
        ("qmail-showctl", [], 0),
        ("qmail-remote", ["nowhere.invalid", "a@example.org", "b@nowhere.invalid"], 0),
        ("maildirmake", [], 100),
        ("qmail-smtpd", [], 1),  # the client is gone
        ("qmail-popup", ["mail.example.org", "true"], 1),
    ],
)
def test_the_memory_that_a_dry_run_asks_for_is_enough(replaced: Path, name: str, words: list[str], status: int) -> None:
    limited = ["-c", f'ulimit -v {runlines.ENOUGH // 1024}; exec "$@"', "sh", str(replaced / "bin" / name)]
    done = run(Path("/bin/sh"), *limited, *words)
    assert (done.status, "emory" in done.output + done.errors) == (status, False), done


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_descriptors_that_the_caller_closed_change_no_exit_status(replaced: Path, closed: str) -> None:
    called = f'exec "$@" {closed}'
    assert run(Path("/bin/sh"), "-c", called, "sh", str(replaced / "bin" / "maildirmake")).status == 100
    assert run(Path("/bin/sh"), "-c", called, "sh", str(replaced / "bin" / "qmail-remote")).status == 0
    home = {"PILLARBOX_HOME": "/nonexistent"}
    assert run(Path("/bin/sh"), "-c", called, "sh", str(replaced / "bin" / "qmail-newu"), environ=home).status == 111


def test_a_warning_with_descriptor_2_closed_is_nothing_that_a_client_hears(replaced: Path) -> None:
    called = 'printf "QUIT\\r\\n" | "$@" a b 2>&-'
    done = run(Path("/bin/sh"), "-c", called, "sh", str(replaced / "bin" / "qmail-smtpd"))
    assert (done.status, [line[:4] for line in done.output.splitlines()]) == (0, ["220 ", "221 "])


def test_what_they_load_is_a_copy_that_only_root_can_change(replaced: Path) -> None:
    (copy,) = (replaced / "bin" / ".pillarbox" / "runtime").iterdir()
    assert loose_within(copy) is None
    assert (copy / "pillarbox" / "cli" / "launch.py").read_bytes() == (
        ROOT / "src/pillarbox/cli/launch.py"
    ).read_bytes()
    assert list((copy / "pillarbox" / "cli" / "__pycache__").glob("launch.*.pyc"))
    asked = "import sys; sys.path.append(sys.argv[1]); import pillarbox.cli.main, argon2, cdbx, dns, rich, uvloop"
    asked += "; print(*{m.__file__ for m in list(sys.modules.values()) if getattr(m, '__file__', None)}, sep='\\n')"
    done = run(runtime.interpreter(), "-IS", "-c", asked, str(copy))
    assert done.status == 0, done.errors
    places = {line for line in done.output.splitlines() if "site-packages" in line or str(ROOT) in line}
    assert places == set()


def test_a_second_time_changes_nothing_and_needs_no_second_copy(replaced: Path) -> None:
    before = {name: facts.content for name, facts in qmail.programs(replaced / "bin").items()}
    copies = os.listdir(replaced / "bin" / ".pillarbox" / "runtime")
    assert pillarbox_command("install", "--into", replaced).status == 0
    assert {name: facts.content for name, facts in qmail.programs(replaced / "bin").items()} == before
    assert os.listdir(replaced / "bin" / ".pillarbox" / "runtime") == copies


# row: install-modes, install-undo
def test_undone_everything_is_as_it_was(ready: Path) -> None:
    before, names = qmail.programs(ready / "bin"), sorted(qmail.MODES)
    assert pillarbox_command("install", "--into", ready).status == 0
    assert qmail.programs(ready / "bin") != before
    foreseen = pillarbox_command("install", "--into", ready, "--undo", "--dry-run")
    assert f"{ready}/bin/qmail-queue: would be put back" in foreseen.output.splitlines()
    assert qmail.programs(ready / "bin") != before
    done = pillarbox_command("install", "--into", ready, "--undo")
    assert (done.status, done.errors) == (0, "")
    assert f"{ready}/bin/qmail-queue: put back" in done.output.splitlines()
    assert (qmail.programs(ready / "bin"), sorted(os.listdir(ready / "bin"))) == (before, names)
    assert pillarbox_command("install", "--into", ready, "--undo").output == f"{ready}/bin: nothing to undo\n"


# row: install-names
def test_only_these_are_replaced_and_only_this_one_is_put_back(ready: Path) -> None:
    before = qmail.programs(ready / "bin")
    assert pillarbox_command("install", "--into", ready, "--only", "qmail-remote,qmail-inject").status == 0
    now = qmail.programs(ready / "bin")
    assert {name for name in now if now[name] != before[name]} == {"qmail-remote", "qmail-inject"}
    assert pillarbox_command("install", "--into", ready, "--undo", "--only", "qmail-remote").status == 0
    now = qmail.programs(ready / "bin")
    assert {name for name in now if now[name] != before[name]} == {"qmail-inject"}
    assert run(ready / "bin" / "qmail-inject", "-n", "joe@example.net").status == 0


def test_a_directory_of_programs_that_is_no_qmails_gets_them_too(home: Path) -> None:
    """As /usr/local/sbin, where the page puts cmd5checkpw and maildirpop3d."""
    (home.parent / "sbin").mkdir(mode=0o755)
    assert pillarbox_command("install", "--into", home.parent / "sbin", "--only", "maildirmake").status == 0
    assert run(home.parent / "sbin" / "maildirmake").status == 100
    assert pillarbox_command("install", "--into", home.parent / "sbin", "--undo").status == 0
    assert os.listdir(home.parent / "sbin") == []


@pytest.mark.parametrize("after", [0.15, 0.5, 1.0, 2.0])
def test_killed_at_any_moment_it_can_be_done_again_or_undone(home: Path, after: float) -> None:
    before, names = qmail.programs(home / "bin"), sorted(os.listdir(home / "bin"))
    command = [sys.executable, "-m", "pillarbox", "install", "--into", str(home)]
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL) as installing:
        with suppress(subprocess.TimeoutExpired):
            installing.wait(after)
        installing.send_signal(signal.SIGKILL)
    for name, found in qmail.programs(home / "bin").items():
        is_ours = b"Put here by pillarbox install" in found.content
        assert is_ours or found._replace(links=1) == before[name]
        assert not is_ours or run(home / "bin" / name, "--version").status != 126
    assert pillarbox_command("install", "--into", home, "--only", "qmail-inject").status == 0
    assert run(home / "bin" / "qmail-inject", "-n", "joe@example.net").status == 0
    assert pillarbox_command("install", "--into", home, "--undo").status == 0
    assert (qmail.programs(home / "bin"), sorted(os.listdir(home / "bin"))) == (before, names)


@contextmanager
def qmail_send(home: Path) -> Iterator[None]:
    """As it holds its lock."""
    with open(home / "queue" / "lock" / "sendmutex", "wb") as mutex:
        fcntl.flock(mutex, fcntl.LOCK_EX)
        yield


def test_while_qmail_send_runs_it_keeps_the_programs_that_bring_it_mail(home: Path) -> None:
    with qmail_send(home):
        done = pillarbox_command("install", "--into", home, "--dry-run")
    assert done.status == 0
    assert lines(done.output, "not yet qmail-qread qmail-qstat qmail-queue qmail-start: qmail-send runs there") != []
    assert lines(done.output, "bin/qmail-queue: would") == []
    assert lines(done.output, "bin/qmail-remote: would") != []


def test_while_qmail_send_runs_its_qmail_queue_is_not_to_be_had(home: Path) -> None:
    before = qmail.programs(home / "bin")
    with qmail_send(home):
        done = pillarbox_command("install", "--into", home, "--only", "qmail-queue")
    assert (done.status, done.output) == (100, "")
    assert re.fullmatch(r"pillarbox: \S+: qmail-send runs there, .*; stop qmail, and install again\n", done.errors)
    assert qmail.programs(home / "bin") == before


def test_mail_that_waits_for_qmail_send_keeps_them_too_unless_they_are_asked_for(home: Path) -> None:
    qmail.wait_in_queue(home, 3)
    done = pillarbox_command("install", "--into", home, "--dry-run")
    assert lines(done.output, "not yet qmail-qread qmail-qstat qmail-queue qmail-start: 3 messages wait") != []
    done = pillarbox_command("install", "--into", home, "--dry-run", "--only", "qmail-queue,qmail-start")
    assert len(lines(done.output, "would be replaced")) == 2
    assert lines(done.output, "otherwise: ")[0].startswith(f"otherwise: {home}: 3 messages wait in qmail-send's queue")


# row: install-writable
def test_what_others_can_write_is_refused_with_the_remedy(home: Path) -> None:
    before = qmail.programs(home / "bin")
    (home / "bin").chmod(0o775)  # its group is qmail's
    done = pillarbox_command("install", "--into", home)
    assert (done.status, done.output) == (100, "")
    assert done.errors == (
        f"pillarbox: {home}/bin: others than root may write there, and could change the programs; "
        f"chmod go-w {home}/bin\n"
    )
    (home / "bin").chmod(0o755)
    os.chown(home.parent, NOBODY, NOBODY)
    assert pillarbox_command("install", "--into", home).errors.endswith(f"; chown root {home.parent}\n")
    assert qmail.programs(home / "bin") == before


def test_a_place_that_users_cannot_enter_is_refused(home: Path) -> None:
    home.chmod(0o750)
    done = pillarbox_command("install", "--into", home)
    assert (done.status, done.errors.partition(": ")[2]) == (
        100, f"{home}: not everybody may enter it, and programs run as many users; chmod go+x {home}\n"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "say where: --into /var/qmail, or wherever your qmail is"),
        (["--into", "/nonexistent"], "/nonexistent/bin: no such directory; say --into /var/qmail, or wherever your"),
        (["--into", "HOME", "--only", "qmail-send"], "there is no program 'qmail-send'; there are: "),
    ],
)
def test_a_slip_is_one_line(home: Path, words: list[str], said: str) -> None:
    done = pillarbox_command("install", *(str(home) if word == "HOME" else word for word in words))
    assert (done.status, done.output, len(done.errors.splitlines())) == (100, "", 1)
    assert said in done.errors


def test_who_is_not_root_can_only_ask(home: Path) -> None:
    asked = [sys.executable, "-m", "pillarbox", "install", "--into", str(home)]
    nobody: dict[str, Any] = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
    done = subprocess.run(asked, env=ENVIRONMENT, capture_output=True, text=True, **nobody)
    assert done.returncode == 100
    assert done.stderr == (f"pillarbox: {home}/bin: only root can put programs there for everybody; run this as root\n")


def sbin(ready: Path) -> Path:
    """A directory of programs that is no qmail's."""
    made = ready.parent / "sbin"
    made.mkdir(mode=0o755)
    shutil.copytree(ready / "bin" / ".pillarbox", made / ".pillarbox", copy_function=os.link, symlinks=True)
    return made


def logs_in(cmd5checkpw: Path, etc: Path, asked: bytes) -> Ended:
    """What a user who may not read /usr/local/etc/smtp.passwd is told by it, and what its sub-program finds."""
    mounted = 'mount --bind "$0" /usr/local/etc && exec setpriv --reuid=65534 --regid=65534 --clear-groups "$@"'
    look = 'grep -E "^(Uid|Gid|Groups):" /proc/self/status; cat /usr/local/etc/smtp.passwd'
    inside = ["sh", "-c", 'exec "$@" 3<&0 </dev/null', "sh", str(cmd5checkpw), "/bin/sh", "-c", look]
    done = subprocess.run(
        [peer("unshare"), "-m", "/bin/sh", "-c", mounted, etc, *inside], input=asked, capture_output=True, timeout=60
    )
    return Ended(done.returncode, done.stdout.decode(), done.stderr.decode())


def test_cmd5checkpw_with_a_set_uid_bit_reads_its_file_for_who_may_not_and_gives_up_the_right(
    ready: Path, tmp_path: Path
) -> None:
    """As the page installs it: mode 0400 and smtppasswd's, here `daemon`'s, and no daemon beside it."""
    peer("cc")
    owner = pwd.getpwnam("daemon").pw_uid
    (tmp_path / "smtp.passwd").write_text("joe:secret\n")
    (tmp_path / "smtp.passwd").chmod(0o400)
    os.chown(tmp_path / "smtp.passwd", owner, 0)
    tmp_path.chmod(0o755)
    there = sbin(ready)
    done = pillarbox_command("install", "--into", there, "--only", "cmd5checkpw", "--setuid", "daemon")
    assert (done.status, done.errors) == (0, "")
    assert done.output.splitlines()[0] == f"{there}/cmd5checkpw: Pillarbox's, with a set-uid bit (daemon:root 4755)"
    expected = "Uid:\t65534\t65534\t65534\t65534\nGid:\t65534\t65534\t65534\t65534\nGroups:\t \n"
    ended = logs_in(there / "cmd5checkpw", tmp_path, b"joe\0secret\0\0")
    assert ended.output == expected
    assert "smtp.passwd: Permission denied" in ended.errors
    assert logs_in(there / "cmd5checkpw", tmp_path, b"joe\0wrong\0\0") == (1, "", "")
    assert pillarbox_command("install", "--into", there, "--only", "maildirmake").status == 0
    assert stat.S_IMODE((there / "cmd5checkpw").stat().st_mode) == 0o4755  # a newer version does not lose it
    assert pillarbox_command("install", "--into", there, "--undo").status == 0
    assert os.listdir(there) == []


def test_cmd5checkpw_with_a_set_uid_bit_goes_by_the_control_files_of_the_qmail_that_it_stands_in(
    ready: Path, tmp_path: Path
) -> None:
    """Not by the machine's home, and by none that its caller names."""
    peer("cc")
    passwords = ready / "smtp.passwd"
    passwords.write_text("ann:hers\n")
    passwords.chmod(0o400)
    os.chown(passwords, pwd.getpwnam("daemon").pw_uid, 0)
    (ready / "control" / "smtppasswd").write_text(f"{passwords}\n")
    (tmp_path / "smtp.passwd").write_text("joe:secret\n")
    tmp_path.chmod(0o755)
    done = pillarbox_command("install", "--into", ready, "--only", "cmd5checkpw", "--setuid", "daemon")
    assert (done.status, done.errors) == (0, "")
    assert logs_in(ready / "bin" / "cmd5checkpw", tmp_path, b"ann\0hers\0\0").output.startswith("Uid:\t65534\t65534")
    assert logs_in(ready / "bin" / "cmd5checkpw", tmp_path, b"joe\0secret\0\0") == (1, "", "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--only", "cmd5checkpw", "--setuid", "root"], "--setuid: not root; a user of its own owns the password file"),
        (["--only", "cmd5checkpw", "--setuid", "no-such-user"], "--setuid: there is no user 'no-such-user'; make one:"),
        (["--only", "maildirmake", "--setuid", "daemon"], "--setuid is for cmd5checkpw alone; name it with --only"),
    ],
)
def test_no_other_program_and_no_other_rights(home: Path, words: list[str], said: str) -> None:
    done = pillarbox_command("install", "--into", home, *words)
    assert (done.status, done.output) == (100, "")
    assert said in done.errors


def test_a_copy_that_somebody_still_runs_from_stays_until_he_ends(ready: Path) -> None:
    assert pillarbox_command("install", "--into", ready, "--only", "qmail-queue,qmail-inject").status == 0
    (ready / "link").symlink_to("bin/qmail-queue")
    with a_program(ready, f"{ready}/link"):
        done = pillarbox_command("install", "--into", ready, "--undo")
        assert lines(done.output, "programs still run from it; say --undo again when they have ended") != []
        assert list((ready / "bin" / ".pillarbox" / "runtime").iterdir()) != []
    assert pillarbox_command("install", "--into", ready, "--undo").status == 0
    assert not (ready / "bin" / ".pillarbox").exists()


@contextmanager
def a_program(home: Path, word: str = "bin/qmail-queue") -> Iterator[subprocess.Popen[bytes]]:
    """One that waits for a message, called by this path, as from /var/qmail."""
    with subprocess.Popen([word], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, cwd=home) as slow:
        until(lambda: b"-IS" in Path(f"/proc/{slow.pid}/cmdline").read_bytes(), "the program")
        yield slow
        slow.kill()


def test_an_older_copy_goes_when_nobody_runs_from_it_any_more(ready: Path) -> None:
    assert pillarbox_command("install", "--into", ready, "--only", "qmail-queue").status == 0
    older = ready / "bin" / ".pillarbox" / "runtime" / "0.0.9-0123456789abcdef"
    older.mkdir()
    with a_program(ready):
        assert pillarbox_command("install", "--into", ready, "--only", "qmail-queue").status == 0
        assert older.exists()
    assert pillarbox_command("install", "--into", ready, "--only", "qmail-queue").status == 0
    assert not older.exists()


def planted(home: Path) -> Path:
    """The copy that the next installation will look for, with a line that was not there when it was built."""
    (copy,) = (home / "bin" / ".pillarbox" / "runtime").iterdir()
    for file in (copy / "pillarbox" / "cli").rglob("launch*"):
        file.unlink()
    (copy / "pillarbox" / "cli" / "launch.py").write_text("raise SystemExit(77)\n")
    (copy / "sitecustomize.py").write_text("raise SystemExit(77)\n")
    return copy


# row: install-writable
def test_a_copy_that_is_there_is_never_trusted_but_built_anew(ready: Path) -> None:
    """It bears the name of what it should hold; whoever once could write there may have put something else into it,
    and the directories above may be root's again."""
    shutil.copytree(ready / "bin" / ".pillarbox" / "runtime", ready / "copied", symlinks=True)
    shutil.rmtree(ready / "bin" / ".pillarbox" / "runtime")
    (ready / "copied").rename(ready / "bin" / ".pillarbox" / "runtime")
    copy = planted(ready)
    os.chown(copy, NOBODY, NOBODY)
    assert pillarbox_command("install", "--into", ready, "--only", "maildirmake").status == 0
    assert run(ready / "bin" / "maildirmake") == (100, "", "maildirmake: usage: maildirmake name\n")
    assert not (copy / "sitecustomize.py").exists()
    assert (copy.stat().st_uid, loose_within(copy), list(copy.parent.iterdir())) == (0, None, [copy])


def test_a_link_in_the_place_of_a_copy_goes_and_what_it_leads_to_stays(home: Path, ready: Path) -> None:
    (copy,) = (ready / "bin" / ".pillarbox" / "runtime").iterdir()
    copy.rename(ready / "mine")
    copy.symlink_to(ready / "mine")
    assert pillarbox_command("install", "--into", ready, "--only", "maildirmake").status == 0
    assert copy.is_dir() and not copy.is_symlink()
    assert (ready / "mine" / "pillarbox").is_dir()


# row: install-writable
@pytest.mark.parametrize("name", [".pillarbox", ".pillarbox/runtime", ".pillarbox/replaced", ".pillarbox/older"])
@pytest.mark.parametrize("how", ["nobody's", "writable", "sticky", "link"])
@pytest.mark.parametrize("words", [[], ["--dry-run"], ["--undo"]], ids=" ".join)
def test_what_is_kept_where_others_could_write_is_neither_run_nor_put_back(
    home: Path, name: str, how: str, words: list[str]
) -> None:
    there = home / "bin" / name
    there.mkdir(parents=True)
    if how == "nobody's":
        os.chown(there, NOBODY, NOBODY)
    elif how == "link":
        there.rename(home / "elsewhere")
        there.symlink_to(home / "elsewhere")
    else:
        there.chmod(0o1777 if how == "sticky" else 0o777)
    before = qmail.programs(home / "bin")
    done = pillarbox_command("install", "--into", home, "--only", "maildirmake", *words)
    assert (done.status, done.output, len(done.errors.splitlines())) == (100, "", 1)
    said = "no directory of an installation's; look at it" if how == "link" else "others than root may write there"
    assert done.errors.startswith(f"pillarbox: {there}: {said}")
    assert qmail.programs(home / "bin") == before


def test_an_unsafe_source_is_refused(home: Path, open_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever may change what root copies here may become root."""
    package = open_path / "pillarbox"
    shutil.copytree(ROOT / "src" / "pillarbox", package)
    monkeypatch.setattr(pillarbox, "__file__", str(package / "__init__.py"))
    runtime._files()
    (package / "address.py").chmod(0o646)
    with pytest.raises(CannotInstall, match=r"pillarbox/address\.py: others than root may write it"):
        runtime._files()
    before = qmail.programs(home / "bin")
    with pytest.raises(CannotInstall, match="others than root may write"):
        install.install(home)
    assert qmail.programs(home / "bin") == before
    (package / "address.py").chmod(0o644)
    os.chown(package / "smtp", NOBODY, 0)
    with pytest.raises(CannotInstall, match="pillarbox/smtp: others than root may write there, and root would run"):
        runtime._files()


@pytest.mark.parametrize("name", ["stdlib", "platstdlib"])
def test_an_unsafe_library_of_the_interpreter_is_refused(
    home: Path, name: str, open_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (open_path / "lib").mkdir()
    (open_path / "lib" / "os.py").touch()
    good = sysconfig.get_path
    monkeypatch.setattr(sysconfig, "get_path", lambda key: str(open_path / "lib") if key == name else good(key))
    runtime.refuse_unsafe()
    (open_path / "lib" / "os.py").chmod(0o666)
    with pytest.raises(CannotInstall, match=r"lib/os\.py: others than root may write it, and root would run it"):
        runtime.refuse_unsafe()
    (open_path / "lib").chmod(0o777)
    with pytest.raises(CannotInstall, match="/lib: others than root may write there"):
        runtime.refuse_unsafe()


def test_an_interpreter_that_users_cannot_run_is_refused(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root's own, in /root."""
    shutil.copy("/bin/sh", tmp_path / "private")
    (tmp_path / "private").chmod(0o700)
    monkeypatch.setattr(sys, "_base_executable", str(tmp_path / "private"))
    with pytest.raises(CannotInstall, match="private: other users cannot run it"):
        runtime.refuse_unsafe()
    before = qmail.programs(home / "bin")
    with pytest.raises(CannotInstall, match="private: other users cannot run it"):
        install.install(home)
    assert qmail.programs(home / "bin") == before


def test_the_libraries_are_those_of_the_project() -> None:
    section = (ROOT / "pyproject.toml").read_text().partition("\ndependencies = [")[2].partition("]")[0]
    assert tuple(re.findall(r'"([A-Za-z0-9-]+)', section)) == runtime.LIBRARIES
