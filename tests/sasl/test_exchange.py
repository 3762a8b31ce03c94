from __future__ import annotations

from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pillarbox.credentials import Digest, Password
from pillarbox.sasl import OFFERED_KEYED, OFFERED_PLAIN, Challenge, Exchange, Failed, Problem, Step, start

MALFORMED = Failed(Problem.MALFORMED)
CANCELLED = Failed(Problem.CANCELLED)
# RFC 2195 section 2's own example.
STAMP = b"<1896.697170952@postoffice.reston.mci.net>"
TIM = b"dGltIGI5MTNhNjAyYzdlZGE3YTQ5NWI0ZTZlNzMzNGQzODkw"

field = st.binary(min_size=1, max_size=40).filter(lambda text: b"\0" not in text)


def begun(mechanism: bytes, challenge: bytes = b"") -> Exchange:
    exchange = start(mechanism, challenge)
    assert exchange is not None
    return exchange


def talk(mechanism: bytes, *lines: bytes | None, challenge: bytes = b"") -> Step:
    """The last step of an exchange in which every step before was a challenge."""
    exchange = begun(mechanism, challenge)
    for line in lines[:-1]:
        assert isinstance(exchange.step(line), Challenge)
    return exchange.step(lines[-1])


def test_the_offered_mechanisms_all_exist() -> None:
    assert all(start(name, STAMP) for name in OFFERED_PLAIN + OFFERED_KEYED)


@pytest.mark.parametrize("name", [b"", b"SCRAM-SHA-256", b"GSSAPI", b"PLAINX", b"PLA\xc4\xb1N"])
def test_an_unknown_mechanism_is_none(name: bytes) -> None:
    assert start(name, STAMP) is None


@pytest.mark.parametrize("name", [b"plain", b"Plain", b"PLAIN"])
def test_mechanism_names_have_no_case(name: bytes) -> None:
    assert talk(name, b"AGpvZQBzZWNyZXQ=") == Password(b"joe", b"secret")


def test_cram_md5_does_not_exist_without_a_challenge() -> None:
    assert start(b"CRAM-MD5", b"") is None


def test_plain_with_an_initial_response_needs_one_step() -> None:
    assert talk(b"PLAIN", b"AGpvZQBzZWNyZXQ=") == Password(b"joe", b"secret")


def test_plain_without_an_initial_response_sends_an_empty_challenge() -> None:
    exchange = begun(b"PLAIN")
    assert exchange.step(None) == Challenge(b"")
    assert exchange.step(b"AGpvZQBzZWNyZXQ=") == Password(b"joe", b"secret")


def test_plain_takes_an_authorization_identity_that_equals_the_login() -> None:
    assert talk(b"PLAIN", b64encode(b"joe\0joe\0secret")) == Password(b"joe", b"secret")


@pytest.mark.parametrize(
    "clear",
    [
        b"ann\0joe\0secret",
        b"joe",
        b"joe\0secret",
        b"\0joe\0secret\0",
        b"\0joe\0sec\0ret",
        b"\0\0secret",
        b"\0joe\0",
        b"\0\0",
        b"\0" + b"j" * 1025 + b"\0secret",
        b"\0joe\0" + b"s" * 1025,
    ],
)
def test_plain_refuses_what_rfc_4616_does_not_allow(clear: bytes) -> None:
    assert talk(b"PLAIN", b64encode(clear)) == MALFORMED


def test_plain_takes_fields_up_to_the_bound() -> None:
    login, password = b"j" * 1024, b"s" * 1024
    assert talk(b"PLAIN", b64encode(login + b"\0" + login + b"\0" + password)) == Password(login, password)


@given(login=field, password=field)
def test_plain_carries_every_byte_but_nul(login: bytes, password: bytes) -> None:
    assert talk(b"PLAIN", b64encode(b"\0" + login + b"\0" + password)) == Password(login, password)


def test_login_asks_for_name_and_password_in_the_words_clients_know() -> None:
    exchange = begun(b"LOGIN")
    assert exchange.step(None) == Challenge(b"VXNlcm5hbWU6")
    assert exchange.step(b"am9l") == Challenge(b"UGFzc3dvcmQ6")
    assert exchange.step(b"c2VjcmV0") == Password(b"joe", b"secret")


def test_login_takes_the_name_as_initial_response() -> None:
    exchange = begun(b"LOGIN")
    assert exchange.step(b"am9l") == Challenge(b"UGFzc3dvcmQ6")
    assert exchange.step(b"c2VjcmV0") == Password(b"joe", b"secret")


@given(login=field, password=field)
def test_login_carries_every_byte_but_nul(login: bytes, password: bytes) -> None:
    assert talk(b"LOGIN", None, b64encode(login), b64encode(password)) == Password(login, password)


@pytest.mark.parametrize("name", [b"", b"jo\0e", b"joe\0", b"j" * 1025])
def test_login_refuses_a_bad_name_before_it_asks_for_a_password(name: bytes) -> None:
    assert talk(b"LOGIN", None, b64encode(name)) == MALFORMED


