"""Who may send and for whom mail is taken: badmailfrom, databytes, rcpthosts, sendas, postmaster."""

from __future__ import annotations

import pytest

from pillarbox.admission import (
    BAD_SENDER,
    LARGEST_ENVELOPE,
    NOT_LISTED,
    NOT_YOURS,
    TOO_BIG,
    TOO_MANY_RECIPIENTS,
    Admission,
    QmailAdmission,
)
from pillarbox.control.table import Settings
from pillarbox.credentials import Identity
from pillarbox.status import Refusal

HOSTS = Settings(
    me=b"mx.example.org",
    locals=frozenset({b"localhost", b"unlisted.example"}),
    rcpthosts=frozenset({b"localhost", b"example.org", b".wild.example", b"backup.example"}),
    virtualdomains={b"example.org": b"example.org", b".wild.example": b"wild", b"": b"all"},
)
JOE = Identity(b"joe", b"joe@example.org", sendas=(b"sales@example.org", b"@joes.example"))


def bad(*lines: bytes) -> Admission:
    return Admission(Settings(me=b"mx", badmailfrom=frozenset(lines)))


@pytest.mark.parametrize(
    ("line", "sender", "refused"),
    [
        (b".bad.ex", b"x@bad.ex", False),
        (b".bad.ex", b"x@a.bad.ex", True),
        (b".bad.ex", b"x@a.b.bad.ex", True),
        (b"@bad.ex", b"x@bad.ex", True),
        (b"@bad.ex", b"X@BAD.EX", True),
        (b"@bad.ex", b"x@a.bad.ex", False),
        (b".spam@h", b"spam-x@h", False),
        (b".spam@h", b".spam@h", True),
        (b"x@bad.ex", b"x@bad.ex", True),
        (b"x@bad.ex", b"y@bad.ex", False),
        (b"@bad.ex", b"x@a.b.bad.ex", False),
        (b"x@bad.ex", b"x@a.bad.ex", False),
        (b"x@bad.ex", b"x@a.b.bad.ex", False),
        (b".bad.ex", b"x@notbad.ex", False),
        (b".bad.ex", b"x@y@a.bad.ex", True),
        (b"@bad.ex", b"x@y@bad.ex", True),
        (b".spam@h", b"x.spam@h", False),
        (b".bad.ex", b".bad.ex", True),
        (b"nohost", b"nohost", True),
        (b".nohost", b"a.nohost", False),
    ],
)
def test_badmailfrom_refuses_addresses_hosts_and_suffixes(line: bytes, sender: bytes, refused: bool) -> None:
    assert bad(line).sender(sender) == (BAD_SENDER if refused else None)


def test_badmailfrom_holds_for_those_who_logged_in_too() -> None:
    assert bad(b"joe@example.org").sender(b"joe@example.org", identity=JOE) == BAD_SENDER


def test_the_null_sender_is_always_taken() -> None:
    assert bad(b"@bad.ex", b"").sender(b"") is None
    assert bad().sender(b"", identity=JOE) is None


def test_a_declared_size_over_databytes_is_refused_at_once() -> None:
    admission = Admission(Settings(me=b"mx", databytes=100))
    assert admission.sender(b"a@b", 101) == TOO_BIG
    assert admission.sender(b"a@b", 100) is None
    assert admission.sender(b"a@b", None) is None
    assert Admission(Settings(me=b"mx")).sender(b"a@b", 1 << 60) is None


@pytest.mark.parametrize(
    ("sender", "allowed"),
    [
        (b"joe@example.org", True),
        (b"JOE@Example.Org", True),
        (b"joe-lists@example.org", True),
        (b"sales@example.org", True),
        (b"anything@JOES.example", True),
        (b"joey@example.org", False),
        (b"ann@example.org", False),
        (b"joe@other.example", False),
        (b"joe@sub.joes.example", False),
        (b"sales-x@example.org", False),
        (b"joe", False),
        (b"@joes.example@evil.example", False),
    ],
)
def test_a_login_sends_as_its_address_its_extensions_and_what_sendas_grants(sender: bytes, allowed: bool) -> None:
    assert bad().sender(sender, identity=JOE) == (None if allowed else NOT_YOURS)


def test_the_password_of_an_extension_does_not_open_the_whole_address() -> None:
    lists = Identity(b"joe-lists@example.org", b"joe@example.org", b"lists")
    assert bad().sender(b"joe-lists@example.org", identity=lists) is None
    assert bad().sender(b"joe-lists-x@example.org", identity=lists) is None
    assert bad().sender(b"joe@example.org", identity=lists) == NOT_YOURS
    assert bad().sender(b"joe-other@example.org", identity=lists) == NOT_YOURS


# row: maildirpop3d-serve
def test_a_system_user_has_his_name_and_its_extensions_in_every_local_domain() -> None:
    joe = Identity(b"joe", b"joe@localhost", domains=(b"a.example", b"b.example"))
    lists = Identity(b"joe-lists", b"joe@localhost", b"Lists", domains=(b"a.example", b"b.example"))
    for domain in (b"localhost", b"a.example", b"B.Example"):
        for identity, local in ((joe, b"joe"), (joe, b"joe-lists"), (lists, b"joe-lists"), (lists, b"joe-lists-x")):
            assert bad().sender(local + b"@" + domain, identity=identity) is None
        for identity, local in ((joe, b"joey"), (joe, b"ann"), (lists, b"joe"), (lists, b"joe-other")):
            assert bad().sender(local + b"@" + domain, identity=identity) == NOT_YOURS
    assert bad().sender(b"joe@c.example", identity=joe) == NOT_YOURS


