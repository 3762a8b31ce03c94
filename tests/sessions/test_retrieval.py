from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pillarbox.credentials import Digest, Identity, Password
from pillarbox.pop3 import reply as r
from pillarbox.pop3.events import Pass, User
from pillarbox.scan import ScanListing
from pillarbox.sessions.effects import Authenticate, OpenMaildrop, Pause, SendContent, UpdateMaildrop
from pillarbox.sessions.retrieval import Access, Retrieval, ScanList
from pillarbox.status import Refusal, Status
from tests.pop3.connection import IN_USE, STAMP, Connection, World, access, logged_in, octets

AUTH_DOWN = Refusal(Status(4, 3, 0), "cannot authenticate now")
TOO_LATE = b"-ERR must issue STLS first\r\n"


def test_no_claim_is_even_looked_at_before_tls() -> None:
    connection = Connection(access(cleartext=False, stamp=STAMP))
    connection.hear()
    assert connection.lines("USER joe") == TOO_LATE
    assert connection.lines("PASS secret") == b"-ERR USER first\r\n"
    assert connection.lines("APOP joe 00000000000000000000000000000000") == TOO_LATE
    assert connection.lines("AUTH") == TOO_LATE
    assert connection.lines("AUTH PLAIN AGpvZQBzZWNyZXQ=") == TOO_LATE
    assert connection.lines("AUTH LOGIN") == TOO_LATE
    assert connection.lines("AUTH CRAM-MD5") == TOO_LATE
    assert connection.world.done == []


@pytest.mark.parametrize("facts", [access(secure=True, cleartext=False), access(cleartext=True)])
def test_a_password_is_taken_under_tls_or_where_authcleartext_allows_it(facts: Access) -> None:
    connection = logged_in(facts=facts)
    assert connection.world.done == [Authenticate(Password(b"joe", b"secret")), OpenMaildrop()]
    assert connection.session.identity == Identity(b"joe", b"joe@example.org")


def test_after_stls_a_login_is_taken_and_a_name_from_before_is_forgotten() -> None:
    connection = Connection(access(cleartext=True))
    connection.lines("USER eve", "STLS")
    connection.tls()
    assert connection.lines("USER joe", "PASS secret").endswith(b"+OK 3 messages (294 octets)\r\n")
    session = Retrieval(access())
    with pytest.raises(StopIteration):
        next(session.respond(User(b"eve")))
    session.secured()
    assert next(session.respond(Pass(b"secret"))) == Authenticate(Password(b"", b"secret"))


def test_unknown_user_and_wrong_password_look_the_same_and_wait_the_same() -> None:
    heard, effects = [], []
    for lines in [("USER joe", "PASS wrong"), ("USER nobody", "PASS secret")]:
        connection = Connection(access(penalty=7.0))
        connection.hear()
        heard.append(connection.lines(*lines))
        effects.append([type(effect) for effect in connection.world.done])
        assert connection.world.done[-1] == Pause(7.0)
    assert heard[0] == heard[1]
    assert effects[0] == effects[1] == [Authenticate, Pause]


def test_trouble_of_ours_is_not_called_a_wrong_password_and_costs_no_pause() -> None:
    connection = Connection(world=World(refuse={Authenticate: AUTH_DOWN}))
    connection.hear()
    heard = connection.lines("USER joe", "PASS secret")
    assert heard.endswith(b"\r\n-ERR [SYS/TEMP] cannot authenticate now\r\n")
    assert connection.world.done == [Authenticate(Password(b"joe", b"secret"))]
    assert connection.session.identity is None


@pytest.mark.parametrize(
    "world", [World(refuse={Authenticate: AUTH_DOWN}), World(refuse={OpenMaildrop: IN_USE}), World()]
)
def test_the_third_failed_login_closes(world: World) -> None:
    connection = Connection(world=world)
    password = "secret" if world.refuse else "wrong"
    for _ in range(2):
        connection.lines("USER joe", f"PASS {password}")
        assert not connection.machine.closing
    connection.lines("USER joe", f"PASS {password}", "NOOP")
    assert connection.machine.closing
    assert b"nothing done" not in connection.hear()


def test_failures_are_counted_over_all_mechanisms_and_over_stls() -> None:
    connection = Connection(access(stamp=STAMP))
    connection.lines("USER joe", "PASS wrong")
    connection.lines("STLS")
    connection.tls()
    connection.lines("APOP joe 00000000000000000000000000000000")
    assert not connection.machine.closing
    connection.lines("AUTH PLAIN AGpvZQB3cm9uZw==")
    assert connection.machine.closing


