"""The floor: one ``epoll`` loop around bare sockets, nothing that a real server needs besides.

It still does the work that is compared (split lines, decode, encode, answer), answers all lines of
one ``recv`` with one ``send``, and reads no more from a peer that does not take its answers.

Usage: epoll_loop.py LIMIT    (it has no limit of its own)
"""

from __future__ import annotations

import select
import socket


class Connection:
    """What one connection has to remember."""

    __slots__ = ("partial", "sock", "unsent")

    def __init__(self, sock: socket.socket) -> None:
        self.sock, self.unsent = sock, memoryview(b"")
        self.partial: list[bytes] = []

    def answer(self) -> bool:
        """Answer what has arrived; False when the peer has left."""
        data = self.sock.recv(64 * 1024)
        complete, newline, rest = data.rpartition(b"\n")
        if newline:
            if self.partial:
                complete = b"".join([*self.partial, complete])
                self.partial.clear()
            lines = complete.split(b"\n")
            answers = [line.decode("ascii").encode("ascii") + b"\n" for line in lines]
            self.send(memoryview(b"".join(answers)))
        if rest:
            self.partial.append(rest)
        return bool(data)

    def send(self, data: memoryview) -> None:
        """Send what the kernel takes, remember the rest."""
        try:
            self.unsent = data[self.sock.send(data) :]
        except BlockingIOError:
            self.unsent = data


def serve(listener: socket.socket) -> None:
    """Serve until the process is ended."""
    poller = select.epoll()
    poller.register(listener, select.EPOLLIN)
    connections: dict[int, Connection] = {}
    while True:
        for fd, events in poller.poll():
            if fd == listener.fileno():
                sock, _ = listener.accept()
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connections[sock.fileno()] = Connection(sock)
                poller.register(sock, select.EPOLLIN)
                continue
            connection = connections[fd]
            try:
                if events & select.EPOLLOUT:
                    connection.send(connection.unsent)
                    if not connection.unsent:
                        poller.modify(fd, select.EPOLLIN)
                elif not connection.answer():
                    connections.pop(fd).sock.close()
                elif connection.unsent:
                    poller.modify(fd, select.EPOLLOUT)
            except ConnectionError:
                connections.pop(fd).sock.close()


if __name__ == "__main__":
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        print(listener.getsockname()[1], flush=True)
        serve(listener)
