"""Programs of this machine send through our `sendmail`: real ones, each with the command line it has by itself."""

from __future__ import annotations

import os
import pwd
import quopri
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import pillarbox
from tests.peers import peer
from tests.scenarios.wire import token
from tests.server import Server, a_server

JOE = "joe@example.org"
NOBODY = 65534
BODY = b"first line\n.\n..\n.dot first\n\nFrom the middle\nspaces at the end:  \n\tlast line\n"


class Machine:
    """A server, and the links to `pillarbox` that its machine has."""

    def __init__(self, server: Server, directory: Path) -> None:
        self.server = server
        self.bin = directory / "bin"
        self.bin.mkdir()
        script = self.bin / "pillarbox"
        script.write_text(f"#!{sys.executable}\nimport sys\nfrom pillarbox.cli.launch import main\nsys.exit(main())\n")
        script.chmod(0o755)
        for name in ("sendmail", "newaliases", "mailq"):
            (self.bin / name).symlink_to("pillarbox")
        self.sendmail = str(self.bin / "sendmail")

    def environment(self, **variables: str) -> dict[str, str]:
        source = str(Path(pillarbox.__file__).parent.parent)
        kept = {name: os.environ[name] for name in ("PATH", "PILLARBOX_PEERS", "XDG_CACHE_HOME") if name in os.environ}
        ours = {
            "PYTHONPATH": source,
            "PILLARBOX_HOME": str(self.server.home),
            "HOME": str(self.bin),
            "LOGNAME": "caller",
        }
        return kept | ours | {"LC_ALL": "C.UTF-8"} | variables

    def run(self, *command: str, say: bytes = b"", environ: Mapping[str, str] | None = None) -> bytes:
        """Run a program; it must succeed. What it printed on both outputs."""
        done = subprocess.run(
            command, input=say, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60,
            env=self.environment(**dict(environ or {})), cwd=self.bin,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}: status {done.returncode}: {done.stdout.decode(errors='replace')}"
        return done.stdout


@pytest.fixture
def machine(house: Server, tmp_path: Path) -> Machine:
    return Machine(house, tmp_path)


def arrived(machine: Machine, word: bytes, sender: bytes, local: str = "joe") -> tuple[bytes, bytes]:
    """Header and body of the one copy; it has come by injection, from this sender, with what a letter must have."""
    content = machine.server.await_delivered(word, local).read_bytes()
    header, _, body = content.partition(b"\n\n")
    assert content.startswith(b"Return-Path: <%s>\nDelivered-To: %s@example.org\n" % (sender, local.encode())), content
    assert b"\nReceived: (qmail " in header and b" invoked by uid %d); " % os.getuid() in header
    for field in (b"\nDate: ", b"\nmessage-id: ", b"\nFrom: "):
        assert field.lower() in header.lower(), (field, header)
    return header, body


def test_a_message_with_its_header_goes_to_whom_the_header_says(machine: Machine) -> None:
    word = token()
    said = b"To: joe\nBcc: Ann <ann@example.org>\nSubject: %s\n\n" % word
    machine.run(machine.sendmail, "-t", "-i", say=said + BODY, environ={"QMAILDEFAULTHOST": "example.org"})
    header, body = arrived(machine, word, b"caller@example.org")
    assert body == BODY
    assert b"\nTo: joe@example.org\nSubject: " in header and b"Bcc" not in header
    arrived(machine, word, b"caller@example.org", "ann")


def test_s_nail_sends_by_sendmail(machine: Machine) -> None:
    word = token()
    settings = [f"mta={machine.sendmail}", f"from={JOE}", "nosave", "sendwait", "v15-compat"]
    options = [option for setting in settings for option in ("-S", setting)]
    machine.run(peer("s-nail"), "-:/", *options, "-s", word.decode(), JOE, say=BODY)
    caller = pwd.getpwuid(os.getuid()).pw_name.encode()  # s-nail tells its children
    header, body = arrived(machine, word, caller + b"@mx.example.org")
    assert quopri.decodestring(body) == BODY and b"\nFrom: joe@example.org\n" in header


def test_mutt_sends_by_sendmail(machine: Machine) -> None:
    word = token()
    (machine.bin / "muttrc").write_text(
        f'set sendmail="{machine.sendmail} -oem -oi"\nset from="{JOE}"\nset use_envelope_from=yes\nset copy=no\n'
    )
    machine.run(peer("mutt"), "-n", "-F", "muttrc", "-s", word.decode(), JOE, say=BODY)
    assert arrived(machine, word, b"joe@example.org")[1] == BODY


