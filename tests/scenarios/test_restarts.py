"""Whoever listens for us keeps the door open while we restart: nobody is refused."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

import tests.server
from pillarbox.net import listening
from tests.peers import peer
from tests.scenarios.wire import LOCALHOST, Wire, deliver, pop3, smtp, token
from tests.server import SERVICES, _environment, a_home, until, unused_port

LEAST = 64  # a number that the descriptors to be handed over do not collide with


def moved(sock: socket.socket) -> socket.socket:
    """The same listening socket, with a large descriptor number."""
    held = [os.dup(sock.fileno())]
    while held[-1] < LEAST:
        held.append(os.dup(sock.fileno()))
    for number in held[:-1]:
        os.close(number)
    sock.close()
    return socket.socket(fileno=held[-1])


@contextmanager
def open_doors(*services: str) -> Iterator[tuple[str, list[socket.socket]]]:
    """(control/listen, sockets): what systemd would listen on."""
    with ExitStack() as stack:
        doors = [stack.enter_context(moved(listening.tcp(LOCALHOST, 0))) for _ in services]
        lines = [f"{name} {LOCALHOST}:{door.getsockname()[1]}\n" for name, door in zip(services, doors, strict=True)]
        yield "".join(lines), doors


class Callers(threading.Thread):
    """Clients who come one after the other, say QUIT as soon as they are greeted, and note what they heard instead."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.port = port
        self.greeted = 0
        self.troubles: list[str] = []
        self.enough = threading.Event()

    def run(self) -> None:
        while not self.enough.is_set():
            try:
                with socket.create_connection((LOCALHOST, self.port), 30) as client:
                    greeting = client.recv(512)
                    client.sendall(b"QUIT\r\n")
                if not greeting.startswith((b"220 ", b"421 ")):
                    self.troubles.append(repr(greeting))
                self.greeted += greeting.startswith(b"220 ")
            except OSError as problem:
                self.troubles.append(str(problem))

    def end(self) -> None:
        self.enough.set()
        self.join(60)
        assert not self.is_alive()


def test_a_restart_refuses_no_connection() -> None:
    with open_doors(*SERVICES) as (lines, doors), a_home({"listen": lines}) as server:
        server.start(handed=doors)
        callers = Callers(server.ports["smtp"])
        callers.start()
        for _ in range(3):
            heard = callers.greeted
            until(lambda: callers.greeted > heard + 20, "some callers")  # noqa: B023  # asked within the round
            assert server.stop() == 0
            server.start(handed=doors)
        callers.end()
        assert callers.troubles == []
        assert server.stop() == 0


def test_who_comes_while_nobody_serves_is_served_at_the_next_start() -> None:
    with open_doors(*SERVICES) as (lines, doors), a_home({"listen": lines}) as server:
        server.start(handed=doors)
        word = token()
        deliver(server, b"Subject: %s\r\n\r\n" % word)
        server.await_delivered(word)
        assert server.stop() == 0
        with Wire(server, "smtp") as mail, Wire(server, "pop3") as drop:
            server.start(handed=doors)
            assert mail.reply().startswith(b"220 ")
            assert drop.line().startswith(b"+OK")
        assert server.stop() == 0


def test_without_sockets_handed_over_a_stopped_server_s_ports_are_closed() -> None:
    """What the other tests would not notice if the ports were held open by something else."""
    with a_home() as server:
        server.start()
        assert server.stop() == 0
        with pytest.raises(ConnectionRefusedError):
            Wire(server, "smtp")


def test_the_queue_s_own_socket_can_be_handed_over_too() -> None:
    with (
        open_doors("smtp") as (lines, doors),
        a_home({"listen": lines}) as server,
        socket.socket(socket.AF_UNIX) as door,
    ):
        path = server.home / "run" / "queue"
        door.bind(str(path))
        path.chmod(0o600)
        door.listen()
        inode = path.stat().st_ino
        with moved(door.dup()) as queue:
            for _ in range(2):
                server.start(handed=[*doors, queue])
                assert server.pillarbox("queue", "list") == ""
                assert server.stop() == 0
        assert path.stat().st_ino == inode


def test_a_program_that_sends_while_nobody_serves_waits_for_the_next_start() -> None:
    with ExitStack() as stack:
        lines, doors = stack.enter_context(open_doors("smtp"))
        server = stack.enter_context(a_home({"listen": lines}))
        door = stack.enter_context(socket.socket(socket.AF_UNIX))
        door.bind(str(server.home / "run" / "inject"))
        door.listen()
        injection = stack.enter_context(moved(door.dup()))
        sending = subprocess.Popen(
            [*tests.server._COMMAND, "run", "sendmail", "joe@example.org"],
            env=_environment() | {"PILLARBOX_HOME": str(server.home)},
            stdin=subprocess.PIPE,
        )
        word = token()
        assert sending.stdin is not None
        sending.stdin.write(b"Subject: %s\n\n" % word)
        sending.stdin.close()
        time.sleep(1)  # long enough to have found nobody
        assert sending.poll() is None
        server.start(handed=[*doors, injection])
        assert sending.wait(30) == 0
        server.await_delivered(word)
        assert server.stop() == 0


def test_a_socket_that_control_listen_does_not_name_stops_the_start() -> None:
    refusal = "was handed over, and nothing says what it is for: add a line"
    with open_doors("smtp") as (_lines, doors), a_home() as server, pytest.raises(AssertionError, match=refusal):
        server.start(handed=doors)


def test_systemd_s_own_program_hands_over_one_socket_for_both_protocols() -> None:
    """systemd-socket-activate, which listens as `ListenStream=PORT` does and starts us at the first connection."""
    activate = peer("systemd-socket-activate")
    port = unused_port()
    with a_home({"listen": f"smtp 0.0.0.0:{port}\nsmtp [::]:{port}\npop3s {LOCALHOST}:0\n"}) as server:
        kept = [f"--setenv={name}={value}" for name, value in _environment().items()]
        command = [activate, f"--listen={port}", *kept, *tests.server._COMMAND, "serve", "--home", str(server.home)]
        with open(server._log, "ab") as log, open(server._output, "wb") as output:
            server._serving = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=log)
        server.ports["smtp"] = port
        until(lambda: "Listening on" in server.log(), "the socket")
        with smtp(server) as wire:
            wire.tell(b"MAIL FROM:<ann@example.net>")
            assert wire.tell(b"RCPT TO:<joe@example.org>").startswith(b"250 ")
            assert wire.tell(b"DATA").startswith(b"354 ")
            word = token()
            wire.send(b"Subject: %s\r\n\r\n.\r\n" % word)
            assert wire.reply().startswith(b"250 ")
        with socket.create_connection(("::1", port), 30) as client:
            assert client.recv(512).startswith(b"220 ")
        found = server.await_delivered(word).read_bytes()
        assert b"::ffff:" not in found and b"127.0.0.1" in found
        server._ready()
        server.ports["pop3s"] = int(server.output.partition("listening pop3s 127.0.0.1:")[2].split()[0])
        with pop3(server):
            pass
        assert server.stop() == 0


def test_systemd_hears_when_we_serve_reload_and_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear, a_home() as server:
        path = server.home.parent / "notify"
        ear.bind(str(path))
        path.chmod(0o777)  # as systemd's
        ear.settimeout(30)
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        server.start()
        assert ear.recv(512) == b"READY=1"
        server.signal(signal.SIGHUP)
        assert ear.recv(512).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
        assert ear.recv(512) == b"READY=1"
        server.signal(signal.SIGTERM)
        assert ear.recv(512) == b"STOPPING=1"
        assert server.wait() == 0
