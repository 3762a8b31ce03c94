"""What addresses are this machine's own."""

from __future__ import annotations

import asyncio

import pytest

from pillarbox.net.hosts import NoHost, of_domain
from pillarbox.net.interfaces import own_addresses
from pillarbox.status import Status
from tests.net.test_hosts import Zone, reversed_


# row: known-own-address
@pytest.mark.parametrize("literal", [b"[127.0.0.1]", b"[0.0.0.0]", b"[IPv6:::]", b"[IPv6:::1]"])
def test_mail_to_an_address_that_reaches_this_machine_does_not_go_round(literal: bytes) -> None:
    with pytest.raises(NoHost) as caught:
        asyncio.run(of_domain(Zone([], {}), literal, own_addresses(), reversed_))
    assert caught.value.status == Status(5, 4, 6)
