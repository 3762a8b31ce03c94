"""A message as a program keeps it before it is sent on."""

from __future__ import annotations

import os

import pytest

from pillarbox.programs.content import BLOCK, IN_MEMORY, Content


@pytest.mark.parametrize("size", [0, 1, BLOCK, BLOCK + 1, IN_MEMORY, IN_MEMORY + 1, 3 * IN_MEMORY])
def test_what_went_in_comes_out_as_often_as_asked(size: int) -> None:
    octets = bytes(range(256)) * (size // 256 + 1)
    octets = octets[:size]
    with Content() as content:
        for start in range(0, size, 10_001):
            content.write(octets[start : start + 10_001])
        for _ in range(2):
            blocks = list(content.blocks())
            assert b"".join(blocks) == octets
            assert all(0 < len(block) <= BLOCK for block in blocks)
        assert content.size == size


def test_a_large_message_is_not_kept_in_memory() -> None:
    with Content() as content:
        for _ in range(10):
            content.write(b"x" * IN_MEMORY)
        assert content._memory == [] and content._file is not None


def test_a_descriptor_is_read_to_its_end() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"one\n")
    os.close(writing)
    with Content() as content:
        content.take(reading)
        os.close(reading)
        assert list(content.blocks()) == [b"one\n"]
