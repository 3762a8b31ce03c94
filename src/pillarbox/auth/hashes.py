"""Password hashes: argon2id for what we write, crypt(3) through libcrypt for what others wrote before us.

The rule that must stay true: a wrong password costs the same as no account. Every check, whatever the stored hash,
computes one argon2id of our own parameters (RFC 9106), so that time tells nobody which names exist.
"""

from __future__ import annotations

import ctypes
import hmac
import re

from argon2.exceptions import Argon2Error, InvalidHashError
from argon2.low_level import Type, hash_secret, verify_secret

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
_CRYPT_DATA = 1 << 18  # octets: glibc's struct crypt_data is 131,232, libxcrypt's 32,768


def make(password: bytes, salt: bytes) -> bytes:
    """The argon2id hash (19 MiB, t=2, p=1) that is stored for a password; `salt` is 16 random octets."""
    return hash_secret(password, salt, TIME, MEMORY, PARALLELISM, 32, Type.ID)


def usable(stored: bytes) -> bool:
    """Whether `stored` is of a form that is taken, at a bearable cost."""
    return len(stored) <= LONGEST_HASH and _TAKEN.fullmatch(stored) is not None


def matches(stored: bytes | None, password: bytes) -> bool:
    """Is this the password? False too for no stored hash, one that is not usable, an empty or absurd password or one
    with a NUL (crypt(3) would see only what stands before it). Takes the time of one argon2id at least. Blocks for
    about 50 ms without the interpreter lock."""
    sane = 0 < len(password) <= LONGEST_PASSWORD and b"\0" not in password
    if stored is None or not sane or not usable(stored):
        _argon2(_NOBODY, password[:LONGEST_PASSWORD])
        return False
    if stored.startswith(_OURS):
        return _argon2(stored, password)
    _argon2(_NOBODY, password)
    return _argon2(stored, password) if stored.startswith(b"$argon2") else _crypt(stored, password)


def crypted(stored: bytes, password: bytes) -> bool:
    """Is this the password of a crypt(3) hash? Takes the time of that hash alone; none where it is not usable."""
    return usable(stored) and not stored.startswith(b"$argon2") and _crypt(stored, password)


def _argon2(stored: bytes, password: bytes) -> bool:
    kind = {b"argon2id": Type.ID, b"argon2i": Type.I, b"argon2d": Type.D}[stored.split(b"$", 2)[1]]
    try:
        return verify_secret(stored, password, kind)
    except (Argon2Error, InvalidHashError):
        return False


def _crypt(stored: bytes, password: bytes) -> bool:
    if _LIBCRYPT is None:
        return False
    scratch = ctypes.create_string_buffer(_CRYPT_DATA)  # zeroes: "not initialized", and every thread has its own
    result = _LIBCRYPT.crypt_r(password, stored, scratch)
    # Failure is NULL or a string beginning with a star, which no usable hash does.
    return result is not None and hmac.compare_digest(result, stored)


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
