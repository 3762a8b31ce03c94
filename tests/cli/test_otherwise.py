"""What `install --dry-run` says of run lines, rules, routes and control files. The lines are those of the page, of
inetd.conf and units, and of guides that people followed."""

from __future__ import annotations

from pathlib import Path

import pytest

from pillarbox.cli import runlines
from pillarbox.cli.otherwise import otherwise
from pillarbox.cli.runlines import RunLine
from tests.peers import peer, run

OURS = frozenset({"qmail-smtpd", "qmail-popup", "qmail-pop3d", "qmail-remote", "qmail-start", "maildirpop3d"})
PAGE_POP = """\
exec tcpserver -vRl YOUR.HOST.NAME.HERE 0 pop3 \\
  /var/qmail/bin/qmail-popup YOUR.HOST.NAME.HERE \\
  /usr/local/sbin/maildirpop3d /var/qmail/bin/qmail-pop3d Maildir
"""
LIFE_WITH_QMAIL = """\
#!/bin/sh
QMAILDUID=`id -u qmaild`
NOFILESGID=`id -g qmaild`
MAXSMTPD=`cat /var/qmail/control/concurrencyincoming`
exec /usr/local/bin/softlimit -m 2000000 \\
    /usr/local/bin/tcpserver -v -R -l 0 -x /etc/tcp.smtp.cdb -c "$MAXSMTPD" \\
        -u "$QMAILDUID" -g "$NOFILESGID" 0 smtp /var/qmail/bin/qmail-smtpd 2>&1
"""
SMTPD = "/var/qmail/bin/qmail-smtpd"


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """Its files, and a qmail in var/qmail."""
    for name in ("service/smtpd", "service/pop3d", "etc/systemd/system", "var/qmail/control", "var/qmail/bin"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("me", "rcpthosts"):
        (tmp_path / "var/qmail/control" / name).write_text("mail.example.org\n")
    return tmp_path


def said(machine: Path, file: str = "", text: str = "") -> list[str]:
    """What is said with this file there; paths as on the machine itself."""
    if file:
        (machine / file).parent.mkdir(parents=True, exist_ok=True)
        (machine / file).write_text(text)
    home = machine / "var/qmail"
    return [line.replace(str(machine), "") for line in otherwise(home, Path("/var/qmail/bin"), OURS, machine)]


def of(line: str, file: str = "run") -> list[RunLine]:
    place = Path("/nowhere") / file
    return [found for number, one in runlines._logical(line) for found in runlines._commands(place, number, one, True)]


def test_the_pages_own_line_behaves_as_ever(machine: Path) -> None:
    assert said(machine, "service/pop3d/run", PAGE_POP) == [
        "/service/pop3d/run:1: /usr/local/sbin/maildirpop3d stays what it is; "
        "ours comes there with: pillarbox install --into /usr/local/sbin --only maildirpop3d"
    ]


def test_a_memory_limit_in_which_no_python_starts_is_found(machine: Path) -> None:
    assert said(machine, "service/smtpd/run", LIFE_WITH_QMAIL) == [
        "/service/smtpd/run:5: softlimit -m 2000000 is too little for Pillarbox's programs, which want 64000000: "
        "raise it"
    ]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("service/smtpd/run", f"ulimit -v 20000\nexec tcpserver 0 25 {SMTPD}\n"),
        ("etc/sv/smtpd/run", f"exec chpst -u qmaild -m 3000000 tcpserver 0 25 {SMTPD}\n"),
        ("service/smtpd/run", f"exec softlimit -a5000000 -d64000000 tcpserver 0 25 {SMTPD}\n"),
        ("etc/systemd/system/smtpd@.service", f"[Service]\nLimitAS=10M\nExecStart=-{SMTPD}\n"),
        ("var/qmail/rc", "softlimit -m 8000000 \\\n  env - PATH=/var/qmail/bin:$PATH qmail-start ./Mailbox\n"),
    ],
)
def test_memory_limits_in_every_spelling(machine: Path, file: str, text: str) -> None:
    assert ["too little for" in line for line in said(machine, file, text)].count(True) == 1


