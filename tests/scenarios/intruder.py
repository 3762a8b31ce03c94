"""`pillarbox`, where somebody has broken into every role: as soon as a role has its rights it tries what must not be.

What came of it goes to the file NAME of $RIGHTS (JSON: attempt -> "denied", or what happened), NAME being the role's;
of an owner role `owner-` and its user. Then the role does its work. Where $RIGHTS/turn-NAME is, the role is tried a
second way: it takes the links that it is given, says to its peers what it must not, tells that in NAME-said, and ends;
the next one of that name does its work.
"""

from __future__ import annotations

import ctypes
import json
import os
import pwd
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pillarbox.cli.main import main
from pillarbox.roles import auth, owner, pop3d, queue, remote, smtpd, spawn, users
from pillarbox.roles.house import House
from pillarbox.roles.link import Frame, Link, LinkLost
from pillarbox.roles.verbs import MAY_SAY, SUPERVISOR_SAYS, Verb
from tests.server import NotInTime, until

RIGHTS = Path(os.environ.get("RIGHTS", "/nonexistent"))
EVERY_ROLE = {"auth", "pop3d", "queue", "remot", "smtpd", "spawn", "users"}  # as the kernel has their names
MODULES = {
    "auth": auth,
    "owner": owner,
    "pop3d": pop3d,
    "queue": queue,
    "remote": remote,
    "smtpd": smtpd,
    "spawn": spawn,
    "users": users,
}
PATIENCE = 5.0  # seconds
PTRACE_SEIZE = 0x4206
PR_GET_DUMPABLE = 3
LIBC = ctypes.CDLL(None, use_errno=True)

Attempt = Callable[[], object]
Report = dict[str, object]


def broken_into(role: str, work: Callable[[House, socket.socket], None]) -> Callable[[House, socket.socket], None]:
    """The role's `run`, with an intruder in it."""

    def run(house: House, control: socket.socket) -> None:
        name = f"owner-{pwd.getpwuid(os.getuid()).pw_name}" if role == "owner" else role
        if not (RIGHTS / name).exists():
            # root may all of it, and would lose his rights by trying
            tries = attempts(house.home) if os.getuid() != 0 else ()
            tell(name, {"facts": facts(), **{about: outcome(attempt) for about, attempt in tries}})
        if (RIGHTS / f"turn-{name}").exists() and not (RIGHTS / f"{name}-said").exists():
            tell(f"{name}-said", speak(role, control))
            return
        work(house, control)

    return run


def tell(name: str, report: Report) -> None:
    """Whole or not at all."""
    beside = RIGHTS / f".{name}.{os.getpid()}"
    beside.write_text(json.dumps(report))
    beside.rename(RIGHTS / name)


def outcome(attempt: Attempt) -> str:
    try:
        return f"DONE: {attempt()!r}"
    except PermissionError:
        return "denied"
    except OSError as problem:
        return f"{problem}"


# what a process may not do


