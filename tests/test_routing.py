"""Where an address goes: the rows of qmail-send's recipient rewriting."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pillarbox.control.table import Settings
from pillarbox.routing import Local, Relay, Route, Routing, shown_local

SETTINGS = Settings(
    me=b"mx.example.org",
    locals=frozenset({b"localhost", b"both.example"}),
    percenthack=frozenset({b"hack.example"}),
    virtualdomains={
        b"example.org": b"example.org",
        b"both.example": b"never",
        b"joe@mixed.example": b"jim",
        b"mixed.example": b"mixed",
        b".wild.example": b"wild",
        b".deep.wild.example": b"deep",
        b"out.wild.example": b"",
        b"hand.example": b"hand.example-x",
    },
)


# row: vectors-routing, known-delivered-to-case
@pytest.mark.parametrize(
    ("address", "route"),
    [
        (b"Joe@LocalHost", Local(b"Joe", b"LocalHost", b"Joe")),
        (b"Joe@Example.ORG", Local(b"example.org-Joe", b"Example.ORG", b"Joe")),
        (b"x@both.example", Local(b"x", b"both.example", b"x")),
        (b"JOE@mixed.example", Local(b"jim-JOE", b"mixed.example", b"JOE")),
        (b"ann@mixed.example", Local(b"mixed-ann", b"mixed.example", b"ann")),
        (b"a@b.wild.example", Local(b"wild-a", b"b.wild.example", b"a")),
        (b"a@c.b.wild.example", Local(b"wild-a", b"c.b.wild.example", b"a")),
        (b"a@b.deep.wild.example", Local(b"deep-a", b"b.deep.wild.example", b"a")),
        (b"a@wild.example", Relay(b"a@wild.example", b"wild.example")),
        (b"a@out.wild.example", Relay(b"a@out.wild.example", b"out.wild.example")),
        (b"a@Elsewhere.example", Relay(b"a@Elsewhere.example", b"elsewhere.example")),
        (b"joe", Relay(b"joe@mx.example.org", b"mx.example.org")),
        (b"a@b@localhost", Local(b"a@b", b"localhost", b"a@b")),
        (b"u%localhost@hack.example", Local(b"u", b"localhost", b"u")),
        (b"u%x%hack.example@hack.example", Relay(b"u@x", b"x")),
        (b"plain@hack.example", Relay(b"plain@hack.example", b"hack.example")),
        (b"u%localhost@elsewhere.example", Relay(b"u%localhost@elsewhere.example", b"elsewhere.example")),
    ],
)
def test_an_address_goes_where_qmail_sends_it(address: bytes, route: Route) -> None:
    assert Routing(SETTINGS).route(address) == route


# row: vectors-routing
def test_the_empty_key_catches_every_other_host() -> None:
    routing = Routing(Settings(me=b"mx", virtualdomains={b"": b"all", b"away.example": b""}))
    assert routing.route(b"a@b.example") == Local(b"all-a", b"b.example", b"a")
    assert routing.route(b"a@away.example") == Relay(b"a@away.example", b"away.example")


# row: vectors-routing
def test_an_address_without_a_host_gets_envnoathost() -> None:
    routing = Routing(Settings(me=b"mx", envnoathost=b"users.example", locals=frozenset({b"users.example"})))
    assert routing.route(b"joe") == Local(b"joe", b"users.example", b"joe")


def test_bare_postmaster_stays_here_even_where_our_name_is_not_local() -> None:
    assert Routing(SETTINGS).route(b"PostMaster") == Local(b"PostMaster", b"mx.example.org", b"PostMaster")
    account = Settings(me=b"mx", locals=frozenset({b"localhost"}), virtualdomains={b"mx": b"mx"})
    assert Routing(account).route(b"postmaster") == Local(b"mx-postmaster", b"mx", b"postmaster")


@given(address=st.binary(max_size=60) | st.text("ab.@%-", max_size=30).map(str.encode))
def test_every_address_has_one_way_and_locals_never_leave(address: bytes) -> None:
    route = Routing(SETTINGS).route(address)
    if isinstance(route, Relay):
        assert route.domain not in SETTINGS.locals and route.domain not in (b"example.org", b"mixed.example")
        assert route.address.lower().endswith(b"@" + route.domain)
    else:
        assert route.local.endswith(route.user)


def test_a_hostile_host_of_dots_does_no_harm() -> None:
    address = b"a@" + b"." * 990
    assert isinstance(Routing(SETTINGS).route(address), Relay)


@pytest.mark.parametrize(
    ("domain", "served"),
    [
        (b"LOCALHOST", True),
        (b"example.org", True),
        (b"x.wild.example", True),
        (b"wild.example", False),
        (b"out.wild.example", False),
        (b"elsewhere.example", False),
    ],
)
def test_a_domain_is_served_when_a_line_names_it(domain: bytes, served: bool) -> None:
    assert Routing(SETTINGS).serves(domain) is served


def test_the_catch_all_names_no_domain() -> None:
    assert not Routing(Settings(me=b"mx", virtualdomains={b"": b"all"})).serves(b"elsewhere.example")


@pytest.mark.parametrize(
    ("local", "domain", "owner_home", "shown"),
    [
        (b"example.org-joe", b"example.org", b"/home/of/pb/mail/example.org/joe", b"joe"),
        (b"example.org-Joe-Lists", b"Example.ORG", b"/home/of/pb/mail/example.org/joe", b"Joe-Lists"),
        (b"example.org-joe", b"example.org", b"/home/joe", b"example.org-joe"),
        (b"mixed-joe", b"mixed.example", b"/home/of/pb/mail/mixed.example/joe", b"mixed-joe"),
        (b"hand.example-x-joe", b"hand.example", b"/home/of/pb/mail/hand.example/x", b"hand.example-x-joe"),
        (b"joe", b"localhost", b"/home/of/pb/mail/localhost/joe", b"joe"),
    ],
)
def test_delivered_to_shows_accounts_without_the_prefix_of_their_domain(
    local: bytes, domain: bytes, owner_home: bytes, shown: bytes
) -> None:
    assert shown_local(local, domain, owner_home, b"/home/of/pb", SETTINGS) == shown