def test_a_limit_that_is_enough_or_of_somebody_else_is_nobodys_business(machine: Path) -> None:
    assert said(machine, "service/smtpd/run", LIFE_WITH_QMAIL.replace("2000000", "128000000")) == []
    assert said(machine, "service/smtpd/run", "exec softlimit -m 2000000 tcpserver 0 53 tinydns\n") == []


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ("", ""),
        ("mail.example.org /usr/local/sbin/cmd5checkpw /usr/bin/true", ""),
        ("mail.example.org cmd5checkpw true extra words 2>&1 | logger", ""),
        ("/usr/local/sbin/cmd5checkpw /usr/bin/true 2>&1", "qmail-smtpd wants HOST CHECKER PROGRAM"),
        ("mail.example.org", "qmail-smtpd wants HOST CHECKER PROGRAM"),
        ("/bin/checkpassword /bin/true x", "qmail-smtpd wants HOST CHECKER PROGRAM"),
        ("mail.example.org /usr/bin/true /usr/bin/true", "in C any password is good, ours lets nobody in"),
        ("$AUTH", ""),
        ('"$HOST" cmd5checkpw true', ""),
    ],
)
def test_a_forgotten_host_name_is_found(arguments: str, word: str) -> None:
    (line,) = of(f"exec tcpserver -u qmaild 0 25 {SMTPD} {arguments}\n")[:1]
    found = list(runlines.judge(line, OURS))
    assert [word in one for one in found] == ([True] if word else [])


def test_true_under_another_name_is_found(tmp_path: Path) -> None:
    (tmp_path / "checks").symlink_to("/usr/bin/true")
    (line,) = of(f"exec tcpserver 0 25 {SMTPD} mail.example.org {tmp_path}/checks /usr/bin/true\n")
    (found,) = runlines.judge(line, OURS)
    assert found.endswith("checks for a checker: in C any password is good, ours lets nobody in")


@pytest.mark.parametrize(
    ("line", "as_root"),
    [
        ("tcpserver 0 110 qmail-pop3d Maildir", True),
        ("tcpserver 0 110 qmail-popup mail.example.org qmail-pop3d Maildir", True),
        ("tcpserver 0 110 qmail-popup mail.example.org checkpassword qmail-pop3d Maildir", False),
        ("tcpserver 0 110 qmail-popup mail.example.org /opt/mycheck qmail-pop3d Maildir", False),
        ("tcpserver -vRu1000 0 110 qmail-pop3d Maildir", False),
        ("setuidgid joe tcpserver 0 1110 qmail-pop3d Maildir", False),
    ],
)
def test_a_pop_server_that_would_be_root_is_found(line: str, as_root: bool) -> None:
    (command,) = of(line)
    assert [True for text in runlines.judge(command, OURS) if "is started as root" in text] == (
        [True] if as_root else []
    )


def test_inetd_and_units_name_the_user_themselves(machine: Path) -> None:
    text = (
        "smtp stream tcp nowait qmaild /var/qmail/bin/qmail-smtpd qmail-smtpd cmd5checkpw /bin/true\n"
        "pop3 stream tcp nowait root /var/qmail/bin/qmail-pop3d qmail-pop3d Maildir\n"
        "pop2 stream tcp nowait joe.users /var/qmail/bin/qmail-pop3d qmail-pop3d Maildir\n"
        "# pop stream tcp nowait root /var/qmail/bin/qmail-pop3d qmail-pop3d Maildir\n"
    )
    found = said(machine, "etc/inetd.conf", text)
    assert [line.partition(": ")[0] for line in found] == ["/etc/inetd.conf:1", "/etc/inetd.conf:2"]
    unit = "[Service]\nUser=joe\nExecStart=-/var/qmail/bin/qmail-pop3d Maildir\n"
    (machine / "etc/inetd.conf").unlink()
    assert said(machine, "etc/systemd/system/pop3d@.service", unit) == []
    assert len(said(machine, "etc/systemd/system/pop3d@.service", unit.replace("User=joe\n", ""))) == 1


def test_an_rc_will_start_another_server(machine: Path) -> None:
    text = "#!/bin/sh\nexec env - PATH=/var/qmail/bin:$PATH \\\nqmail-start ./Mailbox splogger qmail\n"
    (line,) = said(machine, "var/qmail/rc", text)
    assert line == "/var/qmail/rc:2: qmail-start starts Pillarbox's own queue and deliveries, and no qmail-send"