def test_git_send_email_sends_by_sendmail(machine: Machine) -> None:
    word = token()
    patch = machine.bin / "0001.patch"
    patch.write_bytes(
        b"From 0123 Mon Sep 17 00:00:00 2001\nFrom: Joe <joe@example.org>\nSubject: [PATCH] %s\n\n" % word + BODY
    )
    peer("git-send-email")
    path = os.pathsep.join([str(Path(peer("git-send-email")).parent), os.environ.get("PATH", os.defpath)])
    machine.run(
        peer("git"), "send-email", f"--sendmail-cmd={machine.sendmail}", f"--from=Joe <{JOE}>", f"--to={JOE}",
        "--quiet", "--suppress-cc=all", "--confirm=never", "--no-validate", str(patch),
        environ={"PATH": path, "EMAIL": JOE},
    )  # fmt: skip
    header, body = arrived(machine, word, b"caller@mx.example.org")
    assert body == BODY and b"\nX-Mailer: git-send-email " in header


def test_phps_mail_sends_by_sendmail(machine: Machine) -> None:
    """PHP 8 ends the lines of its header with CR LF."""
    word = token()
    code = (
        f'exit(mail("{JOE}", "{word.decode()}", "one\\n.\\ntwo\\n", "From: web@example.org\\r\\nX-More: yes") ? 0 : 1);'
    )
    machine.run(peer("php"), "-d", f"sendmail_path={machine.sendmail} -t -i", "-r", code)
    header, body = arrived(machine, word, b"caller@mx.example.org")
    assert b"\r" not in header and b"\nX-More: yes" in header and b"\nTo: joe@example.org\n" in header
    assert body == b"one\n.\ntwo\n\n"  # PHP ends every body with one more line end


def test_cron_sends_by_sendmail(machine: Machine) -> None:
    """Debian's cron, Vixie's and cronie's command lines."""
    for options in (
        ["-i", "-FCronDaemon", "-B8BITMIME", "-oem", JOE],
        ["-FCronDaemon", "-odi", "-oem", "-oi", "-t"],
        ["-FCronDaemon", "-i", "-odi", "-oem", "-oi", "-t", "-f", "root"],
    ):
        word = token()
        said = (
            b"From: root (Cron Daemon)\nTo: joe@example.org\nSubject: Cron <root@host> %s\nX-Cron-Env: <A=b>\n\n" % word
        )
        machine.run(machine.sendmail, *options, say=said + BODY)
        header, body = arrived(machine, word, (b"root" if "root" in options else b"caller") + b"@mx.example.org")
        assert b"\nFrom: root@mx.example.org (Cron Daemon)\n" in header and body == BODY


def test_swaks_speaks_smtp_with_sendmail(machine: Machine) -> None:
    word = token()
    said = b"From: joe@example.org\nSubject: %s\nDate: x\nMessage-ID: <y@z>\n\n" % word
    machine.run(
        peer("swaks"), "--pipe", f"{machine.sendmail} -bs", "--from", JOE, "--to", JOE, "--data", "-", say=said + BODY
    )
    header, body = arrived(machine, word, b"joe@example.org")
    assert body == BODY + b"\n" and b"\nReceived: from " in header  # swaks ends what it sends with a blank line


def test_pillarbox_send_is_sendmail(machine: Machine) -> None:
    word = token()
    machine.run(
        str(machine.bin / "pillarbox"),
        "send",
        "--home",
        str(machine.server.home),
        JOE,
        say=b"Subject: %s\n\nx\n" % word,
    )
    arrived(machine, word, b"caller@mx.example.org")


def test_a_large_message_arrives_as_it_was(machine: Machine) -> None:
    word = token()
    body = b"".join(b"line %d of many\n" % number for number in range(300_000))
    machine.run(machine.sendmail, "-t", say=b"To: joe@example.org\nSubject: %s\n\n" % word + body)
    assert arrived(machine, word, b"caller@mx.example.org")[1] == body


def test_a_message_to_hundreds_reaches_each(machine: Machine) -> None:
    word = token()
    addresses = b",\n ".join(b"joe-%d@example.org" % number for number in range(300))
    machine.run(machine.sendmail, "-t", say=b"To: joe@example.org\nBcc: %s\nSubject: %s\n\nx\n" % (addresses, word))
    found = machine.server.await_log(rf"starting delivery \d+: msg \d+ to local example\.org-joe-{299}@example\.org")
    assert len(found) == 1
    arrived(machine, word, b"caller@mx.example.org")


