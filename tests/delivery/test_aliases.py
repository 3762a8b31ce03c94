"""What an aliases file means, and what deliveries make of the table. fastforward reads and writes it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pillarbox.compose.rewriting import Hosts
from pillarbox.delivery import aliases
from pillarbox.delivery.aliases import BadAliases, CannotExpand, Table, compiled, expand
from pillarbox.users import cdb
from tests.peers import peer, run

HOSTS = Hosts(b"me.example", b"example", b"plus.example")

ALIASES = b"""# who gets what
#   and this is still a comment
Root: joe, Ann@Other.Example
postmaster:root

mailer-daemon : postmaster (whoever that is)
joe: \\joe
@wild.example: catchall@here.example
x@full.example: y
list: :include:/lists/friends, bob
owner-list: boss@here
many: a,
  b
\t, "c d"@e.f, Eve Other <eve>

one@host.example: two
"""


def table(directory: Path, text: bytes) -> Table:
    aliases.write(directory / "aliases", text, HOSTS)
    return Table(directory / "aliases")


def test_an_aliases_file_becomes_fastforwards_records() -> None:
    assert compiled(ALIASES, HOSTS).records == (
        (b":root@", b"&joe@me.example\0&Ann@Other.Example\0"),
        (b":postmaster@", b"&root@me.example\0"),
        (b":mailer-daemon@", b"&postmaster@me.example\0"),
        (b":joe@", b"&joe@me.example\0"),
        (b":@wild.example", b"&catchall@here.example\0"),
        (b":x@full.example", b"&y@me.example\0"),
        (b":list@", b"/lists/friends.bin\0&bob@me.example\0"),
        (b":owner-list@", b"&boss@here.example\0"),
        (b":many@", b"&a@me.example\0&b@me.example\0&c d@e.f\0&eve@me.example\0"),
        (b":one@host.example", b"&two@me.example\0"),
        (b"?list@", b"owner-list@me.example"),
    )


def test_a_name_that_is_there_twice_counts_once_and_is_said() -> None:
    made = compiled(b"a: b\nA: c\n", HOSTS)
    assert made.records == ((b":a@", b"&b@me.example\0"),)
    assert made.warnings == ("line 2: 'a' is there already, in line 1, which counts",)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"a: b\n\n# x\nno colon\n", "line 4: not NAME: ADDRESS, ...: 'no colon'"),
        (b": a\n", "line 1: not NAME: ADDRESS, ...: ': a'"),
        (b"a:\n", "line 1: names nobody: 'a:'"),
        (b"a: ,\n", "line 1: names nobody: 'a: ,'"),
        (b'a: "b\n', "line 1: a quote or parenthesis without its end: 'a: \"b'"),
        (b"a: b>\n", "line 1: not an address: 'b>'"),
        (
            b'a: "|/bin/cat"\n',
            "line 1: the alias table runs no program: '|/bin/cat': put that line into alias/.qmail-NAME",
        ),
        (b"a: |cat\n", "line 1: the alias table runs no program: '|cat': put that line into alias/.qmail-NAME"),
        (b"a: b,/x\n", "line 1: the alias table writes to no file: '/x': put that line into alias/.qmail-NAME"),
        (b"a: :include:x\n", "line 1: not :include:/FILE: ':include:x'"),
        (b"a: :exclude:/x\n", "line 1: not :include:/FILE: ':exclude:/x'"),
        (b"a: b\0c\n", "line 1: names nobody: 'a: b\\x00c'"),
    ],
)
def test_what_breaks_the_rules_is_named_with_its_line(text: bytes, problem: str) -> None:
    with pytest.raises(BadAliases) as raised:
        compiled(text, HOSTS)
    assert raised.value.text == problem


def test_a_broken_file_leaves_the_old_table(tmp_path: Path) -> None:
    found = table(tmp_path, b"a: b\n")
    with pytest.raises(BadAliases):
        aliases.write(tmp_path / "aliases", b"broken\n", HOSTS)
    assert found.expand(b"a") == (b"b@me.example",)


def test_a_new_table_is_noticed(tmp_path: Path) -> None:
    found = Table(tmp_path / "aliases")
    assert found.expand(b"a") is None and not found.has(b"a")
    table(tmp_path, b"a: b\n")
    assert found.expand(b"a") == (b"b@me.example",) and found.has(b"A")
    table(tmp_path, b"a: c\n")
    assert found.expand(b"a") == (b"c@me.example",)


@pytest.mark.parametrize(
    ("local", "domain", "found"),
    [
        (b"root", b"", (b"joe@me.example", b"Ann@Other.Example")),
        (b"ROOT", b"anywhere.example", (b"joe@me.example", b"Ann@Other.Example")),
        (b"anything", b"Wild.Example", (b"catchall@here.example",)),
        (b"X", b"FULL.example", (b"y@me.example",)),
        (b"x", b"other.example", None),
        (b"x", b"", None),
        (b"nobody", b"me.example", None),
    ],
)
def test_a_name_is_found_at_its_host_or_at_every_host(
    tmp_path: Path, local: bytes, domain: bytes, found: tuple[bytes, ...] | None
) -> None:
    assert table(tmp_path, ALIASES).expand(local, domain) == found
    assert expand(tmp_path / "aliases", local, domain) == found


def test_a_list_has_its_owner_for_a_sender(tmp_path: Path) -> None:
    found = table(tmp_path, ALIASES)
    assert found.sender(b"list") == b"owner-list@me.example"
    assert found.sender(b"root") is None


def test_addresses_that_stand_in_the_table_are_followed_but_not_into_lists(tmp_path: Path) -> None:
    """A list's mail must come to it, so that its owner becomes the sender."""
    text = b"a@x.y: b@x.y, c\nb@x.y: d, l@x.y\nl@x.y: e\nowner-l@x.y: boss\nc: never\n"
    assert table(tmp_path, text).expand(b"a", b"x.y") == (b"c@me.example", b"d@me.example", b"l@x.y")


