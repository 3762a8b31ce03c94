"""Who may come: the word of control/tcprules and control/rbl, with DNS; beside Debian's rblsmtpd, which asks the same
zone in a network of its own."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pillarbox import blocklists
from pillarbox.control.table import Settings
from pillarbox.roles import clients
from pillarbox.roles.clients import WELCOME, Clients, Verdict
from pillarbox.roles.house import House
from pillarbox.status import Refusal, Status
from pillarbox.users import cdb
from tests.nameserver import configured, nameserver
from tests.peers import peer

ZONE = """
2.0.0.127.bl.test. TXT "Blocked, see" " http://bl.test/?ip=127.0.0.2"
4.0.0.127.bl.test. TXT "a friend"
4.0.0.127.wl.test. A 127.0.0.2
5.0.0.127.wl.test. A 127.0.0.2
6.0.0.127.bl.test. A 127.0.0.2
7.0.0.127.more.test. TXT "tab\\009, and \\233"
1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.bl.test. TXT "six"
2.0.0.127.in-addr.arpa. PTR mx.friend.test.
mx.friend.test. A 127.0.0.9
mx.friend.test. AAAA 2001:db8::1
mx.friend.test. A 127.0.0.2
3.0.0.127.in-addr.arpa. PTR mx.friend.test.
4.0.0.127.in-addr.arpa. PTR mx.broken.
5.0.0.127.in-addr.arpa. PTR nobody.test.
5.0.0.127.in-addr.arpa. PTR other.test.
other.test. A 127.0.0.5
1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa. PTR mx.friend.test.
"""

# In a network of its own: a name server on port 53, and rblsmtpd for each line of options and address.
ASK = """
"$5" link set lo up
"$1" -d -c "$2" 2>/dev/null & server=$!
trap 'kill $server' EXIT
for _ in 1 2 3 4 5 6 7 8 9; do [ -e "$3" ] && break; sleep 0.3; done
sleep 0.3
while read -r address options; do
    TCPREMOTEIP=$address DNSCACHEIP=127.0.0.1 "$4" -t0 $options /bin/echo passed 2>/dev/null </dev/null
done
"""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with nameserver(ZONE) as port:
        yield port


def house(home: Path, *, rbl: bytes = b"", port: int = 1, rules: dict[bytes, bytes] | None = None) -> House:
    sources = blocklists.parse(rbl).value
    assert isinstance(sources, tuple)
    settings = Settings(me=b"mx.example.org", rbl=sources, resolvers=(("127.0.0.1", port),))
    if rules is not None:
        cdb.write(home / "rules.cdb", rules.items())
        settings = replace(settings, tcprules="rules.cdb")
    return House(home, settings, [])


def looked_up(house: House, address: str, service: str = "smtp") -> Verdict:
    """What is said of a client, by whichever way it is said."""

    async def ask() -> Verdict:
        asked = Clients(house)
        verdict = asked.verdict(service, address)
        return await asked.look_up(service, address) if verdict is None else verdict

    return asyncio.run(ask())


def rblsmtpd(directory: Path, asked: list[tuple[str, str]]) -> list[str]:
    """The real one's word about each address with each options."""
    if os.getuid() != 0 or subprocess.run(["unshare", "-n", "true"], capture_output=True).returncode:
        pytest.skip("needs root, and leave to unshare the network")
    configuration = configured(directory, ZONE, 53)
    programs = [peer("nsd"), str(configuration), str(directory / "pid"), peer("rblsmtpd"), peer("ip")]
    command = ["unshare", "-n", "sh", "-euc", ASK, "sh", *programs]
    lines = "".join(f"{address} {options}\n" for address, options in asked)
    done = subprocess.run(command, input=lines.encode(), capture_output=True, timeout=60)
    return done.stdout.decode("ascii").splitlines()


# row: rbl-listed
def test_everybody_is_judged_as_by_rblsmtpd(tmp_path: Path, port: int) -> None:
    options = [
        "-r bl.test",
        "-b -r bl.test",
        "-b -rbl.test -B -r more.test",
        "-a wl.test -r bl.test",
        "-r bl.test -a wl.test",
    ]
    options += ["-b -r more.test -a wl.test -r bl.test", "-c -r nothing.test -b -r bl.test"]
    asked = [(f"127.0.0.{last}", option) for option in options for last in (2, 3, 4, 5, 6, 7)]
    expected = rblsmtpd(tmp_path, asked)
    assert len(expected) == len(asked)
    for (address, option), said in zip(asked, expected, strict=True):
        blocked = looked_up(house(tmp_path, rbl=option.encode(), port=port), address).blocked
        ours = "passed" if blocked is None else f"{553 if blocked.permanent else 451} {blocked.text}"
        assert ours == said, f"{address} {option}"
    assert {re.sub(" .*", "", line) for line in expected} == {"passed", "451", "553"}


