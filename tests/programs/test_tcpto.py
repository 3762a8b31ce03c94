"""queue/lock/tcpto, octet for octet as qmail-tcpto and the qmail-remotes of others have it."""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from pathlib import Path

import pytest

from pillarbox.programs import tcpto
from pillarbox.programs.tcpto import Tcpto
from tests.programs.remotely import bring, control, home, run
from tests.roles.hosts import dictated, unanswering

__all__ = ["home"]

ADDRESS = "127.0.0.2"
NOW = 0x01020304
ONCE = b"\x7f\x00\x00\x02\x01\x00\x00\x00\x04\x03\x02\x01\x00\x00\x00\x00"
TWICE = b"\x7f\x00\x00\x02\x02\x00\x00\x00\x04\x03\x02\x01\x00\x00\x00\x00"
NEVER = b"\x7f\x00\x00\x02\x00\x00\x00\x00\x04\x03\x02\x01\x00\x00\x00\x00"
UNUSED = bytes(16)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    found = tmp_path / "tcpto"
    found.write_bytes(bytes(1024))
    return found


def at(file: Path, now: float, pid: int = 0) -> Tcpto:
    return Tcpto(str(file), pid, lambda: now)


# row: remote-tcpto
def test_a_timeout_is_written_down_in_the_first_free_record(file: Path) -> None:
    other = b"\x7f\x00\x00\x03\x01" + bytes(11)
    file.write_bytes(other + bytes(1008))
    at(file, NOW).timed_out(ADDRESS)
    assert file.read_bytes() == other + ONCE + bytes(992)


@pytest.mark.parametrize(
    ("later", "record"), [(0, ONCE), (119, ONCE), (120, TWICE[:8] + b"\x7c\x03\x02\x01" + bytes(4))]
)
def test_timeouts_that_come_together_are_one(file: Path, later: int, record: bytes) -> None:
    file.write_bytes(ONCE + bytes(1008))
    at(file, NOW + later).timed_out(ADDRESS)
    assert file.read_bytes() == record + bytes(1008)


def test_no_more_than_ten_are_counted(file: Path) -> None:
    file.write_bytes(ONCE[:4] + b"\x0a" + ONCE[5:] + bytes(1008))
    at(file, NOW + 1000).timed_out(ADDRESS)
    assert file.read_bytes()[4] == 10


# row: remote-tcpto
@pytest.mark.parametrize(
    ("record", "pid", "later", "skipped"),
    [
        (ONCE, 0, 0, False),
        (TWICE, 0, 0, True),
        (TWICE, 0, 60 * 64 - 1, True),
        (TWICE, 0, 60 * 64, False),
        (TWICE, 31, 91 * 64 - 1, True),
        (TWICE, 31, 91 * 64, False),
        (TWICE, 32, 60 * 64, False),
        (TWICE, 0, -1, False),  # of the future
        (UNUSED, 0, 0, False),
    ],
)
def test_an_address_is_left_alone_after_two_timeouts_for_an_hour_or_more(
    file: Path, record: bytes, pid: int, later: int, skipped: bool
) -> None:
    file.write_bytes(bytes(16) + record + bytes(992))
    assert at(file, NOW + later, pid).skips(ADDRESS) is skipped


# row: remote-tcpto
def test_an_answer_clears_the_count_and_leaves_the_time(file: Path) -> None:
    file.write_bytes(bytes(16) + TWICE + bytes(992))
    at(file, NOW + 5).answered(ADDRESS)
    assert file.read_bytes() == bytes(16) + NEVER + bytes(992)


def test_an_answer_of_somebody_unknown_is_not_written_down(file: Path) -> None:
    at(file, NOW).answered(ADDRESS)
    assert file.read_bytes() == bytes(1024)


