"""qmail-pop3d on a Maildir, octet for octet."""

from __future__ import annotations

import errno
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from pillarbox.mailbox import maildir
from pillarbox.mailbox.maildrop import Maildrop
from pillarbox.programs import qmail_pop3d, qmail_popup
from pillarbox.sessions.effects import SendContent
from tests.programs.calling import Ended
from tests.tcpserver import NOBODY, a_place

AS_NOBODY = () if os.getuid() else ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--")
AT = 1_700_000_000


@pytest.fixture
def home() -> Iterator[Path]:
    """A home with a Maildir; as root it is nobody's, for qmail-pop3d refuses root."""
    with a_place() as place:
        maildir.make(bytes(place / "Maildir"))
        give(place)
        yield place
        for name in ("new", "cur"):  # what nobody may enter a plain user cannot remove
            with suppress(FileNotFoundError):
                (place / "Maildir" / name).chmod(0o700)


def give(place: Path) -> None:
    if os.getuid() == 0:
        for file in (place, place / "Maildir", *(place / "Maildir").rglob("*")):
            os.chown(file, NOBODY, NOBODY)


def put(home: Path, name: str, text: bytes, at: float = AT) -> Path:
    file = home / "Maildir" / name
    file.write_bytes(text)
    file.chmod(0o600)
    os.utime(file, (at, at))
    give(home)
    return file


def pop3d(home: Path, say: bytes | None, *words: str, program: tuple[str, ...] = ()) -> Ended:
    """What it said to these commands; None: a client that says nothing and stays."""
    command = program or (str(home / "bin" / "qmail-pop3d"), *(words or ("Maildir",)))
    reading, writing = os.pipe()
    with suppress(OSError):
        os.write(writing, say or b"")
    if say is not None:
        os.close(writing)
    try:
        done = subprocess.run(
            [*AS_NOBODY, *command], stdin=reading, capture_output=True, cwd=home, timeout=60,
            env={"PATH": os.defpath, "LC_ALL": "C.UTF-8"},
        )  # fmt: skip
    finally:
        os.close(reading)
        if say is None:
            os.close(writing)
    return Ended(done.returncode, done.stdout, done.stderr.decode())


def files(home: Path) -> list[str]:
    """What is in new/ and cur/."""
    box = home / "Maildir"
    return sorted(str(file.relative_to(box)) for place in ("new", "cur") for file in (box / place).iterdir())


# row: pop3d-start, pop3d-retr, pop3d-dots, pop3d-quit
def test_a_session_octet_for_octet(home: Path) -> None:
    put(home, "new/1.a", b"Subject: a\n\n.dot\n..\nlast line without its end")
    put(home, "cur/2.b:2,S", b"Subject: b\n\none\ntwo\nthree\n", AT + 1)
    ended = pop3d(home, b"STAT\r\nRETR 1\r\nTOP 2 1\r\nDELE 2\r\nSTAT\r\nLIST\r\nQUIT\r\n")
    assert ended.output == (
        b"+OK \r\n"
        b"+OK 2 71\r\n"
        b"+OK \r\nSubject: a\r\n\r\n..dot\r\n...\r\nlast line without its end\r\n\r\n.\r\n"
        b"+OK \r\nSubject: b\r\n\r\none\r\n\r\n.\r\n"
        b"+OK \r\n"
        b"+OK 2 45\r\n"
        b"+OK \r\n1 45\r\n.\r\n"
        b"+OK \r\n"
    )
    assert (ended.status, ended.errors) == (0, "")
    assert files(home) == ["cur/1.a:2,"]


# row: pop3d-uid
def test_a_unique_id_stays_when_a_message_is_no_longer_new(home: Path) -> None:
    put(home, "new/1700000000.5.host,S=3", b"a\n\n")
    first = pop3d(home, b"UIDL\r\nQUIT\r\n").output
    assert files(home) == ["cur/1700000000.5.host,S=3:2,"]
    (home / "Maildir/cur/1700000000.5.host,S=3:2,").rename(home / "Maildir/cur/1700000000.5.host,S=3:2,RS")
    assert first == b"+OK \r\n+OK \r\n1 1700000000.5.host,S=3\r\n.\r\n+OK \r\n"
    assert pop3d(home, b"UIDL\r\nQUIT\r\n").output == first


