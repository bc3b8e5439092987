"""Peers, good and bad: blocking sockets in the test's own process."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from tests.times import PATIENCE

if TYPE_CHECKING:
    from tests.robustness.process import ServerProcess

# Seconds until a peer gives up, and the test with it.
TIMEOUT = 2 * PATIENCE


def connect(server: ServerProcess, receive_buffer: int | None = None) -> socket.socket:
    """Return a new connection to a server, over TLS if it speaks that.

    Args:
        server: The server.
        receive_buffer: The size of the kernel's buffer for what the server sends.
    """
    sock = connect_plain(server, receive_buffer)
    return sock if server.tls is None else server.tls.wrap_socket(sock, server_hostname="localhost")


def connect_plain(server: ServerProcess, receive_buffer: int | None = None) -> socket.socket:
    """Return a new connection to a server on which nothing is said yet."""
    sock = socket.socket(socket.AF_INET if server.path is None else socket.AF_UNIX)
    try:
        sock.settimeout(TIMEOUT)
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.connect(("127.0.0.1", server.port) if server.path is None else server.path)
    except BaseException:
        sock.close()
        raise
    return sock


def reset(sock: socket.socket) -> None:
    """Close a connection with a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def wait_cut_off(sock: socket.socket) -> None:
    """Wait until the server ends the connection."""
    try:
        while sock.recv(65536):
            pass
    except ConnectionError:
        pass


def send_until(sock: socket.socket, data: bytes, total: int) -> int:
    """Send the same bytes again and again.

    Returns:
        The number of bytes sent: `total` or a little more; less if the server cut the connection
        off, or did not take any more for the time that the socket has as its timeout.
    """
    sent = 0
    try:
        while sent < total:
            sent += sock.send(data)
    except (ConnectionError, TimeoutError, ssl.SSLEOFError):  # the last one before Python 3.13
        pass
    return sent


def receive_exactly(sock: socket.socket, total: int) -> None:
    """Receive that many bytes, and forget them."""
    buffer = bytearray(1 << 20)
    while total > 0:
        received = sock.recv_into(buffer)
        assert received, "the server has closed the connection"
        total -= received
    assert total == 0


def ask(sock: socket.socket, line: str) -> str:
    """Send a line and return the one that answers it."""
    sock.sendall(line.encode() + b"\n")
    answer = b""
    while not answer.endswith(b"\n"):
        data = sock.recv(65536)
        assert data, "the server has closed the connection"
        answer += data
    return answer[:-1].decode()


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for a state that nobody announces."""
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.005)


class Heartbeat:
    """A well-behaved client in a thread of its own, which asks again and again.

    A context manager; fails at its end if anything at all went wrong.

    Args:
        server: The server.
        anew: Whether it connects anew each time.

    Attributes:
        delays: How long each answer took, in seconds.
    """

    def __init__(self, server: ServerProcess, *, anew: bool = False) -> None:
        self.delays: list[float] = []
        self._server = server
        self._anew = anew
        self._sock = connect(server)
        self._stopped = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="heartbeat")

    def __enter__(self) -> Self:
        self._thread.start()
        wait_until(lambda: bool(self.delays or self._error))
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stopped.set()
        self._thread.join()
        self._sock.close()
        if exc is None:
            assert self._error is None

    def _run(self) -> None:
        try:
            while not self._stopped.wait(0.005):
                number = str(len(self.delays))
                begin = time.perf_counter()
                if self._anew:
                    self._sock.close()
                    self._sock = connect(self._server)
                assert ask(self._sock, f"echo {number}") == number
                self.delays.append(time.perf_counter() - begin)
        except BaseException as exc:
            self._error = exc

    def wait_beat(self) -> None:
        """Wait until a question that was asked after this call is answered."""
        count = len(self.delays) + 2
        wait_until(lambda: len(self.delays) >= count or self._error is not None)
