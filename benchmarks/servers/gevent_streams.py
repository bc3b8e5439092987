"""gevent: ``StreamServer``, a greenlet for each connection.

Usage: gevent_streams.py LIMIT    (it has no limit of its own)
"""

from __future__ import annotations

import socket
from typing import Any

from gevent.server import StreamServer


def handle(connection: Any, address: object) -> None:
    """Answer one connection, line by line."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as asyncio and trio do
    with connection.makefile(mode="rb") as lines:
        for line in lines:
            text = line.decode("ascii").removesuffix("\n")
            connection.sendall(text.encode("ascii") + b"\n")


if __name__ == "__main__":
    server = StreamServer(("127.0.0.1", 0), handle)
    server.start()
    print(server.server_port, flush=True)
    server.serve_forever()
