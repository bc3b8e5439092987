"""The floor for datagrams: one blocking socket in a loop.

Usage: socket_udp.py LIMIT    (a datagram is limited by UDP itself)
"""

from __future__ import annotations

import socket


def serve(sock: socket.socket) -> None:
    """Serve until the process is ended."""
    while True:
        data, address = sock.recvfrom(64 * 1024)
        text = data.decode("ascii").removesuffix("\n")
        sock.sendto(text.encode("ascii") + b"\n", address)


if __name__ == "__main__":
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        print(sock.getsockname()[1], flush=True)
        serve(sock)