def test_aliases_that_lead_back_to_each_other_come_to_nobody(tmp_path: Path) -> None:
    found = table(tmp_path, b"a@x.y: b@x.y\nb@x.y: a@x.y\nc@x.y: c@x.y, d@x.y\n")
    assert found.expand(b"a", b"x.y") == ()
    assert found.expand(b"c", b"x.y") == (b"d@x.y",)


def included(tmp_path: Path, text: bytes, name: str = "friends", mode: int = 0o644) -> Table:
    file = tmp_path / name
    file.write_bytes(text)
    file.chmod(mode)
    return table(tmp_path, b"list: :include:%s, bob\n" % bytes(tmp_path / "friends"))


def test_an_included_list_is_read_when_mail_comes(tmp_path: Path) -> None:
    found = included(tmp_path, b"# friends\nann@a.b\n\nEve <eve@c.d>, joe\n")
    assert set(found.expand(b"list") or ()) == {b"bob@me.example", b"ann@a.b", b"eve@c.d", b"joe"}
    (tmp_path / "friends").write_bytes(b"x@y.z\n")
    assert set(found.expand(b"list") or ()) == {b"bob@me.example", b"x@y.z"}


def test_a_list_that_fastforward_has_compiled_comes_first(tmp_path: Path) -> None:
    included(tmp_path, b"text@a.b\n")
    found = included(tmp_path, b"&compiled@a.b\0", "friends.bin")
    assert set(found.expand(b"list") or ()) == {b"bob@me.example", b"compiled@a.b"}


