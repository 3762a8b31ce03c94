"""Password hashes: argon2id for accounts; crypt(3), through libcrypt, for what others wrote and for what others read.

The rule that must stay true: a wrong password costs the same as no account. Every check, whatever the stored hash,
computes one hash of our own parameters (argon2id, RFC 9106; in maildirpop3d yescrypt), so that time tells nobody which
names exist. The argon2 library is imported by those who need it: a program that only knows crypt(3) starts sooner.
"""

from __future__ import annotations

import ctypes
import hmac
import re
from typing import NamedTuple

from pillarbox.status import Failure

MEMORY = 19456  # KiB: 19 MiB
TIME = 2
PARALLELISM = 1
LONGEST_PASSWORD = 1024
LONGEST_HASH = 512
SALT_OCTETS = 16

# Of a random password that nobody kept; it is compared with, never accepted.
_NOBODY = b"$argon2id$v=19$m=19456,t=2,p=1$JqEvLAxLxPeKkHQowPNHFw$KSU/W7mY+Gx2qoSezdShTfMC7dyb+qxP0WjoJLY1PaY"
_OURS = b"$argon2id$v=19$m=19456,t=2,p=1$"
# A stored hash names its own cost, and an extension's is in a file of the mailbox's owner: an absurd one would let
# him keep the auth role busy for hours. These forms are the ones taken, the most expensive some seconds.
_TAKEN = re.compile(
    rb"\$argon2(?:id|i|d)\$v=19\$m=(?:[0-9]{1,5}|1[0-9]{5}|2[0-5][0-9]{4}),t=[1-9],p=[1-8]"  # less than 260 MB
    rb"\$[+/0-9A-Za-z]{11,64}\$[+/0-9A-Za-z]{16,88}"
    rb"|[./0-9A-Za-z]{13}"  # DES
    rb"|\$1\$[./0-9A-Za-z]{0,8}\$[./0-9A-Za-z]{22}"  # MD5
    rb"|\$2[abxy]\$(?:0[4-9]|1[0-3])\$[./0-9A-Za-z]{53}"  # bcrypt
    rb"|\$[56]\$(?:rounds=[0-9]{1,6}\$)?[./0-9A-Za-z]{0,16}\$(?:[./0-9A-Za-z]{43}){1,2}"  # SHA-256, SHA-512
    rb"|\$g?y\$j[./0-9A-C][5T]\$[./0-9A-Za-z]{0,86}\$[./0-9A-Za-z]{43}"  # yescrypt as crypt_gensalt makes it
)


class _Kind(NamedTuple):
    """A kind of hash that crypt(3) makes: how it is asked for, how those at libcrypt's own cost begin, and one of a
    random password that nobody kept."""

    prefix: bytes
    ours: bytes
    nobody: bytes


_KINDS = (  # the better one first
    _Kind(b"$y$", b"$y$j9T$", b"$y$j9T$QpS0PQ2UEys3m/3TH0qWc0$aj5T/RjTpDG6GnRXxhomNSTf3KeeH6cil8XF5b82s79"),
    _Kind(
        b"$6$",
        b"$6$",
        b"$6$zw.LICrviWpac6XR$0dRvna2NLBbtuM7FA5LaRx95LkKm/DIjLPjXDEFsK3aSC3irJC0VJwZDcY44VmmY0bB9/H27qgqKS88ApTs.O1",
    ),
)
_ALPHABET = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_CRYPT_DATA = 1 << 18  # octets: glibc's struct crypt_data is 131,232, libxcrypt's 32,768


class CannotHash(Failure):
    """The system's crypt(3) makes no hash of a kind that is safe to keep."""


def make(password: bytes, salt: bytes) -> bytes:
    """The argon2id hash (19 MiB, t=2, p=1) that is stored for a password; `salt` is 16 random octets."""
    from argon2.low_level import Type, hash_secret

    return hash_secret(password, salt, TIME, MEMORY, PARALLELISM, 32, Type.ID)


def make_crypt(password: bytes, salt: bytes) -> bytes:
    """A hash that every program on this system can verify by crypt(3): yescrypt at libcrypt's own cost, SHA-512 where
    there is no yescrypt. `salt` is 16 random octets. Raises CannotHash."""
    for kind in _KINDS:
        made = _crypted(_setting(kind.prefix, salt), password)
        if made is not None and usable(made):
            return made
    raise CannotHash("crypt(3) of this system knows neither yescrypt nor SHA-512")


