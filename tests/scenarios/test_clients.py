"""Who may come: control/tcprules and control/rbl in a real server, with Debian's tcprules and a real name server."""

from __future__ import annotations

import base64
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from tests.nameserver import nameserver
from tests.peers import peer, run
from tests.scenarios.wire import Wire, deliver, envelope, smtp, submit, token
from tests.server import SECRET, Server, a_home, listen, until

NOT_LISTED = b"550 5.7.1 sorry, that domain isn't in my list of allowed rcpthosts"
FAR = b"anybody@far.example"
JOE = b"joe@example.org"
LOGIN = b"AUTH PLAIN " + base64.b64encode(b"\0%s\0%s" % (JOE, SECRET.encode()))


def compiled(server: Server, text: str) -> None:
    """The home's rules, by the real tcprules."""
    directory = server.home / "tcprules"
    directory.mkdir(exist_ok=True)
    run(peer("tcprules"), directory / "smtp.cdb", directory / "smtp.tmp", say=text.encode())
    (directory / "smtp.cdb").chmod(0o644)


@contextmanager
def ruled(text: str, services: tuple[str, ...] = ("smtp", "pop3"), **control: str) -> Iterator[Server]:
    """A server that goes by these rules."""
    given = {"listen": listen(*services), "tcprules": "tcprules/smtp.cdb\n", **control}
    with a_home({name: text for name, text in given.items() if text}) as server:
        compiled(server, text)
        server.start()
        yield server


def greeted(server: Server, service: str, source: str) -> bytes:
    """The first line that a client gets, b"" when it is closed without a word."""
    with Wire(server, service, source) as wire:
        return wire.line()


def answer(server: Server, source: str, recipient: bytes = JOE) -> bytes:
    """What RCPT brings."""
    with smtp(server, source=source) as wire:
        assert wire.tell(b"MAIL FROM:<ann@example.net>") == b"250 2.1.0 ok"
        return wire.tell(b"RCPT TO:<%s>" % recipient)


# row: tcprules-deny
def test_who_is_denied_is_closed_without_a_word() -> None:
    with ruled("127.0.0.2:deny\n127.0.0.3:allow\n127.0.0.4-6:deny\n") as server:
        for service in ("smtp", "pop3"):
            assert greeted(server, service, "127.0.0.2") == b""
            assert greeted(server, service, "127.0.0.5") == b""
            assert greeted(server, service, "127.0.0.3").startswith((b"220 ", b"+OK "))
            assert greeted(server, service, "127.0.0.1").startswith((b"220 ", b"+OK "))
        server.await_log(r"^smtpd: turned away 127\.0\.0\.2: denied by control/tcprules$")
        server.await_log(r"^pop3d: turned away 127\.0\.0\.5: denied by control/tcprules$")


# row: tcprules-deny
def test_an_ipv6_client_has_rules_of_its_own() -> None:
    """By keys that ucspi-tcp6's tcprules writes, and Debian's cannot: here it is tinycdb's cdb."""
    with a_home({"listen": "smtp [::1]:0\n", "tcprules": "tcprules/smtp.cdb\n"}) as server:
        (server.home / "tcprules").mkdir()
        table = server.home / "tcprules" / "smtp.cdb"
        key = b"0000:0000:0000:0000:0000:0000:0000:0001"
        run(peer("cdb"), "-c", table, say=b"+%d,2:%s->D\0\n\n" % (len(key), key))
        table.chmod(0o644)
        server.start()
        with socket.create_connection(("::1", server.ports["smtp"]), 30) as client:
            assert client.recv(100) == b""
        server.await_log(r"^smtpd: turned away ::1: denied by control/tcprules$")
        key = b"0000:0000:0000:0000:0000:0000:0000:"
        run(peer("cdb"), "-c", table, say=b"+%d,2:%s->D\0\n+39,1:%s0001->\0\n\n" % (len(key), key, key))
        table.chmod(0o644)
        with socket.create_connection(("::1", server.ports["smtp"]), 30) as client:
            assert client.recv(100).startswith(b"220 ")


def test_new_rules_hold_for_the_next_client() -> None:
    with ruled("127.0.0.2:deny\n") as server:
        assert greeted(server, "smtp", "127.0.0.2") == b""
        compiled(server, "127.0.0.3:deny\n")
        assert greeted(server, "smtp", "127.0.0.2").startswith(b"220 ")
        assert greeted(server, "smtp", "127.0.0.3") == b""
        server.control("tcprules", None)
        server.signal(signal.SIGHUP)
        until(lambda: greeted(server, "smtp", "127.0.0.3").startswith(b"220 "), "a reload without rules")


