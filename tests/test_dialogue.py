from __future__ import annotations

from pathlib import Path

import pytest

from tests.dialogue import BadDialogue, Expect, Fact, Happening, Send, facts, parse, pieces, walk


def test_a_dialogue_file_is_facts_then_steps(tmp_path: Path) -> None:
    file = tmp_path / "one.txt"
    file.write_text(
        "# for the reader\nservice: submission\n\nS: 220 mx …\nC: EHLO c\nC: {3*ab}\\r\\x00\\\\\nC+ x\\n\n* tls\n"
    )
    steps = parse(file)
    assert facts(steps) == {"service": "submission"}
    assert steps == [
        Fact("service", "submission"),
        Expect("220 mx …"),
        Send(b"EHLO c\r\n"),
        Send(b"ababab\r\0\\\r\n"),
        Send(b"x\n"),
        Happening("tls", ""),
    ]
    assert pieces(steps) == [
        Expect("220 mx …"),
        Send(b"EHLO c\r\nababab\r\0\\\r\nx\n"),
        Happening("tls", ""),
    ]


def test_an_expected_line_is_exact_but_for_its_ellipses() -> None:
    assert Expect("250 ok").matches(b"250 ok")
    assert not Expect("250 ok").matches(b"250 ok1")
    assert not Expect("250.ok").matches(b"250 ok")
    assert Expect("250 … ok …").matches(b"250 2.0.0 ok 17")
    assert not Expect("250 … ok").matches(b"251 x ok")


@pytest.mark.parametrize("text", ["hello\n", "S:220\nservice: late\n", "X\n"])
def test_a_line_that_is_no_step_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "bad.txt"
    file.write_text(text)
    with pytest.raises(BadDialogue, match=r"bad\.txt: line"):
        parse(file)


class Parrot:
    """Greets, and says each line again once it is whole."""

    def __init__(self) -> None:
        self.said: list[bytes] = []
        self.happened: list[tuple[str, str]] = []
        self._heard, self._ready = b"", b"hello\r\n"

    def hear(self) -> bytes:
        said, self._ready = self._ready, b""
        return said

    def send(self, *pieces: bytes) -> bytes:
        self.said += pieces
        lines, end, self._heard = (self._heard + b"".join(pieces)).rpartition(b"\n")
        return lines + end

    def happen(self, word: str, argument: str) -> None:
        self.happened.append((word, argument))

    def walked(self, file: Path, text: str, *, one_by_one: bool = False) -> None:
        file.write_text(text)
        walk(file, self.hear, self.send, self.happen, one_by_one=one_by_one)


@pytest.mark.parametrize(
    ("one_by_one", "said"), [(False, [b"a\r\nb\r\n"]), (True, [b"a", b"\r", b"\n", b"b", b"\r", b"\n"])]
)
def test_a_dialogue_is_walked_from_end_to_end(tmp_path: Path, one_by_one: bool, said: list[bytes]) -> None:
    parrot = Parrot()
    parrot.walked(tmp_path / "good", "S: hello\nC: a\nC: b\nS: a\nS: b\n* closed by us\n", one_by_one=one_by_one)
    assert parrot.said == said
    assert parrot.happened == [("closed", "by us")]


@pytest.mark.parametrize(
    ("text", "trouble"),
    [
        ("S: hullo\n", "expected 'hullo', heard b'hello'"),
        ("S: hello\nS: more\n", "expected 'more', heard no more than b''"),
        ("C: a\n", "the client speaks while the server has more to say: b'hello"),
        ("* closed\n", "the server has more to say: b'hello"),
        ("S: hello\nC: a\n", "the server has more to say: b'a"),
    ],
)
def test_a_dialogue_that_goes_otherwise_is_a_failure(tmp_path: Path, text: str, trouble: str) -> None:
    with pytest.raises(AssertionError, match=trouble):
        Parrot().walked(tmp_path / "bad", text)
