"""Who forwards are from, and the key that makes them once."""

from __future__ import annotations

import os

import pytest

from pillarbox.delivery import forward
from pillarbox.delivery.dotqmail import DotQmailTrouble
from pillarbox.delivery.job import Job
from pillarbox.users.owner import Owner
from tests.delivery.conftest import UID, Joe, job


def sender(joe: Joe, one: Job, dash: bytes = b"-", ext: bytes = b"list") -> bytes:
    return forward.new_sender(Owner(b"joe", UID, UID, bytes(joe.home), dash, ext), one)


def test_the_sender_stays_unless_the_list_has_an_owner(joe: Joe) -> None:
    assert sender(joe, job(local=b"joe-list")) == b"ann@example.net"
    joe.instruct(".qmail-other-owner", b"ann@example.net\n")
    assert sender(joe, job(local=b"joe-list")) == b"ann@example.net"


# row: vectors-local
def test_a_list_with_an_owner_sends_as_its_owner(joe: Joe) -> None:
    joe.instruct(".qmail-list-owner", b"ann@example.net\n")
    assert sender(joe, job(local=b"joe-list")) == b"joe-list-owner@example.org"


# row: vectors-local
def test_a_list_with_an_owner_and_a_default_sends_to_each_as_itself(joe: Joe) -> None:
    joe.instruct(".qmail-list-owner", b"ann@example.net\n")
    joe.instruct(".qmail-list-owner-default", b"|bounces\n")
    assert sender(joe, job(local=b"joe-list")) == b"joe-list-owner-@example.org-@[]"


def test_a_default_without_owner_changes_nothing(joe: Joe) -> None:
    joe.instruct(".qmail-list-owner-default", b"|bounces\n")
    assert sender(joe, job(local=b"joe-list")) == b"ann@example.net"


@pytest.mark.parametrize("bounce", [b"", b"#@[]"])
def test_bounces_stay_bounces(joe: Joe, bounce: bytes) -> None:
    joe.instruct(".qmail-list-owner", b"ann@example.net\n")
    assert sender(joe, job(local=b"joe-list", sender=bounce)) == bounce


def test_the_owner_file_is_found_as_other_files_are(joe: Joe) -> None:
    joe.instruct(".qmail-a:b-owner", b"ann@example.net\n")
    assert sender(joe, job(local=b"joe-A.b"), ext=b"A.b") == b"joe-A.b-owner@example.org"


def test_no_extension_is_a_way_to_another_directory(joe: Joe) -> None:
    (joe.home / ".qmail-x").mkdir()
    joe.instruct("a-owner", b"ann@example.net\n")
    for ext in (b"x/../a", b"x\0"):
        assert sender(joe, job(local=b"joe-x"), ext=ext) == b"ann@example.net"


def test_trouble_with_the_owner_file_is_temporary(joe: Joe, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_path: bytes) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "stat", fails)
    with pytest.raises(DotQmailTrouble, match=r"Unable to open \.qmail-list-owner: Input/output error"):
        sender(joe, job(local=b"joe-list"))


def test_the_key_is_the_same_for_the_same_job_and_for_no_other() -> None:
    one = job(5)
    assert forward.key(one) == forward.key(one._replace(again=True, content=b"", size=0))
    others = [one._replace(message=13), one._replace(number=6), one._replace(incarnation=b"00000000")]
    assert len({forward.key(one), *map(forward.key, others)}) == 4
    assert len(forward.key(one)) == 16


def test_the_trace_field_is_qmail_queues() -> None:
    joe = Owner(b"joe", 1000, 1000, b"/home/joe", b"", b"")
    line = b"Received: (qmail 77 invoked by uid 1000); 22 Nov 2026 13:03:55 -0000\n"
    assert forward.received(joe, 77, 1_795_352_635) == line
    alias = Owner(b"alias", 1000, 1000, b"/alias", b"-", b"x")
    assert b"(qmail 77 invoked by alias); " in forward.received(alias, 77, 1_795_352_635)
