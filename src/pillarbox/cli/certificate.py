"""The first certificate: self-signed, so that TLS works from the first minute; a bought one replaces it later."""

from __future__ import annotations

import ipaddress
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFETIME = timedelta(days=3650)
CLOCK_SKEW = timedelta(days=1)  # clients whose clock is behind take it too
COMMON_NAME_LIMIT = 64  # RFC 5280, appendix A.1: ub-common-name


def new_key() -> bytes:
    """A private key, PEM, not encrypted."""
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def self_signed(key_pem: bytes, host: str, now: datetime) -> bytes:
    """A certificate, PEM, for `host`, localhost and the loopback addresses, valid ten years from `now` (UTC).

    It is its own authority (CA:TRUE), because curl --cacert and the like want to be shown one. Raises ValueError or
    TypeError when `key_pem` is no key that can sign."""
    key = serialization.load_pem_private_key(key_pem, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise ValueError("neither an EC nor an RSA key")
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host[:COMMON_NAME_LIMIT])])
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(identifier, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .add_extension(x509.SubjectAlternativeName(_names(host)), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM)


def _usage() -> x509.KeyUsage:
    """For signing handshakes, and its own certificate: strict verifiers want both said."""
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        crl_sign=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _names(host: str) -> list[x509.GeneralName]:
    hosts = dict.fromkeys((host, "localhost"))
    loopback = ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1")
    return [*map(x509.DNSName, hosts), *map(x509.IPAddress, loopback)]


def expiry(pem: bytes) -> datetime:
    """When the first certificate in `pem` ends (UTC). Raises ValueError when there is none."""
    return x509.load_pem_x509_certificate(pem).not_valid_after_utc
