"""control/smtproutes: which line counts, what it says, and what it must never say to whom."""

from __future__ import annotations

from pathlib import Path

import pytest

from pillarbox.control.table import read
from pillarbox.routes import BadRoute, Hop, Routes
from pillarbox.status import Status


def routes(tmp_path: Path, text: bytes) -> Routes:
    (tmp_path / "smtproutes").write_bytes(text)
    return Routes(read(tmp_path)[0].smtproutes)


def test_without_the_file_everything_goes_by_mx(tmp_path: Path) -> None:
    assert Routes({}).find(b"example.org") is None


def test_the_domain_itself_wins_over_its_suffixes_the_longest_first_and_all_over_the_empty_key(tmp_path: Path) -> None:
    found = routes(tmp_path, b":all.example\n.org:org.example\n.a.org:a.example\nx.a.org:own.example\n")
    assert found.find(b"x.a.org") == Hop(b"own.example")
    assert found.find(b"y.x.a.org") == Hop(b"a.example")
    assert found.find(b"a.org") == Hop(b"org.example")
    assert found.find(b"org") == found.find(b"example.net") == Hop(b"all.example")


def test_an_empty_relay_is_an_exception_to_a_wildcard(tmp_path: Path) -> None:
    found = routes(tmp_path, b":all.example\nexample.org:\n.example.net:\n")
    assert found.find(b"example.org") is None and found.find(b"a.example.net") is None
    assert found.find(b"example.net") == Hop(b"all.example")


@pytest.mark.parametrize(
    ("line", "hop"),
    [
        (b"relay.example", Hop(b"relay.example", 25)),
        (b"Relay.Example:2500", Hop(b"relay.example", 2500)),
        (b"192.0.2.1", Hop(b"192.0.2.1", 25)),
        (b"192.0.2.1:26", Hop(b"192.0.2.1", 26)),
        (b"[192.0.2.1]", Hop(b"192.0.2.1", 25)),
        (b"[192.0.2.1]:26", Hop(b"192.0.2.1", 26)),
        (b"[2001:db8::1]", Hop(b"2001:db8::1", 25)),
        (b"[IPv6:2001:DB8::1]:26", Hop(b"2001:db8::1", 26)),
        (b"relay.example joe secret", Hop(b"relay.example", 25, b"joe", b"secret")),
        (b"relay.example:587 joe se:cret with blanks", Hop(b"relay.example", 587, b"joe", b"se:cret with blanks")),
        (b"relay.example joe  two", Hop(b"relay.example", 25, b"joe", b" two")),
        (b"relay.example joe", Hop(b"relay.example", 25)),
    ],
)
def test_a_line_names_relay_port_and_login(tmp_path: Path, line: bytes, hop: Hop) -> None:
    assert routes(tmp_path, b"example.org:" + line + b"\n").find(b"example.org") == hop


@pytest.mark.parametrize(
    "line",
    [b" joe secret", b" joe", b":2500", b":25 joe secret", b"[::1", b"[1.2.3]", b"a:b", b"a:0", b"a:65536", b"a@b"],
)
def test_a_line_that_names_no_place_is_temporary_trouble_that_names_file_and_line_but_no_password(
    tmp_path: Path, line: bytes
) -> None:
    with pytest.raises(BadRoute) as caught:
        routes(tmp_path, b"example.org:" + line + b"\n").find(b"example.org")
    assert caught.value.status == Status(4, 3, 5)
    assert "control/smtproutes: the line 'example.org:'" in caught.value.text
    assert "secret" not in caught.value.text and "joe" not in caught.value.text


def test_every_line_that_names_no_place_can_be_told_at_once(tmp_path: Path) -> None:
    found = routes(
        tmp_path, b"a.example: joe secret\nb.example:relay.example\n.c.example:[x]\n:all.example:0\nd.example:\n"
    )
    lines = [failure.text.partition(" has ")[0].partition(" names ")[0] for failure in found.faults()]
    assert lines == [f"control/smtproutes: the line '{key}:'" for key in ("a.example", ".c.example", "")]
