"""socketserver: ``ThreadingTCPServer``, a thread for each connection.

Usage: socketserver_tcp.py LIMIT    (it has no limit of its own)
"""

from __future__ import annotations

import socketserver


class EchoHandler(socketserver.StreamRequestHandler):
    """One connection."""

    disable_nagle_algorithm = True  # as asyncio and trio do unasked

    def handle(self) -> None:
        for line in self.rfile:
            text = line.decode("ascii").removesuffix("\n")
            self.wfile.write(text.encode("ascii") + b"\n")


class Server(socketserver.ThreadingTCPServer):
    """A server whose threads do not outlive it."""

    daemon_threads = True
    request_queue_size = 128  # the default of 5 makes a burst of connections wait a second


if __name__ == "__main__":
    with Server(("127.0.0.1", 0), EchoHandler) as server:
        print(server.server_address[1], flush=True)
        server.serve_forever()