def test_a_maildrop_in_use_leaves_the_client_outside() -> None:
    connection = Connection(world=World(refuse={OpenMaildrop: IN_USE}))
    connection.hear()
    assert connection.lines("USER joe", "PASS secret").endswith(b"\r\n-ERR [IN-USE] maildrop in use\r\n")
    assert connection.session.identity is None
    assert connection.lines("STAT") == b"-ERR authorization first\r\n"
    connection.world.refuse = {}
    assert connection.lines("USER joe", "PASS secret").endswith(b"+OK 3 messages (294 octets)\r\n")


def test_apop_sends_the_digest_over_the_greeting_timestamp() -> None:
    connection = Connection(access(stamp=STAMP))
    digest = "00000000000000000000000000000000"
    connection.lines(f"APOP joe {digest}")
    assert connection.world.done[0] == Authenticate(Digest(b"APOP", b"joe", STAMP, digest.encode()))


def test_every_cram_md5_exchange_has_a_challenge_of_its_own() -> None:
    tokens = iter([b"1.1", b"1.2"])
    connection = Connection(Access(b"mx", lambda: next(tokens), secure=True, stamp=STAMP))
    connection.hear()
    assert connection.lines("AUTH CRAM-MD5", "*").startswith(b"+ PDEuMUBteD4=\r\n")
    assert connection.lines("AUTH CRAM-MD5", "*").startswith(b"+ PDEuMkBteD4=\r\n")


def test_an_exchange_ends_where_it_is_cancelled() -> None:
    connection = Connection()
    connection.hear()
    assert connection.lines("AUTH LOGIN", "am9l", "*") == (
        b"+ VXNlcm5hbWU6\r\n+ UGFzc3dvcmQ6\r\n-ERR auth exchange cancelled\r\n"
    )
    assert connection.world.done == []


@pytest.mark.parametrize(
    ("facts", "named"),
    [
        (access(cleartext=False), {b"STLS"}),
        (access(cleartext=True), {b"STLS", b"USER", b"SASL PLAIN LOGIN"}),
        (access(cleartext=True, tls_available=False), {b"USER", b"SASL PLAIN LOGIN"}),
        (access(secure=True, cleartext=False), {b"USER", b"SASL PLAIN LOGIN"}),
        (access(secure=True, stamp=STAMP), {b"USER", b"SASL PLAIN LOGIN CRAM-MD5"}),
        (access(cleartext=False, stamp=STAMP), {b"STLS"}),
    ],
)
def test_capa_names_exactly_what_can_be_used_now(facts: Access, named: set[bytes]) -> None:
    always = {b"TOP", b"UIDL", b"RESP-CODES", b"AUTH-RESP-CODE", b"PIPELINING", b"UTF8"}
    always |= {b"EXPIRE NEVER", b"LOGIN-DELAY 0"}
    connection = Connection(facts)
    connection.hear()
    first, *lines, dot, empty = connection.lines("CAPA").split(b"\r\n")
    assert (first, dot, empty) == (b"+OK Capability list follows", b".", b"")
    assert set(lines) == always | named and len(lines) == len(set(lines))


def test_the_software_is_named_only_to_those_who_are_in() -> None:
    connection = Connection()
    assert b"IMPLEMENTATION" not in connection.lines("CAPA")
    inside = logged_in().lines("CAPA")
    assert b"\r\nIMPLEMENTATION Pillarbox\r\n" in inside
    assert b"STLS" not in inside


def test_quit_deletes_what_is_marked_and_nothing_else_does() -> None:
    connection = logged_in()
    connection.lines("DELE 3", "DELE 1", "RSET", "DELE 3", "DELE 2")
    assert UpdateMaildrop not in map(type, connection.world.done)
    assert connection.lines("QUIT") == b"+OK goodbye\r\n"
    assert connection.world.done[-1] == UpdateMaildrop((2, 3))
    assert list(connection.world.maildrop) == [b"1700000001.first"]


def test_quit_without_marks_updates_too_because_messages_are_no_longer_new() -> None:
    connection = logged_in()
    connection.lines("QUIT")
    assert connection.world.done[-1] == UpdateMaildrop(())


def test_quit_before_the_login_updates_nothing() -> None:
    connection = Connection()
    connection.hear()
    assert connection.lines("QUIT") == b"+OK goodbye\r\n"
    assert connection.world.done == []


def test_a_lost_connection_deletes_nothing() -> None:
    connection = logged_in()
    connection.say(b"DELE 1\r\nDELE 2\r\nQUI")
    connection.end()
    assert connection.machine.closing
    assert UpdateMaildrop not in map(type, connection.world.done)
    assert len(connection.world.maildrop) == 3


def test_quit_says_so_when_some_could_not_be_deleted() -> None:
    trouble = Refusal(Status(4, 2, 0), "unable to unlink all deleted messages")
    connection = logged_in(World(refuse={UpdateMaildrop: trouble}))
    connection.lines("DELE 1")
    assert connection.lines("QUIT") == b"-ERR [SYS/TEMP] unable to unlink all deleted messages\r\n"
    assert connection.machine.closing