def facts() -> dict[str, str]:
    """What the kernel says of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line) | {
        "Dumpable": str(LIBC.prctl(PR_GET_DUMPABLE))
    }


def attempts(home: Path) -> Iterator[tuple[str, Attempt]]:
    yield "read the queue", lambda: open(home / "queue" / "queue.db", "rb").close()
    yield "list the queue", lambda: os.listdir(home / "queue" / "spool")
    yield "read the passwords", lambda: open(home / "users" / "passwords", "rb").close()
    yield "read shadow", lambda: open("/etc/shadow", "rb").close()
    yield "read the routes", lambda: open(home / "control" / "smtproutes", "rb").close()
    yield "read the key", lambda: open(home / "tls" / "key.pem", "rb").close()
    for person, at in json.loads((RIGHTS / "mailboxes").read_text()).items():
        yield f"list the mailbox of {person}", lambda at=at: os.listdir(f"{at}/Maildir/new")  # type: ignore[misc]
    for place in ("control", "users", "run", "tls", "mail", "alias", "queue"):
        yield f"write to {place}", lambda place=place: (home / place / f"trap{os.getpid()}").touch()  # type: ignore[misc]
    yield "ask the queue as root may", lambda: socket.socket(socket.AF_UNIX).connect(str(home / "run" / "queue"))
    yield "become root", lambda: os.setresuid(0, 0, 0)
    yield "become somebody else", lambda: os.setresuid(12345, 12345, 12345)
    yield "take a group", lambda: os.setgroups([0])
    yield "bind port 1", lambda: socket.socket().bind(("127.0.0.1", 1))
    for name, pid in others():
        yield f"signal {name}", lambda pid=pid: os.kill(pid, 0)  # type: ignore[misc]
        yield f"trace {name}", lambda pid=pid: trace(pid)  # type: ignore[misc]
        yield f"read the memory of {name}", lambda pid=pid: open(f"/proc/{pid}/mem", "rb").close()  # type: ignore[misc]
        yield f"list what {name} has open", lambda pid=pid: os.listdir(f"/proc/{pid}/fd")  # type: ignore[misc]


def others() -> list[tuple[str, int]]:
    """The processes of the other roles of our server, once all of them are there, and the one that started us."""
    me = name_of(os.getpid())
    supervisor = os.getppid() if me != "owner" else parent(os.getppid())

    def look() -> dict[str, int]:
        pids = [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]
        return {name_of(pid): pid for pid in pids if parent(pid) == supervisor}

    try:
        found = until(lambda: seen if set(seen := look()) >= EVERY_ROLE else {}, "all roles", PATIENCE)
    except NotInTime:
        found = look()
    return [*((name, pid) for name, pid in sorted(found.items()) if name != me), ("the parent", os.getppid())]


def name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip().removeprefix("pillarbox-")
    except OSError:
        return ""


def parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def trace(pid: int) -> None:
    if LIBC.ptrace(PTRACE_SEIZE, pid, None, None) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


# what a role may not say

DELIVERY = (b"1", b"nonesuch", b"1700000000", b"0", b"5", b"ann@example.net", b"body\n")
# Of each pair one thing that the other side would do for somebody else.
TEMPTING: dict[tuple[str, str], tuple[Verb, tuple[bytes, ...]]] = {
    ("smtpd", "queue"): (Verb.DELIVER, DELIVERY),
    ("smtpd", "users"): (Verb.OWNER, (b"person0",)),
    ("smtpd", "auth"): (Verb.MAILDROP, (b"person0", b"")),
    ("pop3d", "auth"): (Verb.MAILDROP, (b"person0", b"")),
    ("queue", "smtpd"): (Verb.IDENTITY, (b"person0", b"person0@sys.example.org", b"", b"")),
    ("queue", "spawn"): (Verb.MAILDROP, (b"person0", b"")),
    ("queue", "remote"): (Verb.DELIVER, DELIVERY),
    ("users", "smtpd"): (Verb.COMMITTED, (b"1",)),
    ("users", "spawn"): (Verb.MAILDROP, (b"person0", b"")),
    ("users", "owner"): (Verb.DELIVER, (*DELIVERY, b"1", b"0", b"person0", b"sys.example.org")),
    ("auth", "smtpd"): (Verb.COMMITTED, (b"1",)),
    ("auth", "pop3d"): (Verb.CONTENT, ()),
    ("auth", "spawn"): (Verb.EXISTS, (b"person0",)),
    ("auth", "owner"): (Verb.DELIVER, (*DELIVERY, b"1", b"0", b"person0", b"sys.example.org")),
    ("queue", "owner"): (Verb.MAILDROP, (b"person0", b"")),
    ("remote", "queue"): (Verb.MESSAGE, (b"k" * 16, b"ann@example.net", b"body\n", b"person0@sys.example.org")),
    ("owner", "queue"): (Verb.DELIVER, DELIVERY),
}


def speak(role: str, control: socket.socket) -> Report:
    """Try it on every peer, and on the supervisor (of an owner role: spawn)."""
    said: Report = {}
    supervisor = Link(control, SUPERVISOR_SAYS)
    sockets = given(role, supervisor)
    if "spawn" in sockets:
        said |= from_spawn(role, Link(socket.socket(fileno=os.dup(sockets["spawn"])), MAY_SAY["spawn", role]))
    for peer, descriptor in sockets.items():
        link = Link(socket.socket(fileno=descriptor), MAY_SAY[peer, role])
        said[f"to {peer}"] = cut(link, *TEMPTING[role, peer])
    said["to the supervisor"] = cut(supervisor, Verb.LINK, (b"queue",))
    return said


def given(role: str, supervisor: Link) -> dict[str, int]:
    """The links to all peers that a role of this name has from the start."""
    wanted = {peer for speaker, peer in TEMPTING if speaker == role and peer != "owner"}
    found: dict[str, int] = {}
    end = time.monotonic() + PATIENCE
    while not found.keys() >= wanted and time.monotonic() < end:
        for frame in supervisor.receive():
            if frame.verb is Verb.LINK:
                found[frame.fields[0].decode()] = frame.descriptors[0]
        time.sleep(0.01)
    return found


def cut(link: Link, verb: Verb, fields: tuple[bytes, ...]) -> str:
    """What comes of saying this: the other side should hang up."""
    link.send(verb, 7, *fields)
    frames: list[Frame] = []
    try:
        link.flush()
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            frames += [frame for frame in link.receive() if frame.tag == 7]
            time.sleep(0.01)
    except LinkLost:
        return f"ANSWERED: {frames}" if frames else "cut"
    return f"HEARD: {frames}"


def asked(link: Link, verb: Verb, *fields: bytes, descriptors: tuple[int, ...] = ()) -> Frame | None:
    """The answer to a question; None when there is none, or the link is cut."""
    try:
        link.send(verb, 7, *fields, descriptors=descriptors)
        link.flush()
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            for frame in link.receive():
                return frame
            time.sleep(0.01)
    except LinkLost:
        pass
    return None


def from_spawn(role: str, spawn: Link) -> Report:
    """What spawn and the owner of person0 do for us."""
    said: Report = {}
    for name in (b"root", b"qmailq", b"pillarauth"):
        answer = asked(spawn, Verb.OWNER, name)
        who = answer.fields[0].decode() if answer is not None and answer.verb is Verb.OWNED else "refused"
        said[f"an owner role for {name.decode()}"] = who
    answer = asked(spawn, Verb.OWNER, b"person0")
    assert answer is not None and answer.verb is Verb.OWNED, answer
    person0 = Link(socket.socket(fileno=answer.descriptors[0]), MAY_SAY["owner", role])
    for person in (b"person0", b"person1", b"example.org-joe"):
        if role == "auth":
            said[f"the maildrop of {person.decode()} from person0"] = maildrop(person0, person)
        if role == "queue":
            said[f"a delivery to {person.decode()} by person0"] = delivery(person0, person)
    said["to owner"] = cut(person0, *TEMPTING[role, "owner"])
    return said


def maildrop(person0: Link, person: bytes) -> str:
    ours, theirs = socket.socketpair()
    person0.send(Verb.MAILDROP, 0, person, b"", descriptors=[theirs.detach()])
    person0.flush()
    answer = asked(Link(ours, MAY_SAY["maildrop", "pop3d"]), Verb.OPEN)
    # It says no at once and closes; whoever asks slowly finds nobody there any more.
    return answer.verb.name if answer is not None else Verb.REFUSED.name


def delivery(person0: Link, person: bytes) -> str:
    number = {b"person0": b"901", b"person1": b"902"}.get(person, b"903")
    answer = asked(person0, Verb.DELIVER, number, *DELIVERY[1:], b"7", b"0", person, b"sys.example.org")
    return answer.fields[0].decode() if answer is not None else "closed"


if __name__ == "__main__":
    os.setgroups([4, 24])  # whoever logs in as root has groups
    os.umask(0o002)
    for each, module in MODULES.items():
        module.run = broken_into(each, module.run)  # type: ignore[attr-defined]
    main()
