"""Mail for other hosts: to a second Pillarbox, by names from a real name server, with TLS, whatever is killed when."""

from __future__ import annotations

import os
import random
import re
import signal
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest

from tests import hosts
from tests.hosts import Starter, place
from tests.nameserver import nameserver
from tests.scenarios.test_kills import NUMBER, Traffic
from tests.scenarios.wire import Wire, deliver, envelope, smtp, submit, token
from tests.server import Server, a_server, listen, until

FAR = "joe@far.example"
SEED = 20261


@contextmanager
def far_server(port: str = "0", address: str = "127.0.0.1") -> Iterator[Server]:
    """Another host, with accounts at far.example."""
    with a_server({"me": "mx.far.example\n", "listen": f"smtp {address}:{port}\n"}, (FAR, "amy@far.example")) as far:
        yield far


def route(far: Server) -> dict[str, str]:
    """Control files of a host that relays all mail to `far` and takes it for far.example from anybody."""
    return {
        "smtproutes": f":[127.0.0.1]:{far.ports['smtp']}\n",
        "rcpthosts": "example.org\nlocalhost\nfar.example\n",
        "listen": listen("smtp", "submission"),
    }


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[Server, Server]]:
    """One server, and the far one that it relays to."""
    with far_server() as far, a_server(route(far)) as near:
        yield near, far


def arrived(far: Server, word: bytes, local: str = "joe") -> bytes:
    """The one message with `word` in a mailbox of the far server."""
    found = until(lambda: holding(far, word, local), f"{word!r} at the far server")
    assert len(found) == 1
    return found[0]


def holding(far: Server, word: bytes, local: str = "joe") -> list[bytes]:
    place = far.mailbox(local, "far.example") / "Maildir" / "new"
    texts = [file.read_bytes() for file in place.iterdir()] if place.exists() else []
    return [text for text in texts if word in text]


def test_a_message_reaches_another_host_over_tls_as_it_was(pair: tuple[Server, Server]) -> None:
    near, far = pair
    word = token()
    body = b".\tx\r\n\r\n" + bytes(range(14, 256)) + b"\r\n" + b"long " * 3000 + b"\r\n"
    deliver(near, b"Subject: %s\r\n\r\n." % word + body, FAR.encode())
    text = arrived(far, word)
    assert text.endswith(b"Subject: %s\n\n" % word + body.replace(b"\r\n", b"\n"))
    hop = text.partition(b"Received: ")[2].partition(b"Received: ")[0]
    assert b"mx.example.org" in hop and b"ESMTPS" in hop and b"TLSv1.3" in hop


def test_recipients_of_one_host_come_in_one_message(pair: tuple[Server, Server]) -> None:
    near, far = pair
    word = token()
    before = far.log().count("new msg")
    with smtp(near) as wire:
        envelope(wire, b"ann@example.net", FAR.encode(), b"amy@far.example")
        assert submit(wire, b"Subject: %s\r\n\r\n" % word).startswith(b"250 ")
    arrived(far, word)
    arrived(far, word, "amy")
    assert far.log().count("new msg") == before + 1


def test_a_message_too_large_for_memory_arrives_whole(pair: tuple[Server, Server]) -> None:
    near, far = pair
    word = token()
    lines = b"".join(b"%08d %s\r\n" % (number, b"x" * 80) for number in range(60_000))
    deliver(near, b"Subject: %s\r\n\r\n" % word + lines, FAR.encode())
    assert arrived(far, word).endswith(lines.replace(b"\r\n", b"\n"))


def test_who_is_not_there_is_told_to_the_sender_in_a_bounce_and_the_others_get_the_message(
    pair: tuple[Server, Server],
) -> None:
    near, far = pair
    word = token()
    with smtp(near) as wire:
        envelope(wire, b"joe@example.org", b"nobody@far.example", FAR.encode())
        assert submit(wire, b"Subject: %s\r\n\r\n" % word).startswith(b"250 ")
    arrived(far, word)
    bounce = near.await_delivered(word).read_bytes()
    assert b"<nobody@far.example>:\n127.0.0.1 does not like recipient.\nRemote host said: 550 5.1.1 " in bounce
    near.await_log("delivery [0-9]+: failure: 127.0.0.1_does_not_like_recipient./Remote_host_said:_550_5.1.1_")