def test_a_message_that_cannot_be_opened_is_one_error_line_and_was_not_accessed() -> None:
    connection = logged_in(World(refuse={SendContent: Refusal(Status(4, 3, 0), "unable to open that message")}))
    assert connection.lines("RETR 2", "LAST", "TOP 2 1") == (
        b"-ERR [SYS/TEMP] unable to open that message\r\n+OK 0\r\n-ERR [SYS/TEMP] unable to open that message\r\n"
    )


def test_what_is_sent_for_a_message_is_asked_for_once_with_its_first_line() -> None:
    connection = logged_in()
    connection.lines("RETR 3", "TOP 1 5", "TOP 2")
    assert connection.world.done[-3:] == [
        SendContent(3, None, b"+OK 36 octets\r\n"),
        SendContent(1, 5, b"+OK top of message follows\r\n"),
        SendContent(2, None, b"+OK 116 octets\r\n"),
    ]


def test_the_octets_announced_are_the_octets_sent() -> None:
    connection = logged_in(World(maildrop={b"a": b"A: b\n\n.\n..\n\x00\xff\rx\n"}))
    first, _, rest = connection.lines("RETR 1").partition(b"\r\n")
    assert rest.endswith(b"\r\n.\r\n")
    lines = rest[: -len(b".\r\n")].split(b"\r\n")
    plain = b"\r\n".join([line[1:] if line.startswith(b".") else line for line in lines])
    assert first == b"+OK %d octets" % len(plain)
    assert connection.lines("LIST 1") == b"+OK 1 %d\r\n" % len(plain)


@pytest.mark.parametrize("verb", ["LIST", "UIDL"])
def test_replies_reach_the_client_before_each_listing_of_all(verb: str) -> None:
    connection = logged_in()
    connection.machine.receive(f"{verb}\r\n{verb}\r\n".encode())
    most = 0
    while (event := connection.machine.next_event()) is not None:
        conversation = connection.session.respond(event)
        assert next(conversation) == Pause(0)
        connection.flush()
        with pytest.raises(StopIteration) as end:
            conversation.send(None)
        connection.machine.answer(end.value.value)
        most = max(most, len(connection.machine.data_to_send()))
    assert most < 200


def test_a_session_may_begin_with_its_maildrop_open() -> None:
    connection = Connection(access(cleartext=False, tls_available=False), authorized=True)
    connection.hear()
    assert connection.lines("STAT") == b"+OK 3 294\r\n"
    assert connection.lines("USER joe") == b"-ERR authorized already\r\n"
    assert connection.lines("DELE 1", "QUIT") == b"+OK marked as deleted\r\n+OK goodbye\r\n"
    assert list(connection.world.maildrop) == [b"1700000002.dots", b"1700000003.bare"]


command = st.sampled_from(
    ["STAT", "LIST", "UIDL", "LAST", "RSET", "NOOP", "CAPA", "QUIT", "USER joe", "PASS secret", "AUTH LOGIN", "am9l"]
) | st.tuples(st.sampled_from(["LIST", "UIDL", "RETR", "DELE", "TOP"]), st.integers(0, 5)).map(
    lambda pair: f"{pair[0]} {pair[1]}" + (" 1" if pair[0] == "TOP" else "")
)


@given(lines=st.lists(command, max_size=30))
def test_octet_by_octet_a_session_says_and_does_the_same(lines: list[str]) -> None:
    sent = "".join([line + "\r\n" for line in ["USER joe", "PASS secret", *lines]]).encode()
    whole, pieces = Connection(), Connection()
    assert whole.say(sent) == pieces.say(*octets([sent]))
    assert whole.world.done == pieces.world.done
    assert whole.machine.closing == pieces.machine.closing


@given(
    sizes=st.lists(st.integers(0, 10**12), max_size=6),
    steps=st.lists(st.integers(-1, 7), max_size=20),
)
def test_a_scan_list_counts_what_is_not_deleted(sizes: list[int], steps: list[int]) -> None:
    scan = ScanList(tuple(ScanListing(b"u%d" % number, size) for number, size in enumerate(sizes, 1)))
    left = dict(enumerate(sizes, 1))
    for number in steps:
        if number < 0:
            scan.reset()
            left = dict(enumerate(sizes, 1))
        else:
            expected = r.MARKED
            if number == 0:
                expected = r.COUNTED_FROM_ONE
            elif number > len(sizes):
                expected = r.NOT_THAT_MANY
            elif number not in left:
                expected = r.DELETED_ALREADY
            assert scan.delete(number) == expected
            left.pop(number, None)
        assert (scan.count, scan.octets) == (len(left), sum(left.values()))
        assert [number for number, _ in scan.present()] == sorted(left)
        assert scan.deleted == tuple(sorted(set(range(1, len(sizes) + 1)) - set(left)))
