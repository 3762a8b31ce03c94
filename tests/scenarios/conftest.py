"""Servers that several scenarios share: starting one takes about as long as most of the tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.server import Server, a_server

ACCOUNTS = ("joe@example.org", "ann@example.org")


@pytest.fixture(scope="session")
def house() -> Iterator[Server]:
    """As `init` makes it, with two accounts."""
    with a_server({}, ACCOUNTS) as server:
        yield server


@pytest.fixture(scope="session")
def secret_house() -> Iterator[Server]:
    """The same, with control/crammd5: clients may prove that they know the password without saying it."""
    with a_server({"crammd5": "1\n"}, ACCOUNTS) as server:
        yield server


@pytest.fixture(params=["off", "on"], ids="crammd5-{}".format)
def server(request: pytest.FixtureRequest) -> Server:
    """Each of the two."""
    name = "secret_house" if request.param == "on" else "house"
    found = request.getfixturevalue(name)
    assert isinstance(found, Server)
    return found