def test_rules_that_cannot_be_read_let_nobody_in() -> None:
    """As tcpserver without -X: they may hold who is to be kept out."""
    with ruled("127.0.0.2:deny\n") as server:
        os.unlink(server.home / "tcprules" / "smtp.cdb")
        assert greeted(server, "smtp", "127.0.0.3") == b""
        server.await_log(r"^smtpd: turned away 127\.0\.0\.3: control/tcprules: .*/tcprules/smtp\.cdb: missing$")
        compiled(server, "127.0.0.2:deny\n")
        assert greeted(server, "smtp", "127.0.0.3").startswith(b"220 ")


def test_serve_says_at_its_start_that_nobody_is_let_in() -> None:
    with a_home({"listen": listen("smtp", "pop3"), "tcprules": "tcprules/smpt.cdb\n"}) as server:
        server.start()
        for role in ("smtpd", "pop3d"):
            server.await_log(
                rf"^{role}: nobody is let in: control/tcprules: {server.home}/tcprules/smpt\.cdb: missing$"
            )


# row: tcprules-variables
def test_databytes_of_a_rule_is_in_place_of_the_control_file() -> None:
    rules = '127.0.0.2:allow,DATABYTES="1000"\n127.0.0.3:allow,DATABYTES="0"\n'
    with ruled(rules, databytes="5000\n") as server:
        for source, size, code in (
            ("127.0.0.2", 1000, b"250"),
            ("127.0.0.2", 1001, b"552"),
            ("127.0.0.1", 5000, b"250"),
            ("127.0.0.1", 5001, b"552"),
            ("127.0.0.3", 50000, b"250"),
        ):
            with smtp(server, source=source) as wire:
                assert wire.tell(b"MAIL FROM:<ann@example.net> SIZE=%d" % size)[:3] == code, (source, size)


# row: tcprules-variables
def test_relayclient_of_a_rule_lets_send_anywhere_and_is_put_behind_every_recipient() -> None:
    rules = '127.0.0.2:allow,RELAYCLIENT=""\n127.0.0.3:allow,RELAYCLIENT=".far.example"\n'
    with ruled(rules, ("smtp", "submission"), smtproutes="far.example:127.0.0.1:1\n") as server:
        assert answer(server, "127.0.0.1", FAR) == NOT_LISTED
        assert answer(server, "127.0.0.4", FAR) == NOT_LISTED
        assert answer(server, "127.0.0.2", FAR) == b"250 2.1.5 ok"
        with smtp(server, source="127.0.0.3") as wire:
            envelope(wire, b"ann@example.net", b"joe@example.org")
            assert submit(wire, b"Subject: x\r\n\r\n").startswith(b"250 ")
        server.await_log(r"^starting delivery \d+: msg \S+ to remote joe@example\.org\.far\.example$")
        with smtp(server, "submission", source="127.0.0.2") as wire:  # an address is no login
            assert wire.tell(b"MAIL FROM:<ann@example.net>")[:3] == b"530"


# row: rbl-variable, rbl-listed
def test_rblsmtpd_of_a_rule_blocks_every_recipient_of_who_did_not_log_in() -> None:
    rules = '127.0.0.2:allow,RBLSMTPD="-no mail from you"\n127.0.0.3:allow,RBLSMTPD="not now"\n'
    rules += '127.0.0.4:allow,RBLSMTPD=""\n'
    with ruled(rules, ("smtp", "submission"), authcleartext="1\n") as server:
        assert answer(server, "127.0.0.2") == b"553 5.7.1 no mail from you"
        assert answer(server, "127.0.0.2", b"postmaster") == b"553 5.7.1 no mail from you"
        assert answer(server, "127.0.0.3") == b"451 4.7.1 not now"
        assert answer(server, "127.0.0.4") == b"250 2.1.5 ok"
        server.await_log(r"^rblsmtpd: 127\.0\.0\.2 pid \d+: 553 no mail from you$")
        server.await_log(r"^rblsmtpd: 127\.0\.0\.3 pid \d+: 451 not now$")
        with smtp(server, "submission", source="127.0.0.2") as wire:
            assert wire.tell(LOGIN).startswith(b"235 ")
            assert wire.tell(b"MAIL FROM:<joe@example.org>") == b"250 2.1.0 ok"
            assert wire.tell(b"RCPT TO:<%s>" % FAR) == b"250 2.1.5 ok"


LISTS = """\
2.0.0.127.bl.test. TXT "Blocked, see" " http://bl.test/2"
4.0.0.127.bl.test. TXT "friend, but blocked"
4.0.0.127.wl.test. A 127.0.0.2
5.0.0.127.bl.test. A 127.0.0.2
2.0.0.127.in-addr.arpa. PTR MX.Friend.example.
mx.friend.example. A 127.0.0.2
3.0.0.127.in-addr.arpa. PTR mx.friend.example.
6.0.0.127.in-addr.arpa. PTR mx.foe.example.
mx.foe.example. A 127.0.0.6
"""


