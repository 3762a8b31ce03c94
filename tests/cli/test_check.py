from __future__ import annotations

import io
import os
import socket
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pillarbox.cli import certificate, check
from pillarbox.cli.create import create
from pillarbox.cli.finding import Premises
from pillarbox.cli.first import first_account
from pillarbox.cli.home import Lock
from pillarbox.cli.layout import group_name, passwords_reader, settings_of, users_of
from pillarbox.cli.main import status
from pillarbox.control.table import read
from tests.cli.conftest import AsNobody

Captured = pytest.CaptureFixture[str]
NOT_OURS = "/bin/python"  # whether others can run the interpreter is not the home's fault

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="needs root")


@pytest.fixture
def good(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with an account and free ports, in which nothing is wrong."""
    create(home, "mx.example.org")
    monkeypatch.setenv("PILLARBOX_HOME", str(home))
    (home / "control" / "listen").write_text("smtp 127.0.0.1:0\n")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"secret")))
    assert status(["account", "add", "joe@example.org", "--password-stdin"]) == 0
    return home


def names(home: Path) -> dict[str, str]:
    """What the user of each role is called."""
    return {role: user.name for role, user in users_of(settings_of(home)).items()}


def problems(home: Path) -> list[str]:
    return [finding.text for finding in check.findings(home) if finding.is_problem and NOT_OURS not in finding.text]


def test_a_good_home_has_no_problem_and_no_files_change(good: Path, capsys: Captured) -> None:
    before = {file: file.stat().st_mtime_ns for file in good.rglob("*") if file.name not in ("lock", "run")}
    assert problems(good) == []
    assert {file: file.stat().st_mtime_ns for file in before} == before
    status(["check"])
    lines = capsys.readouterr().out.splitlines()[1:]
    assert {line.split(": ")[0] for line in lines} <= {"ok", "note", "problem"}
    assert f"ok: {good}/mail/example.org/joe: mail to " in "\n".join(lines)
    assert "note: DNS (not asked): example.org needs: MX 10 mx.example.org" in lines


def test_a_problem_is_the_exit_status(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "_runtime", lambda _premises: iter(()))
    assert status(["check"]) == 0
    (good / "control" / "crammd5").write_text("perhaps\n")
    assert status(["check"]) == 1


def test_a_home_that_is_none_is_said(tmp_path: Path) -> None:
    assert problems(tmp_path) == [f"{tmp_path}: no home of Pillarbox yet: pillarbox init --home {tmp_path} --me HOST"]


def remove(name: str) -> Callable[[Path], None]:
    return lambda home: (home / name).unlink()


def smtppasswd(text: str, bits: int, instead: str = "smtp.passwd") -> Callable[[Path], None]:
    """control/smtppasswd names smtp.passwd, and there is that file, or `instead` another one that names root."""

    def breakage(home: Path) -> None:
        (home / "control" / "smtppasswd").write_text("smtp.passwd\n")
        (home / instead).write_text(text or "root\n")
        (home / instead).chmod(bits)

    return breakage


def mode(name: str, bits: int) -> Callable[[Path], None]:
    return lambda home: (home / name).chmod(bits)


def write(name: str, text: str) -> Callable[[Path], None]:
    def breakage(home: Path) -> None:
        (home / name).write_text(text)

    return breakage


def move(name: str) -> Callable[[Path], None]:
    def breakage(home: Path) -> None:
        (home / name).rename(home.parent / "moved away")

    return breakage


def later(name: str) -> Callable[[Path], None]:
    def breakage(home: Path) -> None:
        os.utime(home / name, (2e9, 2e9))

    return breakage


def expired(days: int) -> Callable[[Path], None]:
    def breakage(home: Path) -> None:
        key = (home / "tls" / "key.pem").read_bytes()
        begun = datetime.now(UTC) - certificate.LIFETIME + timedelta(days=days, hours=1)
        (home / "tls" / "cert.pem").write_bytes(certificate.self_signed(key, "mx.example.org", begun))

    return breakage


@pytest.mark.parametrize(
    ("breakage", "line"),
    [
        (move("alias"), "{home}/alias: missing: pillarbox init --home {quoted}"),
        (mode("queue", 0o755), "{home}/queue: mode 0755 is too open: chmod 700 {home_quoted}/queue'"),
        (mode("control/me", 0o666), "{home}/control/me: others can write it: chmod go-w {home_quoted}/control/me'"),
        (write("control/databytes", "ten\n"),
         "control/databytes: line 1: not a number: 'ten'; taken as absent, the default 0 holds"),
        (write("control/spoolsize", "ten\n"), "control/spoolsize: line 1: not a number: 'ten'; write a whole number"),
        (write("users/assign", "=x:y\n.\n"), "{home}/users/assign: line 1 is no assignment: mend it, then: "),
        (later("users/assign"), "{home}/users/cdb: older than users/assign, or missing: pillarbox run qmail-newu"),
        (mode("users/passwords", 0o644), "{home}/users/passwords: mode 0644: everybody can read it: chmod o="),
        (write("control/smtproutes", "a.example:b.example joe secret\n"),
         "{home}/control/smtproutes: holds passwords, and everybody can read it: chgrp "),
        (write("control/smtproutes", "a.example:b.example:smtp\n"),
         "{home}/control/smtproutes: the line 'a.example:' names no relay: write HOST:RELAY[:PORT] [USER PASSWORD]"),
        (write("control/resolvers", "ns.example\n"),
         "control/resolvers: line 1: not ADDRESS or ADDRESS:PORT: 'ns.example'; write lines ADDRESS or ADDRESS:PORT"),
        (write("control/checkers", "/no/such/checkpassword -x\n"),
         "control/checkers: /no/such/checkpassword -x: cannot be used: install "),
        (smtppasswd("joe:secret\n", 0o644), "{home}/smtp.passwd: mode 0644: everybody can read it: chmod o= "),
        (smtppasswd("ann:x\njoe\n", 0o400), "{home}/smtp.passwd: line 2: not USER:PASSWORD of at most 256 octets: "
         "who stands behind it cannot log in: mend the line"),
        (smtppasswd("", 0o644, "control/checkerusers"), "{home}/smtp.passwd: missing, and run/checker is to answer "),
        (move("mail/example.org/joe"), "{home}/mail/example.org/joe: missing, but mail to "),
        (move("mail/example.org/joe/Maildir"), "{home}/mail/example.org/joe/Maildir: missing, but mail to "),
        (remove("tls/cert.pem"), "{home}/tls/cert.pem: "),
        (write("tls/cert.pem", "nonsense"), "{home}/tls/cert.pem: no usable certificate and key"),
        (mode("tls/key.pem", 0o644), "{home}/tls/key.pem: mode 0644: others can read the key: chmod o="),
        (expired(-3), "{home}/tls/cert.pem: over since 3 days: install a new one"),
        (expired(5), "{home}/tls/cert.pem: ends in 5 days: install a new one"),
        (write("control/listen", "smtp 192.0.2.1:2525\n"),
         "control/listen: smtp 192.0.2.1:2525: Cannot assign requested address: choose an address of this machine"),
        (write("control/listen", "\n"), "control/listen: names no listener: write a line such as: smtp 127.0.0.1:2525"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line_with_its_remedy(good: Path, breakage: Callable[[Path], None], line: str) -> None:
    breakage(good)
    found = problems(good)
    expected = line.format(home=good, quoted=f"'{good}'", home_quoted=f"'{good}")
    assert len(found) == 1
    assert found[0].startswith(expected)


@needs_root
def test_who_is_to_answer_about_smtp_passwd_must_read_it(good: Path) -> None:
    smtppasswd("joe:secret\n", 0o400)(good)
    assert problems(good) == []
    (good / "control" / "checkerusers").write_text("qmaild\n")
    auth = users_of(settings_of(good))["auth"]
    assert problems(good) == [
        f"{good}/smtp.passwd: {auth.name} cannot read it: chown {auth.name} '{good}/smtp.passwd'",
    ]
    os.chown(good / "smtp.passwd", auth.uid, 0)
    assert problems(good) == []


@needs_root
@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("queue", "{home}/queue: belongs to uid 65534, not to {queue}: chown -R {queue} '{home}/queue'"),
        ("alias", "{home}/alias: belongs to uid 65534, not to {alias}: chown -R {alias} '{home}/alias'"),
        ("control", "{home}/control: belongs to uid 65534, not to root: chown root '{home}/control'"),
        ("mail/example.org/joe", "{home}/mail/example.org/joe: belongs to uid 65534, not to {vmail}: chown -R"),
    ],
)
def test_a_wrong_owner_is_one_line_with_its_remedy(good: Path, name: str, line: str) -> None:
    os.chown(good / name, 65534, 65534)
    expected = line.format(home=good, **names(good))
    assert [text for text in problems(good) if text.startswith(expected)] != []


@needs_root
def test_a_file_of_root_in_the_queue_is_found(good: Path) -> None:
    (good / "queue" / "queue.db-wal").touch()
    assert problems(good) == [
        "{0}/queue/queue.db-wal: belongs to uid 0, not to {queue}: chown -R {queue} '{0}/queue'".format(
            good, **names(good)
        )
    ]


@needs_root
def test_a_password_file_that_the_roles_cannot_read_is_found(good: Path) -> None:
    os.chown(good / "users" / "passwords", 0, 0)
    (line,) = problems(good)
    reader = passwords_reader(settings_of(good))
    assert line.startswith(f"{good}/users/passwords: {reader.name} cannot read it: chgrp {group_name(reader.gid)} ")


@needs_root
def test_roles_that_share_a_user_are_found(good: Path) -> None:
    (good / "control" / "roleusers").write_text("smtpd:qmailq\n")
    shared = "control/roleusers: smtpd and queue share the user qmailq: give each of them its own"
    assert problems(good) == [shared]


@needs_root
def test_a_home_that_the_roles_cannot_enter_is_found(good: Path) -> None:
    good.parent.chmod(0o700)
    said = f" cannot enter {good.parent}: chmod o+x {good.parent}"
    assert [text for text in problems(good) if text.startswith(f"{good}: ") and text.endswith(said)]


@needs_root
def test_an_interpreter_that_others_cannot_run_is_found(
    good: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    private = tmp_path / "bin" / "python"
    private.parent.mkdir(mode=0o700)
    private.touch(0o755)
    monkeypatch.setattr(sys, "executable", str(private))
    (line,) = [f.text for f in check.findings(good) if f.is_problem]
    assert " cannot run it (stopped at " in line
    assert "make install PYTHON=/usr/bin/python3" in line


def test_a_port_that_somebody_else_has_is_found(good: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (good / "control" / "listen").write_text(f"smtp 127.0.0.1:{port}\n")
        assert problems(good) == [
            f"control/listen: smtp 127.0.0.1:{port}: Address already in use: "
            "stop the program that has it, or choose another port"
        ]


def test_a_running_server_is_asked_at_its_ports(good: Path) -> None:
    with Lock(good), socket.create_server(("127.0.0.1", 0)) as ours:
        port = ours.getsockname()[1]
        (good / "control" / "listen").write_text(f"smtp 127.0.0.1:{port}\npop3 127.0.0.1:1\n")
        texts = [str(finding) for finding in check.findings(good)]
    assert f"ok: control/listen: smtp 127.0.0.1:{port}: answers" in texts
    assert any(text.startswith("problem: control/listen: pop3 127.0.0.1:1: does not answer: ") for text in texts)


def test_a_control_file_nobody_knows_is_only_noted(good: Path) -> None:
    (good / "control" / "rcpthots").write_text("example.org\n")
    assert problems(good) == []
    assert f"note: {good}/control/rcpthots: no control file of that name is known, it is ignored" in [
        str(finding) for finding in check.findings(good)
    ]


def test_a_disk_that_is_nearly_full_is_found(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "LEAST_FREE", 1 << 60)
    (line,) = problems(good)
    assert line.startswith(f"{good}/queue: only ")
    assert line.endswith(" MiB free: make room on this disk")


@needs_root
def test_a_home_of_somebody_else_is_his_to_check(good: Path, as_nobody: AsNobody) -> None:
    """What is right for its owner would all look wrong."""

    def look() -> None:
        assert problems(good) == [f"{good}: belongs to uid 0: run check as root, or as that user"]

    as_nobody(look)


def test_what_may_not_be_looked_at_is_said(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(_premises: Premises) -> None:
        raise PermissionError(13, "Permission denied", "/x/y")

    monkeypatch.setattr(check, "_users", closed)
    assert problems(good) == ["/x/y: cannot look at it: Permission denied: run check as root, or as the home's owner"]


@needs_root
@pytest.mark.parametrize(
    ("file", "closed", "mode", "remedy"),
    [
        ("control/rcpthosts", "control/rcpthosts", 0o600, "chmod o+r '{home}/control/rcpthosts'"),
        ("users/cdb", "users", 0o700, "chmod o+x '{home}/users'"),
        (
            "control/smtproutes",
            "control/smtproutes",
            0o600,
            "chgrp {group} '{home}/control/smtproutes' && chmod g=r '{home}/control/smtproutes'",
        ),
    ],
)
def test_what_the_roles_cannot_read_is_found(good: Path, file: str, closed: str, mode: int, remedy: str) -> None:
    (good / "control" / "smtproutes").touch()
    (good / closed).chmod(mode)
    group = group_name(users_of(settings_of(good))["queue"].gid)
    said = f" cannot read it: {remedy.format(home=good, group=group)}"
    assert [text for text in problems(good) if text.startswith(f"{good / file}: ") and text.endswith(said)]


@needs_root
def test_routes_with_passwords_are_the_queues_alone(good: Path) -> None:
    routes = good / "control" / "smtproutes"
    routes.write_text("a.example:b.example joe secret\n")
    create(good)
    assert (routes.stat().st_gid, routes.stat().st_mode & 0o777) == (users_of(settings_of(good))["queue"].gid, 0o640)
    assert problems(good) == []


# row: remote-readable
def test_routes_whose_password_waits_for_a_certificate_are_noted(good: Path) -> None:
    control = good / "control"
    lines = "a.example:Relay.example joe secret\nb.example:192.0.2.1:2500 joe secret\nc.example:127.0.0.1 joe secret\n"
    lines += "d.example:clear.example joe secret\ne.example:relay.example\n"
    (control / "smtproutes").write_text(lines)
    (control / "cleartextroutes").write_text("clear.example\n")
    notes = [
        finding.text for finding in check.findings(good) if "smtproutes" in finding.text and finding.word == "note"
    ]
    told = [
        f"{control}/smtproutes: the line '{key}:': serve says its password to {relay} only over TLS with a certificate "
        f"for that name; in clear once control/cleartextroutes has the line {relay}; "
        "the program qmail-remote says it as ever"
        for key, relay in (("a.example", "relay.example:25"), ("b.example", "192.0.2.1:2500"))
    ]
    assert notes == told


def test_the_login_that_is_printed_again_is_one_at_this_host(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"secret")))
    assert status(["account", "add", "jim@mx.example.org", "--password-stdin"]) == 0
    assert first_account(good, read(good / "control")[0]) == ("jim@mx.example.org", None)
