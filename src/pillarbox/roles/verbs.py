"""Every verb that one role may say to another, and which pair may say which.

A link hears only the verbs of its pair, each with as many fields and descriptors as it has: anything else means the
other side is broken or broken into, and the link is cut. A right to a file or mailbox is a connected descriptor that
rides on a frame, never a name inside one.
"""

from __future__ import annotations

from enum import IntEnum


class Verb(IntEnum):
    """What a frame says. Fields are listed in order; all are bytes, numbers in decimal."""

    # supervisor to role
    LINK = 1  # name of the peer; one descriptor: our end of a new socketpair to it
    RELOAD = 2  # read the control files again
    CERTIFICATES = 3  # names ("" is the default one), one sealed memfd each (key and chain, PEM); tag: how many follow
    DRAIN = 4  # finish what is under way, take nothing new, exit
    # role to supervisor
    READY = 10  # serving
    # smtpd to queue
    MESSAGE = 20  # key, sender, body, recipients...: a whole small message, to be committed
    START = 21  # key: a large message begins; the tag stands for it from now on
    BLOCK = 22  # bytes of it
    COMMIT = 23  # sender, recipients...: it is complete; these come behind those of RECIPIENTS
    ABORT = 24  # forget it
    ASK = 25  # key: was this one committed?
    RECIPIENTS = 26  # some of a large message, which has more than one frame holds
    # queue to smtpd
    COMMITTED = 30  # id
    TAKEN = 31  # octets of blocks of this tag that are written: the sender may send as many more
    ACCEPTING = 32  # status, text: empty when drafts are taken, else why none is
    # any answer to a question
    REFUSED = 40  # status, text
    # smtpd to users, and back
    RECIPIENT = 50  # address
    KNOWN = 51
    # smtpd, pop3d to auth, and back
    LOGIN = 60  # client address, mechanism, login, challenge, secret or response
    IDENTITY = 61  # login, address, extension, domains, granted senders...; to pop3d with the maildrop's socket
    # auth to owner, and back
    MAILDROP = 70  # login, extension; one descriptor: the owner's end of a maildrop's socket
    PASSWD = 71  # login, extension: the line of its passwd file, please
    HASH = 72  # that line
    # pop3d to owner over a maildrop's socket, and back
    OPEN = 80
    LISTING = 81  # uid, octets, uid, octets, ...
    LISTED = 82  # no more listings
    FETCH = 83  # number
    CONTENT = 84  # one descriptor, read-only: the message in stored form
    UPDATE = 85  # numbers to delete...
    UPDATED = 86
    # queue, users, auth to spawn, and back
    OWNER = 100  # local part as routing made it (auth: a login): a link to its owner's role, please
    OWNED = 101  # uid:gid; one descriptor: our end of a new socketpair to that role
    # users to owner; answered KNOWN or REFUSED
    EXISTS = 102  # local part: would mail to it find a mailbox?
    # queue to owner, and back
    DELIVER = 90  # see queue role: one message and some of its recipients; descriptor when the body is in a file
    # Letter, status, report of the delivery that is its tag; then perhaps DOWN (from remote: the whole destination
    # failed) or nothing, and behind that the numbers of others with the same outcome.
    OUTCOME = 91
    PING = 92  # are you there?
    PONG = 93
    # queue to remote: one message and some of its recipients in one domain; answered by OUTCOME for each delivery
    RELAY = 110  # id, size, sender, domain, then relay (empty: its MX), port, user, password (empty: none), then body
    # (or empty and one descriptor: a file that begins with it), then tag and address of each recipient


DOWN = b"down"

