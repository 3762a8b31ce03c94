"""Local delivery over real homes: which Maildir mail for an address reaches, and what stops it."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

import pytest

from pillarbox.compose.rewriting import Hosts
from pillarbox.content import octets
from pillarbox.delivery import aliases, dotqmail
from pillarbox.delivery.aliases import Table
from pillarbox.delivery.job import Errand, Forwarding
from pillarbox.delivery.local import Deliveries
from pillarbox.mailbox import maildir
from pillarbox.mailbox.maildrop import Maildrop
from pillarbox.outcome import Outcome, Verdict
from pillarbox.status import Status
from tests.delivery.conftest import LINES, MESSAGE, UID, Joe, OneUser, job

DONE = Outcome(Verdict.DONE, b"did 1+0+0\n", Status(2, 0, 0))
LOOPING = Outcome(
    Verdict.NEVER, b"This message is looping: it already has my Delivered-To line. (#5.4.6)\n", Status(5, 4, 6)
)


def test_a_message_reaches_the_default_maildir_with_its_two_lines_ahead(joe: Joe) -> None:
    assert joe.deliver(job()) == [DONE]
    assert joe.messages() == [LINES + MESSAGE]


def test_a_batch_keeps_the_order_of_its_outcomes(joe: Joe) -> None:
    outcomes = joe.deliver(job(1), job(2, local=b"joe-none"), job(3), job(4, local=b"trouble"), job(5))
    assert [outcome.verdict.value for outcome in outcomes] == [b"K", b"D", b"K", b"Z", b"K"]
    assert len(joe.messages()) == 3


def test_sixty_four_messages_arrive_together(joe: Joe) -> None:
    assert joe.deliver(*map(job, range(64))) == [DONE] * 64
    assert joe.messages() == [LINES + MESSAGE] * 64


def test_a_message_in_a_file_is_delivered_whole(joe: Joe, tmp_path: Path) -> None:
    content = MESSAGE + b"line\n" * 40_000
    (tmp_path / "spool").write_bytes(content)
    with open(tmp_path / "spool", "rb") as spool:
        assert joe.deliver(job(content=spool.fileno()), job(2, content=spool.fileno())) == [DONE, DONE]
    assert joe.messages() == [LINES + content] * 2


def test_every_byte_comes_out_of_the_maildrop_as_it_went_in(joe: Joe, tmp_path: Path) -> None:
    content = b"Subject: bytes\n\n" + bytes(range(256)) * 300 + b"\r\n\n\r.\n..\n\r"
    (tmp_path / "spool").write_bytes(content)
    with open(tmp_path / "spool", "rb") as spool:
        joe.deliver(job(1, content=content), job(2, content=spool.fileno()))
    drop = Maildrop.open(str(joe.home / "Maildir"), 0)
    for number, listing in enumerate(drop.listings, 1):
        with open(drop.content(number), "rb") as file:
            assert file.read() == LINES + content
        assert listing.octets == octets([LINES + content])
    assert len(drop.listings) == 2
    drop.close()


def test_the_null_sender_is_an_empty_return_path(joe: Joe) -> None:
    joe.deliver(job(sender=b""))
    assert joe.messages()[0].startswith(b"Return-Path: <>\nDelivered-To: ")


def test_a_sender_that_needs_quotes_gets_them(joe: Joe) -> None:
    joe.deliver(job(sender=b'a "b" c@example.net'))
    assert joe.messages()[0].startswith(b'Return-Path: <"a \\"b\\" c"@example.net>\n')


def test_an_address_cannot_add_lines_to_the_header(joe: Joe) -> None:
    joe.deliver(job(sender=b"a\nX-Evil: 1@example.net", recipient=b"joe\n\nbody@example.org"))
    head = joe.messages()[0].removesuffix(MESSAGE)
    assert head == b'Return-Path: <"a\\_X-Evil: 1"@example.net>\nDelivered-To: joe__body@example.org\n'


def test_delivered_to_shows_the_recipient_it_is_given(joe: Joe) -> None:
    joe.deliver(job(recipient=b"Joe@Example.Org"))
    assert b"\nDelivered-To: Joe@Example.Org\n" in joe.messages()[0]


def test_recipients_who_share_a_mailbox_are_each_shown_their_own_address(joe: Joe) -> None:
    joe.deliver(job(1, recipient=b"joe@example.org"), job(2, recipient=b"joe@example.com"))
    shown = [text.split(b"\n")[1] for text in joe.messages()]
    assert shown == [b"Delivered-To: joe@example.org", b"Delivered-To: joe@example.com"]


def test_a_repeated_job_finds_what_it_did_before(joe: Joe) -> None:
    joe.deliver(job())
    (file,) = (joe.home / "Maildir" / "new").iterdir()
    file.rename(joe.home / "Maildir" / "cur" / f"{file.name}:2,S")
    assert joe.deliver(job(again=True)) == [DONE]
    assert joe.messages() == []


def test_an_extension_goes_where_its_own_file_says(joe: Joe) -> None:
    joe.make("Maildir-lists")
    joe.instruct(".qmail-lists", b"# my lists\n./Maildir-lists/\n")
    assert joe.deliver(job(local=b"joe-Lists")) == [DONE]
    assert joe.messages("Maildir-lists") == [LINES.replace(b"joe@", b"joe-Lists@") + MESSAGE]
    assert joe.messages() == []


def test_an_extension_nobody_asked_for_is_no_mailbox(joe: Joe) -> None:
    refused = Outcome(Verdict.NEVER, b"Sorry, no mailbox here by that name. (#5.1.1)\n", Status(5, 1, 1))
    assert joe.deliver(job(local=b"joe-lists")) == [refused]
    assert joe.everything() == []


def test_every_maildir_line_gets_its_own_copy(joe: Joe) -> None:
    joe.make("other")
    joe.instruct(".qmail", b"./Maildir/\n%s/other/\n./Maildir/\n" % bytes(joe.home))
    assert joe.deliver(job()) == [Outcome.done(b"did 3+0+0\n")]
    assert len(joe.messages()) == 2
    assert joe.messages("other") == [LINES + MESSAGE]


def test_a_file_of_comments_delivers_nothing_successfully(joe: Joe) -> None:
    joe.instruct(".qmail", b"# gone fishing\n")
    assert joe.deliver(job()) == [Outcome.done(b"did 0+0+0\n")]
    assert joe.everything() == []


def test_an_empty_file_means_the_default_delivery(joe: Joe) -> None:
    joe.make("inbox")
    joe.instruct(".qmail-x", b"")
    assert joe.deliver(job(local=b"joe-x"), default=b"./inbox/") == [DONE]
    assert len(joe.messages("inbox")) == 1


# row: vectors-local
def test_our_own_delivered_to_line_in_the_header_is_a_loop(joe: Joe) -> None:
    for text in (
        b"Delivered-To: joe@example.org\n" + MESSAGE,
        b"Received: x\nDelivered-To: joe@example.org\nSubject: y\n\nbody\n",
        b"Received: x\nDelivered-To: joe@example.org\n\n",
        b"Received: x\nDelivered-To: joe@example.org\n",
    ):
        assert joe.deliver(job(content=text)) == [LOOPING], text
    assert joe.everything() == []


# row: known-loop-line
def test_only_a_whole_header_line_in_exact_case_is_a_loop(joe: Joe) -> None:
    texts = [
        b"Subject: x\n\nDelivered-To: joe@example.org\n",
        b"\nDelivered-To: joe@example.org\n",
        b"X-Delivered-To: joe@example.org\n\n",
        b"Delivered-To: joe@example.org.uk\n\n",
        b"Delivered-To: Joe@example.org\n\n",
        b"Delivered-To: joe-x@example.org\n\n",
        b"delivered-to: joe@example.org\n\n",
        b"Subject: a\n Delivered-To: joe@example.org\n\n",
        b"Delivered-To: joe@example.org",
    ]
    assert joe.deliver(*(job(number, content=text) for number, text in enumerate(texts))) == [DONE] * len(texts)


@pytest.mark.parametrize("shift", range(-40, 3))
def test_a_loop_is_seen_across_the_blocks_of_a_file(joe: Joe, tmp_path: Path, shift: int) -> None:
    line = b"Delivered-To: joe@example.org\n"
    ahead = b"X: " + b"x" * (maildir.BLOCK + shift - 4) + b"\n"
    (tmp_path / "spool").write_bytes(ahead + line + b"\nbody\n")
    (tmp_path / "body").write_bytes(ahead + b"\n" + line)
    (tmp_path / "later").write_bytes(b"X: x\n\n" + ahead + line)
    with ExitStack() as opened:
        texts = [opened.enter_context(open(tmp_path / name, "rb")).fileno() for name in ("spool", "body", "later")]
        outcomes = joe.deliver(*(job(number, content=text) for number, text in enumerate(texts)))
    assert outcomes == [LOOPING, DONE, DONE]


def test_a_header_is_searched_in_bounded_memory(joe: Joe, tmp_path: Path) -> None:
    import tracemalloc

    with open(tmp_path / "spool", "wb+") as spool:
        spool.truncate(20 << 20)  # a header of 20 MB without one line end
        tracemalloc.start()
        joe.deliver(job(content=spool.fileno()))
        _now, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 1 << 20


def test_a_message_that_cannot_be_read_is_tried_later(joe: Joe) -> None:
    unreadable = job()._replace(content=-1)
    assert joe.deliver(unreadable, job(2)) == [Outcome.later(b"Unable to read message. (#4.3.0)\n"), DONE]


@pytest.mark.parametrize("line", [b"|vacation", b"./Mailbox"])
def test_a_job_with_a_program_or_mbox_is_left_whole_to_a_process_of_its_own(joe: Joe, line: bytes) -> None:
    joe.instruct(".qmail-x", b"./Maildir/\n# then\n" + line + b"\n")
    one = job(local=b"joe-x")
    step = joe.step(one)
    assert isinstance(step, Errand)
    assert (step.job, [instruction.line for instruction in step.found.instructions]) == (one, [1, 3])
    assert joe.everything() == []


@pytest.mark.parametrize("line", [b"&bob@example.net", b"bob@example.net"])
def test_addresses_are_left_to_be_forwarded_to_when_the_maildirs_have_the_message(joe: Joe, line: bytes) -> None:
    joe.instruct(".qmail-x", line + b"\n./Maildir/\nann@example.com\n")
    step = joe.step(job(local=b"joe-x"))
    assert isinstance(step, Forwarding)
    assert step.recipients == (b"bob@example.net", b"ann@example.com")
    assert step.delivered_to == b"Delivered-To: joe-x@example.org\n"
    assert (step.sender, step.report) == (b"ann@example.net", b"did 1+2+0\n")
    assert len(joe.messages()) == 1


def test_nothing_is_forwarded_when_a_maildir_of_the_job_failed(joe: Joe) -> None:
    joe.instruct(".qmail-x", b"bob@example.net\n./gone/\n")
    gone = Outcome.later(b"Unable to chdir to maildir. (#4.2.1)\n", Status(4, 2, 1))
    assert joe.deliver(job(local=b"joe-x")) == [gone]


def test_a_message_that_loops_is_not_forwarded(joe: Joe) -> None:
    joe.instruct(".qmail-x", b"bob@example.net\n")
    text = b"Delivered-To: joe-x@example.org\n\nbody\n"
    assert joe.deliver(job(local=b"joe-x", content=text)) == [LOOPING]


def test_the_aliases_table_speaks_ahead_of_the_files_of_alias(joe: Joe, tmp_path: Path) -> None:
    joe.instruct(".qmail-list", b"./Maildir/\n")
    joe.instruct(".qmail-other", b"./Maildir/\n")
    table = alias_table(tmp_path, b"list: ann@example.com, bob\n")
    step = joe.step(job(local=b"joe-list"), aliases=table, user=b"alias")
    assert isinstance(step, Forwarding)
    assert (step.recipients, step.sender) == ((b"ann@example.com", b"bob@me.example"), b"ann@example.net")
    assert joe.step(job(local=b"joe-other"), aliases=table, user=b"alias") == DONE
    assert joe.step(job(2, local=b"joe-list"), aliases=table) == DONE, "the table is not for users"


def test_the_aliases_table_is_for_alias_whatever_its_user_is_called(joe: Joe, tmp_path: Path) -> None:
    owners = OneUser(joe.home, UID, b"mailalias")
    owners.alias = b"mailalias"
    deliveries = Deliveries(owners, b"./Maildir/\n", b"mx", UID, alias_table(tmp_path, b"list: ann@example.com\n"))
    assert isinstance(deliveries.deliver([job(local=b"joe-list")])[0], Forwarding)


def test_a_list_of_the_aliases_table_has_its_owner_for_a_sender(joe: Joe, tmp_path: Path) -> None:
    table = alias_table(tmp_path, b"list: ann@example.com\nowner-list: bob\n")
    step = joe.step(job(local=b"joe-list"), aliases=table, user=b"alias")
    assert isinstance(step, Forwarding) and step.sender == b"owner-list@me.example"
    bounce = joe.step(job(local=b"joe-list")._replace(sender=b""), aliases=table, user=b"alias")
    assert isinstance(bounce, Forwarding) and bounce.sender == b""


def test_an_alias_that_leads_back_to_itself_has_an_outcome_of_its_own(joe: Joe, tmp_path: Path) -> None:
    table = alias_table(tmp_path, b"a@example.org: b@example.org\nb@example.org: a@example.org\n")
    step = joe.step(job(local=b"joe-a", recipient=b"a@example.org"), aliases=table, user=b"alias")
    assert step == Outcome.never(b"This alias leads back to itself. (#5.4.6)\n", Status(5, 4, 6))


def test_trouble_with_the_aliases_table_puts_mail_off(joe: Joe, tmp_path: Path) -> None:
    table = alias_table(tmp_path, b"list: :include:/does/not/exist\n")
    step = joe.step(job(local=b"joe-list"), aliases=table, user=b"alias")
    assert isinstance(step, Outcome) and step.verdict is Verdict.LATER
    assert step.report == b"/does/not/exist: No such file or directory\n"


def test_a_name_in_the_aliases_table_has_a_mailbox(joe: Joe, tmp_path: Path) -> None:
    table = alias_table(tmp_path, b"list: ann@example.com\n")
    alias = Deliveries(OneUser(joe.home, UID, b"alias"), b"./Maildir/\n", b"mx", UID, table)
    assert alias.refused(b"joe-list") is None
    assert alias.refused(b"joe-nothing") is not None


def alias_table(directory: Path, text: bytes) -> Table:
    aliases.write(directory / "aliases", text, Hosts(b"me.example", b"example", b"example"))
    return Table(directory / "aliases")


def test_nothing_is_delivered_as_root(joe: Joe) -> None:
    refused = Outcome.later(b"Not allowed to perform deliveries as root.\n", Status(4, 3, 5))
    assert joe.deliver(job(), uid=0, ours=0) == [refused]
    assert joe.everything() == []


def test_nobody_elses_mail_is_delivered_by_us(joe: Joe) -> None:
    (outcome,) = joe.deliver(job(), uid=99)
    assert outcome.verdict is Verdict.LATER
    assert outcome.report == b"Unable to deliver as joe (uid 99): this server runs as uid 4321. (#4.3.5)\n"
    assert joe.everything() == []


def test_trouble_with_the_owner_is_temporary_and_says_why(joe: Joe) -> None:
    assert joe.deliver(job(local=b"trouble")) == [Outcome.later(b"cannot read users/cdb: Input/output error\n")]


def test_trouble_with_the_instructions_is_temporary_and_says_why(joe: Joe) -> None:
    joe.instruct(".qmail", b"./Maildir/\n").chmod(0o666)
    assert joe.deliver(job()) == [Outcome.later(b"Uh-oh: .qmail file is writable. (#4.7.0)\n", Status(4, 7, 0))]
    assert joe.everything() == []


def test_a_vanished_maildir_is_temporary_and_touches_nobody_else(joe: Joe) -> None:
    joe.instruct(".qmail-gone", b"./gone/\n")
    gone = Outcome.later(b"Unable to chdir to maildir. (#4.2.1)\n", Status(4, 2, 1))
    assert joe.deliver(job(1), job(2, local=b"joe-gone"), job(3)) == [DONE, gone, DONE]


def test_a_job_is_done_when_all_its_maildirs_have_it_and_then_once_each(joe: Joe) -> None:
    joe.instruct(".qmail", b"./Maildir/\n./second/\n./third/\n")
    joe.make("third")
    gone = Outcome.later(b"Unable to chdir to maildir. (#4.2.1)\n", Status(4, 2, 1))
    assert joe.deliver(job()) == joe.deliver(job(again=True)) == [gone]
    joe.make("second")
    assert joe.deliver(job(again=True)) == [Outcome.done(b"did 3+0+0\n")]
    assert [joe.messages(name) for name in ("Maildir", "second", "third")] == [[LINES + MESSAGE]] * 3


def test_no_extension_is_a_way_into_another_directory(joe: Joe) -> None:
    """`.qmail-x/../../ann/.qmail` and the like: what a stranger writes is never a path."""
    (joe.home / ".qmail-x").mkdir()
    joe.instruct(".qmail-x/y", b"./Maildir/\n")
    outside = joe.home.parent / "evil"
    outside.write_bytes(b"%s/Maildir/\n" % bytes(joe.home))
    for extension in (b"x/y", b"x/../../evil", b"/../../evil", b"x/y-default", b"x\0y", b"../evil", b"x" * 900):
        (outcome,) = joe.deliver(job(local=b"joe-" + extension))
        assert outcome.verdict is Verdict.NEVER, extension
    assert joe.everything() == []


def test_a_report_holds_no_control_bytes_of_strangers(joe: Joe) -> None:
    file = joe.instruct(".qmail-\x07\xe9", b"a" * (dotqmail.SIZE_LIMIT + 1))
    file.rename(joe.home / os.fsdecode(b".qmail-\x07\n\xe9"))
    (outcome,) = joe.deliver(job(local=b"joe-\x07\n\xe9"))
    assert outcome.report.startswith(b"Unable to read .qmail-__\\xe9: ")
