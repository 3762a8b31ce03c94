"""What a program says becomes a letter: a header as RFC 822 wants it, and an envelope (qmail-inject(8)).

Bytes in, bytes out; who sends, when and from which process come in as arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from pillarbox.compose import rewriting, tokens
from pillarbox.compose.header import name
from pillarbox.compose.rewriting import Address, Hosts
from pillarbox.compose.tokens import AT, Kind, NotTokens, Token
from pillarbox.header import date, message_id
from pillarbox.quoting import quote

PER_RECIPIENT: Final = b"-@[]"  # behind an envelope sender: each recipient gets a sender of his own (VERP)
_NOBODY_SHOWN: Final = b"Cc: recipient list not shown: ;\n"

_TO = frozenset({b"to", b"cc"})
_RECIPIENTS = _TO | {b"bcc", b"apparently-to"}
_RESENT_RECIPIENTS = frozenset({b"resent-to", b"resent-cc", b"resent-bcc"})
_OTHERS = frozenset({
    b"sender", b"from", b"reply-to", b"return-receipt-to", b"errors-to", b"resent-sender", b"resent-from",
    b"resent-reply-to",
})  # fmt: skip
_RESENT = _RESENT_RECIPIENTS | {b"resent-sender", b"resent-from", b"resent-reply-to", b"resent-date"}
_RESENT |= {b"resent-message-id"}
_TAKEN_OUT = frozenset({b"bcc", b"resent-bcc", b"return-path", b"content-length"})


class BadField(ValueError):
    """A field with addresses that cannot be read: `field` is it."""

    def __init__(self, field: bytes) -> None:
        super().__init__("unable to parse this line")
        self.field = field


class BadAddress(ValueError):
    """An address given beside the message that cannot be read: `address` is it."""

    def __init__(self, address: bytes) -> None:
        super().__init__("unable to parse address")
        self.address = address


class Person(NamedTuple):
    """Who sends. `name` is None when it is not known, `host` when control/defaulthost is meant; `envelope_user` and
    `envelope_host` are for the envelope sender."""

    user: bytes
    host: bytes | None
    name: bytes | None
    envelope_user: bytes
    envelope_host: bytes | None


class Wishes(NamedTuple):
    """The flags of qmail-inject and the letters of $QMAILINJECT. `from_header`: header fields say recipients, whatever
    else does; fields that need not be read may then not be readable. `sender` is -f's, rewritten. `lists` are the
    addresses of $QMAILMFTFILE in lower case."""

    from_header: bool
    sender: bytes | None = None
    name_as_comment: bool = False
    drop_from: bool = False
    drop_message_id: bool = False
    drop_return_path: bool = False
    per_recipient: bool = False
    per_message: bool = False
    lists: frozenset[bytes] = frozenset()


class Occasion(NamedTuple):
    """When (seconds since 1970), in which process, and the right side of Message-ID."""

    seconds: int
    pid: int
    idhost: bytes


class Letter(NamedTuple):
    """What is sent: the whole header, without the empty line behind it; the envelope sender; and the recipients that
    the header names, not yet without doubles."""

    header: bytes
    sender: bytes
    recipients: tuple[bytes, ...]


def recipient(address: bytes, hosts: Hosts) -> bytes:
    """A recipient (or sender) given beside the message, raw as in an envelope, completed. Raises BadAddress."""
    try:
        return tokens.address(hosts.rewrite(tokens.parse(quote(address))))
    except NotTokens:
        raise BadAddress(address) from None


def recipients(text: bytes, hosts: Hosts) -> list[bytes]:
    """Recipients as a person writes them in one argument: `joe, Ann <ann@host>`. Raises BadAddress."""
    found: list[bytes] = []
    try:
        rewriting.field(tokens.parse(b"To:" + text), _collecting(hosts, found))
    except NotTokens:
        raise BadAddress(text) from None
    return found


def compose(fields: list[bytes], person: Person, wishes: Wishes, hosts: Hosts, occasion: Occasion) -> Letter:
    """The letter of a header's fields, in their order. Raises BadField."""
    return _Composer(person, wishes, hosts, occasion).compose(fields)


def _collecting(hosts: Hosts, *lists: list[bytes]) -> Callable[[Address], Address]:
    """Rewrites addresses, and notes each in all of these lists. From the right: the last address comes first."""

    def rewrite(address: Address) -> Address:
        written = hosts.rewrite(address)
        for found in lists:
            found.append(tokens.address(written))
        return written

    return rewrite


