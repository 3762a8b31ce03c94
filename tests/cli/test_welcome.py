from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from pillarbox.cli import certificate, shell
from pillarbox.cli.create import create
from pillarbox.cli.welcome import welcome
from pillarbox.control.table import Listener, Settings

SETTINGS = Settings(me=b"mx.example.org")
BOUND = [
    Listener("smtp", "127.0.0.1", 2525),
    Listener("submission", "127.0.0.1", 2587),
    Listener("pop3s", "127.0.0.1", 2995),
]


@pytest.fixture
def served(home: Path) -> Path:
    create(home, "mx.example.org")
    return home


def said(home: Path, bound: list[Listener] = BOUND, password: str | None = "a secret'") -> list[str]:
    return welcome(home, SETTINGS, bound, b"joe@example.org", password)


def curl(lines: list[str], title: str) -> list[str]:
    """The words of the command line behind a title, as a shell would take them apart."""
    return shlex.split(lines[lines.index(title) + 1])


def test_the_send_line_is_one_that_a_shell_takes_apart_rightly(served: Path) -> None:
    words = curl(said(served), "Send a mail:")
    assert words[:6] == [
        "curl",
        "--ssl-reqd",
        "--cacert",
        f"{served}/tls/cert.pem",
        "--user",
        "joe@example.org:a secret'",
    ]
    assert words[-1] == "smtp://127.0.0.1:2587"
    assert words[words.index("-F") + 1] == "=Hello from Pillarbox"
    assert words[words.index("--mail-rcpt") + 1] == "joe@example.org"


def test_the_fetch_line_reads_the_first_message(served: Path) -> None:
    assert curl(said(served), "Read it:")[-1] == "pop3s://127.0.0.1:2995/1"


def test_verification_is_never_turned_off(served: Path) -> None:
    words = [word for line in said(served) for word in line.split()]
    assert not {"-k", "--insecure", "--ssl"} & set(words)
    assert words.count("--ssl-reqd") == 2


def test_the_password_is_shown_only_when_it_is_new(served: Path) -> None:
    text = "\n".join(said(served, password="new-secret"))
    assert "password  new-secret" in text
    assert "shown this once; a new one: " in text
    later = "\n".join(said(served, password=None))
    assert "password  " not in later
    assert "--user joe@example.org " in later
    assert f"account password joe@example.org --home {shell.quoted(served)}" in later


def test_without_an_account_it_says_how_to_make_one(served: Path) -> None:
    lines = welcome(served, SETTINGS, BOUND, None, None)
    assert len(lines) == 2
    assert "There is no account yet: " in lines[1]


@pytest.mark.parametrize(
    ("address", "url", "resolve"),
    [
        ("127.0.0.1", "smtp://127.0.0.1:587", None),
        ("0.0.0.0", "smtp://localhost:587", None),
        ("::", "smtp://localhost:587", None),
        ("::1", "smtp://[::1]:587", None),
        ("192.0.2.7", "smtp://localhost:587", "localhost:587:192.0.2.7"),
        ("2001:db8::7", "smtp://localhost:587", "localhost:587:[2001:db8::7]"),
    ],
)
def test_the_address_is_one_that_our_certificate_holds(
    served: Path, address: str, url: str, resolve: str | None
) -> None:
    words = curl(said(served, [Listener("submission", address, 587)]), "Send a mail:")
    assert words[-1] == url
    assert (words[words.index("--resolve") + 1] if "--resolve" in words else None) == resolve


def test_a_certificate_of_an_authority_is_reached_by_the_hosts_name(served: Path) -> None:
    """It holds our name and no loopback address; curl knows the authorities, and a leaf is no --cacert."""
    key = certificate.new_key()
    (served / "tls" / "cert.pem").write_bytes(not_an_authority(key))
    words = curl(said(served), "Send a mail:")
    assert "--cacert" not in words
    assert words[-1] == "smtp://mx.example.org:2587"


def test_submissions_and_pop3_are_used_where_the_others_are_not(served: Path) -> None:
    bound = [Listener("submissions", "127.0.0.1", 465), Listener("pop3", "127.0.0.1", 110)]
    assert curl(said(served, bound), "Send a mail:")[-1] == "smtps://127.0.0.1:465"
    words = curl(said(served, bound), "Read it:")
    assert words[-1] == "pop3://127.0.0.1:110/1"
    assert "--ssl-reqd" in words


def test_where_nobody_can_log_in_no_line_is_offered(served: Path) -> None:
    lines = said(served, [Listener("smtp", "127.0.0.1", 25)])
    assert not [line for line in lines if "curl" in line]


def test_the_command_is_one_that_can_be_pasted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "my place" / "pillarbox"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setattr("sys.argv", [str(program)])
    assert shlex.split(shell.command()) == [str(program)]
    monkeypatch.setenv("PATH", str(program.parent))
    assert shell.command() == "pillarbox"
    monkeypatch.setattr("sys.argv", ["/x/pillarbox/__main__.py"])
    assert shell.command().endswith(" -m pillarbox")


def not_an_authority(key_pem: bytes) -> bytes:
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = serialization.load_pem_private_key(key_pem, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mx.example.org")])
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "An Authority")]))
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=90))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("mx.example.org")]), critical=False)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