def executable_by_everybody(program: str) -> bool:
    path = Path(program).resolve()
    return all(place.stat().st_mode & stat.S_IXOTH for place in (path, *path.parents))


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to be somebody else")
@pytest.mark.skipif(not executable_by_everybody(sys.executable), reason="needs an interpreter that every user can run")
def test_any_user_may_send_and_is_named(machine: Machine) -> None:
    word = token()
    for place in (machine.bin, *machine.bin.parents):
        place.chmod(place.stat().st_mode | 0o005)
    command = [peer("setpriv"), f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", machine.sendmail, JOE]
    machine.run(*command, say=b"Subject: %s\n\nx\n" % word)
    content = machine.server.await_delivered(word).read_bytes()
    assert b" invoked by uid %d); " % NOBODY in content.partition(b"\n\n")[0]


def test_the_log_says_whose_message_it_was(machine: Machine) -> None:
    machine.run(machine.sendmail, "-fmarked@example.org", JOE, say=b"Subject: x\n\nx\n")
    (line,) = machine.server.await_log(r"info msg \d+: bytes \d+ from <marked@example\.org>")
    assert line.endswith(f" uid {os.getuid()}") and " qp " in line


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Machine]:
    with a_server({"aliases": "aliases\n", "locals": "localhost\nmx.example.org\n"}) as server:
        yield Machine(server, tmp_path)


def test_the_alias_table_is_made_and_followed(own: Machine) -> None:
    (own.server.home / "aliases").write_text(
        "root: operator\noperator: joe@example.org\nlist: joe@example.org\nowner-list: root\n"
    )
    own.run(str(own.bin / "newaliases"))
    word = token()
    own.run(own.sendmail, "root", say=b"Subject: %s\n\nx\n" % word)
    content = own.server.await_delivered(word).read_bytes()
    header = content.partition(b"\n\n")[0]
    assert b"\nDelivered-To: operator@mx.example.org\n" in header and b"\nDelivered-To: root@mx.example.org\n" in header


def test_what_cron_writes_to_root_reaches_the_postmaster(machine: Machine) -> None:
    word = token()
    machine.run(machine.sendmail, "root", say=b"Subject: %s\n\nx\n" % word)
    header = machine.server.await_delivered(word).read_bytes().partition(b"\n\n")[0]
    assert b"\nDelivered-To: root@localhost\n" in header and b"\nDelivered-To: postmaster@localhost\n" in header


def test_the_alias_table_says_where_roots_mail_goes(tmp_path: Path) -> None:
    with a_server({"aliases": "aliases\n"}, (JOE, "ann@example.org")) as server:
        machine = Machine(server, tmp_path)
        (server.home / "aliases").write_text("root: ann@example.org\n")
        machine.run(str(machine.bin / "newaliases"))
        word = token()
        machine.run(machine.sendmail, "root", say=b"Subject: %s\n\nx\n" % word)
        server.await_delivered(word, "ann")


def test_a_restart_makes_sendmail_wait(own: Machine) -> None:
    word = token()
    assert own.server.stop() == 0
    ended: list[bytes] = []
    sending = threading.Thread(
        target=lambda: ended.append(own.run(own.sendmail, JOE, say=b"Subject: %s\n\nx\n" % word))
    )
    sending.start()
    time.sleep(0.3)
    own.server.start()
    sending.join()
    assert ended == [b""]
    own.server.await_delivered(word)


def test_what_sendmail_said_is_queued_arrives_though_the_queue_is_killed(own: Machine) -> None:
    """At least once: a message that was given up may be there too."""
    words: list[bytes] = []

    def send() -> None:
        for _ in range(12):
            word = token()
            said = b"Subject: %s\n\n%s\n" % (word, b"x" * 200_000)
            done = subprocess.run(
                [own.sendmail, JOE], input=said, env=own.environment(), capture_output=True, timeout=60
            )
            if done.returncode == 0:
                words.append(word)
            else:
                assert done.returncode == 75, done.stderr

    senders = [threading.Thread(target=send) for _ in range(2)]
    for sender in senders:
        sender.start()
    for _ in range(4):
        time.sleep(0.4)
        own.server.kill_role("queue")
    for sender in senders:
        sender.join()
    assert len(words) >= 12
    for word in words:
        own.server.await_delivered(word)
