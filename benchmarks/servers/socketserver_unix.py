"""socketserver: ``ThreadingUnixStreamServer`` and ``ThreadingUnixDatagramServer``.

Usage: socketserver_unix.py LIMIT {streams|datagrams}    (it has no limit of its own)
"""

from __future__ import annotations

import os
import socketserver
import sys

PATH = f"\0easynetwork-benchmark-{os.getpid()}"


class EchoStreams(socketserver.StreamRequestHandler):
    """One connection."""

    def handle(self) -> None:
        for line in self.rfile:
            text = line.decode("ascii").removesuffix("\n")
            self.wfile.write(text.encode("ascii") + b"\n")


class EchoDatagrams(socketserver.BaseRequestHandler):
    """One datagram."""

    def handle(self) -> None:
        data, sock = self.request
        text = data.decode("ascii").removesuffix("\n")
        sock.sendto(text.encode("ascii") + b"\n", self.client_address)


class StreamServer(socketserver.ThreadingUnixStreamServer):
    """A server whose threads do not outlive it."""

    daemon_threads = True
    request_queue_size = 128  # the default of 5 makes a burst of connections wait


class DatagramServer(socketserver.ThreadingUnixDatagramServer):
    """A server whose threads do not outlive it."""

    daemon_threads = True


def main(server: socketserver.BaseServer) -> None:
    """Serve until the process is ended."""
    with server:
        print(os.getpid(), flush=True)
        server.serve_forever()


if __name__ == "__main__":
    if sys.argv[2] == "streams":
        main(StreamServer(PATH, EchoStreams))
    else:
        main(DatagramServer(PATH, EchoDatagrams))
