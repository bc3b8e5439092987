"""What the tests of servers on adopted sockets share: bound sockets, clients that keep asking."""

from __future__ import annotations

import os
import socket
import threading
from types import TracebackType
from typing import Any, Final, Self

from tests.times import PATIENCE, SOON

CLIENTS: Final = 4


def new_bound_socket(kind: socket.SocketKind, host: str = "127.0.0.1") -> socket.socket:
    """Return a socket as a supervisor passes it: bound, blocking, listening if it can.

    Args:
        kind: The type.
        host: A numeric host; or an absolute path, or "" for an abstract name, of a Unix socket.
    """
    address: Any = host if not host or os.path.isabs(host) else (host, 0)
    sock = socket.socket(family_of(address), kind)
    try:
        sock.bind(address)
        if kind == socket.SOCK_STREAM:
            sock.listen(1024)
    except BaseException:
        sock.close()
        raise
    return sock


def family_of(address: Any) -> socket.AddressFamily:
    """Return the family of an address of the socket module."""
    if not isinstance(address, tuple):
        return socket.AF_UNIX
    return socket.AF_INET6 if ":" in address[0] else socket.AF_INET


def ask(kind: socket.SocketKind, address: Any, request: str, timeout: float = PATIENCE) -> str:
    """Send one request from a new socket, and return the answer; "" at the end of a stream."""
    family = family_of(address)
    with socket.socket(family, kind) as sock:
        sock.settimeout(timeout)
        if family == socket.AF_UNIX:
            sock.bind("")  # else, datagrams could not be answered
        sock.connect(address)
        sock.sendall(f"{request}\n".encode() if kind == socket.SOCK_STREAM else request.encode())
        return sock.recv(1000).decode().strip()


class Load:
    """Clients in threads that ask again and again while a block runs, each from a new socket.

    Attributes:
        answered: Requests that were answered.
        refused: Requests that found the port closed.
        lost: Requests whose connection ended before the answer, or whose datagram was lost.
    """

    def __init__(self, kind: socket.SocketKind, address: Any) -> None:
        self.answered = 0
        self.refused = 0
        self.lost = 0
        self._kind = kind
        self._address = address
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(CLIENTS)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Wait until each client has its last answer."""
        self._is_over.set()
        for thread in self._threads:
            thread.join(2 * PATIENCE)

    def _run(self) -> None:
        timeout = PATIENCE if self._kind == socket.SOCK_STREAM else SOON
        while not self._is_over.is_set():
            outcome = self._ask(timeout)
            with self._lock:
                setattr(self, outcome, getattr(self, outcome) + 1)

    def _ask(self, timeout: float) -> str:
        try:
            return "answered" if ask(self._kind, self._address, "hello", timeout) else "lost"
        except ConnectionRefusedError:
            return "refused"
        except OSError:
            return "lost"
