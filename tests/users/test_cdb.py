"""Constant databases, read and written beside Debian's tinycdb."""

from __future__ import annotations

from pathlib import Path

from pillarbox.users import cdb
from tests.peers import peer, run

# Text of tinycdb's -d and -c: +KEYLENGTH,DATALENGTH:KEY->DATA, an empty line at the end.
DUMP = b"+1,1:a->b\n+0,2:->\0c\n+3,0:\x00\xffz->\n+1,1:a->2\n\n"
RECORDS = [(b"a", b"b"), (b"", b"\0c"), (b"\0\xffz", b""), (b"a", b"2")]


# row: vectors-cdb
def test_tinycdb_reads_what_we_write(tmp_path: Path) -> None:
    cdb.write(tmp_path / "ours.cdb", RECORDS)
    assert run(peer("cdb"), "-d", tmp_path / "ours.cdb") == DUMP
    assert run(peer("cdb"), "-q", "-n", "1", tmp_path / "ours.cdb", "a") == b"b"


# row: vectors-cdb
def test_we_read_what_tinycdb_writes(tmp_path: Path) -> None:
    run(peer("cdb"), "-c", tmp_path / "theirs.cdb", say=DUMP)
    lookup = cdb.Reader(tmp_path / "theirs.cdb").current()
    assert lookup is not None
    assert [lookup.get(key) for key in (b"a", b"", b"\0\xffz", b"b")] == [b"b", b"\0c", b"", None]


# row: vectors-cdb
def test_tinycdb_writes_the_very_octets(tmp_path: Path) -> None:
    """The first of two records of one key is the one that counts, wherever it lies in its table."""
    many = [(b"%d" % n, b"x" * n) for n in range(300)]
    text = b"".join(b"+%d,%d:%s->%s\n" % (len(key), len(data), key, data) for key, data in many) + b"\n"
    run(peer("cdb"), "-c", tmp_path / "theirs.cdb", say=text)
    cdb.write(tmp_path / "ours.cdb", many)
    assert (tmp_path / "ours.cdb").read_bytes() == (tmp_path / "theirs.cdb").read_bytes()
