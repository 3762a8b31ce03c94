"""Everything a session may ask of the world, and what it is sent back.

A session is a generator: it yields one of these values and is sent the result. Results are values; a failure never
crosses as an exception but as a `Refusal`. One effect is outstanding at a time. An executor (asyncio in roles/,
blocking in programs/) carries them out, each with a timeout; a timeout or unforeseen trouble comes back as a
temporary Refusal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from pillarbox.credentials import Credentials, Identity
from pillarbox.envelope import Envelope
from pillarbox.scan import ScanListing
from pillarbox.status import Refusal


class CheckRecipient(NamedTuple):
    """Does this local address have an owner? `address` is bytes. Result: None (yes) or Refusal."""

    address: bytes


@dataclass(frozen=True, slots=True)
class OpenDraft:
    """Can a message be taken at all? Asked before 354. Result: None (a draft is open) or Refusal."""


class WriteBlock(NamedTuple):
    """Append stored-form bytes (LF line ends) to the open draft. Result: None or Refusal (the draft is then gone)."""

    block: bytes


class Commit(NamedTuple):
    """Append `rest` to the open draft and make it durable with this envelope. Result: Committed, or Refusal or Declined
    (the draft is then gone)."""

    envelope: Envelope
    rest: bytes


@dataclass(frozen=True, slots=True)
class Committed:
    """The message is on disk; `message` is its id as printable bytes, for the 250 reply."""

    message: bytes


@dataclass(frozen=True, slots=True)
class Declined:
    """No, in the words of a qmail-queue, which hold their status where they have one: they are told as they are."""

    permanent: bool
    text: str


@dataclass(frozen=True, slots=True)
class Abort:
    """Forget the open draft, if any. Result: None."""


@dataclass(frozen=True, slots=True)
class Authenticate:
    """Are these credentials good? Result: Identity or Refusal (5.7.8 wrong, 4.x cannot say now)."""

    credentials: Credentials


@dataclass(frozen=True, slots=True)
class HandOver:
    """Let another program check these credentials and lead the rest of the session over our connection (qmail-popup).
    Result: None (it did, and the session is over) or Refusal (what the client is told)."""

    credentials: Credentials


@dataclass(frozen=True, slots=True)
class OpenMaildrop:
    """Lock and list the maildrop of the identity that Authenticate proved. Result: tuple[ScanListing, ...] in order, or
    Refusal (text "maildrop in use" with 4.2.0 and RESP-CODES' IN-USE when another session has it)."""


@dataclass(frozen=True, slots=True)
class SendContent:
    """Send message `number` (1-based) to the client, dot-stuffed and ended by the lone dot: whole when `lines` is
    None, else header, blank line and that many body lines (TOP). `announce` (encoded reply line, bytes) goes ahead
    once the message is open. Result: None (all sent) or Refusal (nothing was sent, not even `announce`)."""

    number: int
    lines: int | None
    announce: bytes


@dataclass(frozen=True, slots=True)
class UpdateMaildrop:
    """RFC 1939's UPDATE state: delete these message numbers (1-based), mark the rest as no longer new, unlock.
    Result: None or Refusal (some could not be deleted)."""

    deleted: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Pause:
    """Let the client wait. Result: None after `seconds`."""

    seconds: float


Effect = (
    CheckRecipient
    | OpenDraft
    | WriteBlock
    | Commit
    | Abort
    | Authenticate
    | HandOver
    | OpenMaildrop
    | SendContent
    | UpdateMaildrop
    | Pause
)

# What an executor sends back; each effect says which of these are its own.
Result = Committed | Declined | Identity | tuple[ScanListing, ...] | Refusal | None