def usable(stored: bytes) -> bool:
    """Whether `stored` is of a form that is taken, at a bearable cost."""
    return len(stored) <= LONGEST_HASH and _TAKEN.fullmatch(stored) is not None


def matches(stored: bytes | None, password: bytes, *, crypt: bool = False) -> bool:
    """Is this the password? False too for no stored hash, one that is not usable, an empty or absurd password or one
    with a NUL (crypt(3) would see only what stands before it). Takes the time of one argon2id at least, and `crypt`
    that of one hash as `make_crypt` makes them. Blocks for about 50 ms without the interpreter lock."""
    sane = 0 < len(password) <= LONGEST_PASSWORD and b"\0" not in password
    if stored is None or not sane or not usable(stored):
        _argon2(_NOBODY, password[:LONGEST_PASSWORD])
        if crypt:
            _crypt_for_nobody(b"")
        return False
    if crypt:
        _crypt_for_nobody(stored)
    if stored.startswith(_OURS):
        return _argon2(stored, password)
    _argon2(_NOBODY, password)
    return _argon2(stored, password) if stored.startswith(b"$argon2") else _crypt(stored, password)


def matches_crypt(stored: bytes | None, password: bytes) -> bool:
    """As `matches`, for programs that live with crypt(3): takes the time of one hash as `make_crypt` makes them at
    least, and imports what argon2 needs only for such a stored hash. Blocks for about 25 ms."""
    sane = 0 < len(password) <= LONGEST_PASSWORD and b"\0" not in password
    if stored is None or not sane or not usable(stored):
        _crypt_for_nobody(b"")
        return False
    _crypt_for_nobody(stored)
    return _argon2(stored, password) if stored.startswith(b"$argon2") else _crypt(stored, password)


def crypted(stored: bytes, password: bytes) -> bool:
    """Is this the password of a crypt(3) hash? Takes the time of that hash alone; none where it is not usable."""
    return usable(stored) and not stored.startswith(b"$argon2") and _crypt(stored, password)


def _argon2(stored: bytes, password: bytes) -> bool:
    from argon2.exceptions import Argon2Error, InvalidHashError
    from argon2.low_level import Type, verify_secret

    kind = {b"argon2id": Type.ID, b"argon2i": Type.I, b"argon2d": Type.D}[stored.split(b"$", 2)[1]]
    try:
        return verify_secret(stored, password, kind)
    except (Argon2Error, InvalidHashError):
        return False


def _crypt(stored: bytes, password: bytes) -> bool:
    result = _crypted(stored, password)
    # Failure is NULL or a string beginning with a star, which no usable hash does.
    return result is not None and hmac.compare_digest(result, stored)


def _crypt_for_nobody(stored: bytes) -> None:
    """What a hash of our own kind costs, unless `stored` is one."""
    salt = bytes(SALT_OCTETS)
    kind = next((kind for kind in _KINDS if _setting(kind.prefix, salt).startswith(kind.prefix)), _KINDS[-1])
    if not stored.startswith(kind.ours):
        _crypt(kind.nobody, b"-")


def _crypted(setting: bytes, password: bytes) -> bytes | None:
    if _LIBCRYPT is None:
        return None
    scratch = ctypes.create_string_buffer(_CRYPT_DATA)  # zeroes: "not initialized", and every thread has its own
    result = _LIBCRYPT.crypt_r(password, setting, scratch)
    assert result is None or isinstance(result, bytes)
    return result


def _setting(prefix: bytes, salt: bytes) -> bytes:
    """A setting of this kind for crypt(3). Without crypt_gensalt_rn(3), which libxcrypt has, it is SHA-512's."""
    output = ctypes.create_string_buffer(LONGEST_HASH)
    make_setting = getattr(_LIBCRYPT, "crypt_gensalt_rn", None)
    if make_setting is None:
        return b"$6$" + bytes(_ALPHABET[octet & 63] for octet in salt)
    make_setting.restype = ctypes.c_char_p
    made = make_setting(prefix, ctypes.c_ulong(0), salt, len(salt), output, len(output))
    return made or b"*0"


def _load() -> ctypes.CDLL | None:
    """libcrypt under its two present names, or the C library itself where crypt(3) lives there (musl)."""
    for name in ("libcrypt.so.1", "libcrypt.so.2", None):
        try:
            library = ctypes.CDLL(name)
            library.crypt_r.restype = ctypes.c_char_p
        except (OSError, AttributeError):
            continue
        return library
    return None


_LIBCRYPT = _load()
