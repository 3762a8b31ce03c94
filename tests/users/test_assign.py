"""users/assign and users/cdb: the keys and values that qmail-lspawn looks up."""

from __future__ import annotations

import struct
from pathlib import Path

import cdbx  # type: ignore[import-untyped]  # the library has no types
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pillarbox.users import assign
from pillarbox.users.assign import Assignment, BadAssign


def compiled(directory: Path, text: bytes) -> list[tuple[bytes, bytes]]:
    (directory / "assign").write_bytes(text)
    assign.compile_cdb(directory)
    table = cdbx.CDB(str(directory / "cdb"))
    try:
        return list(table.items(all=True))
    finally:
        table.close()


# row: vectors-assign
def test_the_compiled_table_has_qmails_keys_and_values(tmp_path: Path) -> None:
    text = b"=Virt:u:5:6:/h:::\n+virt-:u:5:6:/h:-:pre-:\n+:alias:7:8:/a:-::\n+list.:u:5:6:/h:-::\n.\n"
    assert compiled(tmp_path, text) == [
        (b"!virt\0", b"u\x005\x006\0/h\0\0\0"),
        (b"!virt-", b"u\x005\x006\0/h\0-\0pre-\0"),
        (b"!", b"alias\x007\x008\0/a\0-\0\0"),
        (b"!list.", b"u\x005\x006\0/h\0-\0\0"),
        (b"", b"-."),
    ]


def test_text_after_the_last_field_and_after_the_final_dot_is_dropped(tmp_path: Path) -> None:
    assert compiled(tmp_path, b"=a:u:1:2:/h::: and more\n.\nrubbish") == [
        (b"!a\0", b"u\x001\x002\0/h\0\0\0"),
        (b"", b""),
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (b"", None),
        (b"=a:u:1:2:/h:::\n", None),
        (b"=a:u:1:2:/h:::\nno colon\n.\n", 2),
        (b"=a:u:1:2:/h::\n.\n", 1),
        (b":u:1:2:/h:::\n.\n", 1),
        (b"=a:u:1:2:/h\0:::\n.\n", 1),
        (b"\n.\n", 1),
    ],
)
def test_a_broken_file_leaves_the_old_table(tmp_path: Path, text: bytes, line: int | None) -> None:
    good = compiled(tmp_path, b"=a:u:1:2:/h:::\n.\n")
    with pytest.raises(BadAssign, match="bad format in users/assign") as caught:
        compiled(tmp_path, text)
    assert caught.value.line == line
    table = cdbx.CDB(str(tmp_path / "cdb"))
    assert list(table.items(all=True)) == good
    table.close()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["assign", "cdb"]


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    wanted = (Assignment(b"=joe", b"u", b"1", b"2", b"/h"), Assignment(b"+joe-", b"u", b"1", b"2", b"/h", b"-", b"x"))
    assign.write(tmp_path, wanted)
    assert assign.read(tmp_path) == wanted
    assert (tmp_path / "assign").read_bytes() == b"=joe:u:1:2:/h:::\n+joe-:u:1:2:/h:-:x:\n.\n"
    assert (tmp_path / "cdb").exists()


def test_no_file_is_no_assignments(tmp_path: Path) -> None:
    assert assign.read(tmp_path) == ()


NAME = st.binary(max_size=8).filter(lambda octets: not any(odd in octets for odd in (b":", b"\n", b"\0")))
KEY = st.builds(bytes.__add__, st.sampled_from([b"=", b"+"]), NAME)


@given(st.lists(st.builds(Assignment, KEY, NAME, NAME, NAME, NAME, NAME, NAME), max_size=4))
@settings(deadline=None, max_examples=50)
def test_every_file_that_is_written_reads_as_it_was_meant(wanted: list[Assignment]) -> None:
    assert assign.parse(assign.lines(wanted)) == tuple(wanted)


def looked_up(table: bytes, key: bytes) -> bytes | None:
    """A lookup as cdb's own description has it, for what qmail-lspawn would find."""
    value = 5381
    for octet in key:
        value = ((value << 5) + value ^ octet) & 0xFFFFFFFF
    start, length = struct.unpack_from("<II", table, (value & 255) * 8)
    for probe in range(length):
        slot = ((value >> 8) + probe) % length
        found, at = struct.unpack_from("<II", table, start + slot * 8)
        if at == 0:
            return None
        keys, size = struct.unpack_from("<II", table, at)
        if found == value and table[at + 8 : at + 8 + keys] == key:
            return table[at + 8 + keys : at + 8 + keys + size]
    return None


# row: vectors-cdb
def test_a_reader_that_knows_cdb_alone_finds_every_record(tmp_path: Path) -> None:
    people = [Assignment(b"=joe%d" % n, b"u", b"%d" % n, b"2", b"/h/%d" % n) for n in range(300)]
    assign.write(tmp_path, [*people, Assignment(b"=joe7", b"second", b"9", b"9", b"/never")])
    table = (tmp_path / "cdb").read_bytes()
    for n in range(300):
        assert looked_up(table, b"!joe%d\0" % n) == b"u\0%d\x002\0/h/%d\0\0\0" % (n, n)
    assert looked_up(table, b"") == b""
    assert looked_up(table, b"!nobody\0") is None
