"""dot-qmail files with programs, mbox files and forwards, carried out by a whole server."""

from __future__ import annotations

import os
import pwd
import random
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests import peers
from tests.scenarios.wire import deliver, envelope, smtp, submit, token
from tests.server import Server, a_server, until

ACCOUNTS = ("joe@example.org", "ann@example.org")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """With two accounts, whose extensions the tests use."""
    with a_server({"draintime": "3\n"}, ACCOUNTS) as server:
        yield server


def instruct(server: Server, name: str, text: bytes, local: str = "joe", mode: int = 0o600) -> None:
    server.put(server.mailbox(local) / name, text, mode)


def send(server: Server, local: bytes, text: bytes = b"Subject: %s\r\n\r\nbody\r\n") -> bytes:
    """Mail to an address of the server; the word that it holds."""
    word = token()
    deliver(server, text % word if b"%s" in text else text + word, local + b"@example.org")
    return word


def alive(pid: int) -> bool:
    """Whether there is such a process that has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def written(file: Path, word: bytes) -> bytes:
    until(lambda: file.exists() and word in file.read_bytes(), f"{word!r} in {file}")
    return file.read_bytes()


def test_a_program_gets_the_message_its_environment_and_its_outcome_in_the_log(server: Server) -> None:
    instruct(server, ".qmail-prog-default", b'|(env; cat) > out; echo "filed by $EXT2"\n')
    word = send(server, b"joe-prog-a")
    found = written(server.mailbox() / "out", word)
    for line in (b"EXT=prog-a", b"DEFAULT=a", b"RECIPIENT=joe-prog-a@example.org", b"HOST=example.org"):
        assert b"\n%s\n" % line in found
    assert b"Return-Path" not in found.partition(b"\nReceived:")[2]
    server.await_log(r"^delivery \d+: success: filed_by_a/did_0\+0\+1/$")


def test_a_program_that_refuses_for_good_and_one_that_refuses_for_now(server: Server) -> None:
    instruct(server, ".qmail-no", b"|echo no such list; exit 100\n")
    instruct(server, ".qmail-later", b"|echo come back; exit 75\n")
    send(server, b"joe-no")
    send(server, b"joe-later")
    server.await_log(r"^delivery \d+: failure: no_such_list/$")
    server.await_log(r"^delivery \d+: deferral: come_back/$")


def test_an_mbox_holds_what_came(server: Server) -> None:
    instruct(server, ".qmail-mbox", b"./Mailbox\n")
    for number in range(2):
        word = send(server, b"joe-mbox", b"Subject: %s\r\n\r\nFrom here\r\n")
        found = written(server.mailbox() / "Mailbox", word)
        assert found.count(b"\n>From here\n\n") == found.count(b"Delivered-To: joe-mbox@") == number + 1
    assert (server.mailbox() / "Mailbox").stat().st_mode & 0o777 == 0o600
    server.await_log(r"^delivery \d+: success: did_1\+0\+0/$")


def test_a_forward_reaches_all_its_addresses_once_with_its_trace(server: Server) -> None:
    instruct(server, ".qmail-all", b"&ann@example.org\njoe@example.org\n")
    word = send(server, b"joe-all")
    for local in ("joe", "ann"):
        text = server.await_delivered(word, local).read_bytes()
        head = text.splitlines()
        assert head[:2] == [b"Return-Path: <sender@example.net>", b"Delivered-To: %s@example.org" % local.encode()]
        assert head[2].startswith(b"Received: (qmail ")
        assert b" invoked by uid " in head[2]
        assert head[3] == b"Delivered-To: joe-all@example.org"
    (line,) = server.await_log(r"^delivery \d+: success: did_0\+2\+0/qp_\d+/$")
    server.await_log(f"^new msg {line.rsplit('_', 1)[1].rstrip('/')}$")


def test_a_large_message_is_filed_and_forwarded_whole(server: Server) -> None:
    instruct(server, ".qmail-large", b"|cat > large\n./Large\nann@example.org\n")
    body = b"line of text\r\n" * 100_000
    word = send(server, b"joe-large", b"Subject: %s\r\n\r\n" + body)
    wanted = body.replace(b"\r\n", b"\n")
    assert server.await_delivered(word, "ann").read_bytes().endswith(b"\n\n" + wanted)
    assert (server.mailbox() / "large").read_bytes().endswith(b"\n\n" + wanted)
    assert (server.mailbox() / "Large").read_bytes().endswith(b"\n\n" + wanted + b"\n")


def test_a_list_with_an_owner_sends_to_each_as_itself(server: Server) -> None:
    instruct(server, ".qmail-list", b"ann@example.org\n")
    instruct(server, ".qmail-list-owner", b"./Maildir/\n")
    instruct(server, ".qmail-list-owner-default", b"./Maildir/\n")
    word = send(server, b"joe-list")
    text = server.await_delivered(word, "ann").read_bytes()
    assert text.startswith(b"Return-Path: <joe-list-owner-ann=example.org@example.org>\n")


def test_an_alias_loop_ends_by_name(server: Server) -> None:
    instruct(server, ".qmail-loop", b"ann-loop@example.org\n")
    instruct(server, ".qmail-loop", b"joe-loop@example.org\n", "ann")
    send(server, b"joe-loop")
    server.await_log(
        r"^delivery \d+: failure: This_message_is_looping:_it_already_has_my_Delivered-To_line\._\(#5\.4\.6\)/$"
    )


def test_a_file_with_wrong_modes_is_deferred_by_name(server: Server) -> None:
    instruct(server, ".qmail-mode", b"|true\n", mode=0o666)
    instruct(server, ".qmail-xbit", b"|true\n", mode=0o700)
    send(server, b"joe-mode")
    send(server, b"joe-xbit")
    server.await_log(r"deferral: Uh-oh:_\.qmail_file_is_writable\._\(#4\.7\.0\)/$")
    server.await_log(r"deferral: Uh-oh:_\.qmail_has_prog_delivery_but_has_x_bit_set\._\(#4\.7\.0\)/$")


def test_endless_programs_of_one_account_do_not_hold_up_another(server: Server) -> None:
    instruct(server, ".qmail-endless", b"|trap '' TERM; echo $$ >> pids; while :; do sleep 1; done\n")
    for _ in range(4):
        send(server, b"joe-endless")
    pids = server.mailbox() / "pids"
    until(lambda: pids.exists() and pids.read_text().count("\n") == 4, "four programs")
    instruct(server, ".qmail-prog", b"|cat > out\n", "ann")
    written(server.mailbox("ann") / "out", send(server, b"ann-prog"))
    server.await_delivered(send(server, b"joe"))
    for pid in pids.read_text().split():
        os.killpg(os.getpgid(int(pid)), signal.SIGKILL)
    server.await_log(r"^delivery \d+: deferral: Aack,_child_crashed", 4)


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to have owners that are somebody else")
def test_a_program_has_its_owners_rights_and_nothing_of_ours(server: Server) -> None:
    look = b"(id -u; id -g; id -G; umask; ls /proc/$$/fd; grep -E 'NoNewPrivs|CapEff' /proc/$$/status; env) > rights"
    instruct(server, ".qmail-rights", b"|%s\n" % look)
    send(server, b"joe-rights")
    rights = server.mailbox() / "rights"
    until(lambda: rights.exists() and b"PILLARBOX_HOME=" in rights.read_bytes(), "what the program may")
    vmail = pwd.getpwnam("vmail")
    found = rights.read_text().split("\n")
    assert found[:4] == [str(vmail.pw_uid), str(vmail.pw_gid), str(vmail.pw_gid), "0077"]
    assert found[4:8] == ["0", "1", "10", "2"] or found[4:7] == ["0", "1", "2"]
    assert "CapEff:\t0000000000000000" in found
    assert "NoNewPrivs:\t0" in found, "procmail and postdrop are set-gid"
    assert f"PILLARBOX_HOME={server.home}" in found
    assert f"USER={vmail.pw_name}" in found


def filter_program(name: str, directory: Path) -> Path:
    """A copy of a peer that every user can run: where peers are unpacked they mostly can not even look."""
    unpacked = peers.unpacked() / "filters" / "usr" / "bin" / name
    copy = directory / name
    shutil.copy(unpacked if unpacked.exists() else peers.peer(name), copy)
    copy.chmod(0o755)
    return copy


def test_procmail_files_mail_and_refuses_mail(server: Server) -> None:
    procmail = filter_program("procmail", server.home.parent)
    rules = b"MAILDIR=.\nDEFAULT=./Maildir/\n:0:\n* ^Subject:.*of a list\nFiled\n"
    rules += b":0\n* ^Subject:.*refuse\n{\n EXITCODE=77\n :0\n /dev/null\n}\n"
    instruct(server, "rules", rules)
    instruct(server, ".qmail-proc", b'|(printf %%s "$UFLINE$RPLINE$DTLINE"; cat) | %s -m rules\n' % bytes(procmail))
    word = send(server, b"joe-proc", b"Subject: %s of a list\r\n\r\nbody\r\n")
    filed = written(server.mailbox() / "Filed", word)
    assert filed.startswith(b"From sender@example.net ")
    assert b"\nReturn-Path: <sender@example.net>\nDelivered-To: joe-proc@example.org\nReceived: " in filed
    server.await_delivered(send(server, b"joe-proc"))
    server.news()
    refused = send(server, b"joe-proc", b"Subject: %s refuse\r\n\r\nbody\r\n")
    server.await_log(r"^delivery \d+: failure: /?$")
    assert not server.holding(refused)


def burst(server: Server) -> list[bytes]:
    """The words of messages that were taken one right after the other; none when a role is just starting."""
    words: list[bytes] = []
    try:
        with smtp(server) as wire:
            for recipient in (b"joe-fan@example.org", b"joe-bare@example.org") * 4:
                word = token()
                envelope(wire, b"sender@example.net", recipient)
                assert submit(wire, b"Subject: %s\r\n\r\n" % word).startswith(b"250 ")
                words.append(word)
    except (OSError, AssertionError):
        time.sleep(0.05)
    return words


def test_each_forward_is_there_once_whatever_is_killed() -> None:
    chance = random.Random(20_261)
    with a_server({}, ACCOUNTS) as server:
        instruct(server, ".qmail-fan", b"ann@example.org\njoe@example.org\n|true\n")
        instruct(server, ".qmail-bare", b"ann@example.org\njoe@example.org\n")
        sent: list[bytes] = []
        for number in range(12):
            role = ("queue", "owner", "queue", "spawn")[number % 4]
            until(lambda: burst(server), "mail taken")  # by roles that have started
            victims = server.processes(role)
            sent += burst(server)
            time.sleep(chance.uniform(0.0, 0.02))
            for pid in victims:  # at once: an outcome is written down within 20 ms
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        until(lambda: not server.pillarbox("queue", "list"), "an empty queue", seconds=90)
        for word in sent:
            assert [len(server.holding(word, local)) for local in ("joe", "ann")] == [1, 1], word


@pytest.mark.parametrize("role", ["spawn", "supervisor"])
def test_a_program_ends_with_whoever_watches_it(role: str) -> None:
    with a_server({}, ("joe@example.org",)) as server:
        instruct(server, ".qmail-endless", b"|echo $$ > pid; sleep 1000\n")
        send(server, b"joe-endless")
        pid = server.mailbox() / "pid"
        until(lambda: pid.exists() and pid.read_text(), "a program")
        number = int(pid.read_text())
        instruct(server, ".qmail-endless", b"./Maildir/\n")
        if role == "spawn":
            server.kill_role("spawn")
        else:
            server.signal(signal.SIGKILL)
            server.wait()
        until(lambda: not alive(number), "the program's end")
        if role == "supervisor":
            server.start()
        until(server.delivered, "the message", seconds=60)


def test_a_program_that_does_not_end_is_ended_with_the_server_and_its_mail_is_kept() -> None:
    with a_server({"draintime": "1\n"}) as server:
        instruct(server, ".qmail-endless", b"|trap '' TERM; echo $$ > pid; while :; do sleep 1; done\n")
        send(server, b"joe-endless")
        pid = server.mailbox() / "pid"
        until(lambda: pid.exists() and pid.read_text(), "a program")
        assert server.stop() == 0
        assert not alive(int(pid.read_text()))
        server.await_log(r"deferral: The_delivery_was_broken_off:_the_server_is_stopping\._\(#4\.3\.2\)/$")
        instruct(server, ".qmail-endless", b"./Maildir/\n")
        server.start()
        number = server.pillarbox("queue", "list").split()[0].lstrip("#")
        server.pillarbox("queue", "retry", number)
        until(server.delivered, "the message")
