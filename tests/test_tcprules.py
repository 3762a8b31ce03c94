"""tcprules cdbs as Debian's tcprules writes them, and tcpserver's order as Debian's tcprulescheck has it."""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

import pytest

from pillarbox.tcprules import ALLOWED, Rule, Rules, Unreadable, keys, parse
from pillarbox.users import cdb
from tests.peers import peer, run


def compiled(directory: Path, text: str) -> Path:
    """A cdb that the real tcprules makes of these lines."""
    table = directory / "rules.cdb"
    run(peer("tcprules"), table, directory / "rules.tmp", say=text.encode())
    return table


def checked(table: Path, address: str, host: str | None) -> str:
    """What the real tcprulescheck says of a client."""
    known = {"TCPREMOTEIP": address} | ({"TCPREMOTEHOST": host} if host is not None else {})
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TCP")}
    done = subprocess.run([peer("tcprulescheck"), table], env=kept | known, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


def told(rule: Rule) -> str:
    """A rule in the words of tcprulescheck, which ends with the first that denies."""
    if rule.denied:
        return "deny connection\n"
    lines = [f"set environment variable {name.decode()}={value.decode()}" for name, value in rule.variables]
    return "\n".join([*lines, "allow connection", ""])


LINES = """\
# comment
18.23.0.32:allow,NAME="full address"
18.23.0.:allow,NAME="three",RELAYCLIENT=""
18.23.1.:deny
18.23.:allow,NAME="two",DATABYTES="1000"
18.:deny,NAME="kept, said"
10.0.0.1-3:allow,RBLSMTPD="-go away"
10.0.0.0:deny
=mx.friend.example:allow,RELAYCLIENT="@friend"
=.friend.example:allow,NAME=/slashes/
=.example:deny
=:allow,NAME="has a name"
127.0.0.1:allow,RELAYCLIENT="",DATABYTES="5"
:allow,RBLSMTPD="no name, no mail"
"""


# row: tcprules-order, tcprules-cdb
def test_every_client_gets_the_rule_that_tcprulescheck_finds(tmp_path: Path) -> None:
    table = compiled(tmp_path, LINES)
    rules = Rules(table)
    chance = random.Random(20)
    hosts = [None, "mx.friend.example", "a.friend.example", "friend.example", "b.example", "far.test", "example", "x."]
    addresses = ["18.23.0.32", "127.0.0.1", "10.0.0.0", "10.0.0.3", "10.0.0.4"]
    octets = ("18", "10"), ("23", "0", "7"), ("0", "1"), ("0", "2", "32", "255")
    addresses += [".".join(map(chance.choice, octets)) for _ in range(60)]
    for address in addresses:
        host = chance.choice(hosts)
        found, _, expected = checked(table, address, host).rpartition(":\n")
        assert found.startswith("rule ")
        assert told(rules.about(address, None if host is None else host.encode())) == expected, f"{address} {host}"


def test_the_keys_of_a_client_stand_in_tcpserver_s_order() -> None:
    assert list(keys("18.23.0.32", b"mx.friend.example")) == [
        b"18.23.0.32",
        b"=mx.friend.example",
        b"18.23.0.",
        b"18.23.",
        b"18.",
        b"=.friend.example",
        b"=.example",
        b"=",
        b"",
    ]
    assert list(keys("18.23.0.32", None)) == [b"18.23.0.32", b"18.23.0.", b"18.23.", b"18.", b""]


def test_an_ipv6_client_is_looked_up_by_its_address_in_full() -> None:
    assert list(keys("2001:db8::1", None)) == [
        b"2001:0db8:0000:0000:0000:0000:0000:0001",
        b"2001:0db8:0000:0000:0000:0000:0000:",
        b"2001:0db8:0000:0000:0000:0000:",
        b"2001:0db8:0000:0000:0000:",
        b"2001:0db8:0000:0000:",
        b"2001:0db8:0000:",
        b"2001:0db8:",
        b"2001:",
        b"",
    ]
    assert next(keys("fe80::1%eth0", None)) == b"fe80:0000:0000:0000:0000:0000:0000:0001"


def test_an_ipv6_client_meets_no_rule_of_an_ipv4_prefix(tmp_path: Path) -> None:
    rules = Rules(compiled(tmp_path, "18.:deny\n:allow,NAME=/everybody/\n"))
    assert rules.about("2001:db8::18.0.0.1") == Rule(False, ((b"NAME", b"everybody"),))


def test_the_data_of_a_record() -> None:
    assert parse(b"") == ALLOWED
    assert parse(b"D\0") == Rule(True)
    assert parse(b"+A=1\0+B=\0+A=2\0") == Rule(False, ((b"A", b"2"), (b"B", b"")))
    assert parse(b"+A=1=2\0D\0+noequals\0\0xyz\0+CUT=off") == Rule(True, ((b"A", b"1=2"),))


@pytest.mark.parametrize(
    ("value", "octets"),
    [(b"1000", 1000), (b"0", 0), (b"", 0), (b"ten", 0), (b"12k", 12), (b"-5", 0), (b"9" * 5000, 10**18 - 1)],
)
def test_databytes_is_its_leading_digits(value: bytes, octets: int) -> None:
    assert Rule(variables=((b"DATABYTES", value),)).databytes == octets


def test_a_variable_that_is_empty_is_set() -> None:
    assert Rule(variables=((b"RELAYCLIENT", b""),)).value(b"RELAYCLIENT") == b""
    assert ALLOWED.value(b"RELAYCLIENT") is None
    assert ALLOWED.databytes is None


def test_names_are_asked_for_only_where_a_rule_has_one(tmp_path: Path) -> None:
    assert not Rules(compiled(tmp_path, "18.:deny\njoe@127.0.0.1:deny\n:allow\n")).by_name
    assert Rules(compiled(tmp_path, "18.:deny\n=:allow\n")).by_name


def test_a_table_that_was_replaced_is_read_anew(tmp_path: Path) -> None:
    rules = Rules(compiled(tmp_path, "18.:deny\n"))
    assert rules.about("18.1.1.1").denied and not rules.by_name
    compiled(tmp_path, "=a.example:deny\n")
    assert not rules.about("18.1.1.1").denied and rules.by_name


def test_a_table_that_cannot_be_read_lets_nobody_in(tmp_path: Path) -> None:
    rules = Rules(tmp_path / "rules.cdb")
    with pytest.raises(Unreadable, match="missing"):
        rules.about("18.1.1.1")
    (tmp_path / "rules.cdb").write_bytes(b"no cdb")
    with pytest.raises(Unreadable, match="cannot read it"):
        rules.about("18.1.1.1")
    cdb.write(tmp_path / "rules.cdb", [(b"18.", b"D\0")])
    assert rules.about("18.1.1.1").denied


def test_all_rules_can_be_looked_through(tmp_path: Path) -> None:
    rules = Rules(compiled(tmp_path, '18.:deny\n=a:allow,X="1"\n'))
    assert list(rules.items()) == [(b"18.", Rule(True)), (b"=a", Rule(False, ((b"X", b"1"),)))]