def test_the_log_speaks_as_qmail_send_does(pair: tuple[Server, Server]) -> None:
    near, far = pair
    deliver(near, b"Subject: %s\r\n\r\n" % (word := token()), FAR.encode())
    arrived(far, word)
    near.await_log(r"^starting delivery [0-9]+: msg [0-9]+ to remote joe@far\.example$")
    near.await_log(r"^delivery [0-9]+: success: 127\.0\.0\.1_accepted_message\./Remote_host_said:_250_2\.0\.0_ok_.*/$")


# the servers of others


@pytest.mark.parametrize("start", hosts.ALL, ids=lambda start: start.__name__)
def test_other_mail_servers_take_our_mail_over_tls(start: Starter) -> None:
    with place() as home, start(home) as host:
        control = {
            "smtproutes": f":127.0.0.1:{host.port}\n",
            "rcpthosts": "example.org\nlocalhost\nexample.test\n",
            "listen": listen("smtp"),
        }
        with a_server(control) as near, smtp(near) as wire:
            word = token()
            envelope(wire, b"joe@example.org", b"joe@example.test", b"amy@example.test", b"nobody@example.test")
            assert submit(wire, b"Subject: %s\r\n\r\n..dot\r\n" % word).startswith(b"250 ")
            arrived = host.await_received(word)
            assert b"\n.dot\n" in arrived
            assert b"esmtps" in arrived.lower() or host.name == "OpenSMTPD"  # Debian's cannot shake hands: in clear
            assert b"nobody@example.test" in near.await_delivered(b"failure notice").read_bytes()
            until(lambda: not queued(near), "an empty queue")


# row: remote-cleartext-serve
@pytest.mark.parametrize("trusted", [False, True], ids=["not trusted", "in cleartextroutes"])
def test_a_relay_with_an_unknown_certificate_gets_the_password_only_when_it_may(trusted: bool) -> None:
    with place() as home, hosts.exim(home) as host:
        control = {
            "smtproutes": f":relay.example:{host.port} joe s3cret word\n",
            "rcpthosts": "away.test\n",
            **({"cleartextroutes": "relay.example\n"} if trusted else {}),
        }
        with resolving("relay.example. A 127.0.0.1\n", **control) as near:
            deliver(near, b"Subject: %s\r\n\r\n" % (word := token()), b"far@away.test")
            if trusted:
                assert b"esmtpsa" in host.await_received(word)
            else:
                near.await_log("deferral: Connected_to_127.0.0.1_but_TLS_failed:_CERTIFICATE_VERIFY_FAILED")
                assert not host.received()
            assert "s3cret" not in near.log()


# row: known-ipv6
def test_a_host_is_reached_over_ipv6() -> None:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            pass
    except OSError as problem:
        pytest.skip(f"needs IPv6 on loopback: {problem.strerror}")
    with far_server(address="[::1]") as far:
        control = route(far) | {"smtproutes": f":[::1]:{far.ports['smtp']}\n"}
        with a_server(control) as near:
            deliver(near, b"Subject: %s\r\n\r\n" % (word := token()), FAR.encode())
            arrived(far, word)
            near.await_log("success: ::1_accepted_message")


# names


@contextmanager
def resolving(records: str, **control: str) -> Iterator[Server]:
    """A server that asks a name server with these records."""
    with nameserver(records) as port:
        files = {"resolvers": f"127.0.0.1:{port}\n", "rcpthosts": "example.org\nlocalhost\n.example\n", **control}
        with a_server({"listen": listen("smtp"), **files}) as near:
            yield near


def test_a_relay_is_found_by_its_name() -> None:
    with (
        far_server() as far,
        resolving("relay.example. A 127.0.0.1\n", smtproutes=f":relay.example:{far.ports['smtp']}\n") as near,
    ):
        deliver(near, b"Subject: %s\r\n\r\n" % (word := token()), FAR.encode())
        arrived(far, word)