def test_a_full_file_gives_up_the_oldest_a_timeout_being_worth_1024_seconds(file: Path) -> None:
    def record(number: int, times: int, last: int) -> bytes:
        return bytes([10, 0, 0, number, times, 0, 0, 0]) + last.to_bytes(4, "little") + bytes(4)

    records = [record(number, 1, 5000) for number in range(64)]
    records[7], records[9] = record(7, 2, 3977), record(9, 1, 5000 - 2)
    file.write_bytes(b"".join(records))
    at(file, NOW).timed_out(ADDRESS)
    assert file.read_bytes() == b"".join([*records[:9], ONCE, *records[10:]])
    records[9] = ONCE
    file.write_bytes(b"".join([*records[:7], record(7, 2, 3975), *records[8:]]))
    at(file, NOW).timed_out("10.9.9.9")
    assert file.read_bytes()[7 * 16 : 7 * 16 + 5] == b"\x0a\x09\x09\x09\x01"


@pytest.mark.parametrize("address", ["::1", "2001:db8::1", "::ffff:127.0.0.2"])
def test_nothing_is_remembered_of_ipv6(file: Path, address: str) -> None:
    at(file, NOW).timed_out(address)
    assert not at(file, NOW).skips(address) and file.read_bytes() == bytes(1024)


def test_a_file_that_is_none_is_no_trouble(tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(TWICE)
    (tmp_path / "good").write_bytes(TWICE + bytes(1008))
    (tmp_path / "link").symlink_to("good")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    for name in ("missing", "short", "link", "fifo", "folder"):
        known = at(tmp_path / name, NOW)
        assert not known.skips(ADDRESS)
        known.timed_out(ADDRESS)
        known.answered(ADDRESS)
    assert (tmp_path / "short").read_bytes() == TWICE and not (tmp_path / "missing").exists()
    assert (tmp_path / "good").read_bytes() == TWICE + bytes(1008)


def test_who_holds_the_lock_for_long_costs_the_memory_and_not_the_message(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tcpto, "PATIENCE", 0.05)
    file.write_bytes(TWICE + bytes(1008))
    with open(file, "rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert not at(file, NOW).skips(ADDRESS)
    assert at(file, NOW).skips(ADDRESS)


# the program


def remembered(home: Path, record: bytes = b"") -> Path:
    (home / "queue" / "lock").mkdir(parents=True)
    found = home / "queue" / "lock" / "tcpto"
    found.write_bytes(record.ljust(1024, b"\0"))
    return found


def just_now(times: int) -> bytes:
    return b"\x7f\x00\x00\x02" + bytes([times, 0, 0, 0]) + int(time.time()).to_bytes(4, "little") + bytes(4)


TAKING = (b"220 host\r\n", b"250 host\r\n", b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n", b"250 queued\r\n")
NO_CONNECTION = b"ZSorry, I wasn't able to establish an SMTP connection. (#4.4.1)\n\0"


# row: remote-tcpto
def test_qmail_remote_does_not_try_an_address_that_timed_out_twice(home: Path) -> None:
    file = remembered(home, just_now(2))
    before = file.read_bytes()
    said: list[bytes] = []
    assert bring(home, dictated(said, *TAKING)) == NO_CONNECTION
    assert said == [] and file.read_bytes() == before


def test_qmail_remote_writes_down_that_an_address_answered(home: Path) -> None:
    file = remembered(home, just_now(1))
    assert bring(home, dictated([], *TAKING)).startswith(b"r\0K")
    assert file.read_bytes()[:5] == b"\x7f\x00\x00\x02\x00"


def test_qmail_remote_writes_down_that_an_address_refused_the_connection(home: Path) -> None:
    file = remembered(home, just_now(1))
    assert bring(home, None) == NO_CONNECTION
    assert file.read_bytes()[:5] == b"\x7f\x00\x00\x02\x00"


# row: remote-tcpto
def test_qmail_remote_writes_down_that_an_address_did_not_answer(home: Path) -> None:
    file = remembered(home)
    with unanswering() as port:
        control(home, timeoutconnect="1\n", smtproutes=f":127.0.0.2:{port}\n")
        assert asyncio.run(run(home, "far.example", "", "joe@far.example")) == NO_CONNECTION
    assert file.read_bytes()[:5] == b"\x7f\x00\x00\x02\x01"
    assert abs(int.from_bytes(file.read_bytes()[8:12], "little") - time.time()) < 60