# row: pop3d-scan
def test_a_message_of_this_very_second_is_left_for_the_next_session(home: Path) -> None:
    put(home, "new/later", b"a\n", time.time() + 5)
    put(home, "new/now", b"a\n", AT)
    assert b"+OK 1 2\r\n" in pop3d(home, b"STAT\r\nQUIT\r\n").output
    assert files(home) == ["cur/now:2,", "new/later"]


# row: pop3d-hangup
@pytest.mark.parametrize("say", [b"", b"DELE 1\r\n", b"DELE 1\r\nQUIT", b"DELE 1\r\nRETR 1\r\nQUI\r\n"])
def test_without_quit_nothing_is_deleted_and_nothing_moved(home: Path, say: bytes) -> None:
    put(home, "new/a", b"text\n")
    ended = pop3d(home, say)
    assert (ended.status, ended.errors) == (0, "")
    assert files(home) == ["new/a"]


# row: pop3d-hangup
def test_a_client_that_says_nothing_is_left_and_nothing_is_deleted(home: Path) -> None:
    put(home, "new/a", b"text\n")
    program = (home / "bin" / "qmail-pop3d").read_text().replace(
        "\nmain()\n",
        "\nfrom pillarbox.programs import qmail_pop3d\nqmail_pop3d.PATIENCE = 0.2\n"
        "sys.exit(qmail_pop3d.main(sys.argv[1:]))\n",
    )  # fmt: skip
    (home / "bin" / "impatient").write_text(program)
    (home / "bin" / "impatient").chmod(0o755)
    ended = pop3d(home, None, program=(str(home / "bin" / "impatient"), "Maildir"))
    assert ended == Ended(0, b"+OK \r\n", "")
    assert files(home) == ["new/a"]


# row: pop3d-root
def test_root_is_refused_before_his_mailbox_is_looked_at(home: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("needs root")
    old = put(home, "tmp/old", b"")
    done = subprocess.run([home / "bin" / "qmail-pop3d", "Maildir"], input=b"", capture_output=True, cwd=home)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr == b"qmail-pop3d invoked as uid 0, terminating\n"
    assert old.exists()


# row: pop3d-root
@pytest.mark.parametrize(("real", "effective"), [(0, 4711), (4711, 0)])
def test_half_root_is_root(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], real: int, effective: int
) -> None:
    monkeypatch.setattr(os, "getuid", lambda: real)
    monkeypatch.setattr(os, "geteuid", lambda: effective)
    assert qmail_pop3d.main(["Maildir"]) == 1
    assert capfd.readouterr() == ("", "qmail-pop3d invoked as uid 0, terminating\n")


# row: pop3d-start
@pytest.mark.parametrize("words", [("nowhere",), ("bin/qmail-pop3d",), ("",)])
def test_without_a_maildir_it_says_so(home: Path, words: tuple[str, ...]) -> None:
    assert pop3d(home, b"STAT\r\n", *words) == Ended(0, b"-ERR this user has no $HOME/Maildir\r\n", "")


# row: pop3d-start
def test_without_an_argument_it_says_that_there_is_no_maildir(home: Path) -> None:
    ended = pop3d(home, b"STAT\r\n", program=(str(home / "bin" / "qmail-pop3d"),))
    assert ended == Ended(0, b"-ERR this user has no $HOME/Maildir\r\n", "")


# row: pop3d-unreadable
@pytest.mark.parametrize("place", ["new", "cur"])
@pytest.mark.parametrize("missing", [True, False])
def test_a_maildir_that_cannot_be_read_is_none_to_serve(home: Path, place: str, missing: bool) -> None:
    directory = home / "Maildir" / place
    directory.rmdir() if missing else directory.chmod(0)
    assert pop3d(home, b"STAT\r\n") == Ended(0, b"-ERR unable to scan $HOME/Maildir\r\n", "")


# row: pop3d-numbers
def test_a_message_that_cannot_be_opened_is_said_and_the_session_goes_on(home: Path) -> None:
    put(home, "new/a", b"text\n").chmod(0)
    ended = pop3d(home, b"RETR 1\r\nTOP 1 0\r\nSTAT\r\n")
    assert ended.output == (
        b"+OK \r\n-ERR unable to open that message\r\n-ERR unable to open that message\r\n+OK 1 5\r\n"
    )