@pytest.mark.parametrize(
    ("text", "mode", "problem"),
    [
        (b"a@b\n", 0o640, "friends: not a file that everybody may read: chmod a+r it"),
        (b'"broken\n', 0o644, "an included list, line 1: not an address: '\"broken'"),
        (b"x" * (aliases.LARGEST_LIST + 1), 0o644, f"friends: larger than {aliases.LARGEST_LIST} octets"),
    ],
)
def test_a_list_that_cannot_be_used_puts_mail_off(tmp_path: Path, text: bytes, mode: int, problem: str) -> None:
    found = included(tmp_path, text, mode=mode)
    with pytest.raises(CannotExpand) as raised:
        found.expand(b"list")
    assert raised.value.text.endswith(problem) and raised.value.status.kind == 4


def test_a_list_that_is_gone_or_no_file_puts_mail_off(tmp_path: Path) -> None:
    found = included(tmp_path, b"")
    (tmp_path / "friends").unlink()
    with pytest.raises(CannotExpand, match="No such file"):
        found.expand(b"list")
    (tmp_path / "friends").mkdir()
    with pytest.raises(CannotExpand, match="everybody may read"):
        found.expand(b"list")


@pytest.mark.parametrize("data", [b"|/bin/sh\0", b"!/bin/sh\0", b"&\0", b"&" + b"x" * 1003 + b"\0", b"joe\0"])
def test_a_table_that_says_more_than_addresses_puts_mail_off(tmp_path: Path, data: bytes) -> None:
    """fastforward would run the program; here the table never does."""
    cdb.write(tmp_path / "aliases.cdb", [(b":a@", data)])
    with pytest.raises(CannotExpand, match="only addresses are taken from here"):
        Table(tmp_path / "aliases").expand(b"a")


def test_an_alias_for_nobody_puts_mail_off(tmp_path: Path) -> None:
    cdb.write(tmp_path / "aliases.cdb", [(b":a@", b"")])
    with pytest.raises(CannotExpand, match="names nobody"):
        Table(tmp_path / "aliases").expand(b"a")


def test_a_damaged_table_puts_mail_off(tmp_path: Path) -> None:
    (tmp_path / "aliases.cdb").write_bytes(b"no table")
    with pytest.raises(CannotExpand):
        Table(tmp_path / "aliases").expand(b"a")


def test_the_table_of_another_mail_server_has_no_aliases_for_us(tmp_path: Path) -> None:
    """Postfix keeps one of the same name in another form."""
    cdb.write(tmp_path / "aliases.cdb", [(b"root\0", b"joe\0")])
    assert Table(tmp_path / "aliases").expand(b"root") is None


def test_one_alias_has_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aliases, "MOST_ADDRESSES", 10)
    found = table(tmp_path, b"a: " + b", ".join(b"x%d" % number for number in range(11)) + b"\n")
    with pytest.raises(CannotExpand, match="more than 10 addresses"):
        found.expand(b"a")


def test_fastforward_reads_our_table_as_we_do(tmp_path: Path) -> None:
    found = table(tmp_path, ALIASES)
    for local, domain in ((b"root", b"a.b"), (b"q", b"wild.example"), (b"many", b"a.b"), (b"X", b"Full.Example")):
        said = subprocess.run(
            [peer("fastforward"), "-n", str(tmp_path / "aliases.cdb")],
            env={"RECIPIENT": (local + b"@" + domain).decode(), "SENDER": "s@t.u", "DTLINE": "x\n"},
            capture_output=True, timeout=60, check=True,
        ).stderr  # fmt: skip
        told = {line[4:-1] for line in said.splitlines() if line.startswith(b"to <")}
        assert told == set(found.expand(local, domain) or ())


def test_we_read_a_table_of_fastforwards(tmp_path: Path) -> None:
    file, beside = tmp_path / "aliases.cdb", tmp_path / "aliases.tmp"
    run(peer("setforward"), file, beside, say=b"Joe@:, &a@b, &c@d;\n@Wild.example:, &e@f;\njoe@: ?owner@g;\n")
    found = Table(tmp_path / "aliases")
    assert set(found.expand(b"joe") or ()) == {b"a@b", b"c@d"}
    assert found.expand(b"x", b"wild.example") == (b"e@f",)
    assert found.sender(b"joe") == b"owner@g"