# row: rbl-listed
def test_a_block_list_refuses_whom_it_has() -> None:
    with nameserver(LISTS) as port:
        control = {"listen": listen("smtp", "submission"), "resolvers": f"127.0.0.1:{port}\n", "authcleartext": "1\n"}
        with a_home({**control, "rbl": "-b -a wl.test\n-r bl.test\n"}) as server:
            server.start()
            assert answer(server, "127.0.0.2") == b"553 5.7.1 Blocked, see http://bl.test/2"
            server.await_log(r"^rblsmtpd: 127\.0\.0\.2 pid \d+: 553 Blocked, see http://bl\.test/2$")
            assert answer(server, "127.0.0.3") == b"250 2.1.5 ok"
            assert answer(server, "127.0.0.4") == b"250 2.1.5 ok"
            assert answer(server, "127.0.0.5") == b"250 2.1.5 ok"  # an A record blocks nobody
            with smtp(server, "submission", source="127.0.0.2") as wire:
                assert wire.tell(LOGIN).startswith(b"235 ")
                assert wire.tell(b"MAIL FROM:<joe@example.org>") == b"250 2.1.0 ok"
                assert wire.tell(b"RCPT TO:<%s>" % JOE) == b"250 2.1.5 ok"
            deliver(server, b"Subject: %s\r\n\r\n" % (word := token()))
            server.await_delivered(word)


# row: rbl-trouble
def test_a_list_that_does_not_answer_lets_in_and_makes_no_refusal_for_good() -> None:
    with nameserver(LISTS) as port:
        control = {"listen": listen("smtp"), "resolvers": f"127.0.0.1:{port}\n"}
        with a_home({**control, "rbl": "-b -r bl.broken -r bl.test\n"}) as server:
            server.start()
            assert answer(server, "127.0.0.3") == b"250 2.1.5 ok"
            assert answer(server, "127.0.0.2") == b"451 4.7.1 Blocked, see http://bl.test/2"
        with a_home({**control, "rbl": "-b -c -r bl.broken -r bl.test\n"}) as server:
            server.start()
            assert answer(server, "127.0.0.3") == b"451 4.7.1 temporary RBL lookup error"


# row: rbl-variable
def test_the_variable_of_a_rule_goes_before_every_list() -> None:
    with nameserver(LISTS) as port:
        rules = '127.0.0.2:allow,RBLSMTPD=""\n127.0.0.3:allow,RBLSMTPD="-known"\n'
        with ruled(rules, resolvers=f"127.0.0.1:{port}\n", rbl="bl.test\n") as server:
            assert answer(server, "127.0.0.2") == b"250 2.1.5 ok"
            assert answer(server, "127.0.0.3") == b"553 5.7.1 known"
            assert answer(server, "127.0.0.4") == b"451 4.7.1 friend, but blocked"


# row: tcprules-order
def test_a_rule_about_a_name_holds_for_who_has_that_name_and_not_for_who_says_so() -> None:
    with nameserver(LISTS) as port:
        rules = '=.friend.example:allow,RBLSMTPD=""\n=:deny\n:allow,RBLSMTPD="-no name"\n'
        with ruled(rules, resolvers=f"127.0.0.1:{port}\n") as server:
            assert answer(server, "127.0.0.2") == b"250 2.1.5 ok"
            assert answer(server, "127.0.0.3") == b"553 5.7.1 no name"
            assert greeted(server, "smtp", "127.0.0.6") == b""
            assert greeted(server, "pop3", "127.0.0.6") == b""


def test_what_a_client_says_while_it_is_looked_up_is_heard() -> None:
    """As one does that pipelines without waiting for the greeting; and it may hang up behind its last word."""
    with nameserver(LISTS) as port:
        control = {"listen": listen("smtp"), "resolvers": f"127.0.0.1:{port}\n", "rbl": "bl.test\n"}
        with a_home(control) as server:
            server.start()
            with Wire(server, "smtp", "127.0.0.3") as wire:
                wire.send(b"NOOP\r\nQUIT\r\n")
                wire.socket.shutdown(socket.SHUT_WR)
                assert wire.line().startswith(b"220 ")
                assert wire.line() == b"250 2.0.0 ok"
                assert wire.line().startswith(b"221 ")
                assert wire.line() == b""


def test_clients_that_are_looked_up_do_not_hold_up_a_stop() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        control = {"listen": listen("smtp"), "resolvers": f"127.0.0.1:{silent.getsockname()[1]}\n", "rbl": "bl.test\n"}
        with a_home({**control, "draintime": "5\n"}) as server:
            server.start()
            with Wire(server, "smtp") as waiting, Wire(server, "smtp") as leaving:
                leaving.close()
                assert waiting.silent(1)
                assert server.stop() == 0
                assert waiting.line() == b""