# row: pop3d-quit-failed
def test_what_cannot_be_deleted_is_said_and_then_all_is_well(home: Path) -> None:
    put(home, "cur/a:2,", b"text\n")
    put(home, "new/b", b"text\n", AT + 1)
    (home / "Maildir" / "cur").chmod(0o500)
    ended = pop3d(home, b"DELE 1\r\nDELE 2\r\nQUIT\r\n")
    assert ended.output.endswith(b"+OK \r\n+OK \r\n-ERR unable to unlink all deleted messages\r\n+OK \r\n")
    assert ended.status == 0 and files(home) == ["cur/a:2,"]


# row: pop3d-no-lock
def test_two_sessions_go_side_by_side(home: Path) -> None:
    for number, name in enumerate("ab"):
        put(home, f"new/{name}", b"text\n", AT + number)
    first = subprocess.Popen(
        [*AS_NOBODY, str(home / "bin" / "qmail-pop3d"), "Maildir"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=home, env={"PATH": os.defpath},
    )  # fmt: skip
    with first:
        assert first.stdout is not None and first.stdin is not None
        assert first.stdout.readline() == b"+OK \r\n"
        ended = pop3d(home, b"STAT\r\nDELE 1\r\nQUIT\r\n")
        assert ended.output == b"+OK \r\n+OK 2 10\r\n+OK \r\n+OK \r\n"
        first.stdin.write(b"STAT\r\nRETR 1\r\nRETR 2\r\nDELE 1\r\nQUIT\r\n")
        first.stdin.close()
        said = first.stdout.read()
    assert said == (b"+OK 2 10\r\n-ERR unable to open that message\r\n+OK \r\ntext\r\n\r\n.\r\n+OK \r\n+OK \r\n")
    assert files(home) == ["cur/b:2,"]


@pytest.mark.parametrize(
    ("stored", "sent"),
    [
        (b"a\r\n\r\nb\r\n", b"a\r\n\r\nb\r\n\r\n.\r\n"),
        (b"a\rb\n", b"a\r\nb\r\n\r\n.\r\n"),
        (b"a\r.\rb", b"a\r\n..\r\nb\r\n\r\n.\r\n"),
        (b"\0\xff\n", b"\0\xff\r\n\r\n.\r\n"),
        (b"", b"\r\n.\r\n"),
        (b"\n", b"\r\n\r\n.\r\n"),
        (b".", b"..\r\n\r\n.\r\n"),
        (b"x" * 200_000 + b"\n.\n", b"x" * 200_000 + b"\r\n..\r\n\r\n.\r\n"),
    ],
)
def test_whatever_is_stored_goes_out_in_whole_lines(home: Path, stored: bytes, sent: bytes) -> None:
    put(home, "new/a", stored)
    assert pop3d(home, b"RETR 1\r\n").output == b"+OK \r\n+OK \r\n" + sent


def test_a_client_that_is_gone_ends_it_without_a_word(home: Path) -> None:
    put(home, "new/a", b"x" * 100_000 + b"\n")
    ended = pop3d(home, b"RETR 1\r\n" * 20, program=("/bin/sh", "-c", "bin/qmail-pop3d Maildir | head -c 1"))
    assert (ended.output, ended.errors) == (b"+", "")
    assert files(home) == ["new/a"]


def test_half_a_message_does_not_look_like_a_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The disk fails behind its first block: the final dot must not come."""
    maildir.make(bytes(tmp_path / "Maildir"))
    (tmp_path / "Maildir" / "new" / "a").write_bytes(b"line\n" * 20_000)
    mailbox = qmail_pop3d.Mailbox(Maildrop.open(bytes(tmp_path / "Maildir"), time.time() + 5, as_qmail=True))
    healthy = os.read
    blocks = iter([True, False])

    def failing(descriptor: int, size: int) -> bytes:
        if next(blocks):
            return healthy(descriptor, size)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "read", failing)
        with pytest.raises(qmail_pop3d.BrokenOff, match="unable to read a message: Input/output error"):
            mailbox.execute(SendContent(1, None, b"+OK \r\n"))
    said = capfd.readouterr().out
    assert said.startswith("+OK \r\nline\r\n") and "\r\n.\r\n" not in said


# row: popup-exit, pop3d-hangup
def test_patience_is_qmails() -> None:
    """RFC 1939 section 3 wants ten minutes at least; qmail has given twenty."""
    assert qmail_pop3d.PATIENCE == qmail_popup.PATIENCE == 1200
