"""What is to be delivered, as values: a job, and the two forms in which the rest of one is handed on."""

from __future__ import annotations

from typing import NamedTuple

from pillarbox.address import quote
from pillarbox.delivery.dotqmail import DotQmail
from pillarbox.users.owner import Owner


class Job(NamedTuple):
    """One recipient of one message. `message`, `incarnation` (hex), `number`: the queue's names for message and
    recipient; `born`: seconds; `again`: it may have been tried before. `local`: the local part as routing made it,
    virtualdomains prefix included; it decides the owner. `recipient`: the address that Delivered-To shows. `content`:
    stored form of `size` octets, bytes or a read-only descriptor."""

    message: int
    incarnation: bytes
    number: int
    born: int
    again: bool
    sender: bytes
    local: bytes
    domain: bytes
    recipient: bytes
    content: bytes | int
    size: int


class Errand(NamedTuple):
    """A job whose instructions take a process of their own: programs, mbox files."""

    job: Job
    owner: Owner
    found: DotQmail


class Forwarding(NamedTuple):
    """The last step of a job: one message to all its addresses. `key`: the draft's, the same whenever this job is
    repeated. `delivered_to`: the line that goes ahead. `report`: what the job did, once this is committed too."""

    job: Job
    owner: Owner
    key: bytes
    sender: bytes
    recipients: tuple[bytes, ...]
    delivered_to: bytes
    report: bytes


def delivered_to(recipient: bytes) -> bytes:
    """The line that shows who got it; qmail's DTLINE."""
    return b"Delivered-To: %s\n" % recipient.replace(b"\n", b"_")


def return_path(sender: bytes) -> bytes:
    """The line that shows the envelope sender; qmail's RPLINE."""
    return b"Return-Path: <%s>\n" % quote(sender).replace(b"\n", b"_")
