"""Password hashes: what is made, what of old is still taken, and that no answer comes faster than another."""

from __future__ import annotations

import ctypes
import sys

import pytest
from argon2.low_level import Type, verify_secret

from pillarbox.auth import hashes
from tests.peers import peer, run

SALT = bytes(range(16))
MADE = hashes.make(b"correct horse", SALT)
# Made by crypt(3) and the argon2 library itself, all of the password `bar`.
OLD = [
    b"0ZsfajRLIfp0w",
    b"$1$abcdefgh$X4AQOXsoYNpzaat9Hm7iC/",
    b"$2b$04$abcdefghijklmnopqrstuuEnktNu4dNa/sMz6nY.lAbxawdTTajT2",
    b"$5$saltstring$ckecdJS/eSdm0unAeZ/CaKuX1FzfM/3J.RC9FlHSQe.",
    b"$6$rounds=1000$saltstring$fwZ4GLBgbx16IsudL3CkGvE65FmaXxJJqkXtZq2KMVCzzv8gRrJ8aYSD29TAYxczYI5z.PgB8ncIt3BIyd.sO.",
    b"$y$j75$abcdefgh$BZssh33A2n5EqF2cke/GVeUzUu5HuTQfBpvDAvSTuv6",
    b"$gy$j75$abcdefgh$LG7R0/bYskNywnP9k6/hVi1S/d4tEejipI9QoT7mEV0",
    b"$argon2i$v=19$m=256,t=1,p=1$c29tZXNhbHQ$jefSUDq4ViMIsmqplvlDEQ",
    b"$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$3h+zV4SKdnmT6/yB4f6y12ln/TPaSbMEGszisXD1AYc",
    b"$argon2d$v=19$m=65536,t=2,p=4$c29tZXNhbHQ$p8GuxkbOj3IefNC5cwPZTYiiYysnElH7",
]


def test_what_is_stored_is_argon2id_with_19_mib_two_passes_one_lane() -> None:
    assert MADE.startswith(b"$argon2id$v=19$m=19456,t=2,p=1$AAECAwQFBgcICQoLDA0ODw$")
    assert hashes.usable(MADE)


def test_only_the_right_password_matches() -> None:
    assert hashes.matches(MADE, b"correct horse")
    for wrong in (b"correct hors", b"correct horse ", b"Correct horse", b"", b"correct horse\0x", b"x" * 5000):
        assert not hashes.matches(MADE, wrong)


@pytest.mark.parametrize("stored", OLD)
def test_hashes_that_others_made_are_taken(cheap: None, stored: bytes) -> None:
    assert hashes.usable(stored)
    assert hashes.matches(stored, b"bar")
    assert not hashes.matches(stored, b"baz")


@pytest.mark.parametrize("stored", OLD)
def test_a_nul_does_not_end_a_password_early(cheap: None, stored: bytes) -> None:
    assert not hashes.matches(stored, b"bar\0anything")


@pytest.mark.parametrize(
    "stored",
    [b"", b"*", b"*0", b"!", b"x", b"bar", b"$6$", b"$0$abc$x", b"{PLAIN}bar", b"0ZsfajRLIfp0w\n", b"\xff" * 13],
)
def test_a_locked_or_broken_hash_matches_nothing(cheap: None, stored: bytes) -> None:
    assert not hashes.usable(stored)
    for password in (b"", b"bar", stored):
        assert not hashes.matches(stored, password)


def test_the_empty_password_is_never_right() -> None:
    assert not hashes.matches(hashes.make(b"", SALT), b"")


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """The computation that only takes time takes none."""
    monkeypatch.setattr(hashes, "_NOBODY", OLD[-2])


@pytest.mark.parametrize(
    "stored",
    [
        b"$argon2id$v=19$m=9999999,t=2,p=1$c29tZXNhbHQ$c29tZWhhc2g",
        b"$argon2id$v=19$m=19456,t=99,p=1$c29tZXNhbHQ$c29tZWhhc2g",
        b"$2b$31$abcdefghijklmnopqrstuuEnktNu4dNa/sMz6nY.lAbxawdTTajT2",
        OLD[4].replace(b"rounds=1000", b"rounds=999999999"),
        b"$6$rounds=999999999$" + b"x" * 86,
        b"$y$jFT$abcdefgh$BZssh33A2n5EqF2cke/GVeUzUu5HuTQfBpvDAvSTuv6",
        b"$7$abc$def",
        b"$6$" + b"x" * 600,
    ],
)
def test_a_hash_of_absurd_cost_is_not_computed(cheap: None, monkeypatch: pytest.MonkeyPatch, stored: bytes) -> None:
    def refuse(*_: object) -> bool:
        raise AssertionError

    monkeypatch.setattr(hashes, "_crypt", refuse)
    assert not hashes.usable(stored)
    assert not hashes.matches(stored, b"bar")


