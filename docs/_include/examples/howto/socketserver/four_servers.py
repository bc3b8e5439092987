from __future__ import annotations

import contextlib
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from easynetwork.clients import TCPNetworkClient, UDPNetworkClient
from easynetwork.clients.unix_datagram import UnixDatagramClient
from easynetwork.clients.unix_stream import UnixStreamClient
from easynetwork.protocol import DatagramProtocol, StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.socketserver import (
    DatagramPacketHandler,
    StreamPacketHandler,
    TCPServer,
    UDPServer,
    UnixDatagramServer,
    UnixStreamServer,
)

STREAM: StreamProtocol[str, str] = StreamProtocol(StringLineSerializer(encoding="utf-8"))
DATAGRAM: DatagramProtocol[str, str] = DatagramProtocol(StringLineSerializer(encoding="utf-8"))


class GreetingStreamHandler(StreamPacketHandler[str, str]):
    """Responds to the packets of a connection."""

    protocol = STREAM

    def handle(self) -> None:
        for name in self.packets():
            self.send_packet(f"Hello, {name}!")


class GreetingDatagramHandler(DatagramPacketHandler[str, str]):
    """Responds to a datagram."""

    protocol = DATAGRAM

    def handle(self) -> None:
        self.send_packet(f"Hello, {self.packet}!")


@contextlib.contextmanager
def serving(server: Any) -> Iterator[Any]:
    """Serve in a thread while the block runs; the block gets the address of the server."""
    with server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address
        finally:
            server.shutdown()
            thread.join()


def ask(client: Any, name: str) -> None:
    with client:
        client.send_packet(name)
        print(client.recv_packet())


def main() -> None:
    with serving(TCPServer(("127.0.0.1", 0), GreetingStreamHandler)) as address:
        ask(TCPNetworkClient(address, STREAM), "TCP")

    with serving(UDPServer(("127.0.0.1", 0), GreetingDatagramHandler)) as address:
        ask(UDPNetworkClient(address, DATAGRAM), "UDP")

    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "stream.sock"))
        with serving(UnixStreamServer(path, GreetingStreamHandler)):
            ask(UnixStreamClient(path, STREAM), "Unix stream")

        path = str(Path(folder, "datagram.sock"))
        with serving(UnixDatagramServer(path, GreetingDatagramHandler)):
            ask(UnixDatagramClient(path, DATAGRAM), "Unix datagram")


if __name__ == "__main__":
    main()
