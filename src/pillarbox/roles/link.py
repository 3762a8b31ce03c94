"""How two roles talk: bounded frames, and descriptors, over one inherited socketpair.

A frame is a header (octets that follow, verb, number of descriptors, tag, number of fields), the fields' lengths, and
the fields. The tag ties an answer to its question. Descriptors are received in the order they were sent, so each frame
finds its own. Nothing here blocks: `receive` takes what has come, `flush` sends what fits; loops (asyncio's or a plain
selector) say when.
"""

from __future__ import annotations

import array
import os
import socket
import struct
from collections import deque
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import accumulate, pairwise
from typing import NamedTuple

from pillarbox.roles.verbs import FIELDS, MAY_SAY, RIDERS, Verb
from pillarbox.status import Refusal, Status

FRAME_LIMIT = 2 << 20  # octets; the largest honest frame is a body of `spoolsize` with a thousand recipients
STRANGERS_LIMIT = 256 << 10  # octets of a frame from a program: it may leave one unfinished, and so may many others
READ_SIZE = 256 << 10  # octets
LARGEST_TAG = 0xFFFFFFFF
DESCRIPTORS_AT_ONCE = 253  # the kernel takes no more in one message
NO_DESCRIPTORS = "no descriptors left: raise the limit of open files"
_HEADER = struct.Struct("<IBBII")
_BEHIND_LENGTH = _HEADER.size - 4  # octets of the header that its first number counts


class _Heads(dict[int, struct.Struct]):
    """Header and lengths of the fields together, by the number of fields."""

    def __missing__(self, count: int) -> struct.Struct:
        return struct.Struct(f"<IBBII{count}I")


_HEADS = _Heads({count: struct.Struct(f"<IBBII{count}I") for count in range(32)})
# One buffer for all links of a process: a fresh one of this size at each read costs more than all the rest.
_BUFFER = memoryview(bytearray(READ_SIZE))
# A number: the members of socket's enumerations cost three calls each time they meet an operator.
_TRUNCATED = int(socket.MSG_CTRUNC)
_SPACE = socket.CMSG_SPACE(DESCRIPTORS_AT_ONCE * 4)


class LinkLost(Exception):
    """The other side is gone, or said what it may not say."""


class Frame(NamedTuple):
    """One thing said: `fields` are bytes as verbs.py lists them; `descriptors` now belong to the receiver."""

    verb: Verb
    tag: int
    fields: Sequence[bytes]
    descriptors: Sequence[int]


class _Rule(NamedTuple):
    """How a verb may be said: fields at least and at most, descriptors at most."""

    verb: Verb
    least: int
    most: int
    riders: int


@cache
def _rules(hears: frozenset[Verb]) -> dict[int, _Rule]:
    """By the number on the wire."""
    return {int(verb): _Rule(verb, *FIELDS[verb], RIDERS.get(verb, 0)) for verb in hears}


