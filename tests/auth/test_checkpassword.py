"""Both ends of the checkpassword interface: what is said on descriptor 3, and the programs that are started with it."""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pillarbox.auth import checkpassword
from pillarbox.auth.checkpassword import Asked, CannotStart, NotAsked, Overdue, read, said, start
from pillarbox.credentials import Credentials, Digest, Password
from tests.server import until

# said


@pytest.mark.parametrize(
    ("credentials", "octets"),
    [
        (Password(b"joe", b"secret"), b"joe\0secret\0\0"),
        (Password(b"joe", b"pass word"), b"joe\0pass word\0\0"),
        (Password(b"", b"x"), b"\0x\0\0"),
        (Digest(b"CRAM-MD5", b"joe", b"<7.9@h>", b"0a"), b"joe\0<7.9@h>\x000a\0"),
        (Digest(b"APOP", b"joe", b"<7.9@h>", b"0a"), b"joe\x000a\0<7.9@h>\0"),
        (Password(b"joe", b"x" * 506), b"joe\0" + b"x" * 506 + b"\0\0"),
    ],
)
def test_what_is_said_on_descriptor_3(credentials: Credentials, octets: bytes) -> None:
    assert said(credentials) == octets


@pytest.mark.parametrize(
    "credentials",
    [
        Password(b"joe", b""),
        Password(b"joe", b"x" * 507),
        Password(b"jo\0e", b"x"),
        Password(b"joe", b"x\0y"),
        Digest(b"CRAM-MD5", b"joe", b"<7.9@h>", b"\0"),
        Digest(b"APOP", b"joe", b"<7.9@h>", b""),
    ],
)
def test_what_no_program_can_be_asked_is_not_said(credentials: Credentials) -> None:
    assert said(credentials) is None


def test_nothing_shows_what_was_said() -> None:
    assert "secret" not in repr(Asked(b"joe", b"secret", b"secret", b"joe\0secret\0secret\0"))


# read


def a_pipe(octets: bytes) -> int:
    reading, writing = os.pipe()
    os.write(writing, octets)
    os.close(writing)
    return reading


@pytest.mark.parametrize(
    ("octets", "fields"),
    [
        (b"joe\0secret\0\0", (b"joe", b"secret", b"")),
        (b"joe\0secret\0<1@h>\0", (b"joe", b"secret", b"<1@h>")),
        (b"joe\0secret\0<1@h>\0more\0", (b"joe", b"secret", b"<1@h>")),
        (b"joe\0secret\0", (b"joe", b"secret", None)),
        (b"joe\0secret\0without end", (b"joe", b"secret", None)),
        (b"\0\0\0", (b"", b"", b"")),
        (b"joe\0" + b"x" * 506 + b"\0\0", (b"joe", b"x" * 506, b"")),
    ],
)
def test_the_fields_are_read_and_the_descriptor_is_closed(
    octets: bytes, fields: tuple[bytes, bytes, bytes | None]
) -> None:
    descriptor = a_pipe(octets)
    assert read(descriptor) == Asked(*fields, octets)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


@pytest.mark.parametrize(
    ("octets", "status"),
    [(b"", 2), (b"joe", 2), (b"joe\0", 2), (b"joe\0secret", 2), (b"x\0" * 256 + b"x", 1), (b"x" * 60000, 1)],
)
def test_what_is_no_question_ends_with_checkpasswords_status(octets: bytes, status: int) -> None:
    with pytest.raises(NotAsked) as caught:
        read(a_pipe(octets))
    assert caught.value.exit_status == status
    assert "secret" not in caught.value.text


def test_512_octets_are_a_question() -> None:
    assert len(read(a_pipe(b"joe\0secret\0".ljust(511, b"x") + b"\0")).raw) == 512


def test_no_descriptor_3_is_trouble() -> None:
    descriptor = a_pipe(b"")
    os.close(descriptor)
    with pytest.raises(NotAsked, match="Bad file descriptor") as caught:
        read(descriptor)
    assert caught.value.exit_status == 111


# start and wait


@contextmanager
def output() -> Iterator[tuple[int, int]]:
    """(where a program writes, where we read it)"""
    reading, writing = os.pipe()
    yield writing, reading
    os.close(reading)


def told(text: str, **options: Any) -> bytes:
    """What a program in Python says on its standard output; it must end well."""
    with output() as (writing, reading):
        process = start([sys.executable.encode(), b"-c", text.encode()], b"joe\0s3cret\0\0", stdout=writing, **options)
        os.close(writing)
        assert process.wait(30) == 0
        return os.read(reading, 65536)


READ_3 = "import os; os.write(1, os.read(3, 600) + b'|' + os.read(3, 1))"


def test_a_program_reads_what_is_said_and_then_the_end() -> None:
    assert told(READ_3) == b"joe\0s3cret\0\0|"


