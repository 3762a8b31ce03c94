from __future__ import annotations

import ssl
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from pillarbox.cli.certificate import expiry, new_key, self_signed

NOW = datetime(2026, 11, 22, tzinfo=UTC)


def shake_hands(certificate: Path, key: Path, name: str, *, strict: bool = False) -> str | None:
    """A client that trusts just this certificate verifies a server that has it, under `name`."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(certificate)
    if strict:
        client.verify_flags |= ssl.VERIFY_X509_STRICT
    one, other = ssl.MemoryBIO(), ssl.MemoryBIO()
    here = client.wrap_bio(one, other, server_hostname=name)
    there = server.wrap_bio(other, one, server_side=True)
    for side in (here, there, here, there):
        with suppress(ssl.SSLWantReadError):
            side.do_handshake()
    return here.version()


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    key.write_bytes(new_key())
    certificate.write_bytes(self_signed(key.read_bytes(), "mx.example.org", datetime.now(UTC)))
    return certificate, key


@pytest.mark.parametrize("name", ["mx.example.org", "localhost", "127.0.0.1", "::1"])
@pytest.mark.parametrize("strict", [False, True])
def test_a_client_that_is_shown_it_trusts_it(pair: tuple[Path, Path], name: str, strict: bool) -> None:
    assert shake_hands(*pair, name, strict=strict) == "TLSv1.3"


def test_it_vouches_for_no_other_name(pair: tuple[Path, Path]) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match=r"doesn't match|mismatch"):
        shake_hands(*pair, "other.example.org")


def test_it_lasts_ten_years_and_began_yesterday() -> None:
    """A client whose clock is behind takes it too."""
    pem = self_signed(new_key(), "mx.example.org", NOW)
    assert expiry(pem) == NOW + timedelta(days=3650)
    assert x509.load_pem_x509_certificate(pem).not_valid_before_utc == NOW - timedelta(days=1)


def test_a_host_name_longer_than_a_common_name_may_be_is_no_obstacle() -> None:
    host = ".".join(["a" * 60, "b" * 60, "example.org"])
    assert self_signed(new_key(), host, NOW).startswith(b"-----BEGIN CERTIFICATE-----")


def test_what_is_no_key_signs_nothing() -> None:
    with pytest.raises(ValueError, match=r"."):
        self_signed(b"-----BEGIN NOTHING-----", "mx.example.org", NOW)
