"""Real mail servers as hosts to bring mail to: Postfix, Exim and OpenSMTPD, unpacked and never installed.

Each runs in the foreground in namespaces of its own: mounts, so that the users it wants are in a passwd of its own and
its fixed folders and its programs lie in the test's, where these may enter; processes, so that killing one kills all.
Everywhere joe@example.test and amy@example.test are mailboxes and nobody else is; mail arrives as files below `box`.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pillarbox.cli import certificate
from tests.etc import copy_etc
from tests.peers import bundle
from tests.server import direct_children, until, unused_port

ME = "mx.example.test"
_NOBODY = 65534
_USERS = ("postfix", "opensmtpd", "opensmtpq", "Debian-exim")
_GROUPS = (*_USERS, "postdrop")
_FIRST_ID = 60100

_ENTER = """
mount --bind "$1/etc" /etc
mount --bind "$1/lib" /var/lib
mount --bind "$1/spool" /var/spool
mount --bind "$2" "$1/prefix"
mount -t tmpfs tmpfs /run
[ ! -d "$2/usr/libexec/opensmtpd" ] || mount --bind "$2/usr/libexec" /usr/libexec
shift 2
exec "$@"
"""


@dataclass(frozen=True, slots=True)
class Host:
    """A server that listens on 127.0.0.1."""

    name: str
    port: int
    box: Path
    log: Path

    def received(self) -> list[bytes]:
        """Every mail that has arrived, whole, as its file has it."""
        return [file.read_bytes() for file in sorted(self.box.rglob("*")) if file.is_file() and not _unfinished(file)]

    def await_received(self, token: bytes, copies: int = 1) -> bytes:
        """A mail that holds these octets, once so many of them are there."""

        def look() -> list[bytes]:
            found = [mail for mail in self.received() if token in mail]
            return found if len(found) >= copies else []

        return until(look, f"{token!r} at {self.name}; {self.log.read_text(errors='replace')[-2000:]}")[0]


def _unfinished(file: Path) -> bool:
    return file.parent.name == "tmp" or file.suffix == ".tmp"


POSTFIX_MAIN = """\
compatibility_level = 3.6
command_directory = {prefix}/usr/sbin
daemon_directory = {prefix}/usr/lib/postfix/sbin
shlib_directory = {prefix}/usr/lib/postfix
meta_directory = {prefix}/etc/postfix
queue_directory = {home}/queue
data_directory = {home}/data
import_environment = MAIL_CONFIG MAIL_LOGTAG TZ LANG=C LD_LIBRARY_PATH={libraries}
mail_owner = postfix
setgid_group = postdrop
myhostname = {me}
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
alias_maps =
alias_database =
virtual_mailbox_domains = example.test
virtual_mailbox_base = {box}
virtual_mailbox_maps = inline:{{{{joe@example.test=joe/}}, {{amy@example.test=amy/}}}}
virtual_uid_maps = static:{nobody}
virtual_gid_maps = static:{nobody}
virtual_minimum_uid = 1
smtpd_tls_cert_file = {home}/cert.pem
smtpd_tls_key_file = {home}/key.pem
smtpd_tls_security_level = {tls}
smtp_dns_support_level = disabled
maillog_file_prefixes = {home}
maillog_file = {home}/maillog
"""
# service type private unpriv chroot wakeup maxproc command
POSTFIX_MASTER = """\
127.0.0.1:{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
tlsmgr unix - - n 1000? 1 tlsmgr
proxymap unix - - n - - proxymap
error unix - - n - - error
retry unix - - n - - error
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
"""

EXIM = """\
exim_path = {prefix}/usr/sbin/exim4
exim_user = Debian-exim
exim_group = Debian-exim
spool_directory = {home}/queue
log_file_path = {home}/data/%slog
primary_hostname = {me}
daemon_smtp_ports = {port}
local_interfaces = 127.0.0.1
domainlist local_domains = example.test
acl_smtp_rcpt = check_rcpt
tls_advertise_hosts = {tls}
tls_certificate = {home}/cert.pem
tls_privatekey = {home}/data/key.pem
host_lookup =
keep_environment =
begin acl
check_rcpt:
  accept domains = +local_domains
         local_parts = joe : amy
  accept authenticated = *
  deny message = no such user here
begin routers
all:
  driver = accept
  transport = keep
begin transports
keep:
  driver = appendfile
  directory = {box}
  maildir_format
  user = Debian-exim
  create_directory
begin authenticators
{authenticators}"""
# What each way to log in is to Exim, by the name that it offers.
EXIM_LOGINS = {
    "PLAIN": """\
plain:
  driver = plaintext
  public_name = PLAIN
  server_condition = ${if and{{eq{$auth2}{joe}}{eq{$auth3}{s3cret word}}}}
  server_set_id = $auth2
""",
    "LOGIN": """\
login:
  driver = plaintext
  public_name = LOGIN
  server_prompts = Username:: : Password::
  server_condition = ${if and{{eq{$auth1}{joe}}{eq{$auth2}{s3cret word}}}}
  server_set_id = $auth1
""",
    "CRAM-MD5": """\
cram:
  driver = cram_md5
  public_name = CRAM-MD5
  server_secret = ${if eq{$auth1}{joe}{s3cret word}fail}
  server_set_id = $auth1
""",
}
EXIM_OVER_TLS = "  server_advertise_condition = ${if def:tls_in_cipher}\n"

OPENSMTPD = """\
pki {me} cert "{home}/cert.pem"
pki {me} key "{home}/key.pem"
table mailboxes {{ joe@example.test, amy@example.test }}
listen on 127.0.0.1 port {port} hostname {me} {tls}
action "keep" mda "cat > {box}/$$.tmp && mv {box}/$$.tmp {box}/$$" user nobody
match from any for rcpt-to <mailboxes> action "keep"
"""


@contextmanager
def postfix(home: Path, *, tls: bool = True) -> Iterator[Host]:
    """Debian's Postfix."""
    unpacked, prefix = bundle("postfix"), home / "prefix"
    libraries = _libraries(unpacked, prefix)
    port, box = _prepared(home)
    level = "may" if tls else "none"
    _write(home / "main.cf", POSTFIX_MAIN, home, port, prefix=prefix, libraries=libraries, tls=level)
    _write(home / "master.cf", POSTFIX_MASTER, home, port)
    os.chown(home / "data", _id("postfix"), 0)
    command = [prefix / "usr/sbin/postfix", "-c", home, "start-fg"]
    with _running("Postfix", unpacked, home, port, command):
        yield Host("Postfix", port, box, home / "maillog")


@contextmanager
def exim(
    home: Path, *, tls: bool = True, logins: Sequence[str] = tuple(EXIM_LOGINS), clear: bool = False
) -> Iterator[Host]:
    """Debian's Exim. It lets joe log in with `s3cret word`, in clear by CRAM-MD5 only or, with `clear`, by each way
    that it offers, and takes any recipient then."""
    unpacked, prefix = bundle("exim"), home / "prefix"
    port, box = _prepared(home)
    more = {name: "" if clear or name == "CRAM-MD5" else EXIM_OVER_TLS for name in logins}
    authenticators = "".join(EXIM_LOGINS[name] + condition for name, condition in more.items())
    written = {"prefix": prefix, "tls": "*" if tls else "", "authenticators": authenticators}
    _write(home / "exim.conf", EXIM, home, port, **written)
    (home / "data/key.pem").write_bytes((home / "key.pem").read_bytes())
    for place in (home / "queue", home / "data", home / "data/key.pem"):
        os.chown(place, _id("Debian-exim"), _id("Debian-exim"))
    command = [prefix / "usr/sbin/exim4", "-C", home / "exim.conf", "-bdf"]
    with _running("Exim", unpacked, home, port, command):
        yield Host("Exim", port, box, home / "data/mainlog")


@contextmanager
def opensmtpd(home: Path, *, tls: bool = True) -> Iterator[Host]:
    """Debian's OpenSMTPD."""
    unpacked, prefix = bundle("opensmtpd"), home / "prefix"
    port, box = _prepared(home)
    (home / "lib/opensmtpd/empty").mkdir(parents=True)
    _write(home / "smtpd.conf", OPENSMTPD, home, port, tls=f"tls pki {ME}" if tls else "")
    (home / "smtpd.conf").chmod(0o600)
    command = [prefix / "usr/sbin/smtpd", "-d", "-f", home / "smtpd.conf"]
    with _running("OpenSMTPD", unpacked, home, port, command):
        yield Host("OpenSMTPD", port, box, home / "log")


Starter = Callable[..., AbstractContextManager[Host]]
ALL: tuple[Starter, ...] = (postfix, exim, opensmtpd)


@contextmanager
def place() -> Iterator[Path]:
    """A folder that the users of a server may enter; a test's own are closed to them."""
    with tempfile.TemporaryDirectory(prefix="pillarbox-hosts-") as directory:
        os.chmod(directory, 0o755)
        yield Path(directory) / "home"


def _prepared(home: Path) -> tuple[int, Path]:
    """Folders, users, certificate; a free port, and the folder that mail arrives in."""
    if os.getuid() != 0 or subprocess.run(["unshare", "-m", "-p", "-f", "true"], capture_output=True).returncode:
        pytest.skip("needs root, and leave to unshare mounts and processes")
    for name in ("prefix", "queue", "data", "box", "lib", "spool"):
        (home / name).mkdir(parents=True)
    (home / "box").chmod(0o777)
    (home / "spool").chmod(0o711)
    users = "".join(f"{name}:x:{_id(name)}:{_id(name)}::/nonexistent:/usr/sbin/nologin\n" for name in _USERS)
    users += "".join(f"{name}:x:{_NOBODY}:{_NOBODY}::/nonexistent:/bin/sh\n" for name in ("joe", "amy"))
    groups = "".join(f"{name}:x:{_id(name)}:\n" for name in _GROUPS)
    # All of /etc: a mount over one of its files is gone as soon as somebody else puts a new file there.
    etc = home / "etc"
    copy_etc(etc, without=(*_GROUPS, "joe", "amy"))
    for name, more in (("passwd", users), ("group", groups)):
        (etc / name).write_text((etc / name).read_text() + more)
    (etc / "resolv.conf").unlink(missing_ok=True)
    (etc / "resolv.conf").write_text("lookup file\n")
    _certify(home)
    return unused_port(), home / "box"


@contextmanager
def free_port() -> Iterator[int]:
    """A port that nobody has; it is kept until the context's end."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        yield free.getsockname()[1]


def _id(name: str) -> int:
    return _FIRST_ID + _GROUPS.index(name)


def _certify(home: Path) -> None:
    key = certificate.new_key()
    (home / "cert.pem").write_bytes(certificate.self_signed(key, ME, datetime.now(UTC)))
    (home / "key.pem").write_bytes(key)
    (home / "key.pem").chmod(0o600)


def _write(file: Path, text: str, home: Path, port: int, **more: object) -> None:
    file.write_text(text.format(home=home, port=port, me=ME, box=home / "box", nobody=_NOBODY, **more))


def _libraries(unpacked: Path, prefix: Path) -> str:
    """LD_LIBRARY_PATH for programs that are unpacked there and found here."""
    folders = [unpacked / "usr/lib/postfix", *sorted((unpacked / "usr/lib").glob("*-linux-gnu*"))]
    return ":".join(str(prefix / folder.relative_to(unpacked)) for folder in folders)


@contextmanager
def _running(name: str, unpacked: Path, home: Path, port: int, command: Sequence[object]) -> Iterator[None]:
    inside = ["unshare", "-m", "-p", "-f", "--kill-child", "--mount-proc", "sh", "-euc", _ENTER, "sh", home, unpacked]
    environment = {**os.environ, "LD_LIBRARY_PATH": _libraries(unpacked, home / "prefix")}
    with open(home / "log", "wb") as log:
        process = subprocess.Popen(
            list(map(str, [*inside, *command])), stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment
        )
    try:
        until(lambda: process.poll() is not None or greets(port), f"{name}: {(home / 'log').read_text()}")
        assert process.poll() is None, f"{name} does not start: {(home / 'log').read_text(errors='replace')}"
        yield
    finally:
        # With the first process of its namespace all others go. That one forgets to die with its parent, as unshare
        # asked it to, when it changes its user.
        for first, _name in direct_children(process.pid):
            os.kill(first, signal.SIGKILL)
        process.kill()
        process.wait()


def greets(port: int) -> bool:
    """Whether an SMTP server is there already."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        return connection.recv(3) == b"220"
    return False
