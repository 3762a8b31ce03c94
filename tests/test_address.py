from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pillarbox.address import LONGEST, BadPath, is_domain, parse_path, quote, split
from pillarbox.status import Status


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        (b"joe@example.org", (b"joe", b"example.org")),
        (b"a@b@example.org", (b"a@b", b"example.org")),
        (b"postmaster", (b"postmaster", b"")),
        (b"joe@", (b"joe", b"")),
        (b"", (b"", b"")),
        (b"#@[]", (b"#", b"[]")),
    ],
)
def test_an_address_is_split_at_its_last_at_sign(address: bytes, parts: tuple[bytes, bytes]) -> None:
    assert split(address) == parts


@pytest.mark.parametrize(
    ("argument", "address", "parameters"),
    [
        (b"<>", b"", b""),
        (b"<joe@example.org>", b"joe@example.org", b""),
        (b" <joe@example.org>", b"joe@example.org", b""),
        (b"<JOE@Example.ORG>", b"JOE@Example.ORG", b""),
        (b"<postmaster>", b"postmaster", b""),
        (b"<joe@example.org> SIZE=10 BODY=8BITMIME", b"joe@example.org", b"SIZE=10 BODY=8BITMIME"),
        (b"<@relay.example,@other.example:joe@example.org>", b"joe@example.org", b""),
        (b'<"a b"@example.org>', b"a b@example.org", b""),
        (b'<"a\\"b\\\\c"@example.org>', b'a"b\\c@example.org', b""),
        (b'<"a@b"@example.org>', b"a@b@example.org", b""),
        (b'<"a>b"@example.org> X=y', b"a>b@example.org", b"X=y"),
        (b"<a..b.@example.org>", b"a..b.@example.org", b""),
        (b"<joe@[192.0.2.1]>", b"joe@[192.0.2.1]", b""),
        (b"<joe@[IPv6:2001:db8::1]>", b"joe@[IPv6:2001:db8::1]", b""),
        (b"<joe+x=y/z@ex_ample.org>", b"joe+x=y/z@ex_ample.org", b""),
        (b"<#@[]>", b"#@[]", b""),
        (b"<#@[]> SIZE=1", b"#@[]", b"SIZE=1"),
    ],
)
def test_a_path_gives_the_raw_address_and_the_parameters(argument: bytes, address: bytes, parameters: bytes) -> None:
    assert parse_path(argument, utf8=False) == (address, parameters)


@pytest.mark.parametrize(
    "argument",
    [
        b"",
        b"joe@example.org",
        b"<joe@example.org",
        b"joe@example.org>",
        b"<joe@example.org>x",
        b"<joe@example.org>\tSIZE=1",
        b"<joe example.org>",
        b"<joe@example.org >",
        b"< joe@example.org>",
        b"<joe@>",
        b"<@example.org>",
        b"<@relay.example:>",
        b"<joe@example.org.>",
        b"<joe@.example.org>",
        b"<joe@-example.org>",
        b"<joe@example..org>",
        b"<joe@" + b"x" * 64 + b".org>",
        b"<joe@[192.0.2.1>",
        b"<joe@[a@b]>",
        b"<joe@[]>",
        b"<##@[]>",
        b"<@relay.example:#@[]>",
        b"<#@[]x>",
        b'<""@example.org>',
        b'<"">',
        b'<"a@b">',
        b'<"a"b@example.org>',
        b'<"a\\">',
        b"<jo\0e@example.org>",
        b"<jo\re@example.org>",
        b"<jo\ne@example.org>",
        b'<"jo\ne"@example.org>',
        b'<"jo\\\0e"@example.org>',
        b"<joe@example.org>\n",
        b"<joe@example.org\n>",
        b"<joe@exam\0ple.org>",
        b"<joe\x7f@example.org>",
        b"<<joe@example.org>>",
        b"<joe@example.org><x@y>",
    ],
)
def test_what_is_no_path_is_refused(argument: bytes) -> None:
    with pytest.raises(BadPath) as caught:
        parse_path(argument, utf8=True)
    assert caught.value.status == Status(5, 1, 3)


