"""One message on its way: which hosts are tried, what they are told, and what becomes of each recipient."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pillarbox.cli.certificate import new_key, self_signed
from pillarbox.envelope import Envelope
from pillarbox.net import deaf
from pillarbox.roles import carrier, journey, relay
from pillarbox.roles.journey import NO_CONNECTION, PATIENCE, Content, Errand, Result
from pillarbox.roles.relay import Road
from pillarbox.routes import Hop
from pillarbox.smtp.sender import Phase
from pillarbox.status import Status
from tests.roles.hosts import (
    OFFER,
    OFFER_TLS,
    RELAY,
    Names,
    Script,
    Talk,
    dictated,
    envelope,
    good,
    hosts,
    says,
    unanswering,
)

BODY = b"Subject: hello\n\n.dot\nend\n"
OFFER_AUTH = b"250-host.example\r\n250 AUTH PLAIN\r\n"
WIRE = b"Subject: hello\r\n\r\n..dot\r\nend\r\n.\r\n"


def errand(*recipients: bytes, body: bytes = BODY) -> Errand:
    envelope = Envelope(b"me@example.org", recipients or (b"joe@far.example",))
    return Errand(b"far.example", Hop(RELAY), envelope, Content(body, len(body)))


def bring(
    sent: Errand, *scripts: Script | None, patience: float = 20.0, connect: float = 5.0, login: bytes = b""
) -> Result:
    async def brought() -> Result:
        async with hosts(*scripts) as (port, names):
            user = b"joe" if login else b""
            road = Road(names, b"mx.example.org", connect, patience)
            return await relay.run(replace(sent, hop=Hop(RELAY, port, user, login)), road)

    return asyncio.run(brought())


def letters(result: Result) -> bytes:
    return b"".join(outcome.verdict.value for outcome in result.outcomes)


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    key = new_key()
    file = tmp_path / "cert.pem"
    file.write_bytes(key + self_signed(key, "relay.example", datetime.now(UTC)))
    return file


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(carrier, "TICK", 0.05)
    yield


# what goes out


def test_a_message_goes_to_all_recipients_of_a_host_in_one_conversation() -> None:
    said: list[bytes] = []
    result = bring(errand(b"joe@far.example", b"amy@far.example"), good(said))
    assert said == [b"EHLO mx.example.org\r\n", WIRE, b"QUIT\r\n"]
    assert letters(result) == b"KK" and not result.down
    assert result.outcomes[0].report == b"127.0.0.2 accepted message.\nRemote host said: 250 queued\n"


def test_each_recipient_has_his_own_outcome() -> None:
    refused = {b"gone": b"550 5.1.1 no\r\n", b"full": b"452 4.2.2 full\r\n"}
    result = bring(errand(b"joe@far.example", b"gone@far.example", b"full@far.example"), good([], refused))
    assert letters(result) == b"KDZ" and not result.down
    assert result.outcomes[1].status == Status(5, 1, 1) and result.outcomes[2].status == Status(4, 2, 2)


def test_a_message_in_a_file_goes_out_as_one_in_memory_does(tmp_path: Path) -> None:
    said: list[bytes] = []
    body = b"Subject: long\n\n" + b"0123456789abcde\n" * 50_000
    (tmp_path / "body").write_bytes(body + b"what was left of another message\n")
    descriptor = os.open(tmp_path / "body", os.O_RDONLY)
    sent = replace(errand(), content=Content(descriptor, len(body)))
    assert letters(bring(sent, good(said))) == b"K"
    os.close(descriptor)
    assert said[1] == body.replace(b"\n", b"\r\n") + b".\r\n"


def test_a_message_that_cannot_be_read_to_its_end_is_never_ended(tmp_path: Path) -> None:
    said: list[bytes] = []
    (tmp_path / "body").write_bytes(BODY)
    descriptor = os.open(tmp_path / "body", os.O_RDONLY)
    result = bring(replace(errand(), content=Content(descriptor, len(BODY) + 1)), good(said))
    os.close(descriptor)
    assert letters(result) == b"Z" and result.outcomes[0].report == b"Unable to read message. (#4.3.0)\n"
    assert said[1].endswith(b"<cut off>")


# which host


# row: remote-next-mx
@pytest.mark.parametrize(
    "first",
    [
        None,
        says(b"554 go away\r\n"),
        says(b"421 busy\r\n"),
        says(b"220 host\r\n", b"421 closing\r\n"),
        says(b""),
        says(b"hello there\r\n"),
    ],
    ids=["nobody", "554", "421", "EHLO 421", "hang-up", "no SMTP"],
)
def test_the_next_host_is_tried_when_one_does_not_work(first: Script | None) -> None:
    said: list[bytes] = []
    result = bring(errand(), first, good(said))
    assert letters(result) == b"K" and not result.down
    assert result.outcomes[0].report.startswith(b"127.0.0.3 accepted")


def test_whom_a_host_has_decided_on_is_offered_to_no_other() -> None:
    said: list[bytes] = []

    async def first(talk: Talk) -> None:
        await talk.say(b"220 host\r\n")
        await talk.hear()
        await talk.say(OFFER)
        await envelope(talk, {b"gone": b"550 5.1.1 no\r\n"})
        await talk.say(b"421 closing\r\n")
        await talk.hear()

    result = bring(errand(b"gone@far.example", b"joe@far.example"), first, good(said))
    assert letters(result) == b"DK"
    assert result.outcomes[0].report.startswith(b"127.0.0.2 does not like recipient.")


def test_a_host_that_may_have_the_message_is_the_last() -> None:
    """What happened behind the final dot nobody knows; another host would surely make two of it."""
    said: list[bytes] = []
    result = bring(errand(), good([], last=b""), good(said))
    assert letters(result) == b"Z" and said == []
    assert b"Possible duplicate!" in result.outcomes[0].report and not result.down


@pytest.mark.parametrize("last", [b"200\r\n", b"299 ok\r\n"])
def test_only_2xx_behind_the_final_dot_is_success(last: bytes) -> None:
    assert letters(bring(errand(), good([], last=last))) == b"K"


@pytest.mark.parametrize("last", [b"354 more?\r\n", b"451 no\r\n", b"nonsense\r\n", b"250", b"\r\n", b"999 what\r\n"])
def test_everything_else_behind_the_final_dot_is_temporary(last: bytes) -> None:
    assert letters(bring(errand(), good([], last=last))) == b"Z"


def test_a_host_that_hangs_up_on_ehlo_is_called_again_and_told_helo() -> None:
    said: list[bytes] = []

    async def script(talk: Talk) -> None:
        await talk.say(b"220 host\r\n")
        said.append(await talk.hear())
        if said[-1].startswith(b"HELO"):
            await talk.say(b"250 host\r\n")
            await envelope(talk)
            await talk.say(b"354 go\r\n")
            await talk.content()
            await talk.say(b"250 queued\r\n")

    assert letters(bring(errand(), script)) == b"K"
    assert said == [b"EHLO mx.example.org\r\n", b"HELO mx.example.org\r\n"]


def test_nobody_at_home_anywhere_is_temporary_and_counts_the_destination_down() -> None:
    assert bring(errand(), None, None) == Result.alike(NO_CONNECTION, 1, down=True)


def test_the_report_of_a_host_that_spoke_is_kept_when_the_others_are_not_there() -> None:
    result = bring(errand(), says(b"554 go away\r\n"), None)
    assert b"but greeting failed" in result.outcomes[0].report and result.down


def test_what_dns_says_for_good_is_permanent_and_what_it_does_not_say_is_not() -> None:
    gone = asyncio.run(relay.run(replace(errand(), hop=None), Road(Names([]), b"me", 1, 1)))
    assert letters(gone) == b"D" and not gone.down and gone.outcomes[0].status == Status(5, 1, 2)
    away = asyncio.run(relay.run(errand(), Road(Names([]), b"me", 1, 1)))
    assert letters(away) == b"Z" and away.down


# TLS


def securing(certificate: Path, said: list[bytes], offer: bytes = b"250 host.example\r\n") -> Script:
    async def script(talk: Talk) -> None:
        await talk.say(b"220 host.example ESMTP\r\n")
        await talk.hear()
        await talk.say(OFFER_TLS)
        said.append(await talk.hear())
        if said[-1] != b"STARTTLS\r\n":
            return
        await talk.say(b"220 go\r\n")
        await talk.secure(certificate)
        said.append(await talk.hear())
        await talk.say(offer)
        if b"AUTH" in offer:
            said.append(await talk.hear())
            await talk.say(b"235 welcome\r\n")
        for reply in (b"250 ok\r\n", b"250 taken\r\n", b"354 go\r\n"):
            await talk.hear()
            await talk.say(reply)
        said.append(await talk.content())
        await talk.say(b"250 queued\r\n")

    return script


def test_tls_is_used_where_it_is_offered_whoever_signed_for_it(certificate: Path) -> None:
    said: list[bytes] = []
    assert letters(bring(errand(), securing(certificate, said))) == b"K"
    assert said == [b"STARTTLS\r\n", b"EHLO mx.example.org\r\n", WIRE]


def test_a_host_whose_handshake_fails_gets_the_message_in_clear() -> None:
    calls: list[bytes] = []

    async def script(talk: Talk) -> None:
        await talk.say(b"220 host.example ESMTP\r\n")
        await talk.hear()
        await talk.say(OFFER_TLS)
        calls.append(await talk.hear())
        if calls[-1] == b"STARTTLS\r\n":
            await talk.say(b"220 go\r\n")
            await talk.reader.read(100)
            await talk.say(b"this is no handshake\r\n")
            return
        for reply in (b"250 ok\r\n", b"250 taken\r\n", b"354 go\r\n"):
            await talk.say(reply)
            if not reply.startswith(b"354"):
                await talk.hear()
        assert await talk.content() == WIRE
        await talk.say(b"250 queued\r\n")

    assert letters(bring(errand(), script)) == b"K"
    assert calls == [b"STARTTLS\r\n", b"MAIL FROM:<me@example.org>\r\n"]


@pytest.mark.parametrize("name", [b"x\\..example", b"a b.example", b"\xff.example", b"y" * 64, b"-", b"_dmarc.example"])
def test_whatever_an_exchanger_is_called_tls_works(certificate: Path, name: bytes) -> None:
    async def brought() -> Result:
        async with hosts(securing(certificate, [])) as (port, names):
            return await relay.run(replace(errand(), hop=Hop(name, port)), Road(names, b"me", 5, 20))

    assert letters(asyncio.run(brought())) == b"K"


def test_no_password_goes_to_a_host_that_cannot_prove_its_name(certificate: Path) -> None:
    said: list[bytes] = []
    result = bring(errand(), securing(certificate, said, OFFER_TLS), login=b"secret")
    assert letters(result) == b"Z" and said == [b"STARTTLS\r\n"] and result.down
    assert b"CERTIFICATE_VERIFY_FAILED" in result.outcomes[0].report


def test_a_host_that_proves_its_name_gets_the_password(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    said: list[bytes] = []
    assert letters(bring(errand(), securing(certificate, said, OFFER_AUTH), login=b"secret")) == b"K"
    assert said[2] == b"AUTH PLAIN AGpvZQBzZWNyZXQ=\r\n"


def test_a_relay_of_cleartextroutes_gets_the_password_whoever_it_is(certificate: Path) -> None:
    said: list[bytes] = []
    sent = replace(errand(), clear=True)
    assert letters(bring(sent, securing(certificate, said, OFFER_AUTH), login=b"secret")) == b"K"
    assert said[2].startswith(b"AUTH PLAIN")


# row: remote-cleartext-serve
@pytest.mark.parametrize("relay_", [b"127.0.0.2", b"localhost"])
def test_a_relay_on_this_machine_gets_the_password_in_clear(relay_: bytes) -> None:
    assert said_to(relay_)[1:4] == [b"AUTH LOGIN\r\n", b"am9l\r\n", b"c2VjcmV0\r\n"]


# row: remote-cleartext-serve
def test_a_name_that_leads_to_this_machine_is_not_this_machine() -> None:
    assert said_to(b"relay.example")[1:] == [b"QUIT\r\n"]


def test_localhost_that_leads_elsewhere_gets_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journey, "is_loopback", lambda address: address != "127.0.0.2")
    assert said_to(b"localhost")[1:] == [b"QUIT\r\n"]


def said_to(relay_: bytes) -> list[bytes]:
    """What a host without TLS hears on the way to a relay that is called so and is at 127.0.0.2."""
    said: list[bytes] = []
    offer = b"250-host.example\r\n250 AUTH LOGIN\r\n"
    script = dictated(said, b"220 host\r\n", offer, b"334 VXNlcm5hbWU6\r\n", b"334 UGFzc3dvcmQ6\r\n", b"535 no\r\n")

    async def brought() -> None:
        async with hosts(script) as (port, names):
            sent = replace(errand(), hop=Hop(relay_, port, b"joe", b"secret"))
            assert letters(await relay.run(sent, Road(names, b"mx.example.org", 5, 20))) == b"Z"

    asyncio.run(brought())
    return said


# time


async def _silent(talk: Talk) -> None:
    await talk.hear()
    await asyncio.sleep(60)


async def _dripping(talk: Talk) -> None:
    await talk.say(b"220-")
    while True:
        await asyncio.sleep(0.02)
        await talk.say(b"x")


async def _mute_at_the_end(talk: Talk) -> None:
    await good([], last=b"")(talk)
    await asyncio.sleep(60)


async def _deaf(talk: Talk) -> None:
    await talk.say(b"220 host\r\n")
    await talk.hear()
    await talk.say(OFFER)
    await envelope_of_one(talk)
    await talk.say(b"354 go\r\n")
    await asyncio.sleep(60)


async def envelope_of_one(talk: Talk) -> None:
    for _ in range(2):
        await talk.hear()
        await talk.say(b"250 ok\r\n")
    await talk.hear()


@pytest.mark.parametrize(
    ("script", "body"),
    [(_silent, BODY), (_dripping, BODY), (_mute_at_the_end, BODY), (_deaf, b"x" * 79 + b"\n" * 16_000_000)],
    ids=["silent", "dripping", "mute at the end", "deaf"],
)
@pytest.mark.usefixtures("impatient")
def test_a_host_that_is_too_slow_is_left_and_the_message_waits(script: Script, body: bytes) -> None:
    begun = time.monotonic()
    result = bring(errand(body=body), script, patience=0.4)
    assert letters(result) == b"Z" and result.outcomes[0].status == Status(4, 4, 2)
    assert time.monotonic() - begun < 20


def test_no_phase_gets_less_than_rfc_5321_asks_for() -> None:
    """Section 4.5.3.2, in minutes; the final dot's ten are control/timeoutremote's 1200 seconds in full."""
    least = {
        Phase.GREETING: 5, Phase.HELLO: 5, Phase.MAIL: 5, Phase.RCPT: 5, Phase.DATA: 2, Phase.CONTENT: 3
    }  # fmt: skip
    assert all(PATIENCE[phase] >= 60 * minutes for phase, minutes in least.items())
    assert Phase.END not in PATIENCE


@pytest.mark.parametrize("hop", [False, True], ids=["by MX", "a relay"])
def test_an_exchanger_that_let_connections_time_out_is_not_tried_for_a_while_but_a_relay_is(
    monkeypatch: pytest.MonkeyPatch, hop: bool
) -> None:
    monkeypatch.setattr(deaf, "APART", 0.0)

    async def tried(port: int) -> list[bool]:
        road = Road(Names([]), b"me", 0.2, 5)
        sent = replace(errand(), domain=b"[127.0.0.2]", hop=Hop(b"127.0.0.2", port) if hop else None)
        slow = []
        for _ in range(3):
            begun = time.monotonic()
            assert await relay.run(sent, road) == Result.alike(NO_CONNECTION, 1, down=True)
            slow.append(time.monotonic() - begun > 0.15)
        return slow

    with unanswering() as port:
        monkeypatch.setattr(journey, "SMTP_PORT", port)
        assert asyncio.run(tried(port)) == [True, True, hop]


def test_one_reply_after_the_other_is_in_time_however_many_they_are() -> None:
    async def slow(talk: Talk) -> None:
        await talk.say(b"220 host\r\n")
        await talk.hear()
        await talk.say(b"250 host.example\r\n")
        for _ in range(6):
            await talk.hear()
            await asyncio.sleep(0.3)
            await talk.say(b"250 ok\r\n")
        await talk.hear()
        await talk.say(b"354 go\r\n")
        await talk.content()
        await talk.say(b"250 queued\r\n")

    recipients = [b"r%d@far.example" % number for number in range(5)]
    assert letters(bring(errand(*recipients), slow, patience=1.0)) == b"KKKKK"


@pytest.mark.usefixtures("impatient")
def test_an_errand_that_is_broken_off_leaves_no_connection_behind() -> None:
    left: list[bytes] = []

    async def script(talk: Talk) -> None:
        await talk.say(b"220 host\r\n")
        await talk.hear()
        left.append(await talk.hear())

    async def broken_off() -> None:
        async with hosts(script) as (port, names):
            road = Road(names, b"me", 5, 20)
            running = asyncio.ensure_future(relay.run(replace(errand(), hop=Hop(RELAY, port)), road))
            while not road.carriers:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            assert not road.carriers
            while not left:
                await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(broken_off(), 20))
    assert left == [b""]
