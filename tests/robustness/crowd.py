"""Many peers that send small requests as fast as the server answers: a program of its own.

Half of them send lines of 64 bytes, the others empty lines. It prints a line when all are connected
and each has been answered once, and ends when its standard input does. Arguments: how many peers,
the port or the path of the server, and maybe a number of empty lines: then, all peers send so many
at once, and the next ones when these are answered.
"""

from __future__ import annotations

import select
import socket
import sys
from contextlib import ExitStack, suppress

ANSWER = b"empty\n"  # to an empty line
REQUESTS = (b"echo " + b"x" * 58 + b"\n") * 1024, b"\n" * 65536


def connect(server: str) -> socket.socket:
    if server.isdecimal():
        return socket.create_connection(("127.0.0.1", int(server)))
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(server)
    return sock


class Peer:
    """One connection.

    Attributes:
        sock: The socket.
    """

    def __init__(self, sock: socket.socket, requests: bytes) -> None:
        self.sock = sock
        self._requests, self._sent = memoryview(requests), 0

    def converse(self, buffer: bytearray) -> bool:
        """Send and receive what the kernel takes and has; return whether it had anything."""
        has_received = False
        with suppress(BlockingIOError):
            while True:
                assert self.sock.recv_into(buffer), "the server has closed the connection"
                has_received = True
        with suppress(BlockingIOError):
            while True:
                self._sent += self.sock.send(self._requests[self._sent :])
                self._sent %= len(self._requests)
        return has_received


class Bursts(Peer):
    """One connection, for bursts of empty lines."""

    def __init__(self, sock: socket.socket, lines: int) -> None:
        super().__init__(sock, b"\n" * lines)
        self._unanswered = 0  # bytes of answers

    def converse(self, buffer: bytearray) -> bool:
        has_received = False
        with suppress(BlockingIOError):
            while True:
                received = self.sock.recv_into(buffer)
                assert received, "the server has closed the connection"
                self._unanswered -= received
                has_received = True
        if not self._unanswered:
            self._unanswered = self.sock.send(self._requests) * len(ANSWER)
        return has_received


def main(count: int, server: str, burst: int = 0) -> None:
    buffer = bytearray(1 << 16)
    with ExitStack() as stack:
        poller = stack.enter_context(select.epoll())
        peers: dict[int, Peer] = {}
        for number in range(count):
            sock = stack.enter_context(connect(server))
            sock.setblocking(False)
            peer = Bursts(sock, burst) if burst else Peer(sock, REQUESTS[number % 2])
            peers[sock.fileno()] = peer
            poller.register(sock, select.EPOLLIN | select.EPOLLOUT | select.EPOLLET)
        poller.register(sys.stdin, select.EPOLLIN)
        silent = set(peers)
        while True:
            for fd, _ in poller.poll():
                if fd not in peers:
                    return
                if peers[fd].converse(buffer) and silent:
                    silent.discard(fd)
                    if not silent:
                        print("ready", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:]))