def test_a_program_reads_it_on_3_whatever_3_is_here() -> None:
    """The close3 bug of qmail-smtpd-auth 0.31: there descriptor 3 was morercpthosts.cdb, and was closed."""
    try:
        before = fcntl.fcntl(3, fcntl.F_DUPFD_CLOEXEC, 20)
    except OSError:
        before = None
    ours = os.open("/dev/null", os.O_RDONLY)
    try:
        os.dup2(ours, 3, inheritable=False)
        assert told(READ_3) == b"joe\0s3cret\0\0|"
        assert os.fstat(3).st_rdev == os.stat("/dev/null").st_rdev
        os.close(3)
        assert told(READ_3) == b"joe\0s3cret\0\0|"
    finally:
        if before is not None:
            os.dup2(before, 3, inheritable=False)
            os.close(before)
        os.close(ours)


def test_the_given_descriptors_are_0_to_2_even_crosswise() -> None:
    with output() as (writing, reading), output() as (other, errors):
        text = b"import os; os.write(1, b'out'); os.write(2, b'err')"
        # A descriptor that is another one's target: 0 and 1 are swapped on the way.
        process = start([sys.executable.encode(), b"-c", text], b"", stdin=1, stdout=writing, stderr=other)
        os.close(writing)
        os.close(other)
        assert process.wait(30) == 0
        assert (os.read(reading, 100), os.read(errors, 100)) == (b"out", b"err")


def test_a_program_has_no_other_descriptor_than_0_to_3() -> None:
    left = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(left, True)
    try:
        # The last is the one that the listing itself has open.
        seen = told("import os; os.write(1, ' '.join(sorted(os.listdir('/proc/self/fd'))).encode())")
    finally:
        os.close(left)
    assert seen == b"0 1 2 3 4"


def test_what_is_said_is_in_no_argument_and_in_no_environment() -> None:
    text = "import os; os.write(1, open('/proc/self/cmdline', 'rb').read() + open('/proc/self/environ', 'rb').read())"
    assert b"s3cret" not in told(text)


def test_the_environment_is_ours_or_the_one_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TCPREMOTEIP", "192.0.2.7")
    text = "import os; os.write(1, os.environb.get(b'TCPREMOTEIP', b'none') + os.environb.get(b'A', b' none'))"
    assert told(text) == b"192.0.2.7 none"
    assert told(text, environment={b"A": b" b"}) == b"none b"


def test_a_program_finds_signals_as_it_expects_them() -> None:
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        with output() as (writing, reading):
            process = start([b"/bin/grep", b"SigIgn", b"/proc/self/status"], b"", stdout=writing)
            os.close(writing)
            assert process.wait(30) == 0
            ignored = int(os.read(reading, 100).removeprefix(b"SigIgn:\t"), 16)
        assert ignored & 0x7FFFFFFF == 0  # those above are of the C library
    finally:
        for number, was in before.items():
            signal.signal(number, was)


@pytest.mark.parametrize(
    ("text", "status"), [("exit 0", 0), ("exit 1", 1), ("exit 111", 111), ("kill -9 $$", -9), ("exit 255", 255)]
)
def test_the_exit_status_is_the_answer(text: str, status: int) -> None:
    assert start([b"/bin/sh", b"-c", text.encode()], b"").wait(30) == status
    assert start([b"sh", b"-c", text.encode()], b"", apart=False).wait() == status


@pytest.mark.parametrize("path", [b"/no/such/checkpassword", b"no-such-checkpassword", b"/etc/passwd", b"/", b""])
def test_a_program_that_cannot_be_run_is_a_no_with_a_reason(path: bytes) -> None:
    process = start([path], b"joe\0s3cret\0\0")
    assert process.problem is not None
    assert process.wait(1) == 1


def test_without_descriptors_it_is_trouble_and_no_no(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_flags: int) -> tuple[int, int]:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "pipe2", full)
    with pytest.raises(CannotStart, match="cannot open a pipe: Too many open files") as caught:
        start([b"/bin/true"], b"")
    assert caught.value.pipe


def test_without_processes_it_is_trouble_and_no_no(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: object, **_options: object) -> int:
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "posix_spawnp", full)
    before = sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(CannotStart, match="cannot start a process") as caught:
        start([b"/bin/true"], b"", stdin=0, stdout=1)
    assert not caught.value.pipe
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_a_program_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    begun = time.monotonic()
    process = start([b"/bin/sh", b"-c", f"sleep 1000 & echo $! > {pid}.new; mv {pid}.new {pid}; wait".encode()], b"")
    until(pid.exists, "the program to have started another")
    with pytest.raises(Overdue, match=r"took more than 0\.5 seconds"):
        process.wait(0.5)
    assert time.monotonic() - begun < 20
    child = int(pid.read_text())
    until(lambda: not _runs(child), "the child of a program that was ended to be over")


def test_a_program_in_our_group_is_ended_alone() -> None:
    process = start([b"/bin/sleep", b"1000"], b"", apart=False)
    with pytest.raises(Overdue):
        process.wait(0.2)


def test_a_program_that_became_somebody_else_does_not_hold_us_up(monkeypatch: pytest.MonkeyPatch) -> None:
    pids: list[int] = []

    def refused(pid: int, _number: int) -> None:
        pids.append(pid)
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(checkpassword, "_DYING", 0.1)
    process = start([b"/bin/sleep", b"1000"], b"")
    with monkeypatch.context() as patched:
        patched.setattr(os, "killpg", refused)
        with pytest.raises(Overdue):
            process.wait(0.1)
    os.kill(pids[0], signal.SIGKILL)
    os.waitpid(pids[0], 0)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
