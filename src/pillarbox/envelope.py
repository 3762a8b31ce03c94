"""A message's envelope as qmail keeps it: raw address bytes, unquoted, host after the last @."""

from __future__ import annotations

from typing import Final, NamedTuple

LONGEST: Final = 1002
"""Octets of the longest address that may be queued: qmail-queue's limit. SMTP takes shorter ones only."""


class Envelope(NamedTuple):
    """RFC 5321 section 2.3.1. `sender` is b"" for the null reverse-path; `recipients` keep their order and case."""

    sender: bytes
    recipients: tuple[bytes, ...]
