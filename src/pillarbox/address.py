"""Mail addresses: the one parser; the one quoter is in quoting.

Inside Pillarbox an address is raw bytes as qmail keeps it: no quoting, host after the LAST @. What parse_path returns
holds no control byte and no NUL, so it can be put on a line of any protocol or file of ours.
"""

from __future__ import annotations

import re
from typing import Final

from pillarbox.quoting import ATEXT, quote
from pillarbox.status import Failure, Status

__all__ = ["LONGEST", "BadPath", "is_domain", "parse_path", "quote", "split"]

LONGEST: Final = 899
"""Octets of the longest address taken: qmail-smtpd's limit (900 with its NUL)."""

_LONGEST_DOMAIN: Final = 255  # RFC 5321 section 4.5.3.1.2

# Dot-string is taken as any run of atext and dots: some phone companies gave out a..b@ and a.@, and qmail took them.
_DOT_STRING = rb"[" + ATEXT + rb".\x80-\xff]+"
_QUOTED_STRING = rb'"(?:[ !#-\[\]-~\x80-\xff]|\\[ -~])+"'
# Underscores are no host names, but they are in use as mail domains.
_LABEL = rb"[A-Za-z0-9_\x80-\xff](?:[A-Za-z0-9_\x80-\xff\-]{0,61}[A-Za-z0-9_\x80-\xff])?"
_DOMAIN = _LABEL + rb"(?:\." + _LABEL + rb")*"
_LITERAL = rb"\[[A-Za-z0-9.:\-]+\]"
# #@[] is no address by any RFC: qmail hosts send their double bounces under it, and one may be ours to take.
_DOUBLE_BOUNCE = rb"(?<=<#@)\[\]"
_AT = rb"@(" + _DOMAIN + rb"|" + _LITERAL + rb"|" + _DOUBLE_BOUNCE + rb")"
_MAILBOX = rb"(" + _DOT_STRING + rb"|" + _QUOTED_STRING + rb")(?:" + _AT + rb")?"
_ROUTE = rb"(?:@" + _DOMAIN + rb"(?:,@" + _DOMAIN + rb")*:)?"

_PATH = re.compile(rb" *<(?:" + _ROUTE + _MAILBOX + rb")?>(?: (.*))?\Z", re.DOTALL)
_IS_DOMAIN = re.compile(_DOMAIN + rb"\Z")
_ESCAPED = re.compile(rb"\\(.)")


class BadPath(Failure):
    """A path that RFC 5321 section 4.1.2 does not allow, is too long, or needs SMTPUTF8 (status 5.6.7)."""

    status = Status(5, 1, 3)


def split(address: bytes) -> tuple[bytes, bytes]:
    """Local part and domain, divided at the last @; the domain is b"" when there is no @."""
    local, at, domain = address.rpartition(b"@")
    return (local, domain) if at else (address, b"")


def parse_path(argument: bytes, *, utf8: bool) -> tuple[bytes, bytes]:
    """Read `<path>` and what follows it: the raw address (b"" for `<>`) and the text of the parameters.

    RFC 5321 section 4.1.2; source routes are dropped (appendix C), quoted local parts unquoted, address literals kept.
    A local part alone (`<postmaster>`) is let through: policy decides. Non-ASCII needs `utf8` (RFC 6531) and must
    be UTF-8. Raises BadPath.
    """
    match = _PATH.match(argument)
    if match is None:
        raise BadPath("that is not an address")
    local, domain, parameters = match.groups(b"")
    if not local:
        return b"", parameters
    if local.startswith(b'"'):
        local = _unquote(local, alone=not domain)
    address = local + b"@" + domain if domain else local
    if len(address) > LONGEST or len(domain) > _LONGEST_DOMAIN:
        raise BadPath("that address is too long")
    if not address.isascii():
        _check_utf8(address, allowed=utf8)
    return address, parameters


def is_domain(domain: bytes) -> bool:
    """True for a domain name as parse_path takes it: no literal, no dot at the end, at most 255 octets."""
    return len(domain) <= _LONGEST_DOMAIN and _IS_DOMAIN.match(domain) is not None


def _unquote(local: bytes, *, alone: bool) -> bytes:
    raw = _ESCAPED.sub(rb"\1", local[1:-1])
    if alone and b"@" in raw:
        raise BadPath("that is not an address")  # "a@b" without a domain would read as a@b everywhere else
    return raw


def _check_utf8(address: bytes, *, allowed: bool) -> None:
    if not allowed:
        raise BadPath("that address needs SMTPUTF8", Status(5, 6, 7))
    try:
        address.decode("utf-8")
    except UnicodeDecodeError:
        raise BadPath("that address is not UTF-8") from None
