"""qmail-remote's way with a connection: large messages, hosts that are slow, deaf, rude or gone, TLS."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pillarbox.cli.certificate import new_key, self_signed
from tests.nameserver import nameserver
from tests.programs.remotely import begin, control, home, run
from tests.roles.hosts import Script, Talk, dictated, hosts

__all__ = ["home"]

LARGE = b"Subject: large\n\n" + b"".join(b"%07d %s\n" % (number, b"x" * 70) for number in range(70_000))
OPENING = (b"220 host\r\n", b"250 host\r\n", b"250 ok\r\n", b"250 ok\r\n")
TAKING = (*OPENING, b"354 go\r\n", b"250 queued\r\n")
TAKEN = b"r\0K127.0.0.2 accepted message.\nRemote host said: 250 queued\n\0"
DIED = b"ZConnected to 127.0.0.2 but connection died. (#4.4.2)\n\0"


def bring(home: Path, *scripts: Script | None, message: bytes = LARGE, timeout: int = 30) -> bytes:
    async def brought() -> bytes:
        async with hosts(*scripts) as (port, _names):
            control(home, smtproutes=f":127.0.0.2:{port}\n", timeoutremote=f"{timeout}\n")
            return await run(home, "far.example", "me@example.org", "joe@far.example", message=message)

    return asyncio.run(brought())


def opened(then: Script) -> Script:
    """A host that has said 354 to DATA."""

    async def script(talk: Talk) -> None:
        for reply in OPENING:
            await talk.say(reply)
            await talk.hear()
        await talk.say(b"354 go\r\n")
        await then(talk)

    return script


def test_a_large_message_arrives_whole(home: Path) -> None:
    said: list[bytes] = []
    assert bring(home, dictated(said, *TAKING)) == TAKEN
    assert said[4] == LARGE.replace(b"\n", b"\r\n") + b".\r\n"


def test_a_large_message_arrives_whole_over_tls(home: Path, tmp_path: Path) -> None:
    said: list[bytes] = []
    key = new_key()
    certificate = tmp_path / "cert.pem"
    certificate.write_bytes(key + self_signed(key, "relay.example", datetime.now(UTC)))

    async def script(talk: Talk) -> None:
        await dictated(said, b"220 host\r\n", b"250-host\r\n250 STARTTLS\r\n")(talk)
        await talk.say(b"220 go\r\n")
        await talk.secure(certificate)
        said.append(await talk.hear())
        await dictated(said, *TAKING[1:])(talk)

    assert bring(home, script) == TAKEN
    assert hashlib.sha256(said[6]).digest() == hashlib.sha256(LARGE.replace(b"\n", b"\r\n") + b".\r\n").digest()


def test_a_host_that_refuses_amid_the_content_and_hangs_up_is_heard(home: Path) -> None:
    async def rude(talk: Talk) -> None:
        await talk.reader.read(1000)
        await talk.say(b"552 too much\r\n")

    assert bring(home, opened(rude)) == (
        b"r\0ZConnected to 127.0.0.2 but it spoke out of turn. (#4.5.0)\nRemote host said: 552 too much\n\0"
    )


def test_a_host_that_refuses_amid_the_content_and_takes_no_more_is_heard(home: Path) -> None:
    async def rude(talk: Talk) -> None:
        await talk.reader.read(1000)
        await talk.say(b"552 too much\r\n")
        await asyncio.sleep(30)

    assert bring(home, opened(rude), message=LARGE * 4, timeout=2) == (
        b"r\0ZConnected to 127.0.0.2 but it spoke out of turn. (#4.5.0)\nRemote host said: 552 too much\n\0"
    )


def test_nothing_more_is_said_to_a_host_that_spoke_out_of_turn(home: Path) -> None:
    heard: list[bytes] = []

    async def late(talk: Talk) -> None:
        await talk.reader.read(1000)
        await talk.say(b"552 too much\r\n")
        await asyncio.sleep(1)
        while octets := await talk.reader.read(1 << 20):
            heard.append(octets)

    bring(home, opened(late), message=LARGE * 4, timeout=20)
    assert not b"".join(heard).endswith((b"QUIT\r\n", b"\r\n.\r\n"))


def test_a_host_that_hangs_up_amid_the_content_died_without_a_duplicate(home: Path) -> None:
    async def gone(talk: Talk) -> None:
        await talk.reader.read(1000)

    assert bring(home, opened(gone)) == b"r\0" + DIED


def test_a_host_that_takes_no_more_content_is_left(home: Path) -> None:
    async def stuck(talk: Talk) -> None:
        await asyncio.sleep(30)

    assert bring(home, opened(stuck), message=LARGE * 4, timeout=1) == b"r\0" + DIED


def test_a_host_that_does_not_answer_the_final_dot_may_have_the_message(home: Path) -> None:
    async def mute(talk: Talk) -> None:
        await talk.content()
        await asyncio.sleep(30)

    assert bring(home, opened(mute), message=b"x\n", timeout=1) == (
        b"r\0ZConnected to 127.0.0.2 but connection died. Possible duplicate! (#4.4.2)\n\0"
    )


def test_a_reply_that_never_ends_is_not_waited_for(home: Path) -> None:
    async def dripping(talk: Talk) -> None:
        await talk.say(b"220-")
        while True:
            await asyncio.sleep(0.05)
            await talk.say(b"x")

    assert bring(home, dripping, timeout=1) == DIED


def test_a_host_that_breaks_the_handshake_gets_the_message_in_clear(home: Path) -> None:
    said: list[bytes] = []
    calls: list[int] = []

    async def script(talk: Talk) -> None:
        calls.append(1)
        if len(calls) > 1:
            await dictated(said, *TAKING)(talk)
            return
        await dictated([], b"220 host\r\n", b"250-host\r\n250 STARTTLS\r\n")(talk)
        await talk.say(b"220 go\r\n")
        await talk.reader.read(100)
        await talk.say(b"this is no handshake\r\n")

    assert bring(home, script, message=b"x\n") == TAKEN
    assert said[1] == b"MAIL FROM:<me@example.org>\r\n"


def test_a_host_that_hangs_up_on_ehlo_is_called_again_and_told_helo(home: Path) -> None:
    said: list[bytes] = []

    async def script(talk: Talk) -> None:
        if said:
            await dictated(said, *TAKING)(talk)
        else:
            await dictated(said, b"220 host\r\n")(talk)

    assert bring(home, script, message=b"x\n") == TAKEN
    assert said[:2] == [b"EHLO helo.example.org\r\n", b"HELO helo.example.org\r\n"]


@pytest.mark.parametrize("first", [dictated([], b"554 go away\r\n"), None])
def test_the_next_address_of_a_relay_is_tried_when_one_does_not_work(home: Path, first: Script | None) -> None:
    async def brought() -> bytes:
        with nameserver("relay.example. A 127.0.0.2\nrelay.example. A 127.0.0.3\n") as names:
            async with hosts(first, dictated([], *TAKING)) as (port, _names):
                control(home, smtproutes=f":relay.example:{port}\n", resolvers=f"127.0.0.1:{names}\n")
                return await run(home, "far.example", "", "joe@far.example", message=b"x\n")

    assert asyncio.run(brought()) == b"r\0K127.0.0.3 accepted message.\nRemote host said: 250 queued\n\0"


def test_nothing_slow_is_imported_where_no_name_is_asked_for_and_no_tls_is_offered(home: Path) -> None:
    login = (b"250 AUTH LOGIN\r\n", b"334 x\r\n", b"334 y\r\n", b"235 ok\r\n")

    async def brought() -> tuple[bytes, bytes]:
        async with hosts(dictated([], OPENING[0], b"250-host\r\n" + login[0], *login[1:], *TAKING[2:])) as (port, _):
            control(home, smtproutes=f":127.0.0.2:{port} foo bar\n")
            return await begin(home, "far.example", "", "joe@far.example", python=("-X", "importtime"))

    report, imported = asyncio.run(brought())
    assert report == TAKEN
    names = {line.rpartition(b"|")[2].strip().partition(b".")[0] for line in imported.splitlines()}
    assert b"pillarbox" in names
    assert not names & {b"asyncio", b"ssl", b"dns", b"tempfile", b"random", b"ctypes", b"click", b"subprocess"}


@asynccontextmanager
async def listening(script: Script, address: str, port: int) -> AsyncIterator[int]:
    """A host at this very address; gives its port."""

    async def met(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await script(Talk(reader, writer))
        writer.close()

    try:
        server = await asyncio.start_server(met, address, port)
    except OSError as problem:
        pytest.skip(f"needs port {port} of {address}: {problem.strerror}")
    async with server:
        yield server.sockets[0].getsockname()[1]


def test_mail_goes_to_the_best_exchanger_that_is_there(home: Path) -> None:
    records = "far.example. MX 20 b.example.\nfar.example. MX 10 a.example.\nfar.example. MX 30 c.example.\n"
    records += "a.example. A 127.0.0.76\nb.example. A 127.0.0.77\nc.example. A 127.0.0.78\n"

    async def brought() -> bytes:
        with nameserver(records) as names:
            async with listening(dictated([], *TAKING), "127.0.0.77", 25):
                control(home, resolvers=f"127.0.0.1:{names}\n")
                return await run(home, "far.example", "me@example.org", "joe@far.example")

    assert asyncio.run(brought()) == TAKEN.replace(b"127.0.0.2", b"127.0.0.77")


def test_a_relay_may_be_reached_over_ipv6(home: Path) -> None:
    async def brought() -> bytes:
        async with listening(dictated([], *TAKING), "::1", 0) as port:
            control(home, smtproutes=f":[::1]:{port}\n")
            return await run(home, "far.example", "me@example.org", "joe@far.example")

    assert asyncio.run(brought()) == TAKEN.replace(b"127.0.0.2", b"::1")
