"""easynetwork: packets on the servers of ``easynetwork.socketserver``, with threads.

Usage: easynetwork_socketserver.py LIMIT {tcp|udp}
"""

from __future__ import annotations

import sys

from easynetwork.protocol import DatagramProtocol, StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.socketserver import (
    DatagramPacketHandler,
    StreamPacketHandler,
    ThreadingTCPServer,
    ThreadingUDPServer,
)


class EchoLines(StreamPacketHandler[str, str]):
    """One connection."""

    def handle(self) -> None:
        for line in self.packets():
            self.send_packet(line)


class EchoDatagrams(DatagramPacketHandler[str, str]):
    """One datagram."""

    def handle(self) -> None:
        self.send_packet(f"{self.packet}\n")


class LineServer(ThreadingTCPServer):
    """A server whose threads do not outlive it."""

    daemon_threads = True


class DatagramServer(ThreadingUDPServer):
    """A server whose threads do not outlive it."""

    daemon_threads = True


if __name__ == "__main__":
    serializer = StringLineSerializer(limit=int(sys.argv[1]))
    address = ("127.0.0.1", 0)
    with (
        LineServer(
            address, EchoLines, protocol=StreamProtocol(serializer), max_threads=100_000
        )  # as many as `socketserver` would start for the idle connections
        if sys.argv[2] == "tcp"
        else DatagramServer(address, EchoDatagrams, protocol=DatagramProtocol(serializer))
    ) as server:
        print(server.server_address[1], flush=True)
        server.serve_forever()
