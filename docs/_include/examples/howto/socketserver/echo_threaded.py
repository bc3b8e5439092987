from __future__ import annotations

import threading
from typing import Any

from easynetwork.clients import TCPNetworkClient
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.socketserver import StreamPacketHandler, TCPServer, ThreadingMixIn

PROTOCOL: StreamProtocol[str, str] = StreamProtocol(StringLineSerializer(encoding="utf-8"))


class ThreadedEchoRequestHandler(StreamPacketHandler[str, str]):
    """Sends back one packet, with the name of the thread."""

    protocol = PROTOCOL

    def handle(self) -> None:
        packet = self.recv_packet()
        self.send_packet(f"{threading.current_thread().name}: {packet}")


class ThreadedEchoServer(ThreadingMixIn, TCPServer):
    """Handles each connection in a thread of its own."""


def ask(address: Any, message: str) -> None:
    with TCPNetworkClient(address, PROTOCOL) as client:
        print(f'Sending : "{message}"')
        client.send_packet(message)
        print(f'Received: "{client.recv_packet()}"')


def main() -> None:
    with ThreadedEchoServer(("127.0.0.1", 0), ThreadedEchoRequestHandler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        print(f"Server loop running in thread: {thread.name}")

        ask(server.server_address, "Hello, world")
        server.shutdown()


if __name__ == "__main__":
    main()
