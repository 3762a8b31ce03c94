"""dot-qmail files: which one speaks for an extension, and what its lines ask for."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from pillarbox.delivery import dotqmail
from pillarbox.delivery.dotqmail import DotQmail, DotQmailTrouble, Forward, Maildir, Mbox, Program
from pillarbox.status import Status

INBOX = (Maildir(1, b"./Maildir/"),)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    home.mkdir(mode=0o755)
    return home


def write(home: Path, name: str, text: bytes = b"./Maildir/\n", mode: int = 0o644) -> None:
    (home / name).write_bytes(text)
    (home / name).chmod(mode)


def find(home: Path, dash: bytes = b"", extension: bytes = b"", default: bytes = b"./inbox/\n") -> DotQmail | None:
    return dotqmail.find(bytes(home), dash, extension, default)


def trouble(home: Path, dash: bytes = b"", extension: bytes = b"") -> tuple[str, Status]:
    with pytest.raises(DotQmailTrouble) as raised:
        find(home, dash, extension)
    return raised.value.text, raised.value.status


# which file


# row: vectors-local
def test_the_longest_part_of_an_extension_that_has_a_file_decides(home: Path) -> None:
    names = [".qmail-default", ".qmail-a-default", ".qmail-a-b-default", ".qmail-a-b-c"]
    for name in names:
        write(home, name)
        assert (found := find(home, b"-", b"a-b-c")) and found.name == name.encode()


def test_default_stands_for_the_rest_of_the_extension_as_it_was_written(home: Path) -> None:
    write(home, ".qmail-default")
    assert find(home, b"-", b"List.A-Bob") == DotQmail(b".qmail-default", INBOX, b"List.A-Bob")
    write(home, ".qmail-list:a-default")
    assert find(home, b"-", b"List.A-Bob") == DotQmail(b".qmail-list:a-default", INBOX, b"Bob")


def test_an_exact_file_sets_no_default_unless_the_extension_ends_in_default(home: Path) -> None:
    write(home, ".qmail-a")
    write(home, ".qmail-a-default")
    assert find(home, b"-", b"A") == DotQmail(b".qmail-a", INBOX, None)
    assert find(home, b"-", b"a-Default") == DotQmail(b".qmail-a-default", INBOX, b"Default")


def test_a_dash_of_the_assignment_is_no_part_of_the_extension(home: Path) -> None:
    write(home, ".qmail-default")
    assert find(home, b"-default", b"") == DotQmail(b".qmail-default", INBOX, None)


def test_dots_are_colons_and_capitals_are_small_in_file_names(home: Path) -> None:
    write(home, ".qmail-joe:smith")
    assert (found := find(home, b"-", b"Joe.Smith")) and found.name == b".qmail-joe:smith"


def test_a_home_without_dot_qmail_file_gets_the_default_delivery(home: Path) -> None:
    assert find(home) == DotQmail(b"", (Maildir(1, b"./inbox/"),))


def test_an_extension_without_dot_qmail_file_is_no_mailbox(home: Path) -> None:
    write(home, ".qmail")
    write(home, ".qmail-other")
    assert find(home, b"-", b"list") is None
    assert find(home, b"-", b"") is None


def test_an_empty_file_stands_for_the_default_delivery_and_its_x_bit_does_not_count(home: Path) -> None:
    write(home, ".qmail-a", b"", 0o744)
    assert find(home, b"-", b"a") == DotQmail(b".qmail-a", (Maildir(1, b"./inbox/"),))


def test_only_regular_files_speak(home: Path) -> None:
    (home / ".qmail-a").mkdir()
    os.mkfifo(home / ".qmail-b")
    assert find(home, b"-", b"a") is None
    assert find(home, b"-", b"b") is None
    write(home, ".qmail-default")
    assert (found := find(home, b"-", b"b")) and found.name == b".qmail-default"


def test_a_dash_of_the_assignment_may_lead_into_a_directory(home: Path) -> None:
    """qmail-pw2u -/ makes such assignments; only what strangers write may not."""
    (home / ".qmail-").mkdir()
    write(home, ".qmail-/a")
    assert (found := find(home, b"-/", b"a")) and found.name == b".qmail-/a"
    assert find(home, b"-/", b"b/a") is None


def test_a_name_too_long_for_any_file_is_not_there(home: Path) -> None:
    write(home, ".qmail-default")
    assert (found := find(home, b"-", b"x" * 900)) and found.default == b"x" * 900


# what stops it


# row: vectors-local
def test_a_home_that_others_may_write_to_is_not_trusted(home: Path) -> None:
    home.chmod(0o757)
    assert trouble(home) == ("Uh-oh: home directory is writable. (#4.7.0)", Status(4, 7, 0))


def test_a_home_that_the_group_may_write_to_is_trusted_as_in_qmail(home: Path) -> None:
    home.chmod(0o775)
    write(home, ".qmail", mode=0o664)
    assert find(home) == DotQmail(b".qmail", INBOX)


# row: vectors-local
def test_a_sticky_home_means_wait(home: Path) -> None:
    home.chmod(0o1755)
    said = "Home directory is sticky: user is editing his .qmail file. (#4.2.1)"
    assert trouble(home) == (said, Status(4, 2, 1))


def test_a_missing_home_is_temporary(home: Path) -> None:
    home.rmdir()
    assert trouble(home) == (f"Unable to switch to {home}: No such file or directory. (#4.3.0)", Status(4, 3, 0))


# row: known-dotqmail-mode
def test_a_file_that_others_may_write_to_is_not_trusted(home: Path) -> None:
    write(home, ".qmail", mode=0o646)
    assert trouble(home) == ("Uh-oh: .qmail file is writable. (#4.7.0)", Status(4, 7, 0))


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EIO, errno.EMFILE, errno.ESTALE])
def test_a_file_that_may_exist_is_not_passed_over(home: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Else mail for joe-private would go where .qmail-default says, or bounce."""
    write(home, ".qmail-default")
    healthy = os.open

    def failing(path: bytes, flags: int) -> int:
        if path.endswith(b"-a"):
            raise OSError(number, os.strerror(number))
        return healthy(path, flags)

    monkeypatch.setattr(os, "open", failing)
    assert trouble(home, b"-", b"a") == (f"Unable to open .qmail-a: {os.strerror(number)}. (#4.3.0)", Status(4, 3, 0))


