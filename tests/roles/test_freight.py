"""A message on its connection as octets in and octets out, without a socket."""

from __future__ import annotations

from pillarbox.envelope import Envelope
from pillarbox.outcome import Verdict
from pillarbox.roles.freight import Freight
from pillarbox.roles.journey import BLOCK, Content
from pillarbox.sessions.relaying import sender
from tests.sessions.client import order

ONE = Envelope(b"joe@example.org", (b"amy@example.org",))
LINE = b"x" * 63 + b"\n"
REPLIES = (b"220 mx\r\n", b"250 mx\r\n", b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n")


def never() -> None:
    raise AssertionError("no TLS was offered")


def opened(content: Content) -> Freight:
    """One that the host waits for content from."""
    freight = Freight(sender(order(ONE)), content, never)  # type: ignore[arg-type]  # it returns never
    for reply in REPLIES:
        freight.octets()
        freight.hear(reply)
    assert freight.sender.wants_content
    return freight


def test_content_is_read_as_it_goes_out_a_block_at_a_time_and_the_dot_goes_with_the_last() -> None:
    freight = opened(Content(LINE * 3000, 64 * 3000))
    wire = LINE[:-1] + b"\r\n"
    sizes = []
    gone = b""
    while octets := freight.octets():
        sizes.append(len(octets))
        gone += octets
    assert gone == wire * 3000 + b".\r\n"
    assert sizes == [BLOCK // 64 * 65, BLOCK // 64 * 65, (3000 - 2 * BLOCK // 64) * 65 + 3]
    freight.hear(b"250 queued\r\n")
    assert freight.sender.attempt is not None
    assert freight.sender.attempt.message.verdict is Verdict.DONE
    assert freight.octets() == b"QUIT\r\n" and freight.octets() == b"" and freight.farewell() == b""


def test_a_message_that_cannot_be_read_is_never_ended() -> None:
    class Lost(Content):
        def block(self, start: int) -> bytes:
            raise OSError("gone")

    freight = opened(Lost(LINE, 64))
    assert freight.octets() == b""
    assert freight.sender.finished and freight.sender.attempt is not None
    assert freight.sender.attempt.message.report == b"Unable to read message. (#4.3.0)\n"