@pytest.mark.parametrize("password", [b"", b"sec\0ret", b"secret\0", b"s" * 1025])
def test_login_refuses_a_bad_password(password: bytes) -> None:
    assert talk(b"LOGIN", b"am9l", b64encode(password)) == MALFORMED


def test_cram_md5_of_rfc_2195() -> None:
    exchange = begun(b"CRAM-MD5", STAMP)
    assert exchange.step(None) == Challenge(b"PDE4OTYuNjk3MTcwOTUyQHBvc3RvZmZpY2UucmVzdG9uLm1jaS5uZXQ+")
    assert exchange.step(TIM) == Digest(b"CRAM-MD5", b"tim", STAMP, b"b913a602c7eda7a495b4e6e7334d3890")


@pytest.mark.parametrize("initial", [b"=", b"am9l", b"not base64", TIM])
def test_cram_md5_ignores_an_initial_response(initial: bytes) -> None:
    exchange = begun(b"CRAM-MD5", STAMP)
    assert isinstance(exchange.step(initial), Challenge)
    assert isinstance(exchange.step(TIM), Digest)


@pytest.mark.parametrize(
    "clear",
    [
        b"",
        b"tim",
        b"b913a602c7eda7a495b4e6e7334d3890",
        b" b913a602c7eda7a495b4e6e7334d3890",
        b"tim b913a602c7eda7a495b4e6e7334d389",
        b"tim b913a602c7eda7a495b4e6e7334d38900",
        b"tim b913a602c7eda7a4g5b4e6e7334d3890",
        b"t\0m b913a602c7eda7a495b4e6e7334d3890",
    ],
)
def test_cram_md5_refuses_what_is_not_a_name_and_a_digest(clear: bytes) -> None:
    assert talk(b"CRAM-MD5", None, b64encode(clear), challenge=STAMP) == MALFORMED


def test_cram_md5_lowers_the_digest_and_takes_names_with_spaces() -> None:
    answer = b64encode(b"tim o shea B913A602C7EDA7A495B4E6E7334D3890")
    claim = talk(b"CRAM-MD5", None, answer, challenge=STAMP)
    assert claim == Digest(b"CRAM-MD5", b"tim o shea", STAMP, b"b913a602c7eda7a495b4e6e7334d3890")


@pytest.mark.parametrize(
    ("mechanism", "lines"),
    [
        (b"PLAIN", (b"*",)),
        (b"PLAIN", (None, b"*")),
        (b"LOGIN", (None, b"*")),
        (b"LOGIN", (b"am9l", b"*")),
        (b"CRAM-MD5", (None, b"*")),
    ],
)
def test_a_star_cancels(mechanism: bytes, lines: tuple[bytes | None, ...]) -> None:
    assert talk(mechanism, *lines, challenge=STAMP) == CANCELLED


@pytest.mark.parametrize("line", [b"=", b""])
def test_an_empty_initial_response_is_an_answer_and_a_bad_one(line: bytes) -> None:
    assert talk(b"PLAIN", line) == MALFORMED
    assert talk(b"LOGIN", line) == MALFORMED


@pytest.mark.parametrize(
    "line", [b"", b"=", b"**", b"am9l=", b"am9l====", b"am 9l", b"am9l\n", b"====", b"a", b"am9\xec"]
)
def test_what_is_not_base64_is_malformed(line: bytes) -> None:
    assert talk(b"LOGIN", None, line) == MALFORMED


def test_missing_padding_is_tolerated() -> None:
    assert talk(b"PLAIN", b"AGpvZQBzZWNyZXQ") == Password(b"joe", b"secret")


def test_a_line_longer_than_any_honest_one_is_malformed() -> None:
    assert talk(b"PLAIN", b"A" * 12288) == MALFORMED


def test_a_finished_exchange_stays_finished() -> None:
    exchange = begun(b"PLAIN")
    exchange.step(b"*")
    assert exchange.step(b"AGpvZQBzZWNyZXQ=") == MALFORMED
    done = begun(b"PLAIN")
    done.step(b"AGpvZQBzZWNyZXQ=")
    assert done.step(b"AGpvZQBzZWNyZXQ=") == MALFORMED


@given(
    mechanism=st.sampled_from([b"PLAIN", b"LOGIN", b"CRAM-MD5"]), lines=st.lists(st.none() | st.binary(), max_size=4)
)
def test_any_bytes_give_a_step_and_every_claim_is_clean(mechanism: bytes, lines: list[bytes | None]) -> None:
    exchange = begun(mechanism, STAMP)
    for line in lines:
        match exchange.step(line):
            case Password(login, password):
                assert login and password and b"\0" not in login + password
            case Digest(login=login):
                assert login and b"\0" not in login
            case step:
                assert isinstance(step, Challenge | Failed)


def test_a_claim_never_shows_its_secret() -> None:
    assert "secret" not in repr(talk(b"PLAIN", b"AGpvZQBzZWNyZXQ="))