def test_a_symbolic_link_to_nowhere_or_itself_is_not_there(home: Path) -> None:
    (home / ".qmail-a").symlink_to("nowhere")
    (home / ".qmail-b").symlink_to(".qmail-b")
    assert find(home, b"-", b"a") is None
    assert find(home, b"-", b"b") is None


def test_a_file_of_a_megabyte_is_read_and_no_larger_one(home: Path) -> None:
    write(home, ".qmail", b"#" * (1 << 20))
    assert find(home) == DotQmail(b".qmail", ())
    write(home, ".qmail", b"#" * ((1 << 20) + 1))
    assert trouble(home)[0] == "Unable to read .qmail: more than 1048576 octets. (#4.3.0)"


def test_no_descriptor_stays_open(home: Path) -> None:
    os.mkfifo(home / ".qmail-a")
    write(home, ".qmail-default", mode=0o646)
    before = os.listdir("/proc/self/fd")
    trouble(home, b"-", b"a")
    find(home)
    assert os.listdir("/proc/self/fd") == before


# what the lines ask for


def test_every_kind_of_line_is_told_by_its_first_byte() -> None:
    text = b"""\
# comment
./Maildir/
/var/mail/joe
/var/mail/joe/
.other
|cat > x
| with a space
&bob@example.net
& spaced@example.net
<bob@example.net>
bob
+unknown
+
&
"""
    assert dotqmail.parse(text) == (
        Maildir(2, b"./Maildir/"),
        Mbox(3, b"/var/mail/joe"),
        Maildir(4, b"/var/mail/joe/"),
        Mbox(5, b".other"),
        Program(6, b"cat > x"),
        Program(7, b" with a space"),
        Forward(8, b"bob@example.net"),
        Forward(9, b" spaced@example.net"),
        Forward(10, b"<bob@example.net>"),
        Forward(11, b"bob"),
        Forward(14, b""),
    )


# row: known-dotqmail-tabs
def test_spaces_and_tabs_at_the_end_of_a_line_do_not_count() -> None:
    assert dotqmail.parse(b"./Maildir/ \t \n \t\n\n  bob \t") == (Maildir(1, b"./Maildir/"), Forward(4, b"  bob"))


def test_a_last_line_without_line_end_counts() -> None:
    assert dotqmail.parse(b"# x\n./Maildir/") == (Maildir(2, b"./Maildir/"),)


# row: vectors-local
@pytest.mark.parametrize("text", [b"", b"\n", b"\n./Maildir/\n", b" \n./Maildir/\n", b"\t", b"\t\t\n"])
def test_a_blank_first_line_is_a_mistake(text: bytes) -> None:
    with pytest.raises(DotQmailTrouble, match=r"Uh-oh: first line of \.qmail file is blank\. \(#4\.2\.1\)") as raised:
        dotqmail.parse(text)
    assert raised.value.status == Status(4, 2, 1)


@pytest.mark.parametrize("text", [b"bob\n./Maildir/\n", b"bob\n./Mailbox\n", b"+list\nbob\n/var/mail/joe/\n"])
def test_forwards_only_means_no_file(text: bytes) -> None:
    said = r"Uh-oh: \.qmail has file delivery but has x bit set\. \(#4\.7\.0\)"
    with pytest.raises(DotQmailTrouble, match=said) as raised:
        dotqmail.parse(text, forward_only=not text.startswith(b"+list"))
    assert raised.value.status == Status(4, 7, 0)


@pytest.mark.parametrize("text", [b"bob\n|cat\n", b"+list\n|cat\n"])
def test_forwards_only_means_no_program(text: bytes) -> None:
    said = r"Uh-oh: \.qmail has prog delivery but has x bit set\. \(#4\.7\.0\)"
    with pytest.raises(DotQmailTrouble, match=said) as raised:
        dotqmail.parse(text, forward_only=not text.startswith(b"+list"))
    assert raised.value.status == Status(4, 7, 0)


# row: vectors-local
def test_forwards_only_counts_from_its_line_on_and_is_spelled_exactly() -> None:
    assert dotqmail.parse(b"./Maildir/\n+list \nbob\n") == (Maildir(1, b"./Maildir/"), Forward(3, b"bob"))
    assert len(dotqmail.parse(b"+lists\n+List\n./Maildir/\n")) == 1


# row: vectors-local
def test_the_x_bit_of_the_owner_says_forwards_only(home: Path) -> None:
    write(home, ".qmail", mode=0o744)
    assert trouble(home)[0] == "Uh-oh: .qmail has file delivery but has x bit set. (#4.7.0)"
    write(home, ".qmail", mode=0o655)
    assert find(home) == DotQmail(b".qmail", INBOX)


def test_a_nul_is_a_mistake_and_not_the_end_of_a_name() -> None:
    with pytest.raises(DotQmailTrouble, match=r"line 2 of \.qmail file holds a NUL"):
        dotqmail.parse(b"# x\n./Maildir/\0/\n")
