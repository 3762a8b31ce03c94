"""users/passwords: its lines, and how it is followed while others replace it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pillarbox.auth import passwords
from pillarbox.auth.passwords import Passwords, Record
from pillarbox.status import Failure

TEXT = b"""# made by hand
Joe@Example.org:$hash$one
ann@example.org:hash2:c2VjcmV0
joe@other.example:hash3

broken
joe:hash
x@y
bad@base64.example:hash:!!
joe@example.org:second
"""


def test_lines_are_records_and_broken_ones_are_numbers() -> None:
    assert list(passwords.parse(TEXT)) == [
        Record(b"joe@example.org", b"$hash$one"),
        Record(b"ann@example.org", b"hash2", b"secret"),
        Record(b"joe@other.example", b"hash3"),
        6,
        7,
        8,
        9,
        Record(b"joe@example.org", b"second"),
    ]


def test_a_record_written_is_read_back() -> None:
    for record in (Record(b"a@b", b"h"), Record(b"a@b", b"h", b"se:cr et\xff"), Record(b"a@b", b"h", b"")):
        assert list(passwords.parse(record.line())) == [record]


def test_no_secret_shows_in_a_record() -> None:
    assert "hash2" not in repr(Record(b"a@b", b"hash2", b"secret"))
    assert "secret" not in repr(Record(b"a@b", b"hash2", b"secret"))


def test_the_first_record_of_an_address_counts(tmp_path: Path) -> None:
    (tmp_path / "passwords").write_bytes(TEXT)
    table = Passwords(tmp_path / "passwords")
    assert table.get(b"joe@example.org") == Record(b"joe@example.org", b"$hash$one")
    assert table.namesakes(b"joe") == (b"joe@example.org", b"joe@other.example")
    assert passwords.find(TEXT, b"joe@example.org") == Record(b"joe@example.org", b"$hash$one")


def test_a_file_that_changes_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "passwords"
    table = Passwords(file)
    assert table.get(b"a@b") is None
    passwords.write(file, b"a@b:one\n")
    assert table.get(b"a@b") == Record(b"a@b", b"one")
    passwords.write(file, b"a@b:two\n")
    assert table.get(b"a@b") == Record(b"a@b", b"two")
    file.unlink()
    assert table.get(b"a@b") is None and table.namesakes(b"a") == ()


def test_a_file_that_cannot_be_read_is_trouble_and_not_absence(tmp_path: Path) -> None:
    (tmp_path / "passwords").mkdir()
    with pytest.raises(Failure) as caught:
        Passwords(tmp_path / "passwords").get(b"a@b")
    assert not caught.value.refusal.permanent
    with pytest.raises(Failure, match="Not a directory"):
        (tmp_path / "file").write_bytes(b"")
        Passwords(tmp_path / "file" / "passwords").get(b"a@b")


def test_a_file_of_absurd_size_is_trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "LARGEST_FILE", 10)
    (tmp_path / "passwords").write_bytes(b"a@b:hash and more\n")
    with pytest.raises(Failure, match="absurdly large"):
        passwords.read(tmp_path / "passwords")


def test_a_new_record_takes_the_place_of_the_old_ones() -> None:
    text = passwords.with_record(TEXT, Record(b"joe@example.org", b"new"))
    assert text == TEXT.replace(b"Joe@Example.org:$hash$one", b"joe@example.org:new").replace(
        b"joe@example.org:second\n", b""
    )
    assert passwords.with_record(b"# end", Record(b"a@b", b"h")) == b"# end\na@b:h\n"


def test_a_record_is_taken_away_with_all_its_doubles() -> None:
    text = passwords.without(TEXT, b"joe@example.org")
    assert b"example.org:hash2" in text and b"broken" in text
    assert passwords.find(text, b"joe@example.org") is None


def test_a_new_file_is_for_its_group_alone_and_an_old_one_keeps_its_mode(tmp_path: Path) -> None:
    file = tmp_path / "passwords"
    passwords.write(file, b"a@b:h\n", os.getegid())
    assert file.stat().st_mode & 0o7777 == 0o640
    file.chmod(0o600)
    passwords.write(file, b"a@b:h2\n")
    assert file.stat().st_mode & 0o7777 == 0o600
    assert file.read_bytes() == b"a@b:h2\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_root_keeps_the_owner_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "passwords"
    passwords.write(file, b"a@b:h\n", 4321)
    assert (file.stat().st_uid, file.stat().st_gid) == (0, 4321)
    os.chown(file, 1234, 4321)
    passwords.write(file, b"a@b:h2\n", 99)
    assert (file.stat().st_uid, file.stat().st_gid) == (1234, 4321)