def test_every_check_computes_one_argon2id_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[bytes] = []

    def counting(stored: bytes, password: bytes, kind: Type) -> bool:
        computed.append(stored)
        return verify_secret(stored, password, kind)

    monkeypatch.setattr("argon2.low_level.verify_secret", counting)
    for stored in (None, b"*", MADE, OLD[0]):
        for password in (b"bar", b"", b"a\0b", b"x" * 2000):
            computed.clear()
            hashes.matches(stored, password)
            assert [one[:31] for one in computed] == [b"$argon2id$v=19$m=19456,t=2,p=1$"]


# row: maildirpasswd-hash
def test_others_can_verify_by_crypt_what_is_made_for_them() -> None:
    made = hashes.make_crypt(b"bar", SALT)
    assert made == b"$y$j9T$.2U.1EE/4Q.07ck0AoU1D.$Tu6EFLhoJt6g/7doXnofrddJveIoXLY0ufMMJ4z6WFC"
    perl = run(peer("perl"), "-e", "print crypt($ARGV[0], $ARGV[1])", "bar", made.decode())
    assert perl == made
    assert hashes.matches(made, b"bar") and hashes.matches_crypt(made, b"bar")
    assert hashes.make_crypt(b"bar", bytes(16)) != made


def test_without_yescrypt_it_is_sha_512(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashes, "_setting", lambda prefix, salt: b"$6$" + b"abcdefghijklmnop")
    made = hashes.make_crypt(b"bar", SALT)
    assert made.startswith(b"$6$abcdefghijklmnop$") and hashes.usable(made)
    assert hashes.matches_crypt(made, b"bar") and not hashes.matches_crypt(made, b"baz")
    monkeypatch.undo()
    monkeypatch.setattr(hashes, "_LIBCRYPT", ctypes.CDLL(None))  # as where there is no crypt_gensalt_rn
    assert hashes._setting(b"$y$", SALT) == b"$6$./0123456789ABCD"


def test_where_crypt_makes_nothing_that_is_safe_nothing_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashes, "_LIBCRYPT", None)
    with pytest.raises(hashes.CannotHash):
        hashes.make_crypt(b"bar", SALT)


@pytest.mark.parametrize("stored", OLD)
def test_programs_that_live_with_crypt_take_the_same_hashes(stored: bytes) -> None:
    assert hashes.matches_crypt(stored, b"bar")
    for wrong in (b"baz", b"", b"bar\0x", b"x" * 2000):
        assert not hashes.matches_crypt(stored, wrong)


@pytest.mark.parametrize("crypt", [False, True])
def test_every_check_of_theirs_computes_one_hash_of_their_kind(monkeypatch: pytest.MonkeyPatch, crypt: bool) -> None:
    computed: list[bytes] = []
    crypted = hashes._crypted

    def counting(setting: bytes, password: bytes) -> bytes | None:
        computed.append(setting)
        return crypted(setting, password)

    ours = hashes.make_crypt(b"bar", SALT)
    monkeypatch.setattr(hashes, "_crypted", counting)
    for stored in (None, b"*", MADE, OLD[0], ours):
        for password in (b"bar", b"", b"a\0b", b"x" * 2000):
            computed.clear()
            if crypt:
                hashes.matches(stored, password, crypt=True)
            else:
                hashes.matches_crypt(stored, password)
            assert len([one for one in computed if one.startswith(b"$y$j9T$")]) == 1


def test_a_program_that_lives_with_crypt_imports_no_argon2() -> None:
    ask = "import sys; from pillarbox.auth import hashes; hashes.matches_crypt(b'0ZsfajRLIfp0w', b'bar') or 1 / 0; "
    run(sys.executable, "-c", ask + "sys.exit('argon2' in sys.modules)")