@pytest.mark.parametrize(
    ("address", "refused"),
    [
        (b"joe@Example.ORG", None),
        (b"joe@localhost", None),
        (b"joe@a.b.wild.example", None),
        (b"joe@wild.example", NOT_LISTED),
        (b"joe@unlisted.example", NOT_LISTED),
        (b"joe@elsewhere.example", NOT_LISTED),
        (b"joe@", NOT_LISTED),
    ],
)
def test_mail_is_taken_for_rcpthosts_alone(address: bytes, refused: Refusal | None) -> None:
    assert Admission(HOSTS).recipient(address) == refused


def test_no_rcpthosts_takes_mail_for_every_host() -> None:
    admission = Admission(Settings(me=b"localhost"))
    assert admission.recipient(b"joe@localhost") is None
    assert admission.recipient(b"joe@elsewhere.example") is None


def test_strangers_reach_a_listed_host_that_is_not_local_and_who_logged_in_reaches_every_host() -> None:
    admission = Admission(Settings(me=b"localhost", rcpthosts=frozenset({b"backup.example"})))
    assert admission.recipient(b"joe@backup.example") is None
    assert admission.recipient(b"joe@elsewhere.example") == NOT_LISTED
    assert admission.recipient(b"joe@elsewhere.example", JOE) is None


def test_no_rewriting_brings_a_stranger_to_a_host_that_is_not_listed() -> None:
    hosts = frozenset({b"here.example", b"backup.example"})
    admission = Admission(
        Settings(
            me=b"here.example", rcpthosts=hosts, percenthack=frozenset({b"here.example"}), envnoathost=b"far.example"
        )
    )
    assert admission.recipient(b"joe%elsewhere.example@here.example") == NOT_LISTED
    assert admission.recipient(b"joe") == NOT_LISTED
    assert admission.recipient(b"joe%backup.example@here.example") is None
    assert admission.recipient(b"joe%here.example@here.example") is None
    assert admission.recipient(b"joe%elsewhere.example@here.example", JOE) is None


def test_who_logged_in_reaches_local_hosts_that_rcpthosts_does_not_list() -> None:
    assert Admission(HOSTS).recipient(b"joe@unlisted.example", JOE) is None


def test_morercpthosts_is_asked_for_the_host_and_its_suffixes() -> None:
    more = {b"more.example", b".many.example"}
    admission = Admission(HOSTS, more.__contains__)
    assert admission.recipient(b"joe@More.example") is None
    assert admission.recipient(b"joe@a.b.many.example") is None
    assert admission.recipient(b"joe@many.example") == NOT_LISTED


def test_morercpthosts_without_rcpthosts_is_not_asked() -> None:
    def refuse(key: bytes) -> bool:
        raise AssertionError(key)

    assert Admission(Settings(me=b"localhost"), refuse).recipient(b"joe@localhost") is None


@pytest.mark.parametrize(
    ("address", "taken"),
    [
        (b"postmaster", True),
        (b"PostMaster", True),
        (b"postmaster@EXAMPLE.org", True),
        (b"postmaster@unlisted.example", True),
        (b"postmaster@x.wild.example", True),
        (b"postmaster@elsewhere.example", False),
        (b"postmaster@backup.example", False),
        (b"joe", False),
        (b"postmaster-x@example.org", False),
    ],
)
def test_postmaster_is_always_taken_where_we_serve(address: bytes, taken: bool) -> None:
    assert Admission(HOSTS).always(address) is taken
    if taken:
        assert Admission(HOSTS).recipient(address) is None


def test_limits_are_told() -> None:
    admission = Admission(Settings(me=b"mx", databytes=5, maxrecipients=7))
    assert (admission.databytes, admission.maxrecipients) == (5, 7)


# row: smtpd-badmailfrom
def test_qmail_smtpd_tells_at_rcpt_what_it_saw_at_mail() -> None:
    policy = QmailAdmission(frozenset({b"@bad.ex"}), frozenset({b"example.org"}))
    assert policy.sender(b"X@Bad.ex") is None
    assert policy.recipient(b"joe@example.org", JOE, trusted=True) == BAD_SENDER
    assert policy.sender(b"", 1 << 60) is None
    assert policy.recipient(b"joe@example.org") is None
    assert policy.recipient(b"joe@elsewhere.example") == NOT_LISTED
    assert policy.recipient(b"joe@elsewhere.example", trusted=True) is None
    assert policy.recipient(b"joe@elsewhere.example", JOE) is None
    assert policy.always(b"nobody@example.org")


# row: smtpd-bounded
def test_qmail_smtpd_keeps_no_more_recipients_than_qmail_queue_takes() -> None:
    policy = QmailAdmission(frozenset(), None)
    address = b"x" * ((1 << 20) - 2)
    for _ in range(2):
        policy.sender(b"")
        answers = [policy.recipient(address) for _ in range((LARGEST_ENVELOPE >> 20) + 1)]
        assert answers == [None] * (LARGEST_ENVELOPE >> 20) + [TOO_MANY_RECIPIENTS]
