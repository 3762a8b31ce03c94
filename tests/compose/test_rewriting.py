"""Addresses are completed: qmail-header(5), by its own examples and those that qmail-inject was seen to write."""

from __future__ import annotations

import pytest

from pillarbox.compose import rewriting
from pillarbox.compose.rewriting import Hosts
from pillarbox.compose.tokens import NotTokens, parse, write

HOSTS = Hosts(b"ref.example.test", b"example.test", b"plus.test")


def rewritten(field: bytes) -> bytes:
    return write(rewriting.field(parse(field), HOSTS.rewrite))


# row: vectors-inject
@pytest.mark.parametrize(
    ("address", "completed"),
    [
        (b"bob", b"bob@ref.example.test"),
        (b"carol@host", b"carol@host.example.test"),
        (b"dave@x.y+", b"dave@x.y.plus.test"),
        (b"dave@x+", b"dave@x.plus.test"),
        (b"eve@[1.2.3.4]", b"eve@[1.2.3.4]"),
        (b"eve@x.y.", b"eve@x.y"),
        (b"eve@", b"eve@ref.example.test"),
        (b"<@route1,@route2:frank@x.y>", b"<frank@x.y>"),
        (b"<@route>", b"<>"),
        (b"<>", b"<>"),
        (b"list-@host-@[]", b"list-@host-@[]"),
        (b'"a b"@host', b'"a b"@host.example.test'),
        (b"a@b@c", b"a@b@c.example.test"),
    ],
)
def test_an_address_is_completed(address: bytes, completed: bytes) -> None:
    assert rewritten(b"To: " + address + b"\n") == b"To: " + completed + b"\n"


@pytest.mark.parametrize(
    ("field", "completed"),
    [
        (b"To:\n", b"To:\n"),
        (b"To: ,\n", b"To: ,\n"),
        (b"To: a, b\n", b"To: a@ref.example.test, b@ref.example.test\n"),
        (b"To: a b\n", b"To: a@ref.example.test, b@ref.example.test\n"),
        (b"To: Ann Other <ann>\n", b"To: Ann Other <ann@ref.example.test>\n"),
        (b"To: a <b>\n", b"To: a <b@ref.example.test>\n"),
        (b"To: friends: a, b;, c\n", b"To: friends: a@ref.example.test, b@ref.example.test;, c@ref.example.test\n"),
        (b"To: nobody:;\n", b"To: nobody: ;\n"),
        (b"To: a (home), b\n", b"To: a@ref.example.test (home), b@ref.example.test\n"),
    ],
)
def test_a_list_keeps_its_shape(field: bytes, completed: bytes) -> None:
    assert rewritten(field) == completed


@pytest.mark.parametrize("field", [b"To: a>\n", b"To: x: a\n", b"To: x: a; b;\n", b"To: a;b;\n"])
def test_what_is_no_list_of_addresses_is_refused(field: bytes) -> None:
    with pytest.raises(NotTokens):
        rewritten(field)
