"""qmail-queue: its envelope and its exit statuses, as qmail-queue(8) and envelopes(5) have them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pillarbox.envelope import Envelope
from pillarbox.programs import qmail_queue
from pillarbox.programs.qmail_queue import BadEnvelope, parse


# row: vectors-queue
@pytest.mark.parametrize(
    ("octets", "envelope"),
    [
        (b"Fjoe@a\0Tann@b\0\0", Envelope(b"joe@a", (b"ann@b",))),
        (b"F\0Tann@b\0TTom@c\0\0", Envelope(b"", (b"ann@b", b"Tom@c"))),
        (b"Fjoe@a\0\0", Envelope(b"joe@a", ())),
        (b"F\0T\0\0", Envelope(b"", (b"",))),
        (b"F\0Tann@b\0\0ignored", Envelope(b"", (b"ann@b",))),
        (b"F" + b"x" * 1002 + b"\0T" + b"y" * 1002 + b"\0\0", Envelope(b"x" * 1002, (b"y" * 1002,))),
        (b"F\0TX\xff\n@b\0\0", Envelope(b"", (b"X\xff\n@b",))),
    ],
)
def test_an_envelope_is_read(octets: bytes, envelope: Envelope) -> None:
    assert parse(octets) == envelope


# row: vectors-queue
@pytest.mark.parametrize(
    ("octets", "status"),
    [
        (b"", 54),
        (b"F", 54),
        (b"Fjoe@a", 54),
        (b"Fjoe@a\0", 54),
        (b"Fjoe@a\0T", 54),
        (b"Fjoe@a\0Tann@b\0", 54),
        (b"X", 91),
        (b"\0", 91),
        (b"Tann@b\0\0", 91),
        (b"Fa\0bad\0\0", 91),
        (b"Fa\0Fb\0\0", 91),
        (b"F" + b"x" * 1003 + b"\0\0", 11),
        (b"F\0T" + b"x" * 1003 + b"\0\0", 11),
        (b"F\0T" + b"x" * 5000, 11),
    ],
)
def test_what_is_no_envelope_has_qmails_exit_status(octets: bytes, status: int) -> None:
    with pytest.raises(BadEnvelope) as raised:
        parse(octets)
    assert raised.value.status == status


def test_a_home_that_is_not_set_up_has_qmails_exit_status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PILLARBOX_HOME", str(tmp_path))
    assert qmail_queue.main([]) == 61


def test_the_message_is_read_to_its_end_before_the_envelope(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller that dies in the middle of its message has not yet said the envelope: nothing is queued."""
    (tmp_path / "control").mkdir()
    (tmp_path / "control" / "me").write_text("mx.example.org\n")
    monkeypatch.setenv("PILLARBOX_HOME", str(tmp_path))
    read: list[int] = []

    def reading(descriptor: int, _size: int) -> bytes:
        read.append(descriptor)
        return b"x" if len(read) < 4 else b""

    monkeypatch.setattr(os, "read", reading)
    assert qmail_queue.main([]) == 54
    assert read == [0, 0, 0, 0, 1]
