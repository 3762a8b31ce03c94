"""Which handed-over socket is served as what, and what is refused."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from pillarbox.cli import activation
from pillarbox.cli.activation import BadActivation, Handed
from pillarbox.control.table import Listener
from pillarbox.net import listening


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def four(stack: ExitStack, name: str = "pillarbox.socket") -> tuple[Handed, int]:
    sock = stack.enter_context(listening.tcp("127.0.0.1", 0))
    return Handed(name, sock), sock.getsockname()[1]


def dual(stack: ExitStack) -> tuple[Handed, int]:
    """What ListenStream=PORT makes where nothing else is said."""
    sock = stack.enter_context(socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True))
    return Handed("pillarbox.socket", sock), sock.getsockname()[1]


def test_a_socket_stands_for_the_line_of_its_address(stack: ExitStack) -> None:
    handed, port = four(stack)
    other = Listener("pop3", "127.0.0.1", 2110)
    line = Listener("smtp", "127.0.0.1", port)
    assert activation.listeners([handed], [other, line]) == [(other, None), (line, handed.sock)]


def test_a_socket_with_the_name_of_a_service_needs_no_line(stack: ExitStack) -> None:
    handed, port = four(stack, "pop3s")
    line = Listener("smtp", "127.0.0.1", 0)
    by_name = Listener("pop3s", "127.0.0.1", port)
    assert activation.listeners([handed], [line]) == [(line, None), (by_name, handed.sock)]
    assert activation.listeners([handed], []) == [(by_name, handed.sock)]


def test_one_socket_for_both_protocols_stands_for_both_lines(stack: ExitStack) -> None:
    handed, port = dual(stack)
    lines = [Listener("smtp", "0.0.0.0", port), Listener("smtp", "::", port)]
    assert activation.listeners([handed], lines) == [(lines[0], handed.sock)]


def test_an_ipv6_socket_does_not_stand_for_an_ipv4_line(stack: ExitStack) -> None:
    sock = stack.enter_context(listening.tcp("::", 0))
    port = sock.getsockname()[1]
    four_line, six_line = Listener("smtp", "0.0.0.0", port), Listener("smtp", "::", port)
    assert activation.listeners([Handed("x", sock)], [four_line, six_line]) == [(four_line, None), (six_line, sock)]


def test_a_socket_that_nothing_says_the_service_of_is_refused(stack: ExitStack) -> None:
    handed, port = four(stack)
    with pytest.raises(BadActivation, match=f"127.0.0.1:{port} was handed over, .* like: smtp 127.0.0.1:{port}"):
        activation.listeners([handed], [])


def test_a_socket_named_for_another_service_than_its_line_is_refused(stack: ExitStack) -> None:
    """POP3 passwords must not be asked for by a port that the settings give to something else."""
    handed, port = four(stack, "pop3")
    with pytest.raises(BadActivation, match="serves pop3"):
        activation.listeners([handed], [Listener("smtp", "127.0.0.1", port)])


def test_one_socket_is_not_served_as_two_services(stack: ExitStack) -> None:
    handed, port = dual(stack)
    with pytest.raises(BadActivation, match="serves smtp"):
        activation.listeners([handed], [Listener("smtp", "0.0.0.0", port), Listener("pop3", "::", port)])


def test_a_unix_socket_is_taken_at_its_own_path_alone(stack: ExitStack, tmp_path: Path) -> None:
    ours = stack.enter_context(listening.unix(tmp_path / "queue", 0o600))
    handed = [Handed("pillarbox.socket", ours)]
    activation.refuse_strange([Handed("x", socket_at(stack, tmp_path / "queue"))], [tmp_path / "queue"])
    with pytest.raises(BadActivation, match="nothing to serve on it"):
        activation.refuse_strange([Handed("x", socket_at(stack, tmp_path / "other"))], [tmp_path / "queue"])
    fresh = stack.enter_context(activation.unix(handed, tmp_path / "inject", 0o600))
    assert fresh is not ours and (tmp_path / "inject").is_socket()


def socket_at(stack: ExitStack, path: Path) -> socket.socket:
    """Listening, and knowing its whole path, as systemd's do."""
    path.unlink(missing_ok=True)
    sock = stack.enter_context(socket.socket(socket.AF_UNIX))
    sock.bind(str(path))
    sock.listen()
    return sock


def test_a_unix_socket_handed_over_is_not_bound_anew(stack: ExitStack, tmp_path: Path) -> None:
    sock = socket_at(stack, tmp_path / "queue")
    inode = (tmp_path / "queue").stat().st_ino
    assert activation.unix([Handed("x", sock)], tmp_path / "queue", 0o600) is sock
    assert (tmp_path / "queue").stat().st_ino == inode


# what the environment says, in a process of its own: descriptor 3 must be free

SCRIPT = """
import os
from pillarbox.cli import activation
try:
    found = activation.handed(os.environ, os.getpid())
    left = [name for name in activation.VARIABLES if name in os.environ]
    print([(each.name, str(each), each.sock.get_inheritable(), each.sock.getblocking()) for each in found], left)
except activation.BadActivation as failure:
    print(failure.text)
"""


def said(given: socket.socket | None, *, pid: str = "$$", three: str = "3<&0") -> str:
    """What a process says of its environment that was started with this socket, named smtp, as descriptor 3."""
    command = f'LISTEN_PID={pid} LISTEN_FDS=1 LISTEN_FDNAMES=smtp exec "$0" -c "$1" {three}'
    stdin = given.fileno() if given else subprocess.DEVNULL
    done = subprocess.run(["/bin/sh", "-c", command, sys.executable, SCRIPT], stdin=stdin, stdout=subprocess.PIPE)
    return done.stdout.decode().strip()


def test_a_listening_socket_comes_with_its_name_and_no_program_inherits_it() -> None:
    with listening.tcp("127.0.0.1", 0) as sock:
        assert said(sock) == f"[('smtp', '127.0.0.1:{sock.getsockname()[1]}', False, False)] []"


def test_variables_of_another_process_are_not_believed_and_not_handed_on() -> None:
    assert said(None, pid="1") == "[] []"


def test_without_variables_nothing_was_handed_over() -> None:
    assert activation.handed({}, 1) == []


@pytest.mark.parametrize("number", ["x", "-1", "513", "", "1e1", "9999999999"])
def test_nonsense_in_the_environment_is_refused(number: str) -> None:
    with pytest.raises(BadActivation, match=r"\$LISTEN_FDS: not a number up to 512"):
        activation.handed({"LISTEN_PID": "7", "LISTEN_FDS": number}, 7)


def test_what_is_no_socket_is_refused() -> None:
    assert said(None).startswith("descriptor 3 of $LISTEN_FDS: Socket operation on non-socket")
    assert said(None, three="3<&-").startswith("descriptor 3 of $LISTEN_FDS: Bad file descriptor")


def test_a_connection_is_no_socket_that_listens() -> None:
    """As inetd and Accept=yes would hand over."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert "not a stream socket that listens" in said(theirs)
