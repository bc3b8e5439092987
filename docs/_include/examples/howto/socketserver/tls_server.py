from __future__ import annotations

import ssl
import threading
from typing import Any

import trustme

from easynetwork.clients import TCPNetworkClient
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.socketserver import StreamPacketHandler, ThreadingTCPServer

PROTOCOL: StreamProtocol[str, str] = StreamProtocol(StringLineSerializer(encoding="utf-8"))


class EchoRequestHandler(StreamPacketHandler[str, str]):
    """Sends back all packets of a client."""

    protocol = PROTOCOL

    def handle(self) -> None:
        for packet in self.packets():
            self.send_packet(packet)


def make_contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Create an authority for this run only, and a certificate that it has signed."""
    authority = trustme.CA()

    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(server_context)

    client_context = ssl.create_default_context()
    authority.configure_trust(client_context)

    return server_context, client_context


def main() -> None:
    server_context, client_context = make_contexts()

    with ThreadingTCPServer(
        ("127.0.0.1", 0),
        EchoRequestHandler,
        ssl=server_context,
        ssl_handshake_timeout=5.0,
    ) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()

        address: Any = server.server_address
        with TCPNetworkClient(
            address,
            PROTOCOL,
            ssl=client_context,
            server_hostname="localhost",
        ) as client:
            client.send_packet("Hello, world")
            print(f'Received: "{client.recv_packet()}"')

        server.shutdown()


if __name__ == "__main__":
    main()