_MANY = 1 << 32
# Fields at least and at most.
FIELDS: dict[Verb, tuple[int, int]] = {
    Verb.LINK: (1, 1),
    Verb.RELOAD: (0, 0),
    Verb.CERTIFICATES: (0, _MANY),
    Verb.DRAIN: (0, 0),
    Verb.READY: (0, 0),
    Verb.MESSAGE: (3, _MANY),
    Verb.START: (1, 1),
    Verb.BLOCK: (1, 1),
    Verb.COMMIT: (1, _MANY),
    Verb.ABORT: (0, 0),
    Verb.ASK: (1, 1),
    Verb.RECIPIENTS: (0, _MANY),
    Verb.COMMITTED: (1, 1),
    Verb.TAKEN: (1, 1),
    Verb.ACCEPTING: (0, 2),
    Verb.REFUSED: (2, 2),
    Verb.RECIPIENT: (1, 1),
    Verb.KNOWN: (0, 0),
    Verb.LOGIN: (5, 5),
    Verb.IDENTITY: (4, _MANY),
    Verb.MAILDROP: (2, 2),
    Verb.PASSWD: (2, 2),
    Verb.HASH: (1, 1),
    Verb.OPEN: (0, 0),
    Verb.LISTING: (0, _MANY),
    Verb.LISTED: (0, 0),
    Verb.FETCH: (1, 1),
    Verb.CONTENT: (0, 0),
    Verb.UPDATE: (0, _MANY),
    Verb.UPDATED: (0, 0),
    Verb.OWNER: (1, 1),
    Verb.OWNED: (1, 1),
    Verb.EXISTS: (1, 1),
    Verb.RELAY: (11, _MANY),
    Verb.DELIVER: (7, _MANY),
    Verb.OUTCOME: (3, _MANY),
    Verb.PING: (0, 0),
    Verb.PONG: (0, 0),
}
# Descriptors at most; on any other verb none.
RIDERS: dict[Verb, int] = {
    Verb.LINK: 1,
    Verb.CERTIFICATES: _MANY,
    Verb.IDENTITY: 1,
    Verb.MAILDROP: 1,
    Verb.CONTENT: 1,
    Verb.DELIVER: 1,
    Verb.OWNED: 1,
    Verb.RELAY: 1,
}

SUPERVISOR_SAYS = frozenset({Verb.LINK, Verb.RELOAD, Verb.CERTIFICATES, Verb.DRAIN})
ROLE_SAYS = frozenset({Verb.READY})

_BRINGS_DRAFTS = frozenset({Verb.MESSAGE, Verb.START, Verb.BLOCK, Verb.RECIPIENTS, Verb.COMMIT, Verb.ABORT, Verb.ASK})

# (who speaks, to whom) -> the verbs it may use
MAY_SAY: dict[tuple[str, str], frozenset[Verb]] = {
    ("smtpd", "queue"): _BRINGS_DRAFTS,
    ("queue", "smtpd"): frozenset({Verb.COMMITTED, Verb.TAKEN, Verb.ACCEPTING, Verb.REFUSED}),
    ("smtpd", "users"): frozenset({Verb.RECIPIENT}),
    ("users", "smtpd"): frozenset({Verb.KNOWN, Verb.REFUSED}),
    ("smtpd", "auth"): frozenset({Verb.LOGIN}),
    ("auth", "smtpd"): frozenset({Verb.IDENTITY, Verb.REFUSED}),
    ("pop3d", "auth"): frozenset({Verb.LOGIN}),
    ("auth", "pop3d"): frozenset({Verb.IDENTITY, Verb.REFUSED}),
    ("auth", "owner"): frozenset({Verb.MAILDROP, Verb.PASSWD}),
    ("owner", "auth"): frozenset({Verb.HASH, Verb.REFUSED}),
    ("queue", "owner"): frozenset({Verb.DELIVER, Verb.PING, Verb.COMMITTED, Verb.TAKEN, Verb.REFUSED}),
    ("owner", "queue"): _BRINGS_DRAFTS | {Verb.OUTCOME, Verb.PONG},
    ("injector", "queue"): _BRINGS_DRAFTS,
    ("queue", "injector"): frozenset({Verb.COMMITTED, Verb.TAKEN, Verb.REFUSED}),
    ("queue", "remote"): frozenset({Verb.RELAY}),
    ("remote", "queue"): frozenset({Verb.OUTCOME}),
    ("queue", "spawn"): frozenset({Verb.OWNER}),
    ("spawn", "queue"): frozenset({Verb.OWNED, Verb.REFUSED}),
    ("users", "spawn"): frozenset({Verb.OWNER}),
    ("spawn", "users"): frozenset({Verb.OWNED, Verb.REFUSED}),
    ("auth", "spawn"): frozenset({Verb.OWNER}),
    ("spawn", "auth"): frozenset({Verb.OWNED, Verb.REFUSED}),
    ("users", "owner"): frozenset({Verb.EXISTS, Verb.PING}),
    ("owner", "users"): frozenset({Verb.KNOWN, Verb.PONG, Verb.REFUSED}),
    ("pop3d", "maildrop"): frozenset({Verb.OPEN, Verb.FETCH, Verb.UPDATE}),
    ("maildrop", "pop3d"): frozenset({Verb.LISTING, Verb.LISTED, Verb.CONTENT, Verb.UPDATED, Verb.REFUSED}),
}

PAIRS = (
    ("smtpd", "queue"),
    ("smtpd", "users"),
    ("smtpd", "auth"),
    ("pop3d", "auth"),
    ("spawn", "queue"),
    ("spawn", "users"),
    ("spawn", "auth"),
    ("queue", "remote"),
)
