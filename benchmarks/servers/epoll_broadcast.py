"""The floor: what a client sends goes to all of them, in a bare loop of ``send()``.

It knows nothing of lines, and forgets what the kernel does not take.

Usage: epoll_broadcast.py LIMIT    (it has no limit of its own)
"""

from __future__ import annotations

import select
import socket


def serve(listener: socket.socket) -> None:
    """Serve until the process is ended."""
    poller = select.epoll()
    poller.register(listener, select.EPOLLIN)
    clients: dict[int, socket.socket] = {}
    while True:
        for fd, _ in poller.poll():
            if fd == listener.fileno():
                sock, _ = listener.accept()
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 * 1024)
                clients[sock.fileno()] = sock
                poller.register(sock, select.EPOLLIN)
                continue
            try:
                data = clients[fd].recv(64 * 1024)
            except ConnectionError:
                data = b""
            if data:
                publish(data, clients)
            else:
                clients.pop(fd).close()


def publish(data: bytes, clients: dict[int, socket.socket]) -> None:
    """Send bytes to all clients."""
    for sock in clients.values():
        try:  # noqa: SIM105 - suppress() would be dearer than the call
            sock.send(data)
        except BlockingIOError:
            pass


if __name__ == "__main__":
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        print(listener.getsockname()[1], flush=True)
        serve(listener)
