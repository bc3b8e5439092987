from __future__ import annotations

import threading
from typing import Any

from easynetwork.clients import TCPNetworkClient
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.socketserver import StreamPacketHandler, TCPServer

PROTOCOL: StreamProtocol[str, str] = StreamProtocol(StringLineSerializer(encoding="utf-8"))


class EchoRequestHandler(StreamPacketHandler[str, str]):
    """Sends back all packets of a client."""

    protocol = PROTOCOL

    def handle(self) -> None:
        for packet in self.packets():
            self.send_packet(packet)


def ask(address: Any, message: str) -> None:
    with TCPNetworkClient(address, PROTOCOL) as client:
        print(f'Sending : "{message}"')
        client.send_packet(message)
        print(f'Received: "{client.recv_packet()}"')


def main() -> None:
    with TCPServer(("127.0.0.1", 0), EchoRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()

        ask(server.server_address, "Hello, world")
        server.shutdown()


if __name__ == "__main__":
    main()
