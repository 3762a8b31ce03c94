"""control/smtproutes: which line counts, what it says, and what it must never say to whom."""

from __future__ import annotations

from pathlib import Path

import pytest

from pillarbox.control.table import read
from pillarbox.routes import BadRoute, Hop, Routes, masked
from pillarbox.status import Status


def routes(tmp_path: Path, text: bytes) -> Routes:
    (tmp_path / "smtproutes").write_bytes(text)
    return Routes(read(tmp_path)[0].smtproutes)


def test_without_the_file_everything_goes_by_mx(tmp_path: Path) -> None:
    assert Routes({}).find(b"example.org") is None


# row: smtproutes-keys
def test_the_domain_itself_wins_over_its_suffixes_the_longest_first_and_all_over_the_empty_key(tmp_path: Path) -> None:
    found = routes(tmp_path, b":all.example\n.org:org.example\n.a.org:a.example\nx.a.org:own.example\n")
    assert found.find(b"x.a.org") == Hop(b"own.example")
    assert found.find(b"y.x.a.org") == Hop(b"a.example")
    assert found.find(b"a.org") == Hop(b"org.example")
    assert found.find(b"org") == found.find(b"example.net") == Hop(b"all.example")


# row: smtproutes-keys
def test_an_empty_relay_is_an_exception_to_a_wildcard(tmp_path: Path) -> None:
    found = routes(tmp_path, b":all.example\nexample.org:\n.example.net:\n")
    assert found.find(b"example.org") is None and found.find(b"a.example.net") is None
    assert found.find(b"example.net") == Hop(b"all.example")


# row: smtproutes-relay
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
        (b"relay.example  joe secret", Hop(b"relay.example", 25, b"joe", b"secret")),
        (b"relay.example:2500 foo bar", Hop(b"relay.example", 2500, b"foo", b"bar")),
        (b"relay.example:2500 foo b:a:r", Hop(b"relay.example", 2500, b"foo", b"b:a:r")),
        (b"relay.example foo:9 bar", Hop(b"relay.example", 25, b"foo:9", b"bar")),
        (b"relay.example joe", Hop(b"relay.example", 25)),
    ],
)
def test_a_line_names_relay_port_and_login(tmp_path: Path, line: bytes, hop: Hop) -> None:
    assert routes(tmp_path, b"example.org:" + line + b"\n").find(b"example.org") == hop


# row: remote-auth-page
def test_the_examples_of_the_patches_page_with_the_relay_that_they_lost(tmp_path: Path) -> None:
    found = routes(tmp_path, b"example.com:relay.example:2500 foo bar\n:relay.example foo bar\n")
    assert found.find(b"example.com") == Hop(b"relay.example", 2500, b"foo", b"bar")
    assert found.find(b"example.net") == Hop(b"relay.example", 25, b"foo", b"bar")


# row: remote-auth-no-relay
@pytest.mark.parametrize("domain", [b"example.com", b"example.net"])
def test_the_examples_of_the_patches_page_as_they_stand_there_are_temporary_trouble(
    tmp_path: Path, domain: bytes
) -> None:
    with pytest.raises(BadRoute) as caught:
        routes(tmp_path, b"example.com: foo bar\n: foo bar\n").find(domain)
    line = "example.com:" if domain == b"example.com" else ":"
    assert caught.value.status == Status(4, 3, 5)
    assert caught.value.text == (
        f"control/smtproutes: the line '{line}' has a login but no relay: write HOST:RELAY[:PORT] [USER PASSWORD]"
    )


@pytest.mark.parametrize(
    ("relay", "home"),
    [
        (b"127.0.0.1:2500", True),
        (b"[127.8.9.1]", True),
        (b"[::1]:25", True),
        (b"LocalHost", True),
        (b"relay.example", False),
        (b"localhost.example", False),
        (b"192.0.2.1", False),
        (b"[2001:db8::1]", False),
    ],
)
def test_a_line_says_itself_whether_its_relay_is_this_machine(tmp_path: Path, relay: bytes, home: bool) -> None:
    hop = routes(tmp_path, b":" + relay + b"\n").find(b"example.org")
    assert hop is not None and hop.at_home is home


# row: remote-showctl
@pytest.mark.parametrize(
    ("route", "shown"),
    [
        (b"relay.example:587 joe sec ret", b"relay.example:587 joe (password not shown)"),
        (b"relay.example  joe secret", b"relay.example joe (password not shown)"),
        (b" joe secret", b" joe (password not shown)"),
        (b" secret", b"(login not shown)"),
        (b"relay.example\tjoe secret", b"relay.example (login not shown)"),
        (b"relay.example joe\tsecret", b"relay.example (login not shown)"),
        (b"relay.example joe\tsecret word", b"relay.example (login not shown)"),
        (b"relay.example:587", b"relay.example:587"),
        (b"", b""),
    ],
)
def test_no_password_is_shown(route: bytes, shown: bytes) -> None:
    assert masked(route) == shown and b"secret" not in masked(route)


def test_the_lines_with_a_password_are_named_by_their_keys() -> None:
    found = Routes(
        {b"a.example": b"relay.example joe secret", b"b.example": b"relay.example joe", b"c.example": b" joe secret"}
    )
    assert list(found.logins()) == [
        ("control/smtproutes: the line 'a.example:'", Hop(b"relay.example", 25, b"joe", b"secret"))
    ]


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
