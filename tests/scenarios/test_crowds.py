"""Many clients that do nothing, or little, do not keep the server from the others."""

from __future__ import annotations

import socket
from contextlib import suppress

from tests.scenarios.wire import LOCALHOST, deliver, login, token
from tests.server import SECRET, Server

CROWD = 250
FLOOD = 2000


def test_idle_and_slow_clients_do_not_stop_the_others(house: Server) -> None:
    crowd = []
    try:
        for number in range(CROWD):
            service = ("smtp", "submissions", "pop3", "pop3s", "submission")[number % 5]
            client = socket.create_connection((LOCALHOST, house.ports[service]), 10)
            crowd.append(client)
            if number % 3:  # half a line, half a handshake
                client.sendall(b"\x16\x03\x01" if service.endswith("s") else b"EHLO cl")
        word = token()
        deliver(house, b"Subject: %s\r\n\r\n" % word)
        house.await_delivered(word)
        login(house, b"joe@example.org", SECRET.encode()).close()
    finally:
        for client in crowd:
            client.close()


def test_clients_that_do_not_read_do_not_stop_the_others(house: Server) -> None:
    deaf = []
    try:
        for _ in range(3):
            client = socket.socket()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect((LOCALHOST, house.ports["smtp"]))
            client.setblocking(False)
            deaf.append(client)
            with suppress(BlockingIOError):  # until nobody takes what it says, because nobody takes what it hears
                while True:
                    client.send(b"HELP\r\n" * 1000)
        word = token()
        deliver(house, b"Subject: %s\r\n\r\n" % word)
        house.await_delivered(word)
    finally:
        for client in deaf:
            client.close()


# row: known-starvation
def test_mail_that_pours_in_does_not_keep_deliveries_from_starting(house: Server) -> None:
    word = token()
    with socket.create_connection((LOCALHOST, house.ports["smtp"]), 10) as pouring, pouring.makefile("rb") as said:
        assert said.readline().startswith(b"220 ")
        pouring.sendall(b"HELO c\r\n")
        assert said.readline().startswith(b"250")
        for _ in range(FLOOD):
            pouring.sendall(b"MAIL FROM:<>\r\nRCPT TO:<joe@example.org>\r\nDATA\r\n")
            assert [said.readline()[:3] for _ in range(3)] == [b"250", b"250", b"354"]
            pouring.sendall(b"Subject: %s\r\n\r\n.\r\n" % word)
            assert said.readline().startswith(b"250")
            if house.holding(word):
                break
        else:
            raise AssertionError("all of it was taken before any was delivered")
    house.empty()
