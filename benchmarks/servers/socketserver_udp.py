"""socketserver: ``ThreadingUDPServer``, a thread for each datagram.

Usage: socketserver_udp.py LIMIT    (a datagram is limited by UDP itself)
"""

from __future__ import annotations

import socketserver


class EchoHandler(socketserver.BaseRequestHandler):
    """One datagram."""

    def handle(self) -> None:
        data, sock = self.request
        text = data.decode("ascii").removesuffix("\n")
        sock.sendto(text.encode("ascii") + b"\n", self.client_address)


class Server(socketserver.ThreadingUDPServer):
    """A server whose threads do not outlive it."""

    daemon_threads = True


if __name__ == "__main__":
    with Server(("127.0.0.1", 0), EchoHandler) as server:
        print(server.server_address[1], flush=True)
        server.serve_forever()