def test_mail_goes_to_the_best_exchanger_that_is_there() -> None:
    """127.0.0.66 has nobody at port 25, 127.0.0.67 is the far server."""
    try:
        with socket.create_server(("127.0.0.67", 25)):
            pass
    except OSError as problem:
        pytest.skip(f"needs port 25 of 127.0.0.67: {problem.strerror}")
    records = """far.example. MX 20 mx2.far.example.
far.example. MX 10 mx1.far.example.
far.example. MX 30 mx3.far.example.
mx1.far.example. A 127.0.0.66
mx2.far.example. A 127.0.0.67
mx3.far.example. A 127.0.0.68
"""
    with far_server("25", "127.0.0.67") as far, resolving(records) as near:
        deliver(near, b"Subject: %s\r\n\r\n" % (word := token()), FAR.encode())
        arrived(far, word)
        near.await_log("success: 127.0.0.67_accepted_message")


def test_what_the_name_server_says_decides_between_later_and_never() -> None:
    records = """null.example. MX 0 .
ours.example. MX 10 ours.example.
ours.example. A 127.0.0.1
nothing.example. MX 10 gone.example.
"""
    said = {
        "gone.example": "failure: Sorry,_I_couldn't_find_any_host_named_gone.example._(#5.1.2)/",
        "null.example": "failure: Sorry,_that_domain_says_that_it_takes_no_mail._(#5.1.10)/",
        "ours.example": "failure: Sorry._Although_I'm_listed_as_a_best-preference_MX_or_A_for_that_host,/it_isn't_in",
        "nothing.example": "failure: Sorry,_I_couldn't_find_a_mail_exchanger_or_IP_address._(#5.4.4)/",
        "a.broken": "deferral: Sorry,_I_couldn't_find_any_host_by_that_name._(#4.1.2)/",
    }
    with resolving(records, rcpthosts="example.org\nlocalhost\n.example\n.broken\n") as near:
        for domain, line in said.items():
            deliver(near, b"Subject: x\r\n\r\n", b"joe@" + domain.encode())
            near.await_log(re.escape(line))


def test_a_name_server_that_does_not_answer_puts_mail_off_with_one_line() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        control = {
            "resolvers": f"127.0.0.1:{silent.getsockname()[1]}\n",
            "timeoutconnect": "1\n",
            "rcpthosts": "far.example\n",
            "listen": listen("smtp"),
        }
        with a_server(control) as near:
            deliver(near, b"Subject: x\r\n\r\n", FAR.encode())
            near.await_log(re.escape("deferral: Sorry,_I_couldn't_find_any_host_by_that_name._(#4.1.2)/"))
            assert near.log().count("delivery 1: deferral") == 1 and FAR in queued(near)


# trouble


def mute() -> socket.socket:
    """A port that takes connections and says nothing."""
    return socket.create_server(("127.0.0.1", 0))


def test_a_server_that_is_told_to_stop_waits_for_no_host_that_has_not_the_whole_message() -> None:
    with mute() as silent:
        port = silent.getsockname()[1]
        control = {"smtproutes": f":127.0.0.1:{port}\n", "rcpthosts": "far.example\n", "listen": listen("smtp")}
        with a_server(control) as near:
            deliver(near, b"Subject: x\r\n\r\n", FAR.encode())
            near.await_log("starting delivery")
            begun = time.monotonic()
            near.signal(signal.SIGTERM)
            assert near.wait() == 0 and time.monotonic() - begun < 10
            near.start()
            assert "joe@far.example" in near.pillarbox("queue", "list")


def test_a_slow_host_holds_up_no_other() -> None:
    with mute() as silent, far_server() as far:
        port = silent.getsockname()[1]
        control = route(far) | {
            "smtproutes": f"slow.example:127.0.0.1:{port}\n:127.0.0.1:{far.ports['smtp']}\n",
            "rcpthosts": "far.example\nslow.example\n",
            "concurrencyremote": "4\n",
        }
        with a_server(control) as near:
            for _ in range(8):
                deliver(near, b"Subject: x\r\n\r\n", b"joe@slow.example")
            deliver(near, b"Subject: %s\r\n\r\n" % (word := token()), FAR.encode())
            arrived(far, word)


def test_a_route_with_a_login_and_no_relay_sends_nothing_anywhere_and_says_where_the_slip_is() -> None:
    control = {"smtproutes": "far.example: joe secret\n", "rcpthosts": "far.example\n", "listen": listen("smtp")}
    with a_server(control) as near:
        deliver(near, b"Subject: x\r\n\r\n", FAR.encode())
        near.await_log("deferral: control/smtproutes:_the_line_'far.example:'_has_a_login_but_no_relay")
        assert "secret" not in near.log()


