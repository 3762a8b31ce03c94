"""cmd5checkpw's file: who is let in by it, and what is no such file."""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pillarbox.auth import smtppasswd
from pillarbox.auth.checkpassword import parse
from pillarbox.auth.smtppasswd import CannotRead, Malformed, read, right

TEXT = b"joe:secret\ntim:tanstaaftanstaaf\nann:a:b c\nempty:\njoe:other\n"
# RFC 2195, section 2
CHALLENGE = b"<1896.697170952@postoffice.reston.mci.net>"
DIGEST = b"b913a602c7eda7a495b4e6e7334d3890"


def says(*fields: bytes) -> bytes:
    return b"".join(field + b"\0" for field in fields)


# row: cmd5checkpw-plain
@pytest.mark.parametrize(
    ("octets", "expected"),
    [
        (b"joe\0secret\0\0", True),
        (b"joe\0secret\0<1.2@h>\0", True),  # qmail-popup's USER and PASS
        (b"joe\0other\0\0", False),  # the first line counts
        (b"joe\0secre\0\0", False),
        (b"joe\0secrets\0\0", False),
        (b"joe\0\0\0", False),
        (b"Joe\0secret\0\0", False),
        (b"jo\0secret\0\0", False),
        (b"\0secret\0\0", False),
        (b"ann\0a:b c\0\0", True),
        (b"ann\0a\0\0", False),
        (b"empty\0\0\0", False),
        (b"nobody\0secret\0\0", False),
        (b"nobody\0\0\0", False),
    ],
)
def test_the_password_of_the_first_line_of_exactly_this_user(octets: bytes, expected: bool) -> None:
    assert right(TEXT, parse(octets)) is expected


# row: cmd5checkpw-cram-md5
@pytest.mark.parametrize(
    ("octets", "expected"),
    [
        (says(b"tim", CHALLENGE, DIGEST), True),  # as qmail-smtpd-auth 0.31
        (says(b"tim", DIGEST, CHALLENGE), True),  # as its successors
        (says(b"tim", CHALLENGE, DIGEST.upper()), False),
        (says(b"tim", CHALLENGE, DIGEST[:-1] + b"1"), False),
        (says(b"tim", CHALLENGE, b"") + b"", False),
        (says(b"tim", CHALLENGE[:-1], DIGEST), False),
        (says(b"tim", b"abc", b"f8d67a2d9ab4d8083f85ae4afc11f5ec"), False),  # the right digest of no challenge
        (says(b"joe", CHALLENGE, DIGEST), False),
        (says(b"nobody", CHALLENGE, DIGEST), False),
        (says(b"tim", CHALLENGE, b"tanstaaftanstaaf"), False),
    ],
)
def test_the_digest_of_rfc_2195_in_both_orders(octets: bytes, expected: bool) -> None:
    assert right(TEXT, parse(octets)) is expected


def test_the_digest_with_an_empty_password_is_anybodys_and_lets_nobody_in() -> None:
    response = hmac.new(b"", b"<1@h>", "md5").hexdigest().encode()
    assert not right(TEXT, parse(says(b"empty", b"<1@h>", response)))
    response = hmac.new(b"\0", b"<1@h>", "md5").hexdigest().encode()
    assert not right(TEXT, parse(says(b"nobody", b"<1@h>", response)))


def test_an_overheard_challenge_and_digest_are_no_password() -> None:
    """AUTH LOGIN with a password that has NULs in it, as a C qmail-smtpd passes it on, and PLAIN without."""
    assert not right(TEXT, parse(b"tim\0" + CHALLENGE + b"\0" + DIGEST + b"\0\0"))
    assert not right(TEXT, parse(b"tim\0" + CHALLENGE + b"\0\0"))
    assert not right(TEXT, parse(b"tim\0" + DIGEST + b"\0\0"))


# row: cmd5checkpw-unknown, cmd5checkpw-constant-time
def test_nobody_costs_what_a_wrong_password_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []
    hashed: list[bytes] = []
    digest: Callable[..., hmac.HMAC] = hmac.new

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return one == other

    def new(key: bytes, message: bytes, kind: object) -> hmac.HMAC:
        hashed.append(message)
        return digest(key, message, kind)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    monkeypatch.setattr(hmac, "new", new)
    for login in (b"joe", b"nobody", b"empty", b"tim"):
        compared.clear()
        hashed.clear()
        right(TEXT, parse(says(login, b"secret", b"")))
        assert (len(compared), len(hashed)) == (2, 1)


# row: cmd5checkpw-file
@pytest.mark.parametrize(
    ("text", "number"),
    [
        (b"no colon\njoe:secret\n", 1),
        (b"ann:x\n\njoe:secret\n", 2),
        (b"ann:x\njoe\n", 2),
        (b"joe:" + b"x" * 253 + b"\n", 1),
        (b"x" * (1 << 20) + b"\njoe:secret\n", 1),
        (b"x:" + b"x" * (1 << 20), 1),
        (b"\n", 1),
    ],
)
def test_a_line_that_is_none_ends_the_matter_ahead_of_the_users(text: bytes, number: int) -> None:
    with pytest.raises(Malformed, match=f"^line {number}: not USER:PASSWORD of at most 256 octets$"):
        right(text, parse(b"joe\0secret\0\0"))


def test_a_line_that_is_none_behind_the_users_is_not_his_trouble() -> None:
    assert right(b"joe:secret\nno colon\n\n", parse(b"joe\0secret\0\0"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [(b"joe:secret", True), (b"", False), (b"joe:" + b"x" * 252, False), (b"joe:secret\r\n", False)],
)
def test_a_last_line_needs_no_newline_and_no_file_needs_lines(text: bytes, expected: bool) -> None:
    assert right(text, parse(b"joe\0secret\0\0")) is expected


def test_a_line_of_256_octets_is_one() -> None:
    password = b"x" * 252
    assert right(b"joe:" + password + b"\n", parse(says(b"joe", password, b"")))


def test_the_file_is_read_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "smtp.passwd"
    file.write_bytes(TEXT)
    assert read(file) == TEXT


# row: cmd5checkpw-bad-files
@pytest.mark.parametrize("kind", ["missing", "link", "fifo", "directory", "huge", "device"])
def test_what_is_no_file_of_ours_is_not_read_and_holds_nobody_up(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "smtp.passwd"
    (tmp_path / "other").write_bytes(TEXT)
    if kind == "link":
        file.symlink_to("other")
    elif kind == "fifo":
        os.mkfifo(file)
    elif kind == "directory":
        file.mkdir()
    elif kind == "huge":
        with file.open("wb") as stream:
            stream.truncate(smtppasswd.LARGEST_FILE + 1)
    elif kind == "device":
        file = Path("/dev/zero")
    with pytest.raises(CannotRead) as caught:
        read(file)
    assert caught.value.text.startswith(f"{file}: ")
    assert not caught.value.refusal.permanent