class _Composer:
    def __init__(self, person: Person, wishes: Wishes, hosts: Hosts, occasion: Occasion) -> None:
        self._person, self._wishes, self._hosts, self._occasion = person, wishes, hosts, occasion
        self._sender = wishes.sender
        self._recipients: list[bytes] = []
        self._resent_recipients: list[bytes] = []
        self._shown: list[bytes] = []  # To and Cc
        self._kept: list[bytes] = []
        self._seen: set[bytes] = set()

    def compose(self, fields: list[bytes]) -> Letter:
        for field in fields:
            self._field(field)
        sender = self._default_sender() if self._sender is None else self._sender
        resent = not self._seen.isdisjoint(_RESENT)
        added = self._added_to_resent() if resent else self._added()
        named = self._resent_recipients if resent else self._recipients
        return Letter(b"".join(added + self._kept), sender, tuple(named))

    def _field(self, field: bytes) -> None:
        which = name(field)
        wishes = self._wishes
        if (
            (which == b"from" and wishes.drop_from)
            or (which == b"message-id" and wishes.drop_message_id)
            or (which == b"return-path" and wishes.drop_return_path)
        ):
            return
        self._seen.add(which)
        if which in _RECIPIENTS:
            lists = [self._recipients, self._shown] if which in _TO else [self._recipients]
            field = self._named(field, lists)
        elif which in _RESENT_RECIPIENTS:
            field = self._named(field, [self._resent_recipients])
        elif which == b"return-path":
            self._rewritten(field, self._take_sender)
        elif which in _OTHERS:
            field = self._rewritten(field, self._hosts.rewrite)
        if which not in _TAKEN_OUT:
            self._kept.append(field)

    def _named(self, field: bytes, lists: list[list[bytes]]) -> bytes:
        """A field of recipients. One that names nobody who is asked for may be anything."""
        before = [len(found) for found in lists]
        try:
            return self._rewritten(field, _collecting(self._hosts, *lists))
        except BadField:
            if self._wishes.from_header:
                raise
            for found, length in zip(lists, before, strict=True):
                del found[length:]
            return field

    def _rewritten(self, field: bytes, rewrite: rewriting.Rewrite) -> bytes:
        try:
            return tokens.write(rewriting.field(tokens.parse(field), rewrite))
        except NotTokens:
            raise BadField(field) from None

    def _take_sender(self, address: Address) -> Address:
        written = self._hosts.rewrite(address)
        if self._sender is None:
            self._sender = tokens.address(written) + (PER_RECIPIENT if self._wishes.per_recipient else b"")
        return written

    def _default_sender(self) -> bytes:
        user, host = self._person.envelope_user, self._person.envelope_host
        if self._wishes.per_message:
            user += b"-%d.%d" % (self._occasion.seconds, self._occasion.pid)
        if self._wishes.per_recipient:
            user += b"-"
        written = tokens.address(self._hosts.rewrite([Token(Kind.QUOTE, user), *_host(host)]))
        return written + (PER_RECIPIENT if self._wishes.per_recipient else b"")

    def _default_from(self) -> bytes:
        person = self._person
        quoted = Kind.ATOM if quote(person.user) == person.user else Kind.QUOTE
        address = self._hosts.rewrite([Token(quoted, person.user), *_host(person.host)])
        start = tokens.parse(b"From:")
        if person.name is None:
            return tokens.write([*start, *address])
        if self._wishes.name_as_comment:
            return tokens.write([*start, *address, Token(Kind.COMMENT, person.name)])
        around = Token(Kind.LEFT), *address, Token(Kind.RIGHT)
        return tokens.write([*start, Token(Kind.QUOTE, person.name), *around])

    def _added(self) -> list[bytes]:
        occasion, seen = self._occasion, self._seen
        added = []
        if b"date" not in seen:
            added.append(b"Date: " + date(occasion.seconds) + b"\n")
        if b"message-id" not in seen:
            added.append(message_id(occasion.seconds, occasion.pid, occasion.idhost))
        if b"from" not in seen:
            added.append(self._default_from())
        if seen.isdisjoint(_TO):
            added.append(_NOBODY_SHOWN)
        if b"mail-followup-to" not in seen and any(address.lower() in self._wishes.lists for address in self._shown):
            added.append(b"Mail-Followup-To: " + b",\n  ".join(map(quote, reversed(self._shown))) + b"\n")
        return added

    def _added_to_resent(self) -> list[bytes]:
        occasion, seen = self._occasion, self._seen
        added = []
        if b"resent-date" not in seen:
            added.append(b"Date: " + date(occasion.seconds) + b"\n")
        if b"resent-message-id" not in seen:
            added.append(message_id(occasion.seconds, occasion.pid, occasion.idhost))
        if b"resent-from" not in seen:
            added.append(self._default_from())
        if seen.isdisjoint({b"resent-to", b"resent-cc"}):
            added.append(_NOBODY_SHOWN)
        return [b"Resent-" + field for field in added]


def _host(host: bytes | None) -> list[Token]:
    return [] if host is None else [AT, *tokens.parse(host)]