def test_the_new_routes_hold_from_a_sighup_on(pair: tuple[Server, Server]) -> None:
    near, far = pair
    near.control("smtproutes", "far.example:127.0.0.1:1\n")
    near.signal(signal.SIGHUP)
    until(lambda: refused(near), "the new route")
    near.control("smtproutes", route(far)["smtproutes"])
    near.signal(signal.SIGHUP)
    settle(near)


def refused(near: Server) -> bool:
    deliver(near, b"Subject: x\r\n\r\n", FAR.encode())
    time.sleep(0.1)
    return "able_to_establish_an_SMTP_connection" in near.news()


def queued(near: Server) -> str:
    return near.pillarbox("queue", "list")


@pytest.mark.parametrize("victims", [("remote",), ("queue",), ("remote", "queue", "smtpd", "spawn")], ids="+".join)
def test_whatever_is_killed_each_accepted_message_is_at_the_far_server_or_still_queued(
    victims: tuple[str, ...],
) -> None:
    chance = random.Random(SEED)
    with ExitStack() as stack:
        far = stack.enter_context(far_server())
        near = stack.enter_context(a_server({**route(far), "spoolsize": "65536\n"}))
        traffic = Traffic(near, FAR.encode())
        for turn in range(5):
            victim = until(lambda: living(near, victims, chance), "something to kill")
            with traffic:
                enough = len(traffic.accepted) + chance.randrange(5, 30)
                until(lambda least=enough: len(traffic.accepted) >= least, "mail taken")
                time.sleep(chance.uniform(0.0, 0.03))
                near.kill_role(victim)
            if turn == 3 and len(victims) > 1:
                os.kill(near.pid, signal.SIGKILL)
                near.wait()
                near.start()
        settle(near)
        numbers = arrivals(far)
        assert traffic.accepted and traffic.accepted <= numbers.keys(), f"lost: {traffic.accepted - numbers.keys()}"
        assert not near.holding(b"failure notice")


def settle(near: Server) -> None:
    """Try until nothing is left: whatever a kill put off."""

    def empty() -> bool:
        if not queued(near):
            return True
        with suppress(AssertionError):  # the last one left just now
            near.pillarbox("queue", "retry", "--to", "far.example")
        return False

    until(empty, "an empty queue", seconds=60)


def living(near: Server, roles: tuple[str, ...], chance: random.Random) -> str:
    """One of these roles that has a process."""
    found = [role for role in roles if near.processes(role)]
    return chance.choice(found) if found else ""


def arrivals(far: Server) -> Counter[int]:
    """Number -> how often it is at the far server, once nothing is under way there."""
    until(lambda: not queued(far), "the far server's queue to be empty")
    numbers: Counter[int] = Counter()
    for text in holding(far, b"Subject: number"):
        match = NUMBER.search(text)
        assert match
        numbers[int(match[1])] += 1
    return numbers


def test_a_queue_that_dies_with_its_remote_role_at_work_leaves_no_errand_running(pair: tuple[Server, Server]) -> None:
    """The host has not heard the final dot: the message must not be finished by a role whose queue has forgotten it."""
    with mute() as silent:
        port = silent.getsockname()[1]
        control = {"smtproutes": f":127.0.0.1:{port}\n", "rcpthosts": "far.example\n", "listen": listen("smtp")}
        with a_server(control) as near:
            deliver(near, b"Subject: x\r\n\r\n", FAR.encode())
            connection, _ = silent.accept()
            with connection:
                connection.settimeout(20)
                near.kill_role("queue")
                assert connection.recv(1) == b""
            again, _ = silent.accept()
            again.close()


def test_no_stranger_gets_to_another_host(pair: tuple[Server, Server]) -> None:
    near, _far = pair
    with Wire(near, "smtp") as wire:
        wire.reply()
        for command in (b"EHLO x", b"MAIL FROM:<joe@example.org>"):
            assert wire.tell(command).startswith(b"250")
        assert wire.tell(b"RCPT TO:<joe@elsewhere.example>").startswith(b"550 5.7.1")