@pytest.mark.parametrize(
    "text", ["'open quotation qmail-smtpd a b\n", "\0\xff qmail-smtpd $(a b)\n", "\\\n" * 500, ";;&|()"]
)
def test_what_cannot_be_taken_apart_is_not_guessed_at(machine: Path, text: str) -> None:
    assert said(machine, "service/smtpd/run", text) == []


def test_a_service_with_two_names_is_told_of_once(machine: Path) -> None:
    (machine / "var/qmail/supervise/smtpd").mkdir(parents=True)
    (machine / "var/qmail/supervise/smtpd/run").write_text(LIFE_WITH_QMAIL)
    (machine / "service/smtpd").rmdir()
    (machine / "service/smtpd").symlink_to(machine / "var/qmail/supervise/smtpd")
    assert len(said(machine)) == 1


def test_rules_that_set_what_other_patches_read_are_named(machine: Path) -> None:
    rules = b'127.:allow,RELAYCLIENT="",DATABYTES="1000"\n10.:allow,SPFBEHAVIOR="3",QMAILQUEUE="/q"\n:allow\n'
    run(peer("tcprules"), machine / "etc/tcp.smtp.cdb", machine / "tmp", say=rules)
    text = LIFE_WITH_QMAIL.replace("2000000", "99000000")
    assert said(machine, "service/smtpd/run", text) == [
        "/service/smtpd/run:5: /etc/tcp.smtp.cdb sets SPFBEHAVIOR, which no program of Pillarbox reads"
    ]


def test_routes_and_control_files_are_looked_at_and_no_password_is_shown(machine: Path) -> None:
    control = machine / "var/qmail/control"
    (control / "smtproutes").write_text("example.com:relay.example.net:2500 foo s3cret\nexample.net: bar s3cret\n")
    (control / "smtproutes").chmod(0o644)
    (control / "badrcptto").write_text("x@example.org\n")
    (control / "databytes").write_text("ten\n")
    found = said(machine)
    assert not any("s3cret" in line for line in found)
    assert any("smtproutes" in line and "'example.net:' has a login but no relay" in line for line in found)
    assert any("serve says its password to relay.example.net:2500 only over TLS" in line for line in found)
    assert any("/var/qmail/control/smtproutes: holds passwords, and everybody can read it" in line for line in found)
    assert any(line.startswith("/var/qmail/control/databytes") for line in found)
    assert found[-1] == "/var/qmail/control: no program of Pillarbox reads badrcptto"


def test_who_lets_the_queue_be_replaced_hears_what_that_means(machine: Path) -> None:
    home, programs = machine / "var/qmail", machine / "var/qmail/bin"
    found = list(otherwise(home, programs, {"qmail-queue", "qmail-smtpd", "qmail-pop3d"}, machine))
    assert found == [
        f"{programs}/qmail-queue: is for Pillarbox's own server, which must run; to stay with qmail-send: "
        "--undo, then --only qmail-smtpd,qmail-pop3d"
    ]
    assert list(otherwise(home, programs, {"qmail-smtpd"}, machine)) == []


def test_a_checker_without_a_set_uid_bit_needs_somebody_to_ask(tmp_path: Path) -> None:
    (line,) = otherwise(None, tmp_path, {"cmd5checkpw"}, tmp_path)
    assert line == (
        f"{tmp_path}/cmd5checkpw: where its user may not read its file it asks `pillarbox run checker`; "
        "--setuid OWNER gives it a set-uid bit instead"
    )
    theirs = tmp_path / "cmd5checkpw"
    theirs.write_text("the C program, which is about to be replaced\n")
    theirs.chmod(0o4755)
    assert list(otherwise(None, tmp_path, {"cmd5checkpw"}, tmp_path)) == [line]
    theirs.write_text("#!/bin/sh\n# Put here by pillarbox install\n")
    theirs.chmod(0o4755)
    assert list(otherwise(None, tmp_path, {"cmd5checkpw"}, tmp_path)) == []