def test_the_longest_address_has_899_octets() -> None:
    domain = b".".join([b"d" * 62] * 4)
    fits = b"x" * (LONGEST - 1 - len(domain)) + b"@" + domain
    assert parse_path(b"<%s>" % fits, utf8=False)[0] == fits
    with pytest.raises(BadPath):
        parse_path(b"<x%s>" % fits, utf8=False)


def test_a_domain_has_at_most_255_octets() -> None:
    longest = b".".join([b"d" * 63] * 3 + [b"e" * 63])
    assert len(longest) == 255
    assert is_domain(longest)
    assert not is_domain(longest[:-1] + b".ee")
    with pytest.raises(BadPath):
        parse_path(b"<joe@%s.ee>" % longest[:-1], utf8=False)


def test_bytes_beyond_ascii_need_smtputf8_and_its_own_status() -> None:
    argument = "<jörg@bücher.example>".encode()
    with pytest.raises(BadPath) as caught:
        parse_path(argument, utf8=False)
    assert caught.value.status == Status(5, 6, 7)
    assert parse_path(argument, utf8=True) == (argument[1:-1], b"")


@pytest.mark.parametrize("local", [b"j\xf6rg", b"\xc0\x80", b"\xed\xa0\x80", b'"\xff"'])
def test_with_smtputf8_an_address_must_be_utf8(local: bytes) -> None:
    with pytest.raises(BadPath) as caught:
        parse_path(b"<%s@example.org>" % local, utf8=True)
    assert caught.value.status == Status(5, 1, 3)


# row: remote-quoting
@pytest.mark.parametrize(
    ("address", "quoted"),
    [
        (b"", b""),
        (b"joe@example.org", b"joe@example.org"),
        (b"joe", b"joe"),
        (b"a b@example.org", b'"a b"@example.org'),
        (b"a@b@example.org", b'"a@b"@example.org'),
        (b".a@example.org", b'".a"@example.org'),
        (b"a.@example.org", b'"a."@example.org'),
        (b"a..b@example.org", b'"a..b"@example.org'),
        (b"@example.org", b'""@example.org'),
        (b'a"\\\r\n@example.org', b'"a\\"\\\\\\\r\\\n"@example.org'),
        (b"a\x7f@example.org", b'"a\x7f"@example.org'),
        (b"j\xc3\xb6rg@example.org", b'"j\xc3\xb6rg"@example.org'),
        (b"#@[]", b"#@[]"),
        (b"x!#$%&'*+-/=?^_`{|}~@example.org", b"x!#$%&'*+-/=?^_`{|}~@example.org"),
    ],
)
def test_a_local_part_is_quoted_where_qmail_quotes_it(address: bytes, quoted: bytes) -> None:
    assert quote(address) == quoted


@given(
    st.text(st.characters(min_codepoint=32, max_codepoint=0x24F, exclude_categories=["Cc"]), min_size=1, max_size=40)
)
def test_what_was_quoted_reads_back_as_it_was(local: str) -> None:
    address = local.encode() + b"@example.org"
    assert parse_path(b"<%s>" % quote(address), utf8=True) == (address, b"")


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused_and_never_bring_a_control_byte_in(argument: bytes) -> None:
    try:
        address, _ = parse_path(b"<%s>" % argument, utf8=True)
    except BadPath:
        return
    assert not any(byte < 32 or byte == 127 for byte in address)


@pytest.mark.parametrize(
    "good", [b"example.org", b"localhost", b"a_b.example", b"1.example", "bücher.example".encode()]
)
def test_names_of_domains_are_domains(good: bytes) -> None:
    assert is_domain(good)


@pytest.mark.parametrize(
    "bad", [b"", b".", b"example.org.", b"exa mple", b"[192.0.2.1]", b"a..b", b"example.org\n", b"a-.b"]
)
def test_other_text_is_no_domain(bad: bytes) -> None:
    assert not is_domain(bad)
