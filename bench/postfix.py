"""Debian's Postfix as the thing to compare with: unpacked privately, never installed, with its default safety.

Every mailbox of example.test is virtual and a Maildir, so that both servers do the same work on the same disk.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from bench.machine import free_port, wait_for_greeting

OWNER = 65534  # uid and gid of the mailboxes: nobody's
ACCOUNTS = (("postfix", "/nonexistent"), ("postdrop", None))  # the user and the group that it wants

MAIN_CF = """\
compatibility_level = 3.6
command_directory = {prefix}/usr/sbin
daemon_directory = {prefix}/usr/lib/postfix/sbin
shlib_directory = {prefix}/usr/lib/postfix
meta_directory = {prefix}/etc/postfix
queue_directory = {home}/spool
data_directory = {home}/data
import_environment = MAIL_CONFIG MAIL_LOGTAG TZ LANG=C LD_LIBRARY_PATH={libraries}
mail_owner = postfix
setgid_group = postdrop
myhostname = mx.example.test
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
alias_maps =
alias_database =
virtual_mailbox_domains = example.test
virtual_mailbox_base = {home}/mail
virtual_mailbox_maps = inline:{{{maps}}}
virtual_uid_maps = static:{owner}
virtual_gid_maps = static:{owner}
virtual_minimum_uid = 1
smtpd_client_connection_count_limit = 0
smtp_dns_support_level = disabled
smtp_host_lookup = native
maillog_file_prefixes = {home}
maillog_file = {home}/maillog
"""

# service type private unpriv chroot wakeup maxproc command
MASTER_CF = """\
127.0.0.1:{port} inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
virtual unix - n n - - virtual
local unix - n n - - local
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""


def libraries(prefix: Path) -> str:
    """LD_LIBRARY_PATH for programs of this prefix."""
    return ":".join(map(str, [prefix / "usr/lib/postfix", *sorted((prefix / "usr/lib").glob("*-linux-gnu*"))]))


@contextmanager
def users() -> Iterator[None]:
    """The user postfix and the group postdrop; what had to be created is removed again."""
    made = []
    if subprocess.run(["getent", "group", "postdrop"], capture_output=True).returncode:
        subprocess.run(["groupadd", "--system", "postdrop"], check=True)
        made.append(["groupdel", "postdrop"])
    if subprocess.run(["getent", "passwd", "postfix"], capture_output=True).returncode:
        command = ["useradd", "--system", "--no-create-home", "--home-dir", "/nonexistent"]
        subprocess.run([*command, "--shell", "/usr/sbin/nologin", "postfix"], check=True)
        made.append(["userdel", "postfix"])
    try:
        yield
    finally:
        for command in made:
            subprocess.run(command, check=True)


@contextmanager
def running(
    prefix: Path, home: Path, names: list[str], settings: Mapping[str, str] | None = None
) -> Iterator[tuple[int, int]]:
    """Postfix serving the mailboxes `names`@example.test under `home`/mail. `settings` take the place of lines of
    main.cf. Yields its port and its master's pid."""
    port = free_port()
    for directory in ("etc", "spool", "data", "mail"):
        (home / directory).mkdir(parents=True)
    os.chown(home / "mail", OWNER, OWNER)
    subprocess.run(["chown", "postfix", home / "data"], check=True)
    maps = ", ".join(f"{{{name}@example.test={name}/Maildir/}}" for name in names)
    paths = libraries(prefix)
    lines = MAIN_CF.format(prefix=prefix, home=home, libraries=paths, maps=maps, owner=OWNER)
    for name, value in (settings or {}).items():
        lines = re.sub(rf"^{name} =.*\n", "", lines, flags=re.MULTILINE) + f"{name} = {value}\n"
    (home / "etc/main.cf").write_text(lines)
    (home / "etc/master.cf").write_text(MASTER_CF.format(port=port))
    control = [str(prefix / "usr/sbin/postfix"), "-c", str(home / "etc")]
    environment = {**os.environ, "LD_LIBRARY_PATH": paths}
    started = subprocess.run([*control, "start"], env=environment, capture_output=True, text=True)
    if started.returncode:
        raise SystemExit(f"bench: Postfix does not start: {started.stdout}{started.stderr}")
    try:
        wait_for_greeting(port)
        yield port, int((home / "spool/pid/master.pid").read_text())
    finally:
        subprocess.run([*control, "stop"], env=environment, capture_output=True, check=True)
        pass
