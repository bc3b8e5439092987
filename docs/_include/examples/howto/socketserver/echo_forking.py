from __future__ import annotations

import os
from typing import Any

from easynetwork.clients import TCPNetworkClient
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.socketserver import ForkingMixIn, StreamPacketHandler, TCPServer

PROTOCOL: StreamProtocol[str, str] = StreamProtocol(StringLineSerializer(encoding="utf-8"))


class ForkingEchoRequestHandler(StreamPacketHandler[str, str]):
    """Sends back one packet, with the ID of the process."""

    protocol = PROTOCOL

    def handle(self) -> None:
        packet = self.recv_packet()
        self.send_packet(f"process {os.getpid()}: {packet}")


class ForkingEchoServer(ForkingMixIn, TCPServer):
    """Handles each connection in a process of its own."""


def main() -> None:
    with ForkingEchoServer(("127.0.0.1", 0), ForkingEchoRequestHandler) as server:
        print(f"Server running in process {os.getpid()}")

        address: Any = server.server_address
        with TCPNetworkClient(address, PROTOCOL) as client:
            print('Sending : "Hello, world"')
            client.send_packet("Hello, world")
            server.handle_request()
            print(f'Received: "{client.recv_packet()}"')


if __name__ == "__main__":
    main()