def test_an_ipv6_client_can_be_on_a_list(tmp_path: Path, port: int) -> None:
    listed = house(tmp_path, rbl=b"bl.test", port=port)
    assert looked_up(listed, "2001:db8::1") == Verdict(blocked=Refusal(Status(4, 7, 1), "six"))
    assert looked_up(listed, "2001:db8::2") == WELCOME
    assert looked_up(listed, "unknown") == WELCOME


def test_submission_services_ask_no_list(tmp_path: Path) -> None:
    assert Clients(house(tmp_path, rbl=b"bl.test")).verdict("submission", "127.0.0.2") == WELCOME
    assert Clients(house(tmp_path, rbl=b"bl.test")).verdict("pop3", "127.0.0.2") == WELCOME


def test_the_variable_blocks_nobody_elsewhere_either(tmp_path: Path) -> None:
    ruled = Clients(house(tmp_path, rules={b"": b"+RBLSMTPD=-no\0"}))
    assert ruled.verdict("submissions", "127.0.0.2") == WELCOME
    assert ruled.verdict("pop3", "127.0.0.2") == WELCOME
    assert ruled.verdict("smtp", "127.0.0.2") == Verdict(blocked=Refusal(Status(5, 7, 1), "no"))


def test_a_home_without_these_files_asks_nothing(tmp_path: Path) -> None:
    asked = Clients(house(tmp_path))
    assert asked.anybody
    assert asked.verdict("smtp", "127.0.0.2") is WELCOME


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("127.0.0.2", b"=mx.friend.test"),
        ("2001:db8::1", b"=mx.friend.test"),
        ("127.0.0.3", b""),  # says so, but the name does not lead back to it
        ("127.0.0.4", b""),  # nobody can say whether it does
        ("127.0.0.5", b"=other.test"),
        ("127.0.0.6", b""),
        ("unknown", b""),
    ],
)
def test_a_name_counts_when_it_leads_back_to_the_client(tmp_path: Path, port: int, address: str, host: bytes) -> None:
    rules = {key: b"+RBLSMTPD=-%s\0" % key for key in (b"=mx.friend.test", b"=other.test", b"=mx.broken", b"")}
    said = looked_up(house(tmp_path, port=port, rules=rules), address).blocked
    assert said == Refusal(Status(5, 7, 1), host.decode())


# row: rbl-trouble
def test_dns_that_is_silent_does_not_keep_a_client_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "PATIENCE", 0.3)
    began = time.monotonic()
    lists = b"".join(b"-r list-%d.test\n" % number for number in range(100))
    with socket.socket(type=socket.SOCK_DGRAM) as unanswered:
        unanswered.bind(("127.0.0.1", 0))
        silent = unanswered.getsockname()[1]
        assert looked_up(house(tmp_path, rbl=lists, port=silent), "127.0.0.2") == WELCOME
        refusal = Refusal(Status(4, 7, 1), "temporary RBL lookup error")
        assert looked_up(house(tmp_path, rbl=b"-c " + lists, port=silent), "127.0.0.2").blocked == refusal
        rules = {b"=": b"D\0", b"": b"+RELAYCLIENT=\0"}
        assert looked_up(house(tmp_path, rules=rules, port=silent), "127.0.0.2").relayclient == b""
    assert time.monotonic() - began < 30  # not a hundred times eight seconds


def test_what_a_rule_says_is_in_the_verdict(tmp_path: Path, port: int) -> None:
    rules = {b"127.0.0.2": b"+RELAYCLIENT=@x\0+DATABYTES=7\0+OTHER=\0", b"127.0.0.3": b"D\0", b"=x": b""}
    ruled = house(tmp_path, rules=rules, port=port, rbl=b"-b bl.test")
    assert looked_up(ruled, "127.0.0.3") == Verdict(away="denied by control/tcprules")
    listed = Refusal(Status(5, 7, 1), "Blocked, see http://bl.test/?ip=127.0.0.2")
    assert looked_up(ruled, "127.0.0.2") == Verdict("", b"@x", 7, listed)
    assert looked_up(ruled, "127.0.0.9") == WELCOME


def test_other_settings_hold_from_the_next_client_on(tmp_path: Path) -> None:
    changing = house(tmp_path)
    asked = Clients(changing)
    assert asked.verdict("smtp", "127.0.0.2") is WELCOME
    changing.settings = house(tmp_path, rules={b"127.": b"D\0"}).settings
    assert asked.verdict("smtp", "127.0.0.2") == Verdict(away="denied by control/tcprules")
