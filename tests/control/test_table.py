"""The table of control files: qmail's reading of qmail's files, strictness for ours, one line of complaint each."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as effort
from hypothesis import strategies as st

from pillarbox.control import reading, table
from pillarbox.control.table import TABLE, Complaint, Listener, Settings, read, reread

QMAILS = """me badmailfrom bouncefrom bouncehost concurrencylocal concurrencyremote databytes defaultdomain defaulthost
doublebouncehost doublebounceto envnoathost helohost idhost localiphost locals morercpthosts percenthack plusdomain
queuelifetime rcpthosts smtpgreeting smtproutes timeoutconnect timeoutremote timeoutsmtpd virtualdomains"""
OURS = """listen tlscert tlskey authcleartext crammd5 maxrecipients spoolsize draintime defaultdelivery aliases
rcptcheck roleusers checkers smtppasswd checkerusers sendas cleartextroutes resolvers bounceformat bouncesize
tcprules rbl logformat"""


@pytest.fixture
def control(tmp_path: Path) -> Path:
    (tmp_path / "me").write_bytes(b"mx.example.org\n")
    (tmp_path / "rcpthosts").write_bytes(b"localhost\n")
    return tmp_path


def value(control: Path, name: str, text: bytes) -> object:
    (control / name).write_bytes(text)
    settings, complaints = read(control)
    assert complaints == []
    return getattr(settings, name)


def complaint(control: Path, name: str, text: bytes) -> tuple[object, str, bool]:
    """The value taken, the line and its severity, for a file that must cause exactly one complaint."""
    (control / name).write_bytes(text)
    settings, complaints = read(control)
    assert len(complaints) == 1, complaints
    line = str(complaints[0])
    assert line.isprintable()
    return getattr(settings, name), line, complaints[0].fatal


def test_every_field_stands_in_the_table_with_help_and_readers() -> None:
    assert list(TABLE) == [*QMAILS.split(), *OURS.split()]
    assert [name for name, entry in TABLE.items() if entry.ours] == OURS.split()
    for name, entry in TABLE.items():
        assert entry.help and entry.readers and entry.form and entry.kind, name


def test_without_files_everything_has_qmails_default(control: Path) -> None:
    settings, complaints = read(control)
    assert complaints == []
    assert settings.locals == {b"mx.example.org"}
    assert settings.envnoathost == settings.helohost == settings.smtpgreeting == b"mx.example.org"
    assert (settings.databytes, settings.queuelifetime, settings.timeoutsmtpd) == (0, 604800, 1200)
    assert (settings.concurrencylocal, settings.concurrencyremote) == (10, 20)
    assert settings.bouncefrom == b"MAILER-DAEMON"
    assert (settings.maxrecipients, settings.spoolsize, settings.draintime) == (1000, 262144, 30)
    assert (settings.rcptcheck, settings.logformat, settings.bounceformat) == ("users", "text", "qsbmf")
    assert (settings.tlscert, settings.tlskey, settings.tcprules) == ("tls/cert.pem", "tls/key.pem", None)
    assert (settings.authcleartext, settings.crammd5, settings.listen) == (False, False, ())
    assert settings.defaultdelivery == b"./Maildir/\n"


def test_settings_built_by_hand_follow_their_me() -> None:
    settings = Settings(me=b"MX.example")
    assert settings.locals == {b"mx.example"}
    assert settings.envnoathost == b"MX.example"
    assert Settings().bouncehost == b"bouncehost"
    assert Settings(me=b"mx", locals=frozenset()).locals == frozenset()


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("smtpgreeting", b"hello there \t\nsecond line", b"hello there"),
        ("envnoathost", b"a.example", b"a.example"),
        ("databytes", b"1000\nrest", 1000),
        ("databytes", b"0" * 5000 + b"7", 7),
        ("locals", b"A.Example\n\n# b.example\n  \nc.example \t\nd.ex", {b"a.example", b"c.example", b"d.ex"}),
        ("rcpthosts", b"", frozenset()),
        ("rcpthosts", b".Wild.example\n", {b".wild.example"}),
        ("badmailfrom", b"@Bad.ex\n.worse.ex\njoe@ok.ex\n", {b"@bad.ex", b".worse.ex", b"joe@ok.ex"}),
        ("virtualdomains", b"A.ex:1\na.ex:Two\n:all\nj@b.ex:x:y\n", {b"a.ex": b"Two", b"": b"all", b"j@b.ex": b"x:y"}),
        (
            "resolvers",
            b"127.0.0.1\n[::1]:5353\n# ours\n::1\n192.0.2.1:54\n",
            (("127.0.0.1", 53), ("::1", 5353), ("::1", 53), ("192.0.2.1", 54)),
        ),
        ("smtproutes", b"a.ex:relay:26 user pass\n:\n", {b"a.ex": b"relay:26 user pass", b"": b""}),
        ("authcleartext", b"1\n", True),
        ("crammd5", b"0", False),
        ("rcptcheck", b"owner\n", "owner"),
        ("tlscert", b"/etc/ssl/my cert.pem\n", "/etc/ssl/my cert.pem"),
        ("defaultdelivery", b"# text\n./Mail/\n|prog\n", b"# text\n./Mail/\n|prog\n"),
        ("smtppasswd", b"/etc/poppasswd\n", "/etc/poppasswd"),
        ("checkerusers", b"qmaild\n# popup\nvmail\n", ("qmaild", "vmail")),
        ("checkers", b"shadow\n/bin/checkpassword -x y\n", (b"shadow", b"/bin/checkpassword -x y")),
        ("sendas", b"Joe@a.ex:Sales@a.ex\njoe@a.ex:@b.ex\n", {b"joe@a.ex": (b"sales@a.ex", b"@b.ex")}),
        ("roleusers", b"smtpd:_smtp\n", {"smtpd": "_smtp"}),
        ("cleartextroutes", b"Relay.example\n", {b"relay.example"}),
        ("spoolsize", b"0\n", 0),
        (
            "listen",
            b"# ports\nsmtp 0.0.0.0:25\nsubmission\t[::1]:587\npop3 127.0.0.1:0\npop3s 127.0.0.1:0\n",
            (
                Listener("smtp", "0.0.0.0", 25),
                Listener("submission", "::1", 587),
                Listener("pop3", "127.0.0.1", 0),
                Listener("pop3s", "127.0.0.1", 0),
            ),
        ),
    ],
)  # fmt: skip
def test_a_file_means_what_it_says(control: Path, name: str, text: bytes, expected: object) -> None:
    assert value(control, name, text) == expected


@pytest.mark.parametrize(
    ("name", "text", "expected", "line"),
    [
        ("databytes", b"ten\n", 0,
         "control/databytes: line 1: not a number: 'ten'; taken as absent, the default 0 holds"),
        ("databytes", b"", 0, "control/databytes: line 1: not a number: ''; taken as absent, the default 0 holds"),
        ("databytes", b"10k", 10, "control/databytes: line 1: '10k' is read as 10: only leading digits count"),
        ("databytes", b"9" * 5000, (1 << 63) - 1,
         f"control/databytes: line 1: '{'9' * 60}...' is outside 0 to 9223372036854775807"),
        ("timeoutsmtpd", b"0", 1, "control/timeoutsmtpd: line 1: '0' is outside 1 to 2147483647"),
        ("envnoathost", b"two words\n", b"two words", "control/envnoathost: line 1: odd value 'two words'"),
        ("envnoathost", b"a.example\r\n", b"a.example\r", "control/envnoathost: line 1: odd value 'a.example\\x0d'"),
        ("locals", b"ok\na b\nc d\n", {b"ok", b"a b", b"c d"},
         "control/locals: line 2: 'a b' matches nothing (and 1 more)"),
        ("rcpthosts", b"joe@a.example\n", {b"joe@a.example"},
         "control/rcpthosts: line 1: 'joe@a.example' matches nothing"),
        ("badmailfrom", b"bad.example\n", {b"bad.example"},
         "control/badmailfrom: line 1: 'bad.example' matches nothing"),
        ("virtualdomains", b"\na.example\n", {},
         "control/virtualdomains: line 2: 'a.example' has no colon and is ignored"),
        ("smtproutes", b"relay.example user hunter2\n", {},
         "control/smtproutes: line 1: the line has no colon and is ignored"),
        ("percenthack", b"\xff\x00\n", {b"\xff\x00"}, "control/percenthack: line 1: '\\xff\\x00' matches nothing"),
    ],
)  # fmt: skip
def test_nonsense_in_qmails_files_is_qmails_reading_and_one_warning(
    control: Path, name: str, text: bytes, expected: object, line: str
) -> None:
    assert complaint(control, name, text) == (expected, line, False)


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("maxrecipients", b"ten",
         "line 1: not a number: 'ten'; write a whole number from 1 to 1000000, or remove the file"),
        ("maxrecipients", b"10k",
         "line 1: not a number: '10k'; write a whole number from 1 to 1000000, or remove the file"),
        ("maxrecipients", b"0",
         "line 1: '0' is outside 1 to 1000000; write a whole number from 1 to 1000000, or remove the file"),
        ("authcleartext", b"yes", "line 1: neither 0 nor 1: 'yes'; write 0 or 1, or remove the file"),
        ("rcptcheck", b"on", "line 1: unknown word 'on'; write one of users, off, owner, or remove the file"),
        ("logformat", b"", "line 1: unknown word ''; write one of text, json, or remove the file"),
        ("tlskey", b"\n",
         "line 1: not a file name: ''; write a file name, absolute or relative to the home, or remove the file"),
        ("defaultdelivery", b"\n./Maildir/\n",
         "line 1: no delivery instruction in the first line; write dot-qmail lines, or remove the file"),
        ("defaultdelivery", b"./\0/\n", "holds a NUL byte; write dot-qmail lines, or remove the file"),
        ("smtppasswd", b"\n", "line 1: not a file name: ''; write a file name, absolute or relative to the home, "
         "or remove the file"),
        ("checkerusers", b"qmaild\njoe smith\n", "line 2: not the name of a user: 'joe smith'; write one user a line, "
         "or remove the file"),
        ("checkers", b"checkpassword\n", "line 1: neither 'shadow' nor an absolute command line: 'checkpassword'; "
         "write lines 'shadow' or /PATH/TO/CHECKPASSWORD ARGUMENTS, or remove the file"),
        ("sendas", b"joe\n", "line 1: not LOGIN:ADDRESS or LOGIN:@DOMAIN: 'joe'; "
         "write lines LOGIN:ADDRESS or LOGIN:@DOMAIN, or remove the file"),
        ("sendas", b"joe:.suffix\n", "line 1: not LOGIN:ADDRESS or LOGIN:@DOMAIN: 'joe:.suffix'; "
         "write lines LOGIN:ADDRESS or LOGIN:@DOMAIN, or remove the file"),
        ("cleartextroutes", b"a b\n", "line 1: 'a b' matches nothing; write one relay a line, or remove the file"),
    ],
)  # fmt: skip
def test_nonsense_in_our_files_is_fatal_and_says_what_to_write(
    control: Path, name: str, text: bytes, line: str
) -> None:
    assert complaint(control, name, text) == (getattr(Settings(me=b"mx"), name), f"control/{name}: {line}", True)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"smtp\n", "line 1: not SERVICE ADDRESS:PORT: 'smtp'"),
        (b"smtp 25\n", "line 1: not SERVICE ADDRESS:PORT: 'smtp 25'"),
        (b"ok\nsmtp 127.0.0.1\n", "line 1: not SERVICE ADDRESS:PORT: 'ok'"),
        (b"imap 127.0.0.1:143\n", "line 1: unknown service: 'imap 127.0.0.1:143'"),
        (b"smtp 127.0.0.1:25\nsmtp 300.0.0.1:25\n", "line 2: not an IP address: 'smtp 300.0.0.1:25'"),
        (b"smtp [::z]:25\n", "line 1: not SERVICE ADDRESS:PORT: 'smtp [::z]:25'"),
        (b"smtp [1:2]:25\n", "line 1: not an IP address: 'smtp [1:2]:25'"),
        (b"smtp localhost:25\n", "line 1: not SERVICE ADDRESS:PORT: 'smtp localhost:25'"),
        (b"smtp 127.0.0.1:65536\n", "line 1: no such port: 'smtp 127.0.0.1:65536'"),
        (b"smtp 127.0.0.1:25\npop3 127.0.0.1:25\n",
         "line 2: the address is already taken by another line: 'pop3 127.0.0.1:25'"),
        ("smtp 127.0.0.1:٢٥\n".encode(), "line 1: not SERVICE ADDRESS:PORT: 'smtp 127.0.0.1:\\xd9\\xa2\\xd9\\xa5'"),
    ],
)  # fmt: skip
def test_a_listener_that_cannot_be_is_fatal(control: Path, text: bytes, problem: str) -> None:
    listening, line, fatal = complaint(control, "listen", text)
    assert listening == () and fatal
    assert line.startswith(f"control/listen: {problem}; write lines SERVICE ADDRESS:PORT, ")


def test_passwords_in_routes_are_never_quoted(control: Path) -> None:
    for text in (b"relay.example user hunter2\n", b"bad host:relay user hunter2\n"):
        (control / "smtproutes").write_bytes(text)
        assert "hunter2" not in " ".join(map(str, read(control)[1]))


def test_a_missing_me_is_fatal_unless_locals_and_greeting_stand_in(control: Path) -> None:
    (control / "me").unlink()
    settings, complaints = read(control)
    assert [str(c) for c in complaints if c.fatal] == [
        "control/me: missing or empty; write this host's full name into it"
    ]
    assert settings.locals == frozenset()
    (control / "locals").write_bytes(b"localhost\n")
    (control / "smtpgreeting").write_bytes(b"hello\n")
    assert read(control)[1] == []


def test_a_missing_rcpthosts_is_said_aloud(control: Path) -> None:
    (control / "rcpthosts").unlink()
    settings, complaints = read(control)
    assert settings.rcpthosts is None
    assert [str(c) for c in complaints] == [
        "control/rcpthosts: missing: anybody may send mail to every domain through this server; "
        "list the domains that mail is taken for"
    ]
    assert not complaints[0].fatal


def test_a_domain_both_local_and_virtual_is_said(control: Path) -> None:
    _, line, fatal = complaint(control, "virtualdomains", b"mx.example.org:joe\n")
    assert line == "control/virtualdomains: 'mx.example.org' is in control/locals too, which wins"
    assert not fatal


def test_a_form_of_bounces_that_is_not_there_yet_is_said(control: Path) -> None:
    _, line, fatal = complaint(control, "bounceformat", b"report\n")
    assert line == "control/bounceformat: report is not there yet; bounces have the form qsbmf"
    assert not fatal


def test_a_file_that_cannot_be_read_is_fatal_whoever_it_belongs_to(control: Path) -> None:
    (control / "databytes").mkdir()
    settings, complaints = read(control)
    assert settings.databytes == 0
    assert [str(c) for c in complaints] == [
        "control/databytes: cannot read it: Is a directory; make it readable for this user, or remove it"
    ]
    assert complaints[0].fatal


def test_a_fifo_in_the_directory_holds_nobody_up(control: Path) -> None:
    os.mkfifo(control / "badmailfrom")
    assert read(control)[0].badmailfrom == frozenset()


def test_a_file_without_end_is_not_read_whole(control: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "LARGEST_FILE", 100)
    (control / "badmailfrom").write_bytes(b"a@b.ex\n" * 20)
    settings, complaints = read(control)
    assert settings.badmailfrom == frozenset()
    assert str(complaints[0]).startswith("control/badmailfrom: cannot read it: File too large")


def test_on_a_second_reading_a_broken_file_keeps_its_old_value(control: Path) -> None:
    (control / "maxrecipients").write_bytes(b"5\n")
    (control / "databytes").write_bytes(b"5\n")
    old, _ = read(control)
    (control / "maxrecipients").write_bytes(b"five\n")
    (control / "databytes").write_bytes(b"five\n")
    (control / "queuelifetime").write_bytes(b"60\n")
    new, complaints = reread(control, old)
    assert (new.maxrecipients, new.databytes, new.queuelifetime) == (5, 0, 60)
    assert [str(c) for c in complaints] == [
        "control/databytes: line 1: not a number: 'five'; taken as absent, the default 0 holds",
        "control/maxrecipients: line 1: not a number: 'five'; the old value holds",
    ]


def test_on_a_second_reading_a_lost_me_changes_nothing_that_follows_it(control: Path) -> None:
    (control / "helohost").write_bytes(b"helo.example\n")
    old, _ = read(control)
    (control / "me").unlink()
    new, complaints = reread(control, old)
    assert new == old
    assert [c.file for c in complaints] == ["me"]


def test_on_a_second_reading_a_new_me_is_followed(control: Path) -> None:
    old, _ = read(control)
    (control / "me").write_bytes(b"new.example\n")
    assert reread(control, old)[0].envnoathost == b"new.example"


def test_morercpthosts_counts_only_compiled_and_beside_rcpthosts(control: Path) -> None:
    (control / "morercpthosts").write_bytes(b"a.example\n")
    assert read(control)[0].morercpthosts is None
    (control / "morercpthosts.cdb").write_bytes(b"")
    assert read(control)[0].morercpthosts == "control/morercpthosts.cdb"
    (control / "rcpthosts").unlink()
    assert read(control)[0].morercpthosts is None


def test_misspelled_files_are_told(control: Path) -> None:
    (control / "databyte").write_bytes(b"1")
    (control / "morercpthosts.cdb").write_bytes(b"")
    assert table.unknown(control) == ["databyte"]


def test_listeners_and_complaints_print_as_they_are_written() -> None:
    assert str(Listener("smtp", "127.0.0.1", 25)) == "smtp 127.0.0.1:25"
    assert str(Listener("pop3s", "::1", 995)) == "pop3s [::1]:995"
    assert str(Complaint("me", None, "missing", True)) == "control/me: missing"


def test_the_fingerprint_changes_with_any_control_file_and_nothing_else(control: Path) -> None:
    before = table.fingerprint(control)
    (control / "notes").write_bytes(b"mine")
    assert table.fingerprint(control) == before
    (control / "virtualdomains").write_bytes(b"a:b\n")
    after = table.fingerprint(control)
    assert after != before
    (control / "virtualdomains").write_bytes(b"a:bc\n")
    assert table.fingerprint(control) != after
    (control / "virtualdomains").unlink()
    assert table.fingerprint(control) == before


@given(name=st.sampled_from(sorted(TABLE)), text=st.binary(max_size=200) | st.text("019 :@.#[]-a\n").map(str.encode))
@effort(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_content_whatever_stops_the_reader_or_makes_two_lines(tmp_path: Path, name: str, text: bytes) -> None:
    for file in tmp_path.iterdir():
        file.unlink()
    for needed in ("me", "rcpthosts", "locals"):
        (tmp_path / needed).write_bytes(b"mx.example.org\n")
    (tmp_path / name).write_bytes(text)
    settings, complaints = read(tmp_path)
    assert all(str(complaint).isprintable() for complaint in complaints)
    assert len([complaint for complaint in complaints if complaint.file == name]) <= 2
    again, _ = reread(tmp_path, settings)
    assert again == settings


def test_a_list_of_domains_that_cannot_be_read_is_not_called_missing(control: Path) -> None:
    (control / "rcpthosts").unlink(missing_ok=True)
    (control / "rcpthosts").mkdir()  # no file: it cannot be read by root either
    lines = [str(complaint) for complaint in read(control)[1] if complaint.file == "rcpthosts"]
    assert len(lines) == 1 and "missing" not in lines[0]


@pytest.mark.parametrize(
    "line", [b"ns.example", b"127.0.0.1:0", b"127.0.0.1:65536", b"1.2.3", b"[::1", b":53", b"1:2:3"]
)
def test_a_name_server_that_is_no_address_is_an_error(control: Path, line: bytes) -> None:
    taken, said, fatal = complaint(control, "resolvers", b"127.0.0.1\n" + line + b"\n")
    assert (taken, fatal) == ((), True) and said.startswith("control/resolvers: line 2: not ADDRESS or ADDRESS:PORT")


def test_one_setting_is_read_alone(control: Path) -> None:
    assert table.one(control, "smtppasswd") == "/usr/local/etc/smtp.passwd"
    (control / "smtppasswd").write_bytes(b"users/smtp\n")
    (control / "listen").write_bytes(b"nonsense\n")
    assert table.one(control, "smtppasswd") == "users/smtp"
    assert table.one(control, "rcpthosts") == {b"localhost"}
    assert table.one(control, "virtualdomains") == {}
    with pytest.raises(table.Nonsense, match=r"^control/listen: line 1: .*; write lines SERVICE ADDRESS:PORT"):
        table.one(control, "listen")
    (control / "smtppasswd").unlink()
    (control / "smtppasswd").mkdir()
    with pytest.raises(table.Nonsense, match=r"^control/smtppasswd: cannot read it: Is a directory$"):
        table.one(control, "smtppasswd")
