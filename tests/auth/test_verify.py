"""Login names to accounts, credentials to yes or no."""

from __future__ import annotations

from pathlib import Path

import pytest

from pillarbox import accounts
from pillarbox.auth import hashes
from pillarbox.auth.passwords import Record
from pillarbox.auth.verify import Accounts, Login, extension_record, verify
from pillarbox.control.table import Settings, read
from pillarbox.credentials import Digest, Identity, Password
from pillarbox.users import assign
from tests.home import USER, make_home

CHEAP = b"$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$3h+zV4SKdnmT6/yB4f6y12ln/TPaSbMEGszisXD1AYc"  # bar
RFC_2195 = Digest(
    b"CRAM-MD5",
    b"tim",
    b"<1896.697170952@postoffice.reston.mci.net>",
    b"b913a602c7eda7a495b4e6e7334d3890",
)
RFC_1939 = Digest(b"APOP", b"mrose", b"<1896.697170952@dbc.mtview.ca.us>", b"c4c9334bac560ecc979e58001b3e22fb")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(hashes, "make", lambda password, salt: CHEAP)
    home = make_home(tmp_path / "home")
    for name in (b"joe@example.org", b"joe@other.example", b"joe-foo@example.org", b"ann@other.example"):
        accounts.add(home, name, b"bar", user=USER)
    return home


def place(home: Path, name: str) -> bytes:
    return bytes(home / "mail" / name)


@pytest.mark.parametrize(
    ("name", "address", "extension"),
    [
        (b"joe@example.org", b"joe@example.org", b""),
        (b"JOE@Example.ORG", b"joe@example.org", b""),
        (b"joe@other.example", b"joe@other.example", b""),
        (b"joe", b"joe@example.org", b""),  # control/me
        (b"Ann", b"ann@other.example", b""),  # the only one
        (b"joe-lists@example.org", b"joe@example.org", b"lists"),
        (b"Joe-Lists.X@example.org", b"joe@example.org", b"Lists.X"),
        (b"joe-lists", b"joe@example.org", b"lists"),
        (b"ann-a-b", b"ann@other.example", b"a-b"),
        (b"joe-foo@example.org", b"joe-foo@example.org", b""),
        (b"joe-foo-bar@example.org", b"joe-foo@example.org", b"bar"),
        (b"joe-foo@other.example", b"joe@other.example", b"foo"),
    ],
)
def test_a_login_name_means_a_mailbox(home: Path, name: bytes, address: bytes, extension: bytes) -> None:
    local, _, domain = address.decode().partition("@")
    found = Accounts(home, read(home / "control")[0]).find(name)
    assert found == Login(address, extension, place(home, f"{domain}/{local}"), local=f"{domain}-{local}".encode())


@pytest.mark.parametrize(
    "name",
    [
        b"nobody",
        b"nobody@example.org",
        b"ann@example.org",
        b"joe@elsewhere.example",
        b"joe@",
        b"@example.org",
        b"",
        b"joe-@example.org",
        b"joe-.hidden@example.org",
        b"joe-a/../../x@example.org",
        b"joe\0@example.org",
        b"joe-a\0b@example.org",
        b"-joe@example.org",
        b"joe-" * 400 + b"@example.org",
    ],
)
def test_a_name_that_is_nobodys_is_none(home: Path, name: bytes) -> None:
    assert Accounts(home, Settings(me=b"example.org")).find(name) is None


def test_a_short_name_that_several_have_is_nobodys_unless_one_is_of_our_own_domain(home: Path) -> None:
    resolver = Accounts(home, Settings(me=b"mx.example.org"))
    assert resolver.find(b"joe") is None
    assert resolver.find(b"joe-lists") is None
    assert resolver.find(b"ann") is not None


def test_a_name_that_several_have_is_not_taken_for_an_extension_of_another(home: Path) -> None:
    for address in (b"ann-x@example.org", b"ann-x@third.example"):
        accounts.add(home, address, b"bar", user=USER)
    resolver = Accounts(home, Settings(me=b"mx.example.org"))
    assert resolver.find(b"ann-y") is not None
    assert resolver.find(b"ann-x") is None


