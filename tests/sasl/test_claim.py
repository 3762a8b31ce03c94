from __future__ import annotations

from binascii import b2a_base64

import pytest

from pillarbox.credentials import Credentials, Digest, Password
from pillarbox.sasl import Challenge, start
from pillarbox.sasl.claim import Step, choose, claim

JOE = Password(b"joe", b"secret")


def steps(mechanism: bytes, credentials: Password, *challenges: bytes) -> list[Step]:
    dialogue = claim(mechanism, credentials)
    return [next(dialogue), *(dialogue.send(challenge) for challenge in challenges)]


# row: remote-auth-login
def test_login_says_what_the_reference_captured() -> None:
    said = steps(b"LOGIN", Password(b"foo", b"bar"), b"VXNlcm5hbWU6", b"UGFzc3dvcmQ6")
    assert [step.line for step in said] == [b"AUTH LOGIN", b"Zm9v", b"YmFy"]
    assert [step.name for step in said] == [b"AUTH LOGIN", b"username", b"password"]
    assert [step.secret for step in said] == [False, False, True]


def test_plain_is_one_line() -> None:
    assert steps(b"PLAIN", JOE) == [Step(b"AUTH PLAIN AGpvZQBzZWNyZXQ=", b"AUTH PLAIN", secret=True)]


def test_cram_md5_answers_the_challenge_of_rfc_2195() -> None:
    challenge = b"PDE4OTYuNjk3MTcwOTUyQHBvc3RvZmZpY2UucmVzdG9uLm1jaS5uZXQ+"
    said = steps(b"CRAM-MD5", Password(b"tim", b"tanstaaftanstaaf"), challenge)
    assert said[1].line == b"dGltIGI5MTNhNjAyYzdlZGE3YTQ5NWI0ZTZlNzMzNGQzODkw"


def test_a_challenge_that_is_none_gets_an_answer_that_is_wrong() -> None:
    assert steps(b"CRAM-MD5", JOE, b"&&&")[1].secret


@pytest.mark.parametrize("mechanism", [b"PLAIN", b"LOGIN", b"CRAM-MD5"])
@pytest.mark.parametrize("password", [b"s", b"p\xc3\xa4ss word", b"x" * 300])
def test_our_own_server_understands_it(mechanism: bytes, password: bytes) -> None:
    exchange = start(mechanism, b"<1.2@mx>")
    assert exchange is not None
    dialogue = claim(mechanism, Password(b"joe", password))
    line = next(dialogue).line
    assert line.startswith(b"AUTH " + mechanism)
    step = exchange.step(line.removeprefix(b"AUTH " + mechanism).strip() or None)
    while isinstance(step, Challenge):
        step = exchange.step(dialogue.send(step.text).line)
    expected: Credentials = Password(b"joe", password)
    if mechanism == b"CRAM-MD5":
        assert isinstance(step, Digest)
        expected = Digest(b"CRAM-MD5", b"joe", b"<1.2@mx>", step.response)
    assert step == expected


@pytest.mark.parametrize(
    ("offered", "private", "chosen"),
    [
        ((b"CRAM-MD5", b"PLAIN", b"LOGIN"), True, b"LOGIN"),
        ((b"CRAM-MD5", b"PLAIN"), True, b"PLAIN"),
        ((b"GSSAPI", b"LOGIN"), True, b"LOGIN"),
        ((b"CRAM-MD5",), True, b"CRAM-MD5"),
        ((b"LOGIN", b"PLAIN", b"CRAM-MD5"), False, b"CRAM-MD5"),
        ((b"LOGIN", b"PLAIN"), False, None),
        ((b"GSSAPI",), True, None),
        ((), True, None),
        (None, True, b"LOGIN"),
        (None, False, None),
    ],
)
def test_no_password_is_said_where_others_listen(
    offered: tuple[bytes, ...] | None, private: bool, chosen: bytes | None
) -> None:
    assert choose(offered, private=private) == chosen


def test_a_secret_is_not_in_a_steps_name() -> None:
    for mechanism in (b"PLAIN", b"LOGIN"):
        for step in steps(mechanism, JOE, *([b""] * (2 if mechanism == b"LOGIN" else 0))):
            assert b2a_base64(b"secret", newline=False) not in step.name
