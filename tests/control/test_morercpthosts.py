"""control/morercpthosts.cdb: absent, there, replaced, damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from pillarbox.control.morercpthosts import MoreHosts
from pillarbox.status import Failure
from pillarbox.users import cdb


def test_the_table_is_followed_as_it_changes(tmp_path: Path) -> None:
    file = tmp_path / "morercpthosts.cdb"
    more = MoreHosts(file)
    assert not more(b"a.example")
    cdb.write(file, [(b"a.example", b""), (b".b.example", b"")])
    assert more(b"a.example") and more(b".b.example") and not more(b"b.example")
    cdb.write(file, [(b"c.example", b"")])
    assert more(b"c.example") and not more(b"a.example")


def test_a_damaged_table_is_a_temporary_failure(tmp_path: Path) -> None:
    (tmp_path / "morercpthosts.cdb").write_bytes(b"no cdb")
    with pytest.raises(Failure, match="unable to read controls") as caught:
        MoreHosts(tmp_path / "morercpthosts.cdb")(b"a.example")
    assert not caught.value.refusal.permanent