def test_an_account_without_its_assignment_has_no_mailbox(home: Path) -> None:
    resolver = Accounts(home, Settings(me=b"example.org"))
    assert resolver.find(b"joe@example.org") is not None
    kept = [a for a in assign.read(home / "users") if not a.key.endswith((b"-joe", b"-joe-"))]
    assign.write(home / "users", kept)
    assert resolver.find(b"joe@example.org") is None
    everybody = assign.Assignment(b"+example.org-", b"vmail", b"%d" % USER.uid, b"1", place(home, "x"), b"-")
    assign.write(home / "users", [*kept, everybody])
    assert resolver.find(b"joe@example.org") is None


def test_an_account_has_its_record_and_an_extension_has_not(home: Path) -> None:
    resolver = Accounts(home, Settings(me=b"example.org"))
    login = resolver.find(b"joe")
    assert login is not None
    assert resolver.record(login) == Record(b"joe@example.org", CHEAP)
    lists = Login(b"joe@example.org", b"lists", login.home)
    assert resolver.record(lists) is None
    assert extension_record(lists, CHEAP) == Record(b"joe@example.org", CHEAP)
    assert extension_record(lists, b"") is None
    assert extension_record(lists, b"$6$rounds=999999999$x$y") is None


def test_a_login_carries_what_sendas_grants_but_not_to_extensions(home: Path) -> None:
    resolver = Accounts(home, Settings(me=b"example.org", sendas={b"joe@example.org": (b"sales@example.org",)}))
    login = resolver.find(b"joe")
    assert login is not None
    assert resolver.identity(b"joe", login) == Identity(b"joe", b"joe@example.org", b"", (b"sales@example.org",))
    lists = resolver.find(b"joe-lists")
    assert lists is not None
    assert resolver.identity(b"x", lists) == Identity(b"x", b"joe@example.org", b"lists", ())


@pytest.mark.parametrize(
    ("name", "granted"),
    [(b"ann@other.example", (b"@ann.example",)), (b"joe", (b"j@x.example",)), (b"joe@other.example", ())],
)
def test_sendas_may_name_a_login_by_the_short_form_that_means_it(
    home: Path, name: bytes, granted: tuple[bytes, ...]
) -> None:
    sendas = {b"ann": (b"@ann.example",), b"joe": (b"j@x.example",)}
    login = Accounts(home, Settings(me=b"example.org", sendas=sendas)).find(name)
    assert login is not None and login.sendas == granted


def test_a_password_is_right_or_wrong() -> None:
    record = Record(b"joe@example.org", CHEAP)
    assert verify(record, Password(b"joe", b"bar"))
    assert not verify(record, Password(b"joe", b"baz"))
    assert not verify(record, Password(b"joe", b""))
    assert not verify(None, Password(b"joe", b"bar"))


@pytest.mark.parametrize(("digest", "secret"), [(RFC_2195, b"tanstaaftanstaaf"), (RFC_1939, b"tanstaaf")])
def test_a_digest_proves_the_secret_as_the_rfcs_examples_say(digest: Digest, secret: bytes) -> None:
    assert verify(Record(b"a@b", b"*", secret), digest)
    upper = Digest(digest.mechanism, digest.login, digest.challenge, digest.response.upper())
    assert verify(Record(b"a@b", b"*", secret), upper)
    assert not verify(Record(b"a@b", b"*", secret + b"x"), digest)
    other = Digest(digest.mechanism, digest.login, b"<other@challenge>", digest.response)
    assert not verify(Record(b"a@b", b"*", secret), other)


@pytest.mark.parametrize("mechanism", [b"CRAM-MD5", b"APOP"])
@pytest.mark.parametrize("record", [None, Record(b"a@b", CHEAP), Record(b"a@b", CHEAP, b"")])
def test_without_a_secret_no_digest_is_right(mechanism: bytes, record: Record | None) -> None:
    import hashlib
    import hmac

    challenge = b"<1@x>"
    for guess in (b"", b"\0"):
        apop = hashlib.md5(challenge + guess).hexdigest().encode()
        cram = hmac.new(guess, challenge, "md5").hexdigest().encode()
        for response in (apop, cram, b""):
            assert not verify(record, Digest(mechanism, b"a@b", challenge, response))


def test_an_unknown_name_costs_what_a_wrong_password_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[bytes] = []

    def count(stored: bytes, password: bytes) -> bool:
        computed.append(stored)
        return False

    monkeypatch.setattr(hashes, "_argon2", count)
    made = hashes.make(b"bar", b"salt" * 4)
    verify(Record(b"a@b", made), Password(b"a@b", b"baz"))
    verify(None, Password(b"a@b", b"baz"))
    assert len(computed) == 2
    assert computed[0][:31] == computed[1][:31]
