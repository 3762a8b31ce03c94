"""The variables of qmail-command(8), byte for byte."""

from __future__ import annotations

from pillarbox.delivery.dotqmail import DotQmail
from pillarbox.delivery.environment import environment, from_line
from pillarbox.delivery.job import Errand
from pillarbox.users.owner import Owner
from tests.delivery.conftest import job

MOMENT = 1_795_352_635  # 22 Nov 2026 13:03:55 UTC, a Sunday


def variables(
    ext: bytes = b"",
    recipient: bytes = b"joe@example.org",
    sender: bytes = b"ann@example.net",
    default: bytes | None = None,
) -> dict[bytes, bytes]:
    one = job(recipient=recipient, sender=sender)._replace(domain=recipient.rpartition(b"@")[2])
    owner = Owner(b"joe", 1000, 1000, b"/home/joe", b"-" if ext else b"", ext)
    return environment(Errand(one, owner, DotQmail(b".qmail", (), default)), b"new@example.org", MOMENT)


def test_a_plain_user_with_all_that_is_always_there() -> None:
    assert variables() == {
        b"USER": b"joe",
        b"HOME": b"/home/joe",
        b"LOCAL": b"joe",
        b"HOST": b"example.org",
        b"RECIPIENT": b"joe@example.org",
        b"EXT": b"",
        b"EXT2": b"",
        b"EXT3": b"",
        b"EXT4": b"",
        b"HOST2": b"example",
        b"HOST3": b"example",
        b"HOST4": b"example",
        b"SENDER": b"ann@example.net",
        b"NEWSENDER": b"new@example.org",
        b"DTLINE": b"Delivered-To: joe@example.org\n",
        b"RPLINE": b"Return-Path: <ann@example.net>\n",
        b"UFLINE": b"From ann@example.net Sun Nov 22 13:03:55 2026\n",
    }


# row: vectors-local
def test_extensions_and_hosts_are_taken_apart() -> None:
    found = variables(b"a-b--C", b"joe-a-b--C@w.x.y.z")
    assert [found[name] for name in (b"EXT", b"EXT2", b"EXT3", b"EXT4")] == [b"a-b--C", b"b--C", b"-C", b"C"]
    assert [found[name] for name in (b"HOST", b"HOST2", b"HOST3", b"HOST4")] == [b"w.x.y.z", b"w.x.y", b"w.x", b"w"]
    assert found[b"LOCAL"] == b"joe-a-b--C"


# row: vectors-local
def test_default_is_there_only_when_a_default_file_speaks() -> None:
    assert b"DEFAULT" not in variables(b"a")
    assert variables(b"a", default=b"")[b"DEFAULT"] == b""
    assert variables(b"a-b", default=b"b")[b"DEFAULT"] == b"b"


def test_the_null_sender_and_addresses_with_odd_bytes() -> None:
    assert variables(sender=b"")[b"UFLINE"].startswith(b"From MAILER-DAEMON Sun ")
    assert variables(sender=b"")[b"RPLINE"] == b"Return-Path: <>\n"
    found = variables(sender=b"a\tb\n c@x.y", recipient=b"joe\nX: y@example.org")
    assert found[b"SENDER"] == b"a\tb\n c@x.y"
    assert found[b"UFLINE"].startswith(b"From a-b--c@x.y Sun ")
    assert found[b"RPLINE"].count(b"\n") == found[b"DTLINE"].count(b"\n") == 1


def test_the_day_has_two_digits() -> None:
    assert from_line(b"x@y", MOMENT - 19 * 86400) == b"From x@y Tue Nov 03 13:03:55 2026\n"


def test_no_value_holds_a_nul() -> None:
    assert variables(sender=b"a\0b@c")[b"SENDER"] == b"a"
