"""What guessers learn (nothing) and what they cost others (nothing). Each test comes from loopback addresses of its
own, because the server remembers failures by address."""

from __future__ import annotations

import base64
import statistics
import time
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from tests.scenarios.test_recipients import submission
from tests.scenarios.wire import LOCALHOST, Wire, login, pop3
from tests.server import SECRET, Server

JOE = b"joe@example.org"
PASSWORD = SECRET.encode()


def attempt(server: Server, name: bytes, password: bytes, source: str) -> tuple[bytes, float]:
    """One POP3 login on a connection of its own: the answer to PASS, and how many seconds it took."""
    with pop3(server, source=source) as wire:
        wire.tell(b"USER " + name)
        start = time.monotonic()
        answer = wire.tell(b"PASS " + password)
        return answer, time.monotonic() - start


def attempt_smtp(server: Server, name: bytes, password: bytes, source: str) -> bytes:
    with submission(server, source=source) as wire:
        return wire.tell(b"AUTH PLAIN " + base64.b64encode(b"\0%s\0%s" % (name, password)))


NAMES = (JOE, b"nobody@example.org", b"no such user")


def test_a_wrong_password_and_an_unknown_user_get_the_same_answer(server: Server) -> None:
    with ThreadPoolExecutor() as clients:
        over_pop3 = clients.map(attempt, *zip(*[(server, name, b"wrong", "127.0.1.1") for name in NAMES], strict=True))
        over_smtp = clients.map(
            attempt_smtp, *zip(*[(server, name, b"wrong", "127.0.1.2") for name in NAMES], strict=True)
        )
        assert {answer for answer, _seconds in over_pop3} == {b"-ERR [AUTH] authorization failed"}
        answers = set(over_smtp)
    assert len(answers) == 1 and answers.pop().startswith(b"535 5.7.8 ")


def test_a_wrong_password_and_an_unknown_user_take_about_the_same_time(house: Server) -> None:
    # A right password costs a hash and nothing else. Where an unknown name did not, that much would be missing.
    seconds: dict[tuple[bytes, bytes], list[float]] = {(JOE, PASSWORD): [], **{(name, b"wrong"): [] for name in NAMES}}
    for tries in range(1, 5):  # on a busy machine it takes some to see through the noise
        with ThreadPoolExecutor(32) as clients:
            begun: list[Future[tuple[bytes, float]]] = []
            for number in range(7):
                for name, password in seconds:
                    source = f"127.0.{10 * tries + number}.{len(begun) + 1}"
                    begun.append(clients.submit(attempt, house, name, password, source))
                    time.sleep(0.1)  # they must not get in each other's way
        for number, future in enumerate(begun):
            list(seconds.values())[number % 4].append(future.result()[1])
        hashing, *medians = map(statistics.median, seconds.values())
        if max(medians) - min(medians) < hashing / 2:
            return
    raise AssertionError(f"a hash takes {hashing} s, and the names differ by more than half of it: {medians}")


def seconds_to_log_in(server: Server, source: str) -> float:
    start = time.monotonic()
    login(server, JOE, PASSWORD, source=source).close()
    return time.monotonic() - start


def test_failures_slow_their_own_address_and_nobody_else(house: Server) -> None:
    with ThreadPoolExecutor() as guessers:
        for number in range(4):
            guessers.submit(attempt, house, JOE, b"guess %d" % number, "127.0.3.1")
    assert seconds_to_log_in(house, "127.0.3.2") < 0.9
    assert seconds_to_log_in(house, "127.0.3.1") > 0.9


def test_no_password_is_taken_in_clear(house: Server) -> None:
    with pop3(house, "pop3", "127.0.4.2") as wire:
        assert wire.tell(b"USER " + JOE) == b"-ERR must issue STLS first"
    with Wire(house, "submission", "127.0.4.2") as wire:
        wire.reply()
        wire.tell(b"EHLO client.example")
        assert wire.tell(b"AUTH PLAIN " + base64.b64encode(b"\0joe@example.org\0" + PASSWORD)).startswith(b"5")


@pytest.mark.parametrize("name", [b"joe@example.org", b"joe", b"JOE@EXAMPLE.ORG"])
def test_a_login_may_be_short_where_it_is_unique(house: Server, name: bytes) -> None:
    login(house, name, PASSWORD).close()


def test_passwords_are_never_logged(house: Server) -> None:
    attempt(house, JOE, b"wr0ng-s3cret", "127.0.4.3")
    house.await_log("login failed for joe@example.org from 127.0.4.3")
    assert "wr0ng-s3cret" not in house.log() and SECRET not in house.log()
    assert LOCALHOST in house.log()
