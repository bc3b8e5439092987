from __future__ import annotations

import contextlib
from typing import Any

from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer
from easynetwork.socketserver import (
    ForkingTCPServer,
    StreamPacketHandler,
    TCPServer,
    ThreadingTCPServer,
)

PROTOCOL: StreamProtocol[str, str] = StreamProtocol(StringLineSerializer(encoding="utf-8"))


class EchoRequestHandler(StreamPacketHandler[str, str]):
    """Sends back all packets of a client, with the protocol object of the server."""

    def handle(self) -> None:
        for packet in self.packets():
            self.send_packet(packet)


def server_with_protocol(address: Any, handler_class: Any) -> TCPServer:
    return TCPServer(address, handler_class, protocol=PROTOCOL)


class BoundedServer(ThreadingTCPServer):
    max_threads = 50
    close_timeout = 5.0


def server_with_bounds(address: Any, handler_class: Any) -> BoundedServer:
    return BoundedServer(address, handler_class, protocol=PROTOCOL, max_threads=10)


class ForkingServer(ForkingTCPServer):
    max_children = 8
    close_timeout = 5.0


def main() -> None:
    with server_with_protocol(("localhost", 9000), EchoRequestHandler) as server:
        server.serve_forever()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
