"""Passwords of system users, as shadow(5) has them."""

from __future__ import annotations

from pathlib import Path

import pytest

from pillarbox.auth import hashes, shadow
from pillarbox.auth.shadow import CannotRead, right

BAR = (
    b"$6$rounds=1000$saltstring$fwZ4GLBgbx16IsudL3CkGvE65FmaXxJJqkXtZq2KMVCzzv8gRrJ8aYSD29TAYxczYI5z.PgB8ncIt3BIyd.sO."
)
TODAY = 20_000


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "shadow"
    lines = [
        b"root:*:19000:0:99999:7:::",
        b"joe:" + BAR + b":19000:0:99999:7:::",
        b"mail:!:19000::::::",
        b"nul::1::::::",
    ]
    file.write_bytes(b"".join(line + b"\n" for line in lines))
    monkeypatch.setattr(shadow, "FILE", file)
    return file


def test_the_password_in_shadow_is_right_and_no_other() -> None:
    assert right(b"joe", b"bar", TODAY)
    for wrong in (b"", b"baz", b"bar\0", b"bar\0x", b"x" * 5000, BAR):
        assert not right(b"joe", wrong, TODAY)


@pytest.mark.parametrize("name", [b"root", b"mail", b"nul", b"nobodys", b"jo", b"", None])
def test_who_has_no_password_in_shadow_has_none(name: bytes | None) -> None:
    for password in (b"", b"*", b"!", b"bar"):
        assert not right(name, password, TODAY)


@pytest.mark.parametrize(
    ("fields", "lives"),
    [
        (b"19000:0:99999:7:::", True),
        (b":::::::", True),
        (b"19000:0:99999:7::20000:", False),
        (b"19000:0:99999:7::20001:", True),
        (b"19000:0:900:7:90::", False),
        (b"19000:0:900:7:100::", True),
        (b"19000:0:900:7:::", True),
        (b"19000:0:99999:7::x:", True),
        (b"19000", True),
    ],
)
def test_an_account_or_password_that_is_over_is_not_let_in(file: Path, fields: bytes, lives: bool) -> None:
    file.write_bytes(b"joe:" + BAR + b":" + fields + b"\n")
    assert right(b"joe", b"bar", TODAY) is lives


def test_nobody_costs_what_a_wrong_password_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[bytes] = []

    def count(stored: bytes, password: bytes) -> bool:
        computed.append(stored)
        return False

    monkeypatch.setattr(hashes, "_crypt", count)
    for name, password in ((b"joe", b"baz"), (b"mail", b"baz"), (b"joe", b""), (None, b"bar"), (b"nobodys", b"bar")):
        right(name, password, TODAY)
    assert [one.rpartition(b"$")[0] for one in computed] == [BAR.rpartition(b"$")[0]] * 5
    assert BAR not in computed[1:]


def test_the_password_of_the_decoy_lets_nobody_in() -> None:
    """Whose salt is borrowed for the time's sake lends nothing else."""
    assert not right(b"mail", b"bar", TODAY)
    assert not right(b"nobodys", b"bar", TODAY)
    assert not right(None, b"bar", TODAY)


def test_a_shadow_that_cannot_be_read_is_trouble(file: Path) -> None:
    file.unlink()
    with pytest.raises(CannotRead, match=r"cannot read .*shadow: No such file") as caught:
        right(b"joe", b"bar", TODAY)
    assert not caught.value.refusal.permanent


def test_an_absurd_shadow_is_not_read_whole(file: Path) -> None:
    with file.open("r+b") as stream:
        stream.truncate(shadow.LARGEST_FILE + 1)
    with pytest.raises(CannotRead, match="absurdly large"):
        right(b"joe", b"bar", TODAY)