class Link:
    """One end of a socketpair between two roles. `hears` is the closed list of verbs the peer may say. A `stranger` is
    a program of anybody's: its frames are smaller, and the kernel drops what descriptors it sends."""

    __slots__ = (
        "_arrived", "_descriptors", "_leaving", "_limit", "_parting", "_rules", "_sock", "_stranger", "backlog", "dry",
    )  # fmt: skip

    def __init__(self, sock: socket.socket, hears: frozenset[Verb], *, stranger: bool = False) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._rules = _rules(hears)
        self._stranger = stranger
        self._limit = STRANGERS_LIMIT if stranger else FRAME_LIMIT
        self._arrived = b""
        self._descriptors: deque[int] = deque()
        self._leaving: deque[tuple[bytes, Sequence[int]]] = deque()  # bytes not yet sent, descriptors that ride on them
        self._parting: list[bytes] = []  # frames without descriptors, joined at the next flush
        self.backlog = 0
        self.dry = True  # the last `receive` found nothing

    @classmethod
    def between(cls, us: str, them: str, sock: socket.socket) -> Link:
        """Our end of the link from role `us` to role `them`."""
        return cls(sock, MAY_SAY[(them, us)])

    def fileno(self) -> int:
        """For selectors and add_reader."""
        return self._sock.fileno()

    @property
    def broken(self) -> bool:
        """The peer has gone without reading all that we said; what it said itself may still be read. Says so once."""
        return self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0

    def close(self) -> None:
        """Cut the link; descriptors on it, either way, are closed too. Harmless twice."""
        while self._descriptors:
            os.close(self._descriptors.popleft())
        while self._leaving:
            for descriptor in self._leaving.popleft()[1]:
                os.close(descriptor)
        self._sock.close()

    # sending

    def send(self, verb: Verb, tag: int, *fields: bytes, descriptors: Sequence[int] = ()) -> None:
        """Queue one frame; `flush` sends it. The link takes the descriptors over and closes them once they left."""
        count = len(fields)
        sizes = [*map(len, fields)]
        total = _BEHIND_LENGTH + 4 * count + sum(sizes)
        assert total <= FRAME_LIMIT
        self._parting += (_HEADS[count].pack(total, verb, len(descriptors), tag, count, *sizes), *fields)
        self.backlog += total + 4
        if descriptors:
            frame = b"".join(self._parting[-count - 1 :])
            del self._parting[-count - 1 :]
            self._settle()
            self._leaving.append((frame, descriptors))
            if self._sock.fileno() < 0:
                self.close()

    def refuse(self, tag: int, refusal: Refusal) -> None:
        """Answer a question with no."""
        self.send(Verb.REFUSED, tag, str(refusal.status).encode(), refusal.text.encode("ascii", "replace"))

    def _settle(self) -> None:
        if self._parting:
            self._leaving.append((b"".join(self._parting), ()))
            self._parting = []

    def flush(self) -> bool:
        """Send what the socket takes now. True when nothing is left. Raises LinkLost."""
        self._settle()
        while self._leaving:
            data, descriptors = self._leaving[0]
            try:
                sent = self._sock.sendmsg([data], [_rights(descriptors)]) if descriptors else self._sock.send(data)
            except BlockingIOError:
                return False
            except OSError as problem:
                raise LinkLost(str(problem)) from None
            self.backlog -= sent
            for descriptor in descriptors:
                os.close(descriptor)
            if sent < len(data):
                self._leaving[0] = (data[sent:], ())
            else:
                self._leaving.popleft()
        return True

    # receiving

    def receive(self) -> list[Frame]:
        """All whole frames that have come, at most about READ_SIZE octets of them. Raises LinkLost; SystemExit when
        descriptors of theirs are lost because we have too many: what they were for is lost for good, and only a new
        start makes it whole."""
        try:
            # Without room for ancillary data the kernel closes what descriptors there are.
            space = 0 if self._stranger else _SPACE
            octets, ancillary, flags, _ = self._sock.recvmsg_into([_BUFFER], space, socket.MSG_CMSG_CLOEXEC)
            self.dry = False
        except BlockingIOError:
            self.dry = True
            return []
        except OSError as problem:
            raise LinkLost(str(problem)) from None
        for level, kind, rights in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                self._descriptors.extend(_received(rights))
        if flags & _TRUNCATED and not self._stranger:
            raise SystemExit(NO_DESCRIPTORS)
        if not octets:
            raise LinkLost("closed")
        frames: list[Frame] = []
        try:
            self._read(bytes(_BUFFER[:octets]), frames)
        except LinkLost:
            for frame in frames:  # nobody will hear them
                for descriptor in frame.descriptors:
                    os.close(descriptor)
            raise
        return frames

    def _read(self, data: bytes, frames: list[Frame]) -> None:
        """Add all whole frames. Raises LinkLost."""
        buffer = self._arrived + data if self._arrived else data
        rules, limit = self._rules, self._limit
        start, end = 0, len(buffer)
        while end - start >= _HEADER.size:
            length, number, riders, tag, count = _HEADER.unpack_from(buffer, start)
            if not _BEHIND_LENGTH <= length <= limit:
                raise LinkLost("frame out of bounds")
            after = start + 4 + length
            if after > end:
                break
            rule = rules.get(number)
            if rule is None:
                raise LinkLost(f"may not say {number}")
            verb, least, most, at_most = rule
            if not least <= count <= most or riders > at_most:
                raise LinkLost(f"does not say {verb!r} so")
            fields = _fields(buffer, start, after, count)
            frames.append(Frame(verb, tag, fields, self._riders(riders) if riders else ()))
            start = after
        self._arrived = buffer[start:] if start < end else b""

    def _riders(self, count: int) -> list[int]:
        if count > len(self._descriptors):
            raise LinkLost("descriptors are missing")
        return [self._descriptors.popleft() for _ in range(count)]


def _fields(buffer: bytes, start: int, end: int, count: int) -> list[bytes]:
    """Of the frame from `start` to `end`."""
    at = start + _HEADER.size + 4 * count
    if at > end:
        raise LinkLost("field out of bounds")
    edges = [*accumulate(_HEADS[count].unpack_from(buffer, start)[5:], initial=at)]
    if edges[-1] != end:
        raise LinkLost("field out of bounds")
    return [buffer[left:right] for left, right in pairwise(edges)]


def _rights(descriptors: Iterable[int]) -> tuple[int, int, array.array[int]]:
    return (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))


def _received(rights: bytes) -> list[int]:
    numbers = array.array("i")
    numbers.frombytes(rights[: len(rights) - len(rights) % numbers.itemsize])
    return list(numbers)


def refusal(fields: Sequence[bytes]) -> Refusal:
    """A REFUSED frame's fields as the value they stand for. Raises LinkLost when they are nonsense."""
    if len(fields) != 2:
        raise LinkLost("a refusal has two fields")
    parts = fields[0].split(b".")
    if len(parts) != 3 or not all(part.isdigit() for part in parts):
        raise LinkLost("not a status")
    kind, subject, detail = map(int, parts)
    return Refusal(Status(kind, subject, detail), fields[1].decode("ascii", "replace"))
